//go:build cgo

package hsm

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/seal/sealtest"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		os.Exit(WorkerMain())
	}
	if len(os.Args) > 1 && os.Args[1] == makeKeyArg {
		os.Exit(makeKeyMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == wrapDirectArg {
		os.Exit(wrapDirectMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == openAndWaitArg {
		os.Exit(openAndWaitMain(os.Args[2], os.Args[3], os.Args[4], os.Args[5]))
	}
	os.Exit(m.Run())
}

// config is a Config for tok with a latch in its directory.
func config(tok testhsm.Token) Config {
	return Config{
		Module:      tok.Module,
		TokenLabel:  tok.Label,
		TokenSerial: tok.Serial,
		PINFile:     tok.PINFile,
		LatchFile:   filepath.Join(tok.Dir, "pin-latch"),
		EnvAllow:    tok.Env,
	}
}

// rig is an open provider on a fresh token, with its keys.
type rig struct {
	*Provider
	tok     testhsm.Token
	cfg     Config
	keys    Keys
	webhook RSAKey // zero until a test makes one
	log     *logBuffer
}

func newRig(t testing.TB, change ...func(*Config)) *rig {
	t.Helper()
	r := &rig{tok: testhsm.New(t), log: &logBuffer{}}
	r.cfg = config(r.tok)
	r.cfg.Log = slog.New(slog.NewTextHandler(r.log, nil))
	for _, c := range change {
		c(&r.cfg)
	}
	r.Provider = mustOpen(t, r.cfg)
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

// pid is the process id of the worker that is alive.
func (p *Provider) pid(t testing.TB) int {
	t.Helper()
	c := p.sup.current.Load()
	if c == nil {
		t.Fatal("no worker is alive")
	}
	return c.cmd.Process.Pid
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

func TestConformance(t *testing.T) {
	sealtest.Run(t, func(t testing.TB) sealtest.Fixture {
		r := newRig(t)
		f := r.fixture(t)
		f.RSA, f.OtherRSA = r.newRSA(t, 2048).Ref, r.importRSA(t).Ref
		return f
	})
}

// fixture is r for the conformance suite, without decryption keys.
func (r *rig) fixture(t testing.TB) sealtest.Fixture {
	t.Helper()
	other, err := r.Provision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	of := func(p *Provider) sealtest.Fixture {
		return sealtest.Fixture{Provider: p, Sealer: p, Signer: p, Decrypter: p, Roller: p}
	}
	f := of(r.Provider)
	f.KEK, f.OtherKEK, f.Checkpoint = r.keys.KEK, other.KEK, r.keys.Checkpoint
	f.Missing = "00112233445566778899aabbccddeeff"
	f.Reopen = func(t testing.TB) sealtest.Fixture { return of(mustOpen(t, r.cfg)) }
	return f
}

// makeRef is the reference of a key that is named by its id alone.
func makeRef(id []byte) seal.KeyRef { return keyRef{id: id}.text() }

// worked seals and unseals once.
func (r *rig) worked(t testing.TB) {
	t.Helper()
	blob, err := r.Seal(t.Context(), r.keys.KEK, []byte("a root key"), []byte("aad"))
	if err != nil {
		t.Fatalf("sealing: %v", err)
	}
	err = r.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func(p []byte) error {
		if string(p) != "a root key" {
			t.Errorf("unsealed %q", p)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("unsealing: %v", err)
	}
}

// within fails t when use takes longer than d.
func within(t testing.TB, d time.Duration, use func()) {
	t.Helper()
	began := time.Now()
	use()
	if took := time.Since(began); took > d {
		t.Errorf("took %v, want at most %v", took, d)
	}
}

func timeoutContext(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
