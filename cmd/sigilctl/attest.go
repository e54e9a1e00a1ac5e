package main

import (
	"context"
	"crypto/subtle"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/tpm"
)

// attestCommand is for people elsewhere who want to know what a host booted and that
// its keys are in its TPM or token (attesttoken.go). attest and answer speak to the
// device of this host; challenge and verify need neither device, daemon nor configuration.
func attestCommand() *cobra.Command {
	var nonceText, out string
	var indexes []int
	c := &cobra.Command{
		Use:   "attest --nonce HEX --out FILE",
		Short: "Have the sealing device say which keys it holds, a TPM also what was booted, for somebody elsewhere to verify",
		Long: `Writes evidence over the nonce, which whoever verifies has chosen (16 to 64 bytes,
in hex). "sigilctl attest verify" checks it elsewhere.

A TPM gives a quote of the PCRs and a certificate of each of sigild's keys in it, signed
by its attestation key. That this key is in a TPM at all is shown once, by "attest
challenge" there and "attest answer" here.

A PKCS#11 token gives less: what it and its module call themselves, and the attributes of
each of sigild's keys, read now and signed by its checkpoint key. That is the module's
word, not an attestation by the token's maker.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			nonce, err := hex.DecodeString(nonceText)
			if err != nil {
				return fmt.Errorf("reading the nonce: %w", err)
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if cfg.Provider.TPM == nil {
				if cmd.Flags().Changed("pcrs") {
					return fmt.Errorf("attesting: %w: a token has no PCRs", seal.ErrUnsupported)
				}
				b, err := attestToken(cmd, cfg, nonce)
				if err != nil {
					return err
				}
				return writeNew(cmd, out, b)
			}
			return withTPM(cmd, func(ctx context.Context, _ config.TPM, p *tpm.Provider) error {
				e, err := p.Attest(ctx, nonce, indexes)
				if err != nil {
					return err
				}
				b, err := e.Encode()
				if err != nil {
					return err
				}
				return writeNew(cmd, out, b)
			})
		},
	}
	c.Flags().StringVar(&nonceText, "nonce", "", "the verifier's nonce, in `HEX`")
	c.Flags().StringVar(&out, "out", "", "write the evidence to this new `FILE`")
	c.Flags().IntSliceVar(&indexes, "pcrs", []int{0, 1, 2, 3, 4, 5, 6, 7}, "the registers, 0 to 23, ascending")
	need(c, "nonce", "out")
	c.AddCommand(attestChallengeCommand(), attestAnswerCommand(), attestVerifyCommand())
	return c
}

// needsTPM says why a token answers no challenge.
func needsTPM(cmd *cobra.Command) error {
	cfg, err := loadConfig(cmd)
	if err == nil && cfg.Provider.TPM == nil {
		err = hinted{fmt.Errorf("answering a challenge: %w: a PKCS#11 token has no endorsement key", seal.ErrUnsupported),
			"a token's evidence is verified with --public-key, its checkpoint key"}
	}
	return err
}

func attestChallengeCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "challenge --out PREFIX EVIDENCE",
		Short: "Make PREFIX.json, for the host to answer, and PREFIX.secret, which stays here",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := readEvidence(args[0])
			if err != nil {
				return err
			}
			challenge, secret, err := tpm.NewChallenge(e)
			if err != nil {
				return err
			}
			defer clear(secret)
			b, err := challenge.Encode()
			if err != nil {
				return err
			}
			if err := writeSecret(out+".secret", secret); err != nil {
				return err
			}
			return writeNew(cmd, out+".json", b)
		},
	}
	c.Flags().StringVar(&out, "out", "", "`PREFIX` of the two new files")
	need(c, "out")
	return c
}

func attestAnswerCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "answer --out FILE CHALLENGE",
		Short: "Have this host's TPM open a challenge; carry the answer to whoever made it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readLimited(args[0], maxSmall)
			if err != nil {
				return err
			}
			challenge, err := tpm.ParseChallenge(b)
			if err != nil {
				return err
			}
			if err := needsTPM(cmd); err != nil {
				return err
			}
			return withTPM(cmd, func(ctx context.Context, _ config.TPM, p *tpm.Provider) error {
				secret, err := p.Answer(ctx, challenge)
				if err != nil {
					return err
				}
				defer clear(secret)
				if err := writeSecret(out, secret); err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), "written to", out)
				return nil
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "write the answer to this new `FILE`")
	need(c, "out")
	return c
}

// how an attestation key is known to be in a TPM.
type knownBy struct{ ak, secret, answer, roots string }

func attestVerifyCommand() *cobra.Command {
	var nonceText string
	var by knownBy
	var token byToken
	c := &cobra.Command{
		Use:   "verify --nonce HEX (--ak NAME | --secret FILE --answer FILE | --public-key FILE) EVIDENCE",
		Short: "Check evidence, with neither device nor daemon",
		Long: `Of a TPM: checks every signature and structure of the evidence against the nonce, and whose
the attestation key is: the one of that Name, kept from an earlier verification
(--ak), or one that answered a challenge (--secret, --answer). With --ek-roots the
maker's certificate of the TPM's endorsement key is checked, too: without it a
challenge shows that there is one TPM, but not that somebody made it who makes TPMs.

Of a token: checks the signature under the checkpoint key that you pinned
(--public-key, as for audit verify), the nonce, and that no key is weaker than sigild
makes them. --may-lack names what a token that does not know or keep an attribute may
do without; "sigilctl status" on the host tells.

Prints what holds. Whether those are the right PCRs is yours to say.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			nonce, err := hex.DecodeString(nonceText)
			if err != nil {
				return fmt.Errorf("reading the nonce: %w", err)
			}
			file, err := readLimited(args[0], maxSmall)
			if err != nil {
				return err
			}
			if _, not := hsm.ParseEvidence(file); not == nil || token.publicKey != "" || len(token.mayLack) > 0 {
				if by != (knownBy{}) {
					return errTwoWays
				}
				return token.verify(cmd.OutOrStdout(), file, nonce)
			}
			e, err := tpm.ParseEvidence(file)
			if err != nil {
				return err
			}
			s, err := e.Verify(nonce)
			if err != nil {
				return err
			}
			how, err := by.check(e, s)
			if err != nil {
				return err
			}
			return printStatement(cmd.OutOrStdout(), s, how)
		},
	}
	c.Flags().StringVar(&nonceText, "nonce", "", "the nonce that was asked for, in `HEX`")
	c.Flags().StringVar(&by.ak, "ak", "", "the `NAME` of the attestation key, as printed by an earlier verification")
	c.Flags().StringVar(&by.secret, "secret", "", "the secret `FILE` of the challenge")
	c.Flags().StringVar(&by.answer, "answer", "", "the answer `FILE` to it")
	c.Flags().StringVar(&by.roots, "ek-roots", "", "certificates of makers of TPMs, a PEM `FILE`")
	c.Flags().StringVar(&token.publicKey, "public-key", "", "the token's checkpoint key, a PEM `FILE`")
	c.Flags().StringSliceVar(&token.mayLack, "may-lack", nil, "an `ATTRIBUTE` that keys of this token lack, such as CKA_COPYABLE; repeat")
	need(c, "nonce")
	return c
}

