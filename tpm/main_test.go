package tpm

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/seal/sealtest"
)

// rig is an open provider on a fresh TPM, with its keys.
type rig struct {
	*Provider
	tpm  *testtpm.TPM
	cfg  Config
	keys Keys
	log  *logBuffer
}

// newRig opens a provider whose SRK is pinned, with an outside secret.
func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{tpm: testtpm.New(t), log: &logBuffer{}}
	r.cfg = Config{Path: r.tpm.Path, SecretFile: secretFile(t), Log: slog.New(slog.NewTextHandler(r.log, nil))}
	for _, c := range change {
		c(&r.cfg)
	}
	r.Provider = mustOpen(t, r.cfg)
	r.cfg.SRKName = r.SRKName()
	var err error
	if r.keys, err = r.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func mustOpen(t testing.TB, cfg Config) *Provider {
	t.Helper()
	p, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// reopen closes the provider and opens it again.
func (r *rig) reopen(t testing.TB, change ...func(*Config)) {
	t.Helper()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(&r.cfg)
	}
	r.Provider = mustOpen(t, r.cfg)
}

func withoutSecret(c *Config) { c.SecretFile = "" }

// secretFile writes a fresh outside secret.
func secretFile(t testing.TB) string {
	t.Helper()
	secret := make([]byte, secretLen)
	rand.Read(secret)
	return writeSecret(t, secret, 0o400)
}

func writeSecret(t testing.TB, secret []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tpm-secret")
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// logBuffer collects what is logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// twoTPMs seals with the TPM that a key belongs to, as the vault does with its
// providers: a TPM has one sealing key, so another key is another TPM's.
type twoTPMs struct{ own, other *Provider }

func (s twoTPMs) of(ref seal.KeyRef) *Provider {
	if ref == makeRef(s.other.srk) {
		return s.other
	}
	return s.own
}

func (s twoTPMs) Seal(ctx context.Context, ref seal.KeyRef, plaintext, aad []byte) ([]byte, error) {
	return s.of(ref).Seal(ctx, ref, plaintext, aad)
}

func (s twoTPMs) Unseal(ctx context.Context, ref seal.KeyRef, blob, aad []byte, use func([]byte) error) error {
	return s.of(ref).Unseal(ctx, ref, blob, aad, use)
}

func TestConformance(t *testing.T) {
	for name, change := range map[string]func(*Config){"with an outside secret": func(*Config) {}, "without one": withoutSecret, "with a PIN": withPIN(t)} {
		t.Run(name, func(t *testing.T) {
			sealtest.Run(t, func(t testing.TB) sealtest.Fixture {
				r, other := newRig(t, change), newRig(t, change)
				fixture := func(p *Provider) sealtest.Fixture {
					return sealtest.Fixture{Provider: p, Sealer: twoTPMs{p, other.Provider}, Signer: p, Decrypter: p, Counter: p}
				}
				f := fixture(r.Provider)
				f.KEK, f.OtherKEK, f.Checkpoint = r.keys.KEK, other.keys.KEK, r.keys.Checkpoint
				f.RSA, f.OtherRSA = r.rsa(t), r.rsa(t)
				f.Anchor, f.OtherAnchor = r.counter(t), r.counter(t)
				f.Missing = makeRef(nameOf([]byte("no public area of any key")))
				f.Reopen = func(t testing.TB) sealtest.Fixture { return fixture(mustOpen(t, r.cfg)) }
				return f
			})
		})
	}
}

// rsa makes a decryption key.
func (r *rig) rsa(t testing.TB) seal.KeyRef {
	t.Helper()
	ref, err := r.GenerateRSA(t.Context(), rsaBits)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// counter makes a counter.
func (r *rig) counter(t testing.TB) seal.KeyRef {
	t.Helper()
	ref, err := r.MakeCounter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// worked seals, unseals and signs once.
func (r *rig) worked(t testing.TB) {
	t.Helper()
	blob := r.sealed(t, "a root key")
	r.opened(t, blob, "a root key")
	if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); err != nil {
		t.Errorf("signing: %v", err)
	}
}

func (r *rig) sealed(t testing.TB, plain string) []byte {
	t.Helper()
	blob, err := r.Seal(t.Context(), r.keys.KEK, []byte(plain), []byte("aad"))
	if err != nil {
		t.Fatalf("sealing: %v", err)
	}
	return blob
}

func (r *rig) opened(t testing.TB, blob []byte, want string) {
	t.Helper()
	err := r.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func(p []byte) error {
		if string(p) != want {
			t.Errorf("unsealed %q, want %q", p, want)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("unsealing: %v", err)
	}
}

// refused unseals and wants an error and no plaintext.
func (r *rig) refused(t testing.TB, blob []byte) error {
	t.Helper()
	err := r.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func([]byte) error {
		t.Error("the closure was called")
		return nil
	})
	if err == nil {
		t.Error("unsealing succeeded")
	}
	return err
}
