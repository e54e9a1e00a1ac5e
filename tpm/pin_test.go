package tpm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// withPIN gives what is sealed a PIN.
func withPIN(t testing.TB) func(*Config) {
	return func(c *Config) {
		c.PINFile, c.LatchFile = writeSecret(t, []byte("87654321\n"), 0o400), filepath.Join(t.TempDir(), "latch")
	}
}

func wrongPIN(t testing.TB) func(*Config) {
	return func(c *Config) { c.PINFile = writeSecret(t, []byte("87654322"), 0o400) }
}

func (r *rig) tries(t testing.TB) uint32 {
	t.Helper()
	l, err := r.Lockout(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l.Tries
}

func TestWrongPINIsTriedOnceAndLatched(t *testing.T) {
	for name, change := range map[string]func(*Config){"with an outside secret": func(*Config) {}, "without one": withoutSecret} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, withPIN(t), change)
			blob := r.sealed(t, "x")
			r.opened(t, blob, "x")
			right := r.cfg.PINFile
			r.reopen(t, wrongPIN(t))
			if err := r.refused(t, blob); !errors.Is(err, seal.ErrAuth) || errors.Is(err, seal.ErrLatched) {
				t.Errorf("a wrong PIN: %v, want ErrAuth", err)
			}
			if n := r.tries(t); n != 1 {
				t.Errorf("the TPM counts %d wrong tries, want 1", n)
			}
			r.reopen(t, func(c *Config) { c.PINFile = right })
			for range 5 {
				if err := r.refused(t, blob); !errors.Is(err, seal.ErrLatched) || !strings.Contains(err.Error(), "sigilctl pin clear") {
					t.Errorf("while latched: %v, want ErrLatched and what to do", err)
				}
			}
			if n := r.tries(t); n != 1 {
				t.Errorf("while latched the TPM counted on to %d", n)
			}
			if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); err != nil {
				t.Errorf("signing, which has no PIN: %v", err)
			}
			if err := seal.ClearLatch(r.cfg.LatchFile); err != nil {
				t.Fatal(err)
			}
			r.opened(t, blob, "x")
		})
	}
}

// Others' wrong tries, or ours, lock the object: the right PIN is refused, too, and
// the error says for how long. What has no PIN is not locked.
func TestLockedTPM(t *testing.T) {
	r := newRig(t, withPIN(t))
	blob := r.sealed(t, "x")
	right := r.cfg.PINFile
	r.reopen(t, wrongPIN(t))
	for range 3 {
		if err := r.refused(t, blob); !errors.Is(err, seal.ErrAuth) {
			t.Fatalf("a wrong PIN: %v, want ErrAuth", err)
		}
		if err := seal.ClearLatch(r.cfg.LatchFile); err != nil {
			t.Fatal(err)
		}
	}
	r.reopen(t, func(c *Config) { c.PINFile = right })
	err := r.refused(t, blob)
	if !errors.Is(err, seal.ErrLocked) || !strings.Contains(err.Error(), "3 of 3 wrong tries") || !strings.Contains(err.Error(), "forgotten every") {
		t.Errorf("a locked TPM: %v, want ErrLocked and how long", err)
	}
	if _, ok, err := seal.ReadLatch(r.cfg.LatchFile); ok || err != nil {
		t.Errorf("a lockout was latched: %v, %v", ok, err)
	}
	if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); err != nil {
		t.Errorf("signing with a locked TPM: %v", err)
	}
	r.Close()
	r.tpm.Run(t, "tpm2_dictionarylockout", "-c")
	r.reopen(t)
	r.opened(t, blob, "x")
}

func TestBlobAndConfigurationAgreeOnThePIN(t *testing.T) {
	r := newRig(t, withPIN(t))
	with := r.sealed(t, "x")
	pin := r.cfg.PINFile
	r.reopen(t, func(c *Config) { c.PINFile = "" })
	if err := r.refused(t, with); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "pin_file") {
		t.Errorf("a blob with a PIN, without one configured: %v, want ErrPolicy", err)
	}
	without := r.sealed(t, "y")
	r.reopen(t, func(c *Config) { c.PINFile = pin })
	if err := r.refused(t, without); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "without a PIN") {
		t.Errorf("a blob without a PIN: %v, want ErrPolicy", err)
	}
	r.opened(t, with, "x")
	if _, ok, _ := seal.ReadLatch(r.cfg.LatchFile); ok {
		t.Error("a disagreement was latched")
	}
}

func TestPINAndBootState(t *testing.T) {
	r, b := bootedBusRig(t, withPIN(t))
	blob := r.sealed(t, "x")
	b.capture()
	r.opened(t, blob, "x")
	if strings.Contains(string(b.capture()), "87654321") {
		t.Error("the PIN crossed the bus")
	}
	o, _, _, err := decodeBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	if f := o.form(); !f.pin || f.policy == nil || blob[0] != blobGuarded {
		t.Errorf("the object's form is %+v in a blob of version %d", f, blob[0])
	}
	r.reopen(t, wrongPIN(t))
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrAuth) {
		t.Errorf("a wrong PIN in an approved state: %v, want ErrAuth", err)
	}
	if n := b.asked(tpm2.TPMCCUnseal); n != 1 {
		t.Errorf("it was tried %d times, want once", n)
	}
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrLatched) {
		t.Errorf("while latched: %v, want ErrLatched", err)
	}
}

func TestPINFileIsRefused(t *testing.T) {
	latch := filepath.Join(t.TempDir(), "latch")
	for _, row := range []struct {
		name, path string
		want       error
	}{
		{"missing", filepath.Join(t.TempDir(), "none"), fs.ErrNotExist},
		{"open to others", writeSecret(t, []byte("1234"), 0o404), seal.ErrPolicy},
		{"empty", writeSecret(t, nil, 0o400), seal.ErrPolicy},
		{"a newline", writeSecret(t, []byte("\n"), 0o400), seal.ErrPolicy},
		{"too long", writeSecret(t, make([]byte, maxPIN+1), 0o400), seal.ErrPolicy},
		{"far too long", writeSecret(t, make([]byte, 4096), 0o400), seal.ErrPolicy},
	} {
		_, err := Open(t.Context(), Config{Path: "/dev/null", PINFile: row.path, LatchFile: latch})
		if !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
	if _, err := Open(t.Context(), Config{Path: "/dev/null", PINFile: "/pin"}); err == nil || !strings.Contains(err.Error(), "latch") {
		t.Errorf("no latch: %v, want it refused", err)
	}
	if _, err := os.Stat(latch); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a file that can't be read was latched")
	}
}
