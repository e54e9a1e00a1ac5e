//go:build cgo

package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// everyOp does each operation once and returns the first error.
func (r *rig) everyOp(t testing.TB) error {
	ctx := t.Context()
	blob, err := r.Seal(ctx, r.keys.KEK, []byte("x"), nil)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if err := r.Unseal(ctx, r.keys.KEK, blob, nil, func([]byte) error { return nil }); err != nil {
		return fmt.Errorf("unseal: %w", err)
	}
	// A blob that doesn't open costs the session and asks the canary.
	err = r.Unseal(ctx, r.keys.KEK, blob, []byte("other aad"), func([]byte) error { return nil })
	if !errors.Is(err, seal.ErrTampered) || errors.Is(err, seal.ErrUnavailable) {
		return fmt.Errorf("unseal with another aad: %w", err)
	}
	if _, err := r.SignP256(ctx, r.keys.Checkpoint, [32]byte{1}); err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	if r.webhook.Ref != "" {
		ct, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, r.webhook.Public, []byte("x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.DecryptOAEPSHA256(ctx, r.webhook.Ref, ct, func([]byte) error { return nil }); err != nil {
			return fmt.Errorf("decrypt: %w", err)
		}
	}
	if err := r.Random(ctx, make([]byte, 32)); err != nil {
		return fmt.Errorf("random: %w", err)
	}
	if _, err := r.Info(ctx); err != nil {
		return fmt.Errorf("info: %w", err)
	}
	return r.Health(ctx)
}

// The functions of the module that operations call.
var opFunctions = []string{
	"C_GetTokenInfo", "C_OpenSession", "C_CloseSession", "C_FindObjectsInit", "C_FindObjects", "C_FindObjectsFinal",
	"C_GetAttributeValue", "C_EncryptInit", "C_Encrypt", "C_DecryptInit", "C_Decrypt", "C_SignInit", "C_Sign", "C_GenerateRandom",
}

func TestCanaryTellsTheBlobFromTheToken(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	blob, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	unseal := func(b []byte) error {
		return r.Unseal(t.Context(), r.keys.KEK, b, nil, func([]byte) error { return nil })
	}
	bad := bytes.Clone(blob)
	bad[20] ^= 1
	old := r.pid(t)
	if err := unseal(bad); !errors.Is(err, seal.ErrTampered) {
		t.Errorf("a bad blob on a good token: %v, want ErrTampered", err)
	}
	if r.pid(t) != old {
		t.Error("a bad blob cost a worker")
	}
	s.order(t, "C_Decrypt rv 5")
	if err := unseal(blob); !errors.Is(err, seal.ErrUnavailable) || errors.Is(err, seal.ErrTampered) {
		t.Errorf("a good blob on a bad token: %v, want ErrUnavailable", err)
	}
	s.behave(t)
}

func TestModuleThatLies(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	for _, tt := range []struct {
		order string
		try   func(p *rig) error
	}{
		{"C_Encrypt longer 0", func(p *rig) error { _, err := p.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); return err }},
		{"C_Decrypt longer 0", func(p *rig) error { return p.Health(t.Context()) }},
		{"C_Decrypt wrong 0", func(p *rig) error { return p.Health(t.Context()) }},
		{"C_Encrypt wrong 0", func(p *rig) error { return p.Health(t.Context()) }},
		{"C_Sign longer 0", func(p *rig) error { _, err := p.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); return err }},
		{"C_Sign wrong 0", func(p *rig) error { _, err := p.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); return err }},
	} {
		p, _, _ := openWatched(t, r.cfg)
		liar := &rig{Provider: p, keys: r.keys}
		liar.used(r.keys.KEK)
		s.order(t, tt.order)
		if err := tt.try(liar); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", tt.order, err)
		}
		s.behave(t)
		p.Close()
	}
}

