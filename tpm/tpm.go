// Package tpm is the TPM 2.0 provider: it seals the vault's root key, signs the
// journal's checkpoints and opens deliveries with keys that never leave the TPM, and
// counts in its non-volatile memory. It speaks to
// /dev/tpmrm0, or to an emulator's socket for tests and demonstrations.
//
// A sealed blob holds an object under the storage root key (SRK), which only this
// TPM can load; in it is the 32-byte key of an AES-256-GCM box that binds the
// caller's aad. The SRK is known by its TPM Name, which is pinned outside: every
// session is salted to it and encrypts what goes over the bus, so that a listener
// learns nothing and another TPM can't take its place.
//
// With a PCRPolicy the object opens in boot states alone that somebody approved, with a
// key this host never sees, and did not revoke since.
//
// It refuses: an SRK that is not the pinned one; a key whose public area is not
// exactly what it makes itself; a blob that does not authenticate; an object
// whose auth value is not the one the outside secret gives; the raw /dev/tpm0. It
// has no fallback in software and makes no guess: what a TPM's code means is in
// one table (errors.go).
//
// Its limits. Sealing does not prove who sealed: whoever may use the TPM can make
// a blob of ours, so the vault pins what it keeps in one. Without an outside
// secret a device put on a discrete TPM's bus can have it unseal; Config.SecretFile
// closes that, and without it a TPM that may be a chip is refused. What PCRs are worth
// is the firmware's business. A checkpoint key and each decryption key
// take one of the TPM's persistent slots (7 on an Infineon SLB 9670), a counter one
// of its 8 counters. The
// go-tpm library copies auth values and unsealed keys on the Go heap, where we
// can't wipe them.
package tpm

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// Keys are what [Provider.Provision] gives.
type Keys struct {
	KEK        seal.KeyRef // the SRK: the hex of its Name; seals
	Checkpoint seal.KeyRef // P-256, the hex of its Name; signs checkpoints
}

// Provider is one TPM. It implements [seal.Provider], [seal.Sealer], [seal.Signer],
// [seal.Decrypter] and [seal.Counter]. Its methods are safe for concurrent use; calls take turns, because
// a TPM has room for three objects and three sessions. A call waits for its turn
// until its context ends; then each of its few commands ends by
// Config.CommandTimeout and by the end of the context. A command that was given up
// may still be carried out.
type Provider struct {
	id   string
	srk  []byte // its Name; never changes
	auth auths
	boot *boot // nil: no PCR policy
	// form of the objects that we seal and unseal. Set by Open.
	form      form
	latchFile string // with a PIN
	log       *slog.Logger

	calls atomic.Uint64 // turns that were taken

	life context.Context // ends when Close loses patience
	end  context.CancelCauseFunc
	shut chan struct{} // closed by Close: no new turn
	once sync.Once     // of Close

	// turns holds one token; who took it owns all below.
	turns chan struct{}
	link  *link
	root  storageKey // the SRK as loaded in generation root.gen of the link
	known known
}

var (
	_ seal.Provider  = (*Provider)(nil)
	_ seal.Sealer    = (*Provider)(nil)
	_ seal.Signer    = (*Provider)(nil)
	_ seal.Decrypter = (*Provider)(nil)
	_ seal.Counter   = (*Provider)(nil)
	_ seal.KEKMaker  = (*Provider)(nil)
	_ seal.Counting  = (*Provider)(nil)
)

// errClosed is what calls get after Close.
var errClosed = errors.New("the TPM provider is closed")

// Open finds the SRK, checks it against the pin and tries a salted session. When
// nothing is pinned it believes the SRK that answers, logs that, and pins it for as
// long as the Provider lives. Errors: [seal.ErrNotFound] for another SRK than the
// pinned one, [seal.ErrUnavailable], [seal.ErrUnsupported] for a TPM without P-256,
// [seal.ErrPolicy] for a secret file that others can read or a TPM whose owner
// hierarchy is not ours to use.
func Open(ctx context.Context, cfg Config) (*Provider, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	return open(ctx, cfg, newLink(cfg))
}

