//go:build cgo

package hsm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

func TestWeakKEKIsRefused(t *testing.T) {
	r := newRig(t)
	for i, w := range weakened {
		ref := makeRef([]byte{0xee, byte(i)})
		makeWeak(t, r.tok, w.name, ref, "kek")
		want := seal.ErrPolicy
		if w.name == "as ours" {
			want = nil
		}
		if _, err := r.Seal(t.Context(), ref, []byte("x"), nil); !errors.Is(err, want) {
			t.Errorf("sealing under a key that is %q: %v, want %v", w.name, err, want)
		} else if want != nil && !strings.Contains(err.Error(), "CKA_") {
			t.Errorf("sealing under a key that is %q: %v, want it to name the attribute", w.name, err)
		}
		if _, err := r.Check(t.Context(), Keys{KEK: ref, Checkpoint: r.keys.Checkpoint}); !errors.Is(err, want) {
			t.Errorf("checking a key that is %q: %v, want %v", w.name, err, want)
		}
	}
	blob, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Unseal(t.Context(), makeRef([]byte{0xee, 1}), blob, nil, func([]byte) error { return nil })
	if !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("unsealing under a weak key: %v, want ErrPolicy", err)
	}
}

func TestWeakCheckpointKeyIsRefused(t *testing.T) {
	r := newRig(t)
	for i, name := range []string{"as ours", "extractable", "modifiable", "derives", "any mechanism"} {
		ref := makeRef([]byte{0xcc, byte(i)})
		makeWeak(t, r.tok, name, ref, "checkpoint")
		want := seal.ErrPolicy
		if name == "as ours" {
			want = nil
		}
		if _, err := r.SignP256(t.Context(), ref, [32]byte{1}); !errors.Is(err, want) {
			t.Errorf("signing with a key that is %q: %v, want %v", name, err, want)
		}
		if _, err := r.PublicP256(t.Context(), ref); !errors.Is(err, want) {
			t.Errorf("reading the public key of one that is %q: %v, want %v", name, err, want)
		}
		if _, err := r.Check(t.Context(), Keys{KEK: r.keys.KEK, Checkpoint: ref}); !errors.Is(err, want) {
			t.Errorf("checking a key that is %q: %v, want %v", name, err, want)
		}
	}
}

func TestTwoKeysWithOneIDAreAmbiguous(t *testing.T) {
	r := newRig(t)
	makeWeak(t, r.tok, "as ours", r.keys.KEK, "kek")
	// The worker has checked our key lately and goes on with that one.
	r.worked(t)
	if _, err := r.Check(t.Context(), r.keys); !errors.Is(err, seal.ErrAmbiguous) {
		t.Errorf("checking one of two keys: %v, want ErrAmbiguous", err)
	}
	if _, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); !errors.Is(err, seal.ErrAmbiguous) {
		t.Errorf("sealing under one of two keys: %v, want ErrAmbiguous", err)
	}
}

func TestProvisionedKeysAreWhatWeSay(t *testing.T) {
	r := newRig(t)
	if _, err := r.Check(t.Context(), r.keys); err != nil {
		t.Error(err)
	}
	out := string(r.tok.Run(t, "pkcs11-tool", "--module", r.tok.Module, "--token-label", r.tok.Label, "--login", "--pin", r.tok.PIN, "--list-objects"))
	for _, want := range []string{kekLabel, checkpointLabel, string(r.keys.KEK), string(r.keys.Checkpoint)} {
		if !strings.Contains(out, want) {
			t.Errorf("pkcs11-tool does not list %q:\n%s", want, out)
		}
	}
	if r.keys.KEK == r.keys.Checkpoint || len(r.keys.KEK) != 32 || len(r.keys.Checkpoint) != 32 {
		t.Errorf("key references are %+v, want two of 32 hex digits", r.keys)
	}
}

func TestFailedProvisionLeavesNoKeys(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	list := func() string {
		return string(r.tok.Run(t, "pkcs11-tool", "--module", r.tok.Module, "--token-label", r.tok.Label, "--login", "--pin", r.tok.PIN, "--list-objects"))
	}
	before := list()
	for _, order := range []string{"C_GenerateKey rv 70", "C_GenerateKeyPair rv 70", "C_Sign rv 70", "C_EncryptInit rv 30", "C_Decrypt wrong 0", "C_GenerateKeyPair once 30"} {
		s.order(t, order)
		if _, err := r.Provision(t.Context()); err == nil {
			t.Errorf("%s: provisioning succeeded", order)
		}
		s.behave(t)
		if after := list(); after != before {
			t.Errorf("%s: keys were left behind:\n%s", order, after)
		}
	}
}

func TestDeletedKeyIsNotFound(t *testing.T) {
	r := newRig(t)
	r.tok.Run(t, "pkcs11-tool", "--module", r.tok.Module, "--token-label", r.tok.Label, "--login", "--pin", r.tok.PIN,
		"--delete-object", "--type", "secrkey", "--id", string(r.keys.KEK))
	_, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil)
	if !errors.Is(err, seal.ErrNotFound) || !strings.Contains(err.Error(), "hint") {
		t.Errorf("sealing under a deleted key: %v, want ErrNotFound and a hint", err)
	}
}

func TestTokenTakenAwayAndBack(t *testing.T) {
	r := newRig(t)
	p, clock, _ := openWatched(t, r.cfg)
	r.Provider.Close()
	r.Provider = p
	r.worked(t)
	tokens, away := filepath.Join(r.tok.Dir, "tokens"), filepath.Join(r.tok.Dir, "away")
	if err := os.Rename(tokens, away); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := p.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); err == nil || errors.Is(err, seal.ErrTampered) {
			t.Errorf("sealing without the token: %v, want an error that blames the token", err)
		}
	}
	if err := os.Rename(away, tokens); err != nil {
		t.Fatal(err)
	}
	clock.advance(backoffMax)
	r.worked(t)
}

func TestPublicKeyIsPinned(t *testing.T) {
	r := newRig(t)
	pub, err := r.PublicP256(t.Context(), r.keys.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.Provision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	otherPub, err := r.PublicP256(t.Context(), other.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if pub.Equal(otherPub) {
		t.Fatal("two keys have one public key")
	}
	// As if the token had changed its answer.
	r.mu.Lock()
	r.public[r.keys.Checkpoint] = otherPub
	r.mu.Unlock()
	if _, err := r.PublicP256(t.Context(), r.keys.Checkpoint); !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("reading a public key that changed: %v, want ErrPolicy", err)
	}
	if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("signing with a key that changed: %v, want ErrPolicy", err)
	}
}