// check says how the attestation key is known.
func (k knownBy) check(e tpm.Evidence, s tpm.Statement) (how string, err error) {
	switch {
	case k.ak != "":
		if k.ak != hex.EncodeToString(s.AKName) {
			return "", fmt.Errorf("%w: its attestation key is %x, not %s", tpm.ErrEvidence, s.AKName, k.ak)
		}
		how = "the one given"
	case k.secret != "" && k.answer != "":
		secret, err := readLimited(k.secret, maxSmall)
		if err != nil {
			return "", err
		}
		answer, err := readLimited(k.answer, maxSmall)
		if err != nil {
			return "", err
		}
		if len(secret) == 0 || subtle.ConstantTimeCompare(secret, answer) != 1 {
			return "", fmt.Errorf("%w: the answer to the challenge is wrong: the attestation key is not in that TPM", tpm.ErrEvidence)
		}
		how = "in the TPM of that endorsement key"
	default:
		return "", hinted{fmt.Errorf("%w: nothing says that its attestation key is in a TPM", tpm.ErrEvidence),
			"sigilctl attest challenge, then --secret and --answer; or --ak"}
	}
	if k.roots == "" {
		return how, nil
	}
	text, err := readLimited(k.roots, maxSmall)
	if err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return "", fmt.Errorf("%s holds no certificate", k.roots)
	}
	if err := e.VerifyEK(roots, time.Now()); err != nil {
		return "", err
	}
	return how + ", whose maker's certificate holds", nil
}

func printStatement(out io.Writer, s tpm.Statement, how string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "attestation key\t%x\t%s\n", s.AKName, how)
	fmt.Fprintf(w, "endorsement key\t%x\n", s.EKName)
	fmt.Fprintf(w, "powered on\t%d times, suspended %d times since, %s in all\n", s.Resets, s.Restarts, s.Clock.Round(time.Second))
	for _, n := range s.PCRs.Indexes() {
		v := s.PCRs[n]
		fmt.Fprintf(w, "PCR %d\t%x\n", n, v)
	}
	for _, k := range s.Keys {
		fmt.Fprintf(w, "key: %s\t%s\tmade in this TPM, can't leave it\n", k.Use, k.Ref)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, k := range s.Keys {
		if k.Use == tpm.UseStorage {
			continue
		}
		if err := printPublic(out, k.Public); err != nil {
			return err
		}
	}
	return nil
}

func readEvidence(path string) (tpm.Evidence, error) {
	b, err := readLimited(path, maxSmall)
	if err != nil {
		return tpm.Evidence{}, err
	}
	return tpm.ParseEvidence(b)
}

// writeNew makes a new file and says so.
func writeNew(cmd *cobra.Command, path string, b []byte) error {
	if err := writeDurably(path, b); err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	fmt.Fprintln(cmd.OutOrStdout(), "written to", path)
	return nil
}

// writeSecret makes a new file that only its owner reads.
func writeSecret(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
