package mpc

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/sigild/sigild/chains"
)

// ecdsaCase is a good signature of a key that is whole, to spoil.
func ecdsaCase(t *testing.T) (pub []byte, in chains.SignInput, sig Signature) {
	t.Helper()
	key, err := secp256k1.GeneratePrivateKey()
	if err != nil {
		t.Fatal(err)
	}
	in = chains.SignInput{Scheme: chains.ECDSASecp256k1, Digest: testDigest}
	c := ecdsa.SignCompact(key, in.Digest[:], true)
	sig = Signature{Scheme: in.Scheme, R: [32]byte(c[1:33]), S: [32]byte(c[33:]), RecID: c[0] - 31}
	return key.PubKey().SerializeCompressed(), in, sig
}

func TestVerifyTakesGoodECDSA(t *testing.T) {
	pub, in, sig := ecdsaCase(t)
	if err := verify(pub, in, sig); err != nil {
		t.Error(err)
	}
	if b := sig.Bytes(); len(b) != 65 || b[64] != sig.RecID {
		t.Errorf("bytes %x, want 65 that end with the recovery id %d", b, sig.RecID)
	}
}

func TestVerifyRefusesBadECDSA(t *testing.T) {
	otherPub, _, _ := ecdsaCase(t)
	for name, change := range map[string]func(pub *[]byte, in *chains.SignInput, s *Signature){
		"high s": func(_ *[]byte, _ *chains.SignInput, s *Signature) {
			var k secp256k1.ModNScalar
			k.SetBytes(&s.S)
			s.S, s.RecID = k.Negate().Bytes(), s.RecID^1
		},
		"wrong recovery id": func(_ *[]byte, _ *chains.SignInput, s *Signature) { s.RecID ^= 1 },
		"recovery id 2":     func(_ *[]byte, _ *chains.SignInput, s *Signature) { s.RecID += 2 },
		"r zero":            func(_ *[]byte, _ *chains.SignInput, s *Signature) { s.R = [32]byte{} },
		"s zero":            func(_ *[]byte, _ *chains.SignInput, s *Signature) { s.S = [32]byte{} },
		"r above n":         func(_ *[]byte, _ *chains.SignInput, s *Signature) { s.R = [32]byte(bytes.Repeat([]byte{255}, 32)) },
		"another digest":    func(_ *[]byte, in *chains.SignInput, _ *Signature) { in.Digest[0] ^= 1 },
		"another key":       func(pub *[]byte, _ *chains.SignInput, _ *Signature) { *pub = otherPub },
		"no key":            func(pub *[]byte, _ *chains.SignInput, _ *Signature) { *pub = make([]byte, 33) },
	} {
		pub, in, sig := ecdsaCase(t)
		change(&pub, &in, &sig)
		if err := verify(pub, in, sig); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: error %v, want ErrSignature", name, err)
		}
	}
}

func TestVerifyRefusesBadEd25519(t *testing.T) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	in := chains.SignInput{Scheme: chains.EdDSAEd25519, Message: []byte("message")}
	sig, err := parseSignature(in.Scheme, ed25519.Sign(priv, in.Message))
	if err != nil || verify(pub, in, sig) != nil {
		t.Fatalf("a good signature: %v, %v", err, verify(pub, in, sig))
	}
	in.Message = []byte("\x00message")
	if err := verify(pub, in, sig); !errors.Is(err, ErrSignature) {
		t.Errorf("another message: error %v, want ErrSignature", err)
	}
	if _, err := parseSignature(in.Scheme, make([]byte, 63)); !errors.Is(err, ErrSignature) {
		t.Errorf("63 bytes: error %v, want ErrSignature", err)
	}
}

// liar is an engine whose parties agree on whatever it says.
type liar struct {
	Engine
	answer func(p SignParams) []byte
}

func (l liar) Sign(ctx context.Context, s Session, p SignParams) ([]byte, error) {
	for _, peer := range p.Committee.Members() {
		if peer.Party != p.Self {
			if err := s.Send(ctx, Envelope{To: []Member{peer}, Kind: "last", Final: true, Payload: []byte{1}}); err != nil {
				return nil, err
			}
		}
	}
	return l.answer(p), nil
}

func TestSignNeverReturnsWhatDoesNotVerify(t *testing.T) {
	pub, _, good := ecdsaCase(t)
	set := ShareSet{ID: "s", Scheme: chains.ECDSASecp256k1, Parties: []Party{Delegate, Server}, Threshold: 2, Epoch: 1, PublicKey: pub}
	for name, answer := range map[string]func(SignParams) []byte{
		"nothing":         func(SignParams) []byte { return nil },
		"wrong signature": func(SignParams) []byte { b := good.Bytes(); b[0] ^= 1; return b },
		"disagreement":    func(p SignParams) []byte { b := good.Bytes(); b[64] ^= p.Self[0] & 1; return b },
	} {
		set.Engine = "liar: " + name
		Register(set.Engine, liar{answer: answer})
		released := 0
		sig, err := Sign(t.Context(), SignRequest{Set: set, Input: chains.SignInput{Scheme: set.Scheme, Digest: testDigest},
			Shares:        [][]byte{encodeShare(set, Delegate, []byte("b")), encodeShare(set, Server, []byte("b"))},
			BeforeRelease: func() error { released++; return nil }})
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, ErrSignature) || !e.LastShareSent || released != 1 || sig != (Signature{}) {
			t.Errorf("%s: signature %x, error %v; want none, ErrSignature after the last share", name, sig.Bytes(), err)
		}
	}
}

func TestRegisterRefusesASecondEngine(t *testing.T) {
	Register("once", liar{}, "test-scheme")
	for name, f := range map[string]func(){
		"same id":     func() { Register("once", liar{}) },
		"same scheme": func() { Register("twice", liar{}, "test-scheme") },
		"no id":       func() { Register("", liar{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: registered", name)
				}
			}()
			f()
		}()
	}
}
