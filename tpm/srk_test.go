package tpm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/seal"
)

func TestSRKIsTheSameEachTime(t *testing.T) {
	tpm := testtpm.New(t)
	var names [][]byte
	for range 2 {
		p := mustOpen(t, Config{Path: tpm.Path})
		names = append(names, p.SRKName())
		if want := "tpm2:" + hex.EncodeToString(p.SRKName())[:16]; p.ID() != want {
			t.Errorf("the id is %s, want %s", p.ID(), want)
		}
		p.Close()
	}
	if !bytes.Equal(names[0], names[1]) || !isName(names[0]) {
		t.Errorf("the SRK's names are %x", names)
	}
}

func TestUnpinnedSRKIsLogged(t *testing.T) {
	r := newRig(t)
	if text := r.log.String(); !strings.Contains(text, "not pinned") || !strings.Contains(text, hex.EncodeToString(r.SRKName())) {
		t.Errorf("opening without a pin logged %q, want the SRK's name", text)
	}
}

func TestAnotherTPMIsRefused(t *testing.T) {
	r, other := newRig(t), newRig(t)
	blob := r.sealed(t, "x")

	// With a pin it is not even opened.
	cfg := other.cfg
	cfg.SRKName = r.cfg.SRKName
	other.Close()
	_, err := Open(t.Context(), cfg)
	if !errors.Is(err, seal.ErrNotFound) || !strings.Contains(err.Error(), "another TPM") || !strings.Contains(err.Error(), hex.EncodeToString(r.srk)) {
		t.Errorf("opening another TPM: %v, want ErrNotFound, the pinned name and why", err)
	}

	// Without one, the key reference in the vault's slot tells.
	cfg.SRKName, cfg.SecretFile = nil, r.cfg.SecretFile
	p := mustOpen(t, cfg)
	err = p.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
	if !errors.Is(err, seal.ErrNotFound) || !strings.Contains(err.Error(), "another TPM") {
		t.Errorf("unsealing with another TPM: %v, want ErrNotFound and why", err)
	}
	if _, err := p.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("signing with another TPM: %v, want ErrNotFound", err)
	}
	// And under its own key the blob is a tampered one.
	err = p.Unseal(t.Context(), other.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
	if !errors.Is(err, seal.ErrTampered) {
		t.Errorf("unsealing another TPM's blob: %v, want ErrTampered", err)
	}
}

func TestClearedTPMIsRefused(t *testing.T) {
	r := newRig(t)
	blob := r.sealed(t, "x")
	r.Close()
	r.tpm.Run(t, "tpm2_clear", "-c", "p")
	if _, err := Open(t.Context(), r.cfg); !errors.Is(err, seal.ErrNotFound) || !strings.Contains(err.Error(), "cleared") {
		t.Errorf("opening a cleared TPM: %v, want ErrNotFound and why", err)
	}
	r.cfg.SRKName = nil
	r.Provider = mustOpen(t, r.cfg)
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("unsealing with a cleared TPM: %v, want ErrNotFound", err)
	}
}

// Cleared, or replaced, while the provider is open: the first SRK it saw is its pin.
func TestTPMClearedUnderUs(t *testing.T) {
	for name, pin := range map[string]bool{"pinned": true, "not pinned": false} {
		r := newRig(t)
		blob := r.sealed(t, "x")
		if !pin {
			r.reopen(t, func(c *Config) { c.SRKName = nil })
		}
		err := r.do(t.Context(), func(turn *turn) error {
			_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}}.Execute(turn)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.refused(t, blob); !errors.Is(err, seal.ErrNotFound) || !strings.Contains(err.Error(), "cleared") {
			t.Errorf("%s: unsealing: %v, want ErrNotFound and why", name, err)
		}
	}
}

// An interposer that shows an SRK of its own is refused by its Name.
func TestSubstitutedSRKIsRefused(t *testing.T) {
	r, b := busRig(t)
	r.Close()
	// In the answer the public area begins behind the header, the handle and two
	// lengths.
	const public = headerLen + 4 + 4 + 2
	for name, change := range map[string]func([]byte) []byte{
		"another point":     func(a []byte) []byte { a[public+len(tpm2.Marshal(tpm2.ECCSRKTemplate))-1] ^= 1; return a },
		"another attribute": func(a []byte) []byte { a[public+6] ^= 4; return a }, // noDA
	} {
		b.set(nil, changing(tpm2.TPMCCCreatePrimary, change))
		if _, err := Open(t.Context(), r.cfg); !errors.Is(err, seal.ErrNotFound) && !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrNotFound or ErrUnavailable", name, err)
		}
		cfg := r.cfg
		cfg.SRKName = nil // and without a pin it can't take part in the session
		if p, err := Open(t.Context(), cfg); err == nil {
			p.Close()
			t.Errorf("%s: believed without a pin", name)
		}
	}
	b.set(nil, nil)
	r.Provider = mustOpen(t, r.cfg)
}

