package mpc

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/sigild/sigild/chains"
)

const (
	signDeadline = 2 * time.Minute
	signRound    = 30 * time.Second
)

var testDigest = sha256.Sum256([]byte(testDomain))

// SignRequest asks for one signature.
type SignRequest struct {
	Set ShareSet
	// Shares are encoded shares of Set, at least its Threshold, lent for the call.
	// All of them take part.
	Shares [][]byte
	Input  chains.SignInput
	// Path, if not empty, signs with the key derived at this path (see [DerivedKey]).
	Path []uint32
	// BeforeRelease, if not nil, is called once, when no party has yet given up its
	// last share and all rounds before it are done. An error aborts: nobody can
	// then compute the signature. Nothing interrupts it: it minds its own deadline.
	BeforeRelease func() error
	// With is a session with another process that plays the other parties; nil when all
	// are here. What both agreed on must be what is asked for here.
	With *Joint
}

// Signature is a verified signature.
type Signature struct {
	Scheme Scheme
	// R and S are big-endian for secp256k1, with S at most half the order. For
	// Ed25519 they are the two halves of the RFC 8032 signature.
	R, S [32]byte
	// RecID is 0 or 1, the parity of R's y coordinate, for secp256k1; else 0.
	RecID byte
}

// Bytes returns r ‖ s ‖ recid, 65 bytes, for secp256k1 and R ‖ S, 64 bytes, for Ed25519.
func (s Signature) Bytes() []byte {
	b := append(s.R[:len(s.R):len(s.R)], s.S[:]...)
	if s.Scheme == chains.ECDSASecp256k1 {
		b = append(b, s.RecID)
	}
	return b
}

// Sign runs a signature between the parties whose shares are lent and returns it
// only if it verifies against the set's public key, or the one derived at Path. The shares stay untouched.
// Errors are *[Error]; its LastShareSent says whether a signature may exist.
// Safe for concurrent use.
func Sign(ctx context.Context, r SignRequest) (Signature, error) {
	sig, sent, err := sign(ctx, r)
	if err != nil {
		return Signature{}, failed("sign", err, sent)
	}
	return sig, nil
}

func sign(ctx context.Context, r SignRequest) (_ Signature, sent bool, err error) {
	if err := r.With.agreedInput(r.Input, r.Path); err != nil {
		return Signature{}, false, err
	}
	return signWith(ctx, r, r.With.elsewhere(r.Set))
}

// signWith signs with parties elsewhere, which are some of those in r.With: a session
// of any operation test-signs.
func signWith(ctx context.Context, r SignRequest, elsewhere []Party) (_ Signature, sent bool, err error) {
	engineID, engine, err := engineOf(r.Set.Engine, r.Set.Scheme)
	if err != nil {
		return Signature{}, false, err
	}
	if err := checkInput(r.Set.Scheme, r.Input); err != nil {
		return Signature{}, false, err
	}
	q, err := openShares(r.Set, r.Shares, elsewhere...)
	if err != nil {
		return Signature{}, false, err
	}
	if r.With != nil && r.With.proposal.Op == OpSign {
		if err := r.With.agreed(OpSign, engineID, r.Set, q.here(), ShareSet{}); err != nil {
			return Signature{}, false, err
		}
	}
	child, err := derive(r.Set.PublicKey, q.chainCode, r.Path)
	if err != nil {
		return Signature{}, false, err
	}
	quorum := q.parties
	ctx, cancel := withDefault(ctx, signDeadline)
	defer cancel()

	com := r.Set.committee()
	c := ceremony{op: "sign", engine: engineID, sets: []Committee{com}, members: com.members(quorum),
		digest: inputDigest(r.Input), path: r.Path, round: signRound, maxPayload: maxSignPayload, beforeRelease: r.BeforeRelease, joint: r.With}
	sigs := make([][]byte, len(quorum))
	sent, err = c.run(ctx, func(ctx context.Context, s Session, i int) error {
		// Each party has its own copy of the input: an engine may hold on to it.
		in := r.Input
		in.Message = bytes.Clone(in.Message)
		var err error
		sigs[i], err = engine.Sign(ctx, s, SignParams{Self: quorum[i], Committee: com, Quorum: quorum,
			PublicKey: r.Set.PublicKey, Tweak: child.tweak, Body: q.bodies[quorum[i]], Input: in})
		return err
	})
	if err != nil {
		return Signature{}, sent, err
	}
	if len(elsewhere) > 0 { // their signatures are there
		all := sigs
		sigs = nil
		for i, m := range c.members {
			if c.plays(m) {
				sigs = append(sigs, all[i])
			}
		}
	}
	sig, err := agreed(r.Set.Scheme, child.publicKey, r.Input, sigs)
	return sig, sent, err
}

