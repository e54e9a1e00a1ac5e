// Package mpctest lends ready keys and pre-parameters to tests, so that a test
// signs in a second instead of waiting for a keygen. Everything in its testdata
// is public: only tests may import it, and nothing of value may use its keys.
package mpctest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/sigild/sigild/mpc"
	_ "github.com/sigild/sigild/mpc/engines/frost" // the engines of the sets
	_ "github.com/sigild/sigild/mpc/engines/gg18"
)

//go:embed testdata
var files embed.FS

// Set is a share set with all of its shares.
type Set struct {
	mpc.ShareSet
	shares map[mpc.Party][]byte
}

// file is the form of a set in testdata.
type file struct {
	Set    mpc.ShareSet         `json:"set"`
	Shares map[mpc.Party][]byte `json:"shares"`
}

// Shares returns copies of the encoded shares of the named parties, all of the
// set when none is named.
func (s Set) Shares(t testing.TB, parties ...mpc.Party) [][]byte {
	t.Helper()
	if len(parties) == 0 {
		parties = s.Parties
	}
	var lent [][]byte
	for _, p := range parties {
		b, ok := s.shares[p]
		if !ok {
			t.Fatalf("set %s has no share of %s", s.ID, p)
		}
		lent = append(lent, slices.Clone(b))
	}
	return lent
}

// Body returns a copy of the engine's body in one party's share.
func (s Set) Body(t testing.TB, p mpc.Party) []byte {
	t.Helper()
	share := s.Shares(t, p)[0]
	i := bytes.Index(share, s.PublicKey) + len(s.PublicKey)
	return share[i+4:][:binary.BigEndian.Uint32(share[i:])]
}

// WithEngine is the set as if another engine had made it.
func (s Set) WithEngine(t testing.TB, engine string) Set {
	t.Helper()
	other := Set{s.ShareSet, map[mpc.Party][]byte{}}
	other.Engine = engine
	for p, share := range s.shares {
		b := append([]byte{share[0], byte(len(engine))}, engine...)
		b = append(b, share[2+int(share[1]):len(share)-sha256.Size]...)
		sum := sha256.Sum256(b)
		other.shares[p] = append(b, sum[:]...)
	}
	return other
}

// OfKey is the set as if an engine of a test had made it under another id for another
// key, whose public key is as long: what the engine's bodies say no longer fits.
func (s Set) OfKey(t testing.TB, engine, id string, publicKey []byte) Set {
	t.Helper()
	if len(publicKey) != len(s.PublicKey) {
		t.Fatalf("a public key of %d bytes in place of one of %d", len(publicKey), len(s.PublicKey))
	}
	was, is := append([]byte{byte(len(s.ID))}, s.ID...), append([]byte{byte(len(id))}, id...)
	other := Set{s.ShareSet, map[mpc.Party][]byte{}}
	for p, share := range s.shares {
		other.shares[p] = bytes.Replace(bytes.Replace(share, was, is, 1), s.PublicKey, publicKey, 1)
	}
	other.ID, other.PublicKey = id, bytes.Clone(publicKey)
	return other.WithEngine(t, engine)
}

// WithChainCode is the set as if it had been made with a chain code.
func (s Set) WithChainCode(t testing.TB, chainCode []byte) Set {
	t.Helper()
	other := Set{s.ShareSet, map[mpc.Party][]byte{}}
	for p, share := range s.shares {
		i := bytes.Index(share, s.PublicKey) + len(s.PublicKey)
		b := slices.Concat([]byte{2}, share[1:i], chainCode, share[i:len(share)-sha256.Size])
		sum := sha256.Sum256(b)
		other.shares[p] = append(b, sum[:]...)
	}
	return other
}

// Committee is the set's committee.
func (s Set) Committee() mpc.Committee {
	return mpc.Committee{SetID: s.ID, Scheme: s.Scheme, Parties: s.Parties, Threshold: s.Threshold}
}

// Keygen makes a set on the spot: an Ed25519 one takes a few milliseconds.
func Keygen(t testing.TB, r mpc.KeygenRequest) Set {
	t.Helper()
	set, shares, err := mpc.Keygen(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return collect(t, set, shares)
}

// Issue reshares a set to parties, all of them needed, on the spot.
func (s Set) Issue(t testing.TB, id string, parties ...mpc.Party) Set {
	t.Helper()
	set, shares, err := mpc.Issue(t.Context(), mpc.IssueRequest{From: s.ShareSet, Quorum: s.Shares(t)[:s.Threshold],
		SetID: id, Parties: parties, Threshold: len(parties), PreParams: PreParams(t)})
	if err != nil {
		t.Fatal(err)
	}
	return collect(t, set, shares)
}

func collect(t testing.TB, set mpc.ShareSet, shares []*mpc.Share) Set {
	t.Helper()
	s := Set{set, map[mpc.Party][]byte{}}
	for _, sh := range shares {
		if err := sh.Lend(func(b []byte) error { s.shares[sh.Party()] = bytes.Clone(b); return nil }); err != nil {
			t.Fatal(err)
		}
		sh.Destroy()
	}
	return s
}

// ECDSARootSet is a 2-of-3 root set {recovery, server, user} over secp256k1.
func ECDSARootSet(t testing.TB) Set { return load(t, "ecdsa-root") }

// ECDSADelegateSet is a 2-of-2 set {delegate, server} issued from [ECDSARootSet]:
// the same key.
func ECDSADelegateSet(t testing.TB) Set { return load(t, "ecdsa-delegate") }

// Ed25519RootSet is a 2-of-3 root set {recovery, server, user} over Ed25519, made
// by tss-lib.
func Ed25519RootSet(t testing.TB) Set { return load(t, "ed25519-root") }

// Ed25519DelegateSet is a 2-of-2 set {delegate, server} issued from
// [Ed25519RootSet] by tss-lib: the same key.
func Ed25519DelegateSet(t testing.TB) Set { return load(t, "ed25519-delegate") }

func load(t testing.TB, name string) Set {
	t.Helper()
	b, err := files.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatalf("reading %s: %v", name, err)
	}
	if err := f.Set.Validate(); err != nil {
		t.Fatalf("reading %s: %v", name, err)
	}
	return Set{f.Set, f.Shares}
}

// readyPreParams is how many pre-parameters testdata has.
const readyPreParams = 3

// PreParams returns what KeygenRequest and IssueRequest ask for: the ready
// pre-parameters in turn, over and over. The reuse is for tests only.
func PreParams(t testing.TB) func(context.Context) (*mpc.PreParams, error) {
	t.Helper()
	next := 0
	return func(context.Context) (*mpc.PreParams, error) {
		p, err := mpc.ParsePreParams(EncodedPreParams(t, next%readyPreParams))
		next++
		return p, err
	}
}

// EncodedPreParams returns ready pre-parameters i, 0 to 2, in encoded form.
func EncodedPreParams(t testing.TB, i int) []byte {
	t.Helper()
	b, err := files.ReadFile(fmt.Sprintf("testdata/preparams-%d.bin", i))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
