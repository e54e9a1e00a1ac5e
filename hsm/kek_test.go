//go:build cgo

package hsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/seal/sealtest"

	"github.com/miekg/pkcs11"
)

// nomech are the orders that take a mechanism away from sealing.
func nomech(mechanism uint) []string {
	var out []string
	for _, fn := range []string{"C_EncryptInit", "C_WrapKey", "C_UnwrapKey"} {
		out = append(out, fmt.Sprintf("%s nomech %X", fn, mechanism))
	}
	return out
}

// TestEveryWrappingConforms runs the suite on tokens that lack the better ways.
func TestEveryWrappingConforms(t *testing.T) {
	for _, tt := range []struct {
		want wrapping
		rig  func(t testing.TB) *rig
	}{
		{wrapPad, func(t testing.TB) *rig {
			s, through := shimmed(t)
			s.order(t, nomech(pkcs11.CKM_AES_GCM)...)
			return newRig(t, through)
		}},
		{wrapRawOAEP, func(t testing.TB) *rig {
			s, through := shimmed(t)
			s.order(t, append(nomech(pkcs11.CKM_AES_GCM)[:1], nomech(pkcs11.CKM_AES_KEY_WRAP_PAD)...)...)
			return newRig(t, through)
		}},
		{wrapOAEP, func(t testing.TB) *rig {
			return newRig(t, withOAEP(t), func(c *Config) { c.EnvAllow = append(c.EnvAllow, "OAEP_ONLY=1") })
		}},
	} {
		t.Run(wrappingNames[tt.want], func(t *testing.T) {
			sealtest.Run(t, func(t testing.TB) sealtest.Fixture {
				r := tt.rig(t)
				ref, err := parseRef(r.keys.KEK)
				if err != nil || ref.wrap != tt.want || ref.without != 0 {
					t.Fatalf("the probe chose %s, %v, want %s", r.keys.KEK, err, wrappingNames[tt.want])
				}
				f := r.fixture(t)
				f.Missing += seal.KeyRef(";" + wrappingNames[tt.want])
				// Decryption keys have nothing to do with it.
				reopen := f.Reopen
				f.Reopen = func(t testing.TB) sealtest.Fixture {
					again := reopen(t)
					again.Decrypter = nil
					return again
				}
				f.Decrypter = nil
				return f
			})
		})
	}
}

// A wrapping belongs to its key for ever: no blob and no reference changes it.
func TestBlobOfAnotherWrappingIsRefused(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	gcm := r.keys.KEK
	s.order(t, nomech(pkcs11.CKM_AES_GCM)...)
	keys, err := r.Provision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.behave(t)
	none := func([]byte) error { t.Error("the closure was called"); return nil }
	blob, err := r.Seal(t.Context(), keys.KEK, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Unseal(t.Context(), gcm, blob, nil, none); !errors.Is(err, seal.ErrTampered) {
		t.Errorf("opening a wrapped blob with the GCM key: %v, want ErrTampered", err)
	}
	for _, ref := range []seal.KeyRef{gcm + ";kwp", gcm + ";kwpad"} {
		if _, err := r.Seal(t.Context(), ref, []byte("x"), nil); !errors.Is(err, seal.ErrPolicy) {
			t.Errorf("sealing under %s, a GCM key: %v, want ErrPolicy", ref, err)
		}
	}
	if _, err := r.Seal(t.Context(), gcm+";rawoaep", []byte("x"), nil); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("sealing with an RSA key that isn't there: %v, want ErrNotFound", err)
	}
}

func TestDeviceTroubleChoosesNoWeakerWrapping(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	for _, code := range []string{"30", "5", "32", "B3", "31"} {
		p, _, _ := openWatched(t, r.cfg)
		s.order(t, "C_EncryptInit rv "+code)
		if keys, err := p.Provision(t.Context()); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("provisioning while C_EncryptInit returns %s: %+v, %v, want ErrUnavailable", code, keys, err)
		}
		s.behave(t)
		p.Close()
	}
}