// open is Open over a given link.
func open(ctx context.Context, cfg Config, l *link) (*Provider, error) {
	auth, err := readAuths(cfg.SecretFile, cfg.PINFile)
	if err != nil {
		return nil, err
	}
	boot, err := newBoot(cfg.PCR)
	if err != nil {
		auth.destroy()
		return nil, err
	}
	p := &Provider{srk: bytes.Clone(cfg.SRKName), auth: auth, boot: boot, form: form{pin: cfg.PINFile != ""}, latchFile: cfg.LatchFile, log: cfg.Log, shut: make(chan struct{}), turns: make(chan struct{}, 1), link: l}
	p.life, p.end = context.WithCancelCause(context.Background())
	err = p.do(ctx, func(t *turn) error {
		root, err := t.root()
		if err != nil {
			return err
		}
		if len(p.srk) == 0 {
			p.srk = bytes.Clone(root.name.Buffer)
			p.log.WarnContext(ctx, "the SRK is not pinned: believing the one that answered", "srk_name", hex.EncodeToString(p.srk))
		}
		if err := t.alive(); err != nil || cfg.SecretFile != "" || cfg.TrustBus || cfg.emulator() {
			return err
		}
		return t.checkIntegrated()
	})
	if err == nil && boot != nil {
		p.form.policy, err = objectPolicy(boot.name, p.srk, auth.has[roleSeal])
	}
	if err != nil {
		_ = p.Close() // it never fails
		return nil, fmt.Errorf("opening the TPM: %w", err)
	}
	p.id = "tpm2:" + hex.EncodeToString(p.srk)[:16]
	return p, nil
}

// ID is "tpm2:" and the first 16 hex digits of the SRK's Name.
func (p *Provider) ID() string { return p.id }

// SRKName is the TPM Name of the SRK, 34 bytes: what Config.SRKName pins.
func (p *Provider) SRKName() []byte { return bytes.Clone(p.srk) }

// closePatience is how long Close lets a running call go on.
const closePatience = time.Second

// Close unloads the SRK and ends the connection. A call that is running gets a
// second to finish; later calls answer [seal.ErrUnavailable].
func (p *Provider) Close() error {
	p.once.Do(func() {
		close(p.shut)
		patience := time.AfterFunc(closePatience, func() { p.end(errClosed) })
		p.turns <- struct{}{}
		patience.Stop()
		ctx, cancel := context.WithTimeout(context.Background(), closePatience)
		defer cancel()
		t := &turn{ctx: ctx, p: p, gen: p.link.gen}
		t.unloadRoot()
		p.link.drop()
		p.end(errClosed)
		p.auth.destroy()
		<-p.turns
	})
	return nil
}

// Calls implements [seal.Counting]: the turns that were taken, each of a few commands.
func (p *Provider) Calls() map[string]uint64 {
	return map[string]uint64{"turn": p.calls.Load()}
}

// Health has the TPM draw random bytes in a session salted to the SRK: only the
// TPM that holds the pinned SRK can answer.
func (p *Provider) Health(ctx context.Context) error {
	if err := p.do(ctx, (*turn).alive); err != nil {
		return fmt.Errorf("checking the TPM: %w", err)
	}
	return nil
}

// nameLen is the size of a TPM Name over SHA-256: the algorithm and the digest.
const nameLen = 34

func isName(b []byte) bool {
	return len(b) == nameLen && b[0] == byte(tpm2.TPMAlgSHA256>>8) && b[1] == byte(tpm2.TPMAlgSHA256)
}

func makeRef(name []byte) seal.KeyRef { return seal.KeyRef(hex.EncodeToString(name)) }

// parseRef gives the TPM Name. Upper case is refused: a key has one name.
func parseRef(ref seal.KeyRef) ([]byte, error) {
	name, err := hex.DecodeString(string(ref))
	if err != nil || !isName(name) || makeRef(name) != ref {
		return nil, fmt.Errorf("%w: %.80q is not the lower-case hex of a TPM Name", seal.ErrNotFound, string(ref))
	}
	return name, nil
}

// Format prints the provider's id, whatever the verb.
func (p *Provider) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, p.id) }

// LogValue is the provider's id.
func (p *Provider) LogValue() slog.Value { return slog.StringValue(p.id) }

// MarshalJSON fails: a provider is not data.
func (p *Provider) MarshalJSON() ([]byte, error) {
	return nil, errors.New("refusing to encode a TPM provider")
}
