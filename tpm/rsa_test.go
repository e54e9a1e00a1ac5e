package tpm

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

func (r *rig) encrypted(t testing.TB, ref seal.KeyRef, plain []byte) []byte {
	t.Helper()
	pub, err := r.PublicRSA(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	ct, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, pub, plain, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ct
}

func TestRSASizes(t *testing.T) {
	r := newRig(t)
	for _, bits := range []int{0, 1024, 3072, 4096} {
		if _, err := r.GenerateRSA(t.Context(), bits); !errors.Is(err, seal.ErrUnsupported) || !strings.Contains(err.Error(), "2048") {
			t.Errorf("%d bits: %v, want ErrUnsupported and the size to ask for", bits, err)
		}
	}
	if imported, err := r.ImportedRSA(t.Context(), r.rsa(t)); imported || err != nil {
		t.Errorf("a key made in the TPM is imported %v, %v", imported, err)
	}
	if _, err := r.ImportedRSA(t.Context(), r.keys.Checkpoint); !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("a checkpoint key as a decryption key: %v, want ErrPolicy", err)
	}
}

// What TPMs say to a bad ciphertext differs; the caller hears the same, unless the
// TPM itself is broken.
func TestComplaintsAboutACiphertext(t *testing.T) {
	r, b := busRig(t)
	ref := r.rsa(t)
	ct := r.encrypted(t, ref, []byte("a share"))
	decrypt := func() error {
		return r.DecryptOAEPSHA256(t.Context(), ref, ct, func(p []byte) error {
			if string(p) != "a share" {
				t.Errorf("decrypted %q", p)
			}
			return nil
		})
	}
	text := ""
	for _, rc := range []tpm2.TPMRC{0x101, 0x1c4, 0x1d5, 0x084, 0x2c4} {
		b.capture()
		b.set(only(tpm2.TPMCCRSADecrypt, func([]byte) []byte { return refusal(rc) }), nil)
		err := decrypt()
		if !errors.Is(err, seal.ErrTampered) || errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%v: %v, want ErrTampered", rc, err)
			continue
		}
		if text == "" {
			text = err.Error()
		}
		if err.Error() != text {
			t.Errorf("%v: the text is %q, for another code it was %q", rc, err, text)
		}
		if n := b.asked(tpm2.TPMCCRSADecrypt); n != 1 {
			t.Errorf("%v: the ciphertext was tried %d times, want once", rc, n)
		}
	}
	for rc, want := range map[tpm2.TPMRC]error{0x9a2: seal.ErrAuth, 0x921: seal.ErrLocked, 0x902: seal.ErrUnavailable, 0x143: seal.ErrUnsupported} {
		b.set(only(tpm2.TPMCCRSADecrypt, func([]byte) []byte { return refusal(rc) }), nil)
		if err := decrypt(); !errors.Is(err, want) || errors.Is(err, seal.ErrTampered) {
			t.Errorf("%v: %v, want %v", rc, err, want)
		}
	}
	b.set(func(tpm2.TPMCC, []byte) []byte { return refusal(tpm2.TPMRCFailure) }, nil)
	if err := decrypt(); !errors.Is(err, seal.ErrUnavailable) || errors.Is(err, seal.ErrTampered) {
		t.Errorf("a TPM in failure mode: %v, want ErrUnavailable", err)
	}
	b.set(nil, nil)
	if err := decrypt(); err != nil {
		t.Error(err)
	}
}

// A decrypted share is not on the bus.
func TestBusShowsNoDecryptedShare(t *testing.T) {
	r, b := busRig(t)
	ref := r.rsa(t)
	plain := make([]byte, 64)
	rand.Read(plain)
	ct := r.encrypted(t, ref, plain)
	b.capture()
	err := r.DecryptOAEPSHA256(t.Context(), ref, ct, func(p []byte) error {
		if !bytes.Equal(p, plain) {
			t.Error("decrypted something else")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	seen := b.capture()
	for n := 0; n < len(plain); n += 8 {
		if bytes.Contains(seen, plain[n:n+8]) {
			t.Error("the plaintext crossed the bus in clear")
		}
	}
	if !bytes.Contains(seen, ct) {
		t.Error("the ciphertext was not seen: the test saw nothing")
	}
}

func TestWeakDecryptionKeyIsRefused(t *testing.T) {
	r := newRig(t, withoutSecret)
	for name, change := range map[string]func(*tpm2.TPMTPublic){
		"signs, too": func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = true; p.Parameters = rsaAnyScheme },
		"any scheme": func(p *tpm2.TPMTPublic) { p.Parameters = rsaAnyScheme },
		"counted":    func(p *tpm2.TPMTPublic) { p.ObjectAttributes.NoDA = false },
		"can move":   func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM, p.ObjectAttributes.FixedParent = false, false },
	} {
		template := decryptTemplate
		change(&template)
		ref, err := r.persistTemplate(t, template)
		if err != nil {
			t.Fatalf("%s: making the key: %v", name, err)
		}
		if _, err := r.PublicRSA(t.Context(), ref); !errors.Is(err, seal.ErrPolicy) {
			t.Errorf("%s: reading the public key: %v, want ErrPolicy", name, err)
		}
		if err := r.DecryptOAEPSHA256(t.Context(), ref, make([]byte, rsaBits/8), func([]byte) error { return nil }); !errors.Is(err, seal.ErrPolicy) {
			t.Errorf("%s: decrypting: %v, want ErrPolicy", name, err)
		}
	}
}

var rsaAnyScheme = tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
	Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
	Scheme:    tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull},
	KeyBits:   rsaBits,
})

func TestKeysAreListedAndDestroyed(t *testing.T) {
	r := newRig(t)
	a, b := r.rsa(t), r.rsa(t)
	list := func(want ...seal.KeyRef) {
		t.Helper()
		if got, err := r.ListRSA(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("the keys are %v, %v, want %v", got, err, want)
		}
	}
	list(a, b)
	ct := r.encrypted(t, a, []byte("x"))
	if err := r.DestroyRSA(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	list(b)
	if err := r.DecryptOAEPSHA256(t.Context(), a, ct, func([]byte) error { return nil }); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("decrypting with a destroyed key: %v, want ErrNotFound", err)
	}
	for name, ref := range map[string]seal.KeyRef{"again": a, "no key": r.keys.KEK} {
		if err := r.DestroyRSA(t.Context(), ref); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("%s: %v, want ErrNotFound", name, err)
		}
	}
	if err := r.DestroyRSA(t.Context(), r.keys.Checkpoint); !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("destroying the checkpoint key: %v, want ErrPolicy", err)
	}
	r.worked(t)
}

func TestFailedGenerateLeavesNoKey(t *testing.T) {
	r, b := busRig(t)
	before := r.persistent(t)
	for _, cc := range []tpm2.TPMCC{tpm2.TPMCCCreate, tpm2.TPMCCEvictControl, tpm2.TPMCCRSADecrypt} {
		b.set(only(cc, func([]byte) []byte { return refusal(tpm2.TPMRCNVUnavailable) }), nil)
		if _, err := r.GenerateRSA(t.Context(), rsaBits); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%v: %v, want ErrUnavailable", cc, err)
		}
		b.set(nil, nil)
		if after := r.persistent(t); len(after) != len(before) {
			t.Errorf("%v: the persistent handles are %x, were %x", cc, after, before)
		}
	}
}
