// Package mpc runs threshold ceremonies: it makes keys that are born as shares,
// issues further share sets of the same key, and signs. It serves the rooms
// delegation and signing, which hold the shares sealed and lend them for one
// call; nothing here is stored, except pre-parameters through a [PoolStore].
//
// The mathematics is done by an [Engine], one party at a time, over a [Session]
// that delivers each message once, in order and from a known sender. A process
// makes an engine available by importing its package: mpc/engines/gg18 for
// ECDSA, mpc/engines/frost for Ed25519.
//
// It refuses:
//   - to sign a digest that is not a non-zero number below the group order, or a
//     message that is empty or longer than [MaxMessage];
//   - shares that are malformed, changed, or of another set, party or key;
//   - to return a signature that does not verify against the set's public key;
//   - to return a share set before every quorum of it has signed with it.
//
// All parties of a ceremony run in this process today. Both shares in one
// process protect against the theft of one record, not against this process.
package mpc

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sigild/sigild/chains"
)

// Party names a role in a share set.
type Party string

// The parties of root sets and of delegations' sets.
const (
	User     Party = "user"
	Server   Party = "server"
	Recovery Party = "recovery"
	Delegate Party = "delegate"
)

var parties = []Party{Delegate, Recovery, Server, User}

// Scheme is a signature scheme and its curve; the values are chains.ECDSASecp256k1
// and chains.EdDSAEd25519.
type Scheme = chains.Scheme

// Limits of what is taken in.
const (
	// MaxMessage is the longest Ed25519 message, in bytes, that is signed.
	MaxMessage = 64 << 10
	// maxID is the longest share set id, in bytes.
	maxID = 128
)

// ShareSet says what a set of shares is. It holds no secret. Two sets of one key
// have the same PublicKey and different IDs; their shares don't combine.
type ShareSet struct {
	// ID is unique for ever: party keys are derived from it. 1 to 128 printable
	// ASCII bytes.
	ID     string `json:"id"`
	Scheme Scheme `json:"scheme"`
	// Parties is sorted, without duplicates, 2 to 4 names.
	Parties []Party `json:"parties"`
	// Threshold is how many parties are needed to sign, 2 ≤ Threshold ≤ len(Parties).
	Threshold int `json:"threshold"`
	// Epoch counts the root sets of a key; a new set has epoch 1 more than the set
	// it was issued from. The first is 1.
	Epoch uint64 `json:"epoch"`
	// Engine is the id of the engine that made the set; it signs with it, or the
	// engine that adopted its sets ([Adopt]).
	Engine string `json:"engine"`
	// PublicKey is 33 bytes, compressed SEC 1, for secp256k1; 32 bytes, RFC 8032, for Ed25519.
	PublicKey []byte `json:"public_key"`
}

// Validate says whether the set is well formed; it knows nothing of its shares.
func (s ShareSet) Validate() error {
	if err := checkID(s.ID); err != nil {
		return err
	}
	want := 33
	switch s.Scheme {
	case chains.ECDSASecp256k1:
	case chains.EdDSAEd25519:
		want = 32
	default:
		return fmt.Errorf("unknown scheme %q", s.Scheme)
	}
	if len(s.PublicKey) != want {
		return fmt.Errorf("public key of %d bytes, want %d", len(s.PublicKey), want)
	}
	if err := checkParties(s.Parties, s.Threshold); err != nil {
		return err
	}
	if s.Epoch == 0 {
		return errors.New("share set has epoch 0")
	}
	if s.Engine == "" || len(s.Engine) > maxID {
		return errors.New("share set names no engine")
	}
	return nil
}

func (s ShareSet) equal(o ShareSet) bool {
	return s.ID == o.ID && s.Scheme == o.Scheme && slices.Equal(s.Parties, o.Parties) &&
		s.Threshold == o.Threshold && s.Epoch == o.Epoch && s.Engine == o.Engine &&
		slices.Equal(s.PublicKey, o.PublicKey)
}

func (s ShareSet) committee() Committee {
	return Committee{SetID: s.ID, Scheme: s.Scheme, Parties: slices.Clone(s.Parties), Threshold: s.Threshold}
}

func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("share set id of %d bytes, want 1 to %d", len(id), maxID)
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return fmt.Errorf("share set id has byte %#02x at %d, want printable ASCII", id[i], i)
		}
	}
	return nil
}

func checkParties(ps []Party, threshold int) error {
	if len(ps) < 2 || len(ps) > len(parties) {
		return fmt.Errorf("%d parties, want 2 to %d", len(ps), len(parties))
	}
	for i, p := range ps {
		if !slices.Contains(parties, p) {
			return fmt.Errorf("unknown party %q", p)
		}
		if i > 0 && ps[i-1] >= p {
			return errors.New("parties are not sorted and distinct")
		}
	}
	if threshold < 2 || threshold > len(ps) {
		return fmt.Errorf("threshold %d of %d parties, want at least 2", threshold, len(ps))
	}
	return nil
}

// quorums lists every choice of k of ps, in order.
func quorums(ps []Party, k int) [][]Party {
	if k == 0 {
		return [][]Party{nil}
	}
	var all [][]Party
	for i := 0; i+k <= len(ps); i++ {
		for _, rest := range quorums(ps[i+1:], k-1) {
			all = append(all, append([]Party{ps[i]}, rest...))
		}
	}
	return all
}