func TestTokenThatCanDoNothingIsUnsupported(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	s.order(t, "C_EncryptInit rv 70", "C_WrapKey rv 70", "C_SignInit rv 70")
	if _, err := r.Provision(t.Context()); !errors.Is(err, seal.ErrUnsupported) || !strings.Contains(err.Error(), "gcm") || !strings.Contains(err.Error(), "rawoaep") {
		t.Errorf("provisioning: %v, want ErrUnsupported and what was tried", err)
	}
}

// lacking are the orders of a token that does not know an attribute.
func lacking(types ...uint) []string {
	var out []string
	for _, typ := range types {
		for _, fn := range []string{"C_GenerateKey", "C_GenerateKeyPair", "C_GetAttributeValue"} {
			out = append(out, fmt.Sprintf("%s noattr %X", fn, typ))
		}
	}
	return out
}

func TestTokenThatDoesNotKnowAnAttribute(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	for _, types := range [][]uint{
		{pkcs11.CKA_COPYABLE}, {pkcs11.CKA_MODIFIABLE}, {pkcs11.CKA_ALLOWED_MECHANISMS}, {pkcs11.CKA_DERIVE}, {pkcs11.CKA_WRAP},
		{pkcs11.CKA_MODIFIABLE, pkcs11.CKA_ALLOWED_MECHANISMS},
	} {
		s.order(t, lacking(types...)...)
		keys, err := r.Provision(t.Context())
		if err != nil {
			t.Errorf("provisioning without %X: %v", types, err)
			continue
		}
		lacks, err := r.Check(t.Context(), keys)
		if err != nil {
			t.Errorf("checking keys without %X: %v", types, err)
		}
		ref, _ := parseRef(keys.KEK)
		if got := len(ref.without.names()); got != len(types) {
			t.Errorf("a key without %X is %s", types, keys.KEK)
		}
		for _, name := range ref.without.names() {
			if !slices.Contains(lacks, "KEK: "+name) {
				t.Errorf("a key without %X lacks %q, want %s among them", types, lacks, name)
			}
		}
		sealed := &rig{Provider: r.Provider, keys: keys}
		sealed.worked(t)
		if _, err := r.SignP256(t.Context(), keys.Checkpoint, [32]byte{1}); err != nil {
			t.Errorf("signing with a key without %X: %v", types, err)
		}
		// What may be lacking is in the reference: another key must have it all.
		if _, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); err == nil {
			if _, err = r.Check(t.Context(), r.keys); !errors.Is(err, seal.ErrPolicy) {
				t.Errorf("checking a key that should have %X: %v, want ErrPolicy", types, err)
			}
		}
		s.behave(t)
	}
	// No key is made without these.
	for _, typ := range []uint{pkcs11.CKA_SENSITIVE, pkcs11.CKA_EXTRACTABLE, pkcs11.CKA_PRIVATE, pkcs11.CKA_ENCRYPT} {
		s.order(t, fmt.Sprintf("C_GenerateKey noattr %X", typ))
		if keys, err := r.Provision(t.Context()); err == nil {
			t.Errorf("provisioning on a token without %X made %+v", typ, keys)
		}
		s.behave(t)
	}
}

// A token may also take an attribute and then give it another value.
func TestTokenThatDoesNotKeepToTheTemplate(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	for typ, want := range map[uint]error{
		pkcs11.CKA_COPYABLE: nil, pkcs11.CKA_MODIFIABLE: nil, // recorded
		pkcs11.CKA_WRAP: seal.ErrPolicy, pkcs11.CKA_UNWRAP: seal.ErrPolicy, pkcs11.CKA_DERIVE: seal.ErrPolicy,
		pkcs11.CKA_EXTRACTABLE: seal.ErrPolicy, pkcs11.CKA_SENSITIVE: seal.ErrPolicy, pkcs11.CKA_LOCAL: seal.ErrPolicy,
	} {
		s.order(t, fmt.Sprintf("C_GetAttributeValue attr %X", typ))
		keys, err := r.Provision(t.Context())
		// Every wrapping is refused alike, so that what comes out is ErrPolicy.
		if want == nil && err != nil || want != nil && !errors.Is(err, want) {
			t.Errorf("provisioning on a token that gives %X the other way: %+v, %v, want %v", typ, keys, err, want)
		}
		if err == nil && !strings.Contains(string(keys.KEK), ";without=") {
			t.Errorf("provisioning on a token that gives %X the other way made %s", typ, keys.KEK)
		}
		s.behave(t)
	}
}

