package frost

import (
	"crypto/sha512"
	"fmt"

	"github.com/sigild/sigild/mpc"
)

// Split shares out the private scalar of an Ed25519 seed (RFC 8032 §5.1.5): shares
// of it sign, but nobody gets a seed back from them.
func (Engine) Split(seed []byte, c mpc.Committee) (bodies [][]byte, publicKey []byte, err error) {
	if len(seed) != 32 {
		return nil, nil, fmt.Errorf("%w: a seed of %d bytes, want 32", mpc.ErrInput, len(seed))
	}
	wide := sha512.Sum512(seed)
	defer clear(wide[:])
	secret, err := new(scalar).SetBytesWithClamping(wide[:32])
	if err != nil {
		return nil, nil, err
	}
	publicKey = new(point).ScalarBaseMult(secret).Bytes()
	f := newPolynomial(secret, c.Threshold)
	defer f.wipe()
	members := c.Members()
	ids, err := identifiers(members)
	if err != nil {
		return nil, nil, err
	}
	sh := &share{publics: map[mpc.Member]*point{}}
	for i, m := range members {
		sh.publics[m] = f.commit().at(ids[i])
	}
	for i := range members {
		sh.secret = f.at(ids[i])
		bodies = append(bodies, encodeBody(c, sh))
		sh.wipe()
	}
	return bodies, publicKey, nil
}
