//go:build cgo

package hsm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/seal"
)

// writePIN replaces the PIN file.
func writePIN(t testing.TB, tok testhsm.Token, text string) {
	t.Helper()
	if err := os.Remove(tok.PINFile); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tok.PINFile, []byte(text), 0o400); err != nil {
		t.Fatal(err)
	}
}

const wrongPIN = "WRONGPINMARKER"

func TestWrongPINIsTriedOnceAndLatched(t *testing.T) {
	tok := testhsm.New(t)
	s, through := shimmed(t)
	cfg := config(tok)
	through(&cfg)
	writePIN(t, tok, wrongPIN+"\n")

	_, err := Open(t.Context(), cfg)
	if !errors.Is(err, seal.ErrAuth) || !strings.Contains(err.Error(), "CKR_PIN_INCORRECT") {
		t.Errorf("opening with a wrong PIN: %v, want ErrAuth and the code", err)
	}
	if got := s.calls(t, "C_Login"); got != 1 {
		t.Fatalf("C_Login was called %d times, want once", got)
	}
	info, err := os.Stat(cfg.LatchFile)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("latch file has mode %o, want 0600", got)
	}
	l, ok, err := seal.ReadLatch(cfg.LatchFile)
	if err != nil || !ok {
		t.Fatalf("reading the latch: %v %v", ok, err)
	}
	if l.Version != 1 || l.Provider != "pkcs11" || l.TokenLabel != tok.Label || l.TokenSerial != tok.Serial || l.Error != "CKR_PIN_INCORRECT" || l.Time.IsZero() {
		t.Errorf("latch is %+v", l)
	}

	// The right PIN is not tried either while the latch stands.
	writePIN(t, tok, tok.PIN)
	_, err = Open(t.Context(), cfg)
	if !errors.Is(err, seal.ErrLatched) || !strings.Contains(err.Error(), "sigilctl pin clear") {
		t.Errorf("opening while latched: %v, want ErrLatched and a hint", err)
	}
	if got := s.calls(t, "C_Initialize"); got != 1 {
		t.Errorf("the module was loaded %d times, want once", got)
	}

	if err := seal.ClearLatch(cfg.LatchFile); err != nil {
		t.Fatal(err)
	}
	p := mustOpen(t, cfg)
	info2, err := p.Info(t.Context())
	if err != nil || info2.Serial != tok.Serial {
		t.Errorf("Info after clearing: %+v, %v", info2, err)
	}
	if err := seal.ClearLatch(cfg.LatchFile); err != nil {
		t.Errorf("clearing without a latch: %v", err)
	}
}