// agreed is the one signature that all parties have, if it verifies.
func agreed(s Scheme, publicKey []byte, in chains.SignInput, sigs [][]byte) (Signature, error) {
	if !slices.EqualFunc(sigs[1:], sigs[:len(sigs)-1], bytes.Equal) {
		return Signature{}, fmt.Errorf("%w: parties have different signatures", ErrSignature)
	}
	sig, err := parseSignature(s, sigs[0])
	if err != nil {
		return Signature{}, err
	}
	if err := verify(publicKey, in, sig); err != nil {
		return Signature{}, err
	}
	return sig, nil
}

// checkInput refuses what the schemes can't sign. A digest of zero would let
// anybody forge; one above the order would be reduced by some verifiers only.
func checkInput(s Scheme, in chains.SignInput) error {
	switch {
	case in.Scheme != s:
		return fmt.Errorf("%w: input for %q, key for %q", ErrInput, in.Scheme, s)
	case s == chains.EdDSAEd25519 && in.Digest != [32]byte{}:
		return fmt.Errorf("%w: an Ed25519 input has a digest", ErrInput)
	case s == chains.EdDSAEd25519 && (len(in.Message) == 0 || len(in.Message) > MaxMessage):
		return fmt.Errorf("%w: message of %d bytes, want 1 to %d", ErrInput, len(in.Message), MaxMessage)
	case s == chains.ECDSASecp256k1 && in.Message != nil:
		return fmt.Errorf("%w: a secp256k1 input has a message", ErrInput)
	case s == chains.ECDSASecp256k1:
		var m secp256k1.ModNScalar
		if m.SetBytes(&in.Digest) != 0 || m.IsZero() {
			return fmt.Errorf("%w: digest is not in 1 to n-1", ErrInput)
		}
	}
	return nil
}

func inputDigest(in chains.SignInput) [32]byte {
	if in.Scheme == chains.ECDSASecp256k1 {
		return in.Digest
	}
	return sha256.Sum256(in.Message)
}

func parseSignature(s Scheme, b []byte) (Signature, error) {
	want := 64
	if s == chains.ECDSASecp256k1 {
		want = 65
	}
	if len(b) != want {
		return Signature{}, fmt.Errorf("%w: %d bytes, want %d", ErrSignature, len(b), want)
	}
	sig := Signature{Scheme: s, R: [32]byte(b[:32]), S: [32]byte(b[32:64])}
	if want == 65 {
		sig.RecID = b[64]
	}
	return sig, nil
}

// verify accepts only what a strict chain accepts: canonical and low r and s
// (SEC 1 §4.1.4, BIP 62, EIP-2), a recovery id of 0 or 1 that recovers the pinned
// key, or a valid RFC 8032 signature over the exact message.
func verify(pub []byte, in chains.SignInput, sig Signature) error {
	if sig.Scheme == chains.EdDSAEd25519 {
		if len(pub) != ed25519.PublicKeySize || !ed25519.Verify(pub, in.Message, sig.Bytes()) {
			return fmt.Errorf("%w: crypto/ed25519 refuses it", ErrSignature)
		}
		return nil
	}
	key, err := secp256k1.ParsePubKey(pub)
	if err != nil {
		return fmt.Errorf("%w: parsing public key: %v", ErrSignature, err)
	}
	var r, s secp256k1.ModNScalar
	switch {
	case r.SetBytes(&sig.R) != 0 || s.SetBytes(&sig.S) != 0 || r.IsZero() || s.IsZero():
		return fmt.Errorf("%w: r or s is not in 1 to n-1", ErrSignature)
	case s.IsOverHalfOrder():
		return fmt.Errorf("%w: s is above half the order", ErrSignature)
	case sig.RecID > 1:
		return fmt.Errorf("%w: recovery id %d, want 0 or 1", ErrSignature, sig.RecID)
	case !ecdsa.NewSignature(&r, &s).Verify(in.Digest[:], key):
		return fmt.Errorf("%w: not by this key over this digest", ErrSignature)
	}
	compact := append([]byte{27 + 4 + sig.RecID}, sig.Bytes()[:64]...)
	got, _, err := ecdsa.RecoverCompact(compact, in.Digest[:])
	if err != nil || !got.IsEqual(key) {
		return fmt.Errorf("%w: recovery id %d recovers another key", ErrSignature, sig.RecID)
	}
	return nil
}