func TestImportedKEKIsAllowedOnlyWhenConfigured(t *testing.T) {
	r := newRig(t)
	ref := makeRef([]byte{0xaa})
	makeWeak(t, r.tok, "imported", ref, "kek")
	keys := Keys{KEK: ref, Checkpoint: r.keys.Checkpoint}
	if _, err := r.Check(t.Context(), keys); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "CKA_LOCAL") {
		t.Errorf("checking an imported KEK: %v, want ErrPolicy", err)
	}
	allowed := r.cfg
	allowed.AllowImportedKEK = true
	p := mustOpen(t, allowed)
	(&rig{Provider: p, keys: keys}).worked(t)
	lacks, err := p.Check(t.Context(), keys)
	if err != nil || !slices.Contains(lacks, "KEK: CKA_LOCAL") {
		t.Errorf("checking an imported KEK that is allowed: %q, %v, want it to lack CKA_LOCAL", lacks, err)
	}
	// It relaxes nothing else.
	weak := makeRef([]byte{0xab})
	makeWeak(t, r.tok, "extractable", weak, "kek")
	if _, err := p.Check(t.Context(), Keys{KEK: weak, Checkpoint: r.keys.Checkpoint}); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "CKA_EXTRACTABLE") {
		t.Errorf("checking an extractable KEK: %v, want ErrPolicy", err)
	}
}

// TestRollThatDiesIsEndedByTheKeyInUse kills the worker at each call of a roll.
func TestRollThatDiesIsEndedByTheKeyInUse(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	current := r.keys.KEK
	var clock *fakeClock
	r.Close()
	r.Provider, clock, _ = openWatched(t, r.cfg)
	for _, fn := range []string{"C_FindObjectsInit", "C_GenerateKey", "C_GetAttributeValue", "C_EncryptInit", "C_Encrypt", "C_Decrypt", "C_DestroyObject", "C_CloseSession"} {
		s.order(t, fn+" crash 1")
		next, err := r.BeginRoll(t.Context(), current)
		s.behave(t)
		keep := current
		if err == nil {
			keep = next // as if everything had been sealed anew and made durable
		} else if !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%s crashed: %v, want ErrUnavailable", fn, err)
		}
		s.order(t, fn+" crash 1")
		// Two workers lost in a row, and the supervisor waits.
		if _, err := r.EndRoll(t.Context(), keep); err != nil && !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%s crashed: ending the roll: %v, want ErrUnavailable", fn, err)
		}
		s.behave(t)
		clock.advance(backoffMax)
		if _, err := r.EndRoll(t.Context(), keep); err != nil {
			t.Errorf("%s crashed: ending the roll: %v", fn, err)
		}
		if n, err := r.EndRoll(t.Context(), keep); err != nil || n != 0 {
			t.Errorf("%s crashed: ending the roll again: %d keys destroyed, %v, want none", fn, n, err)
		}
		current = keep
		(&rig{Provider: r.Provider, keys: Keys{KEK: current}}).worked(t)
	}
}

// While the key that stays does not work, none is destroyed.
func TestRollDestroysNothingForAKeyThatFails(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	next, err := r.BeginRoll(t.Context(), r.keys.KEK)
	if err != nil {
		t.Fatal(err)
	}
	for _, order := range []string{"C_Encrypt rv 30", "C_Decrypt wrong 0", "C_EncryptInit rv 70", "C_GetAttributeValue attr 162"} {
		p, _, _ := openWatched(t, r.cfg)
		s.order(t, order)
		before := s.calls(t, "C_DestroyObject")
		if n, err := p.EndRoll(t.Context(), next); err == nil || n != 0 {
			t.Errorf("%s: ending the roll destroyed %d keys, %v", order, n, err)
		}
		if got := s.calls(t, "C_DestroyObject"); got != before {
			t.Errorf("%s: %d objects were destroyed", order, got-before)
		}
		s.behave(t)
		p.Close()
	}
	r.worked(t)
	if n, err := r.EndRoll(t.Context(), next); err != nil || n != 1 {
		t.Errorf("ending the roll: %d, %v, want one key destroyed", n, err)
	}
}