func TestModuleThatWritesItsOwnIV(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	s.order(t, "C_EncryptInit iv 0")
	blob, err := r.Seal(t.Context(), r.keys.KEK, []byte("a root key"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if want := bytes.Repeat([]byte{0xA5}, ivLen); !bytes.Equal(blob[1:1+ivLen], want) {
		t.Errorf("the blob has IV %x, want the module's %x", blob[1:1+ivLen], want)
	}
	s.behave(t)
	err = r.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func(p []byte) error {
		if string(p) != "a root key" {
			t.Errorf("unsealed %q", p)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

const hangTimeout = 2 * time.Second

func TestHangAtStartEndsByTheDeadline(t *testing.T) {
	var wg sync.WaitGroup
	for _, fn := range []string{"C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_Login"} {
		s, through := shimmed(t)
		cfg := config(testhsm.New(t))
		cfg.CallTimeout = hangTimeout
		through(&cfg)
		s.order(t, fn+" hang 0")
		wg.Go(func() {
			within(t, 2*hangTimeout, func() {
				if _, err := Open(t.Context(), cfg); !errors.Is(err, seal.ErrUnavailable) {
					t.Errorf("opening while %s hangs: %v, want ErrUnavailable", fn, err)
				}
			})
			if _, latched, _ := seal.ReadLatch(cfg.LatchFile); latched {
				t.Errorf("a hang of %s was latched", fn)
			}
		})
	}
	wg.Wait()
}

func TestHangInEveryFunctionEndsByTheDeadline(t *testing.T) {
	var wg sync.WaitGroup
	wrapping := []string{"C_CreateObject", "C_WrapKey", "C_UnwrapKey", "C_DestroyObject"}
	for _, fn := range slices.Concat(opFunctions, wrapping) {
		s, through := shimmed(t)
		if slices.Contains(wrapping, fn) {
			s.order(t, nomech(pkcs11.CKM_AES_GCM)...)
		}
		r := newRig(t, through, func(c *Config) { c.CallTimeout = hangTimeout })
		s.order(t, fn+" hang 0")
		wg.Go(func() {
			within(t, 2*hangTimeout, func() {
				if err := r.everyOp(t); !errors.Is(err, seal.ErrUnavailable) {
					t.Errorf("working while %s hangs: %v, want ErrUnavailable", fn, err)
				}
			})
			s.behave(t)
			if err := r.everyOp(t); err != nil {
				t.Errorf("working after %s hung: %v", fn, err)
			}
		})
	}
	wg.Wait()
}

func TestRandom(t *testing.T) {
	r := newRig(t)
	big := make([]byte, 2*maxRandom+100)
	if err := r.Random(t.Context(), big); err != nil {
		t.Fatal(err)
	}
	if tail := big[len(big)-32:]; bytes.Equal(tail, make([]byte, 32)) {
		t.Error("the last bytes are zero")
	}
	if bytes.Equal(big[:32], big[maxRandom:maxRandom+32]) {
		t.Error("two pieces begin with the same bytes")
	}
	if err := r.Random(t.Context(), nil); err != nil {
		t.Errorf("asking for nothing: %v", err)
	}
	r.Close()
	b := []byte("not random")
	if err := r.Random(t.Context(), b); !errors.Is(err, seal.ErrUnavailable) || !bytes.Equal(b, make([]byte, len(b))) {
		t.Errorf("asking a closed provider: %v, %q; want ErrUnavailable and zeros", err, b)
	}
}

func TestNothingSecretIsPrinted(t *testing.T) {
	const marker = "PLAINTEXTMARKER"
	s, through := shimmed(t)
	r := newRig(t, through)
	var said []string
	note := func(err error) {
		if err != nil {
			said = append(said, err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err))
		}
	}
	blob, err := r.Seal(t.Context(), r.keys.KEK, []byte(marker), nil)
	if err != nil {
		t.Fatal(err)
	}
	note(r.Unseal(t.Context(), r.keys.KEK, blob, []byte("wrong aad"), func([]byte) error { return nil }))
	for _, order := range []string{"C_Encrypt once 5", "C_Encrypt crash 1", "C_Encrypt rv 30", "C_Decrypt rv 30"} {
		s.order(t, order)
		_, err := r.Seal(t.Context(), r.keys.KEK, []byte(marker), nil)
		note(err)
		note(r.Unseal(t.Context(), r.keys.KEK, blob, nil, func([]byte) error { return nil }))
	}
	if len(said) < 6 {
		t.Fatalf("only %d errors were seen", len(said))
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if got := fmt.Sprintf(verb, r.Provider); got != r.ID() {
			t.Errorf("%s prints %.100q, want the id", verb, got)
		}
	}
	slog.New(slog.NewTextHandler(r.log, nil)).Info("x", "provider", r.Provider, "config", r.cfg)
	if b, err := json.Marshal(r.Provider); err == nil {
		t.Errorf("the provider was encoded as %s", b)
	}
	said = append(said, r.log.String())
	for _, text := range said {
		for _, secret := range []string{marker, fmt.Sprintf("%x", marker), r.tok.PIN} {
			if strings.Contains(text, secret) {
				t.Errorf("%.300q holds a secret", text)
			}
		}
	}
}