// writeUnique writes the unique field of the TCG's ECC SRK template, 32 zero bytes
// twice, as tpm2_createprimary -u takes it: the C library's TPMS_ECC_POINT, whose
// coordinates have room for 128 bytes each.
func writeUnique(t testing.TB, dir string) string {
	t.Helper()
	var b []byte
	for range 2 {
		b = append(binary.NativeEndian.AppendUint16(b, 32), make([]byte, 128)...)
	}
	path := filepath.Join(dir, "unique")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tpm2-tools persist the SRK, as a distribution's setup would.
func persistSRK(t *testing.T, tpm *testtpm.TPM, args ...string) {
	t.Helper()
	context := tpm.Dir + "/srk.ctx"
	tpm.Run(t, "tpm2_createprimary", append([]string{"-Q", "-C", "o", "-c", context}, args...)...)
	tpm.Run(t, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", context, "0x81000001")
}

// theTemplate makes tpm2_createprimary make the TCG's SRK.
func theTemplate(t *testing.T, dir string) []string {
	t.Helper()
	return []string{"-G", "ecc256:null:aes128cfb", "-g", "sha256",
		"-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt",
		"-u", writeUnique(t, dir)}
}

func TestPersistentSRKIsUsed(t *testing.T) {
	r, b := busRig(t)
	blob := r.sealed(t, "x")
	r.Close()
	persistSRK(t, &testtpm.TPM{Dir: b.tpm.Dir, Socket: b.tpm.Socket}, theTemplate(t, b.tpm.Dir)...)
	b.capture()
	r.reopen(t)
	r.opened(t, blob, "x")
	r.worked(t)
	if n := b.asked(tpm2.TPMCCCreatePrimary); n != 0 || r.root.handle != persistentSRK {
		t.Errorf("the SRK was made %d times and is at %#x, want the persistent one", n, uint32(r.root.handle))
	}
	// Without a pin we can't know whose it is.
	r.reopen(t, func(c *Config) { c.SRKName = nil })
	if r.root.handle == persistentSRK {
		t.Error("a persistent SRK was believed without a pin")
	}
}

func TestPersistentKeyThatIsNotTheSRKIsPassedOver(t *testing.T) {
	r, b := busRig(t)
	blob := r.sealed(t, "x")
	r.Close()
	persistSRK(t, &testtpm.TPM{Dir: b.tpm.Dir, Socket: b.tpm.Socket}, "-G", "rsa2048")
	r.reopen(t)
	r.opened(t, blob, "x")
	if r.root.handle == persistentSRK {
		t.Error("another's key was taken for the SRK")
	}
	// Not even when it is pinned: it is no SRK of the template.
	err := r.do(t.Context(), func(turn *turn) error {
		_, name, err := turn.readPublic(persistentSRK)
		r.cfg.SRKName = name
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	if _, err := Open(t.Context(), r.cfg); !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("opening with an RSA key pinned: %v, want ErrPolicy", err)
	}
}

func TestOwnerPassword(t *testing.T) {
	r, b := busRig(t)
	blob := r.sealed(t, "x")
	r.Close()
	tpm := &testtpm.TPM{Dir: b.tpm.Dir, Socket: b.tpm.Socket}
	tpm.Run(t, "tpm2_changeauth", "-c", "o", "owner")
	if _, err := Open(t.Context(), r.cfg); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "0x81000001") {
		t.Errorf("opening: %v, want ErrPolicy and what to do", err)
	}
	// What the hint says.
	context := tpm.Dir + "/srk.ctx"
	tpm.Run(t, "tpm2_createprimary", append([]string{"-Q", "-C", "o", "-P", "owner", "-c", context}, theTemplate(t, tpm.Dir)...)...)
	tpm.Run(t, "tpm2_evictcontrol", "-Q", "-C", "o", "-P", "owner", "-c", context, "0x81000001")
	r.reopen(t)
	r.opened(t, blob, "x")
	r.worked(t)
	if _, err := r.Provision(t.Context()); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "tpm2_changeauth") {
		t.Errorf("provisioning: %v, want ErrPolicy and what to do", err)
	}
}
