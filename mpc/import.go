package mpc

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/sigild/sigild/chains"
)

// ImportRequest asks to share out a key that exists whole.
type ImportRequest struct {
	// SetID, Scheme, Parties, Threshold, PreParams and Progress are as in [KeygenRequest].
	SetID     string
	Scheme    Scheme
	Parties   []Party
	Threshold int
	PreParams func(context.Context) (*PreParams, error)
	Progress  func(stage string, done, total int)
	// Secret is lent: 32 bytes, a secp256k1 private key, big-endian, or an Ed25519
	// seed (RFC 8032 §5.1.5).
	Secret []byte
}

// PublicKeyOf is the public key of what [Import] takes: 33 bytes, compressed SEC 1,
// or 32 bytes, RFC 8032. [ErrInput] for what is no private key of the scheme.
func PublicKeyOf(s Scheme, secret []byte) ([]byte, error) {
	switch {
	case len(secret) != 32:
		return nil, fmt.Errorf("%w: a private key of %d bytes, want 32", ErrInput, len(secret))
	case s == chains.EdDSAEd25519:
		whole := ed25519.NewKeyFromSeed(secret)
		defer clear(whole)
		return bytes.Clone(whole[32:]), nil
	case s != chains.ECDSASecp256k1:
		return nil, fmt.Errorf("%w: unknown scheme %q", ErrInput, s)
	}
	var k secp256k1.ModNScalar
	defer k.Zero()
	if k.SetByteSlice(secret) || k.IsZero() {
		return nil, fmt.Errorf("%w: not a private key of secp256k1", ErrInput)
	}
	whole := secp256k1.NewPrivateKey(&k)
	defer whole.Zero()
	return whole.PubKey().SerializeCompressed(), nil
}

// Splitter is an Engine that can share out a key that exists whole.
type Splitter interface {
	// Split makes share bodies of a committee, in the order of its parties, that are
	// good for Reshare alone, and returns the public key. The secret is lent, the
	// bodies are the caller's to wipe. [ErrInput] for what is no private key.
	Split(secret []byte, c Committee) (bodies [][]byte, publicKey []byte, err error)
}

// Import shares out a private key: a virtual committee that lives for this call
// gets shares of it and reshares them to the real one, so that nobody who kept the
// virtual shares can combine them with real ones. The key was whole once, here and
// wherever it came from: nothing can take that back. A secp256k1 key gets a new
// chain code. Otherwise as [Keygen]. Errors are *[Error].
func Import(ctx context.Context, r ImportRequest) (ShareSet, []*Share, error) {
	set, shares, err := importKey(ctx, r)
	if err != nil {
		return ShareSet{}, nil, failed("import", err, false)
	}
	return set, shares, nil
}

func importKey(ctx context.Context, r ImportRequest) (ShareSet, []*Share, error) {
	engineID, engine, err := engineFor(r.Scheme)
	if err != nil {
		return ShareSet{}, nil, err
	}
	splitter, ok := engine.(Splitter)
	if !ok {
		return ShareSet{}, nil, fmt.Errorf("%w that imports keys of scheme %q", ErrEngine, r.Scheme)
	}
	want, err := PublicKeyOf(r.Scheme, r.Secret)
	if err != nil {
		return ShareSet{}, nil, err
	}
	from := ShareSet{ID: r.SetID + "/whole", Scheme: r.Scheme, Parties: []Party{Recovery, Server}, Threshold: 2, Epoch: 0, Engine: engineID}
	bodies, pub, err := splitter.Split(r.Secret, from.committee())
	if err != nil {
		return ShareSet{}, nil, err
	}
	defer func() {
		for _, b := range bodies {
			clear(b)
		}
	}()
	q := lentQuorum{parties: from.Parties, bodies: map[Party][]byte{}}
	for i, p := range from.Parties {
		q.bodies[p] = bodies[i]
	}
	if !bytes.Equal(pub, want) {
		return ShareSet{}, nil, fmt.Errorf("%w: the engine split another key", ErrProtocol)
	}
	from.PublicKey = pub
	to := from
	to.ID, to.Parties, to.Threshold, to.Epoch = r.SetID, slices.Sorted(slices.Values(r.Parties)), r.Threshold, 1
	to.PublicKey = bytes.Clone(pub)
	if err := to.Validate(); err != nil {
		return ShareSet{}, nil, err
	}
	ctx, cancel := withDefault(ctx, makeDeadline)
	defer cancel()
	if q.chainCode, err = makeChainCode(ctx, to.committee(), nil); err != nil {
		return ShareSet{}, nil, err
	}
	return reshare(ctx, "import", engine, from, q, to, nil, r.PreParams, r.Progress)
}