func TestWrongPINAtRespawn(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	writePIN(t, r.tok, wrongPIN)
	if err := syscall.Kill(r.pid(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	before := s.calls(t, "C_Login")
	if err := r.Health(t.Context()); !errors.Is(err, seal.ErrAuth) {
		t.Errorf("Health after the PIN changed: %v, want ErrAuth", err)
	}
	for range 5 {
		if err := r.Health(t.Context()); !errors.Is(err, seal.ErrLatched) {
			t.Errorf("Health while latched: %v, want ErrLatched", err)
		}
	}
	if got := s.calls(t, "C_Login") - before; got != 1 {
		t.Errorf("C_Login was called %d times, want once", got)
	}
	if strings.Contains(r.log.String(), wrongPIN) {
		t.Error("the PIN is in the log")
	}
	// The same provider goes on once the latch is cleared.
	writePIN(t, r.tok, r.tok.PIN)
	if err := seal.ClearLatch(r.cfg.LatchFile); err != nil {
		t.Fatal(err)
	}
	r.worked(t)
}

func TestLatchThatCantBeWrittenHoldsInMemory(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through, func(c *Config) { c.LatchFile = filepath.Join(filepath.Dir(c.LatchFile), "gone", "latch") })
	writePIN(t, r.tok, wrongPIN)
	if err := syscall.Kill(r.pid(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	before := s.calls(t, "C_Login")
	if err := r.Health(t.Context()); !errors.Is(err, seal.ErrAuth) {
		t.Errorf("Health: %v, want ErrAuth", err)
	}
	for range 3 {
		err := r.Health(t.Context())
		if !errors.Is(err, seal.ErrLatched) || !strings.Contains(err.Error(), "in memory only") {
			t.Errorf("Health: %v, want ErrLatched, in memory only", err)
		}
	}
	if got := s.calls(t, "C_Login") - before; got != 1 {
		t.Errorf("C_Login was called %d times, want once", got)
	}
}

func TestDamagedLatchHolds(t *testing.T) {
	cfg := config(testhsm.New(t))
	for _, text := range []string{"", "{}", "not json", `{"version":2}`} {
		if err := os.WriteFile(cfg.LatchFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), cfg); !errors.Is(err, seal.ErrLatched) {
			t.Errorf("opening with the latch file %q: %v, want ErrLatched", text, err)
		}
	}
	// A latch that can't be read at all holds as well.
	cfg.LatchFile = cfg.PINFile + "/below-a-file"
	if _, err := Open(t.Context(), cfg); !errors.Is(err, seal.ErrLatched) {
		t.Errorf("opening with an unreadable latch: %v, want ErrLatched", err)
	}
}

func TestPINFile(t *testing.T) {
	tok := testhsm.New(t)
	cfg := config(tok)
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"no newline", tok.PIN, nil},
		{"one newline", tok.PIN + "\n", nil},
		{"two newlines", tok.PIN + "\n\n", seal.ErrAuth},
		{"a space", tok.PIN + " ", seal.ErrAuth},
		{"empty", "", seal.ErrPolicy},
		{"only a newline", "\n", seal.ErrPolicy},
		{"256 bytes", strings.Repeat("x", 256) + "\n", seal.ErrAuth},
		{"257 bytes", strings.Repeat("x", 257), seal.ErrPolicy},
		{"4096 bytes", strings.Repeat("x", 4096), seal.ErrPolicy},
	} {
		writePIN(t, tok, tt.text)
		p, err := Open(t.Context(), cfg)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil {
			p.Close()
		}
		if err != nil && strings.Contains(err.Error(), tok.PIN) {
			t.Errorf("%s: the error holds the PIN", tt.name)
		}
		_, latched, err := seal.ReadLatch(cfg.LatchFile)
		if err != nil || latched != (tt.want == seal.ErrAuth) {
			t.Errorf("%s: latched is %v (%v), want it for a PIN that was tried and refused", tt.name, latched, err)
		}
		if err := seal.ClearLatch(cfg.LatchFile); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPINFileRefused(t *testing.T) {
	tok := testhsm.New(t)
	for _, tt := range []struct {
		name string
		make func() string
		want error
	}{
		{"missing", func() string { return tok.PINFile + "-missing" }, seal.ErrUnavailable},
		{"a directory", t.TempDir, seal.ErrPolicy},
		{"readable by all", func() string { os.Chmod(tok.PINFile, 0o444); return tok.PINFile }, seal.ErrPolicy},
		{"writable by the group", func() string { os.Chmod(tok.PINFile, 0o420); return tok.PINFile }, seal.ErrPolicy},
		{"readable by the group, as a credential with an ACL", func() string { os.Chmod(tok.PINFile, 0o440); return tok.PINFile }, nil},
	} {
		cfg := config(tok)
		cfg.PINFile = tt.make()
		p, err := Open(t.Context(), cfg)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if err == nil {
			p.Close()
		}
	}
}

func TestPINFlagsAreLookedAtBeforeLogin(t *testing.T) {
	tok := testhsm.New(t)
	s, through := shimmed(t)
	cfg := config(tok)
	through(&cfg)
	for _, tt := range []struct {
		name, order string
		want        error
	}{
		{"locked", "C_GetTokenInfo flags 40000", seal.ErrLocked},
		{"final try", "C_GetTokenInfo flags 20000", ErrFinalTry},
		{"to be changed", "C_GetTokenInfo flags 80000", seal.ErrPolicy},
	} {
		s.order(t, tt.order)
		_, err := Open(t.Context(), cfg)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
		if tt.want == ErrFinalTry && !errors.Is(err, seal.ErrLocked) {
			t.Errorf("%s: %v is no ErrLocked", tt.name, err)
		}
		if tt.want == seal.ErrLocked && errors.Is(err, ErrFinalTry) {
			t.Errorf("%s: %v is an ErrFinalTry", tt.name, err)
		}
		if _, latched, _ := seal.ReadLatch(cfg.LatchFile); latched {
			t.Errorf("%s: latched, though no PIN was tried", tt.name)
		}
	}
	if got := s.calls(t, "C_Login"); got != 0 {
		t.Errorf("C_Login was called %d times, want never", got)
	}
	s.order(t, "C_GetTokenInfo flags 10000") // COUNT_LOW is only told
	p := mustOpen(t, cfg)
	if info, err := p.Info(t.Context()); err != nil || !info.PINCountLow {
		t.Errorf("Info is %+v (%v), want PINCountLow", info, err)
	}
}

func TestLoginAnswers(t *testing.T) {
	tok := testhsm.New(t)
	s, through := shimmed(t)
	cfg := config(tok)
	through(&cfg)
	for _, tt := range []struct {
		name, code string
		want       error
		latched    bool
	}{
		{"CKR_PIN_LOCKED", "A4", seal.ErrLocked, true},
		{"CKR_PIN_EXPIRED", "A3", seal.ErrAuth, true},
		{"CKR_PIN_INVALID", "A1", seal.ErrAuth, true},
		{"CKR_PIN_LEN_RANGE", "A2", seal.ErrAuth, true},
		{"CKR_DEVICE_ERROR", "30", seal.ErrUnavailable, false},
		{"CKR_USER_PIN_NOT_INITIALIZED", "102", seal.ErrPolicy, false},
		{"CKR_USER_ALREADY_LOGGED_IN", "100", nil, false},
	} {
		s.order(t, "C_Login rv "+tt.code)
		before := s.calls(t, "C_Login")
		p, err := Open(t.Context(), cfg)
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.name) {
			t.Errorf("%s: %v, want %v with the code", tt.name, err, tt.want)
		}
		if err == nil {
			p.Close()
		}
		if got := s.calls(t, "C_Login") - before; got != 1 {
			t.Errorf("%s: C_Login was called %d times, want once", tt.name, got)
		}
		if _, latched, _ := seal.ReadLatch(cfg.LatchFile); latched != tt.latched {
			t.Errorf("%s: latched is %v, want %v", tt.name, latched, tt.latched)
		}
		if err := seal.ClearLatch(cfg.LatchFile); err != nil {
			t.Fatal(err)
		}
	}
}
