//go:build cgo

package hsm

import (
	"bytes"
	"crypto/ecdsa"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

func (r *rig) checkpointKey(t testing.TB) *ecdsa.PublicKey {
	t.Helper()
	pub, err := r.PublicP256(t.Context(), r.keys.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	return pub
}

func (r *rig) attested(t testing.TB, keks ...seal.KeyRef) Evidence {
	t.Helper()
	e, err := r.Attest(t.Context(), nonce, keks, r.checkpointKey(t))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEvidenceTellsWhatTheTokenHas(t *testing.T) {
	r := newRig(t)
	r.newRSA(t, 2048)
	r.importRSA(t)
	if _, err := r.Provision(t.Context()); err != nil { // another appliance's keys
		t.Fatal(err)
	}
	e := r.attested(t, r.keys.KEK)
	file, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseEvidence(file)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := again.Verify(nonce, r.checkpointKey(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if again.Token.Label != r.tok.Label || again.Token.Serial != r.tok.Serial || again.Token.Manufacturer == "" || again.Token.Model == "" || again.Module.Manufacturer == "" {
		t.Errorf("the token is %+v with %+v, want that of %+v", again.Token, again.Module, r.tok)
	}
	var got []string
	for _, k := range keys {
		got = append(got, k.Use+" "+k.Kind())
		if len(k.Lacks) != 0 {
			t.Errorf("the %s key lacks %q", k.Use, k.Lacks)
		}
	}
	want := []string{"kek AES, 256 bits", "checkpoint EC, P-256", "delivery RSA, 2048 bits", "delivery RSA, 3072 bits"}
	if !slices.Equal(got, want) {
		t.Errorf("the keys are %q, want %q", got, want)
	}
	if keys[2].Imported || !keys[3].Imported {
		t.Errorf("imported: %v and %v, want the second delivery key alone", keys[2].Imported, keys[3].Imported)
	}
	if ref := makeRef(keys[0].ID); ref != r.keys.KEK {
		t.Errorf("the sealing key is %s, want %s", ref, r.keys.KEK)
	}
	r.worked(t)
}

func TestWeakKeyFailsTheVerifier(t *testing.T) {
	r := newRig(t)
	for i, w := range weakened {
		ref := makeRef([]byte{0xee, byte(i)})
		makeWeak(t, r.tok, w.name, ref, "kek")
		_, err := r.attested(t, r.keys.KEK, ref).Verify(nonce, r.checkpointKey(t), nil)
		if w.name == "as ours" {
			if err != nil {
				t.Errorf("a key %q: %v", w.name, err)
			}
			continue
		}
		if !errors.Is(err, ErrEvidence) || !strings.Contains(err.Error(), "CKA_") {
			t.Errorf("a key that is %q: %v, want ErrEvidence and the attribute", w.name, err)
		}
	}
	// Whatever the verifier lets be lacking, no key may leave the token.
	for i, name := range []string{"extractable", "not sensitive"} {
		ref := makeRef([]byte{0xef, byte(i)})
		makeWeak(t, r.tok, name, ref, "kek")
		if _, err := r.attested(t, ref).Verify(nonce, r.checkpointKey(t), protectionNames[:]); !errors.Is(err, ErrEvidence) {
			t.Errorf("a key that is %q, with all that may be lacking: %v, want ErrEvidence", name, err)
		}
	}
	imported := makeRef([]byte{0xf0})
	makeWeak(t, r.tok, "imported", imported, "kek")
	keys, err := r.attested(t, imported).Verify(nonce, r.checkpointKey(t), []string{"CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE"})
	if err != nil || !keys[0].Imported {
		t.Errorf("an imported sealing key that the verifier lets pass: %+v, %v, want it to be told", keys, err)
	}
}

func TestWeakCheckpointKeySignsNoEvidence(t *testing.T) {
	r := newRig(t)
	if _, err := r.Attest(t.Context(), nonce, []seal.KeyRef{r.keys.KEK}, testKey(t)); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("attesting with another appliance's key: %v, want ErrNotFound", err)
	}
	for _, bad := range [][]byte{nil, make([]byte, 15), make([]byte, 65)} {
		if _, err := r.Attest(t.Context(), bad, []seal.KeyRef{r.keys.KEK}, r.checkpointKey(t)); err == nil {
			t.Errorf("a nonce of %d bytes was taken", len(bad))
		}
	}
	if _, err := r.Attest(t.Context(), nonce, []seal.KeyRef{makeRef([]byte{9})}, r.checkpointKey(t)); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("attesting a sealing key that isn't there: %v, want ErrNotFound", err)
	}
	s, through := shimmed(t)
	weak := newRig(t, through)
	pub := weak.checkpointKey(t)
	s.order(t, "C_GetAttributeValue attr 162") // CKA_EXTRACTABLE the other way
	weak.Close()
	weak.Provider = mustOpen(t, weak.cfg)
	if _, err := weak.Attest(t.Context(), nonce, []seal.KeyRef{weak.keys.KEK}, pub); !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("attesting with an extractable checkpoint key: %v, want ErrPolicy", err)
	}
}

// A token that does not know an attribute says so, and the verifier decides.
func TestLackingAttributeIsTheVerifiersToAllow(t *testing.T) {
	s, through := shimmed(t)
	s.order(t, lacking(pkcs11.CKA_COPYABLE)...)
	r := newRig(t, through)
	e := r.attested(t, r.keys.KEK)
	if _, err := e.Verify(nonce, r.checkpointKey(t), nil); !errors.Is(err, ErrEvidence) || !strings.Contains(err.Error(), "CKA_COPYABLE is \"unknown\"") {
		t.Errorf("keys without CKA_COPYABLE: %v, want ErrEvidence", err)
	}
	keys, err := e.Verify(nonce, r.checkpointKey(t), []string{"CKA_COPYABLE"})
	if err != nil || !slices.Equal(keys[0].Lacks, []string{"CKA_COPYABLE"}) {
		t.Errorf("keys without CKA_COPYABLE that may lack it: %+v, %v", keys, err)
	}
}

func TestEvidenceOfAKEKThatIsRSA(t *testing.T) {
	s, through := shimmed(t)
	s.order(t, append(nomech(pkcs11.CKM_AES_GCM)[:1], nomech(pkcs11.CKM_AES_KEY_WRAP_PAD)...)...)
	r := newRig(t, through)
	e := r.attested(t, r.keys.KEK)
	keys, err := e.Verify(nonce, r.checkpointKey(t), nil)
	if err != nil || len(keys) != 3 || keys[0].Kind() != "RSA, 2048 bits" || keys[1].Use != UseKEKMAC || keys[1].Kind() != "HMAC, 256 bits" {
		t.Errorf("the keys are %+v, %v, want an RSA key, its HMAC key and the checkpoint key", keys, err)
	}
	// Signed by the token, but without the HMAC key.
	e.Keys = slices.Delete(e.Keys, 1, 2)
	r.sign(t, &e)
	if _, err := e.Verify(nonce, r.checkpointKey(t), nil); !errors.Is(err, ErrEvidence) || !strings.Contains(err.Error(), "HMAC") {
		t.Errorf("without the HMAC key: %v, want ErrEvidence", err)
	}
}

// A statement that the token did sign must still tell of the keys that there must be.
func TestEvidenceTellsOfEveryKeyOnce(t *testing.T) {
	r := newRig(t)
	for name, change := range map[string]func(k []DescribedKey) []DescribedKey{
		"no sealing key":      func(k []DescribedKey) []DescribedKey { return k[1:] },
		"no checkpoint key":   func(k []DescribedKey) []DescribedKey { return k[:1] },
		"a sealing key twice": func(k []DescribedKey) []DescribedKey { return append(k, k[0]) },
		"none":                func([]DescribedKey) []DescribedKey { return nil },
	} {
		e := r.attested(t, r.keys.KEK)
		e.Keys = change(e.Keys)
		r.sign(t, &e)
		if _, err := e.Verify(nonce, r.checkpointKey(t), nil); !errors.Is(err, ErrEvidence) || strings.Contains(err.Error(), "signature") {
			t.Errorf("%s: %v, want ErrEvidence", name, err)
		}
	}
}

// sign signs e anew with the token, as somebody on its host could.
func (r *rig) sign(t testing.TB, e *Evidence) {
	t.Helper()
	digest, err := e.digest()
	if err == nil {
		e.Signature, err = r.SignP256(t.Context(), r.keys.Checkpoint, digest)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The verifier has no bindings: it must say of a value what the worker says of the
// token's.
func TestTemplatesAreSaidAsTheBindingsEncodeThem(t *testing.T) {
	for kind := byte(kindKEK); kind <= kindMAC; kind++ {
		for w := wrapGCM; w.known(); w++ {
			ours, told := described(kind, w)
			for _, a := range slices.Concat(ours, told) {
				if want, got := pkcs11.NewAttribute(a.typ, a.value).Value, native(a.value); !bytes.Equal(got, want) {
					t.Errorf("%s of kind %d: %x, want %x", a.name, kind, got, want)
				}
			}
		}
	}
}
