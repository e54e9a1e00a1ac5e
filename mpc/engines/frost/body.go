package frost

import (
	"errors"
	"fmt"
	"slices"

	"github.com/sigild/sigild/mpc"
)

// A share body is
//
//	0x01 ‖ the secret, 32 bytes ‖ the public share of each party, 32 bytes
//
// in the order of the set's parties; scalars and points as in RFC 8032. There is
// one encoding of a share. The shares are a polynomial of degree threshold − 1 at
// the parties' identifiers, which follow from the set's id, and its value at zero
// is the key: all of that is checked whenever a body is read.
const bodyVersion = 1

// share is what a member knows of its set.
type share struct {
	secret *scalar
	ids    map[mpc.Member]*scalar
	// publics are the members' shares times the generator.
	publics map[mpc.Member]*point
}

func (s *share) wipe() { wipe(s.secret) }

func encodeBody(c mpc.Committee, s *share) []byte {
	b := make([]byte, 0, 1+32+32*len(c.Parties))
	secret := s.secret.Bytes()
	defer clear(secret)
	b = append(append(b, bodyVersion), secret...)
	for _, m := range c.Members() {
		b = append(b, s.publics[m].Bytes()...)
	}
	return b
}

// decodeBody reads a body of this engine, or one of tss-lib's, and checks it
// against the share's header.
func decodeBody(body []byte, c mpc.Committee, self mpc.Party, pub []byte) (*share, error) {
	var secret []byte
	var publics [][]byte
	var err error
	switch {
	case len(body) > 0 && body[0] == bodyVersion:
		secret, publics, err = splitBody(body, len(c.Parties))
	case len(body) > 0 && body[0] == '{':
		secret, publics, err = decodeTSSLib(body, c, self, pub)
		defer clear(secret)
	default:
		err = errors.New("body has an unknown version")
	}
	if err == nil {
		var sh *share
		if sh, err = newShare(secret, publics, c, self, pub); err == nil {
			return sh, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", mpc.ErrShare, err)
}

func splitBody(body []byte, parties int) (secret []byte, publics [][]byte, err error) {
	if len(body) != 1+32+32*parties {
		return nil, nil, fmt.Errorf("body of %d bytes, want %d", len(body), 1+32+32*parties)
	}
	return body[1:33], slices.Collect(slices.Chunk(body[33:], 32)), nil
}

// newShare checks that a secret, the public shares of a committee and its key fit
// each other.
func newShare(secret []byte, publics [][]byte, c mpc.Committee, self mpc.Party, pub []byte) (*share, error) {
	members := c.Members()
	ids, err := identifiers(members)
	if err != nil {
		return nil, err
	}
	key, err := storedPoint(pub)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	sh := &share{ids: map[mpc.Member]*scalar{}, publics: map[mpc.Member]*point{}}
	points := make([]*point, len(members))
	for i, m := range members {
		if points[i], err = storedPoint(publics[i]); err != nil {
			return nil, fmt.Errorf("public share of %s: %w", m.Party, err)
		}
		sh.ids[m], sh.publics[m] = ids[i], points[i]
	}
	// The first threshold shares give the key, and all further ones.
	k := c.Threshold
	if interpolate(ids[:k], points[:k], zero).Equal(key) != 1 {
		return nil, errors.New("public shares are not of this set and key")
	}
	for i := k; i < len(members); i++ {
		if interpolate(ids[:k], points[:k], ids[i]).Equal(points[i]) != 1 {
			return nil, fmt.Errorf("public share of %s does not fit the others", members[i].Party)
		}
	}
	own := sh.publics[mpc.Member{SetID: c.SetID, Party: self}]
	if own == nil {
		return nil, fmt.Errorf("%s is not of the committee", self)
	}
	if sh.secret, err = decodeScalar(secret); err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	if new(point).ScalarBaseMult(sh.secret).Equal(own) != 1 {
		sh.wipe()
		return nil, errors.New("secret does not fit its public share")
	}
	return sh, nil
}

// members lists some parties of the share's set.
func (s *share) members(c mpc.Committee, ps []mpc.Party) []mpc.Member {
	c.Parties = ps
	return c.Members()
}
