package bundle

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/sigild/sigild/credential"
)

func newSigners(t testing.TB, quorum int, keys ...*credential.PrivateKey) *Signers {
	t.Helper()
	s := &Signers{ApplianceID: "app_a", OrganizationID: "org_a", Version: 8, Quorum: quorum}
	for _, k := range keys {
		proof, err := credential.NewProof(k, credential.ForPolicyBundle, "next")
		if err != nil {
			t.Fatal(err)
		}
		s.Keys = append(s.Keys, Signer{"next", k.Public(), proof})
	}
	s.Sort()
	return s
}

func TestSignersRoundTrip(t *testing.T) {
	old, next := newKey(t, credential.P256), newKey(t, credential.Ed25519)
	s := newSigners(t, 1, next, newKey(t, credential.Secp256k1))
	if err := s.Sign(old); err != nil {
		t.Fatal(err)
	}
	data, err := s.Encode()
	if err != nil || !IsSigners(data) || IsSigners(encode(t, sample())) {
		t.Fatalf("%v; told apart: %v", err, IsSigners(data))
	}
	got, err := ParseSigners(data)
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Fatalf("read %+v, %v; want %+v", got, err, s)
	}
	if signed, err := got.Verify([]credential.PublicKey{old.Public()}, 1); err != nil || len(signed) != 1 {
		t.Errorf("verified %v, %v", signed, err)
	}
	if _, err := got.Verify([]credential.PublicKey{next.Public()}, 1); !errors.Is(err, ErrNotSigned) {
		t.Errorf("by the new keys: %v", err)
	}
	got.Version++
	if _, err := got.Verify([]credential.PublicKey{old.Public()}, 1); !errors.Is(err, credential.ErrSignature) {
		t.Errorf("another version: %v", err)
	}
	if _, err := Parse(data); err == nil {
		t.Error("signers were read as a bundle")
	}
	if _, err := ParseSigners(encode(t, sample())); err == nil {
		t.Error("a bundle was read as signers")
	}
}

func TestSignersRefuse(t *testing.T) {
	a, b := newKey(t, credential.P256), newKey(t, credential.P256)
	for name, change := range map[string]func(*Signers){
		"no keys":      func(s *Signers) { s.Keys = nil },
		"no quorum":    func(s *Signers) { s.Quorum = 0 },
		"more than n":  func(s *Signers) { s.Quorum = 3 },
		"one twice":    func(s *Signers) { s.Keys[1] = s.Keys[0] },
		"out of order": func(s *Signers) { s.Keys[0], s.Keys[1] = s.Keys[1], s.Keys[0] },
		"no name":      func(s *Signers) { s.Keys[0].Name = "" },
		"no proof":     func(s *Signers) { s.Keys[0].Proof = nil },
		"no version":   func(s *Signers) { s.Version = 0 },
		"nowhere":      func(s *Signers) { s.OrganizationID = "" },
	} {
		s := newSigners(t, 2, a, b)
		change(s)
		if _, err := s.Encode(); err == nil {
			t.Errorf("%s: was written", name)
		}
		if err := s.Sign(a); err == nil {
			t.Errorf("%s: was signed", name)
		}
		if _, err := ParseSigners(putSignatures(s.body(), nil)); err == nil {
			t.Errorf("%s: was read", name)
		}
	}
}

func FuzzParseSigners(f *testing.F) {
	k := newKey(f, credential.Ed25519)
	s := newSigners(f, 1, k)
	if err := s.Sign(k); err != nil {
		f.Fatal(err)
	}
	data, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add(data[:len(data)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ParseSigners(b)
		if err != nil {
			return
		}
		if again, err := got.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x was read as what is %x, %v", b, again, err)
		}
	})
}
