package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// The half of attest that is for a PKCS#11 token; what it proves and what not is said
// where it is verified.

// attestToken makes the evidence of the token. Which keys are ours is in the store and
// its journal, which it reads beside a daemon that runs.
func attestToken(cmd *cobra.Command, cfg config.Config, nonce []byte) ([]byte, error) {
	ctx, db := cmd.Context(), filepath.Join(cfg.StateDir, vault.FileName)
	pin, err := readPin(cfg.PinFile)
	if err != nil {
		return nil, fmt.Errorf("reading the store pin: %w", err)
	}
	slots, err := vault.Inspect(ctx, db, pin)
	if err != nil {
		return nil, err
	}
	report, err := journal.Verify(ctx, db, nil)
	if err != nil {
		return nil, err
	}
	var b []byte
	err = withToken(cmd, func(ctx context.Context, p *hsm.Provider) error {
		var keks []seal.KeyRef
		for _, s := range slots {
			if s.Provider == p.ID() {
				keks = append(keks, s.Ref)
			}
		}
		if len(keks) == 0 {
			return fmt.Errorf("attesting: %w: no keyslot of the store is of token %s", seal.ErrNotFound, p.ID())
		}
		e, err := p.Attest(ctx, nonce, keks, report.CheckpointKey)
		if err != nil {
			return err
		}
		b, err = e.Encode()
		return err
	})
	return b, err
}

// byToken is how evidence of a token is verified.
type byToken struct {
	publicKey string
	mayLack   []string
}

// verify checks evidence of a token and prints what holds.
func (by byToken) verify(out io.Writer, file []byte, nonce []byte) error {
	e, err := hsm.ParseEvidence(file)
	if err != nil {
		return err
	}
	if by.publicKey == "" {
		return hinted{fmt.Errorf("%w: nothing says that its signature is that token's", hsm.ErrEvidence),
			"--public-key, the checkpoint key that you pinned when the token was set up"}
	}
	key, err := readP256(by.publicKey)
	if err != nil {
		return err
	}
	keys, err := e.Verify(nonce, key, by.mayLack)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "token\t%q, serial %q\n", e.Token.Label, e.Token.Serial)
	fmt.Fprintf(w, "maker\t%q, model %q, firmware %q\n", e.Token.Manufacturer, e.Token.Model, e.Token.Firmware)
	fmt.Fprintf(w, "module\t%q, %q, version %q\n", e.Module.Manufacturer, e.Module.Description, e.Module.Version)
	for _, k := range keys {
		origin := "made in the token"
		if k.Imported {
			origin = "imported: there may be copies"
		}
		fmt.Fprintf(w, "key: %s\t%x\t%s, sensitive, not extractable, %s", k.Use, k.ID, k.Kind(), origin)
		for _, l := range k.Lacks {
			fmt.Fprintf(w, ", lacks %s", l)
		}
		fmt.Fprintln(w)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(out, `
This proves that after the nonce was given somebody who may use that checkpoint key
signed the above. It is what the module and sigild's worker say of the keys. It is no
attestation by the token's maker: it shows neither that there is hardware nor that
the module tells the truth, and whoever controls the host can sign something else.`)
	return nil
}

// errTwoWays: a TPM's and a token's evidence are verified by different flags.
var errTwoWays = errors.New("--public-key and --may-lack are for a token's evidence, --ak, --secret, --answer and --ek-roots for a TPM's")
