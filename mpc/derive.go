package mpc

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/sigild/sigild/chains"
)

// Many addresses from one secp256k1 key, by BIP-32 public derivation: each party
// adds the same public number to its share, and the shares are of the child key.
// Hardened steps need the private key, which nobody has, so the key stands for the
// account-level node of a path such as m/44'/60'/0'. Whoever learned a child's
// private key and the chain code could compute the key itself; but no child's
// private key ever exists either.

const (
	chainCodeBytes = 32
	// maxPath is how many steps below the key a path may have.
	maxPath  = 8
	hardened = 1 << 31
)

// ErrPath says that a path can't be derived: it is hardened, too long, or there is
// no such child (BIP-32: probability 2^-127).
var ErrPath = errors.New("path refused")

// ParsePath reads a path below the key, as "0/7": 1 to 8 numbers below 2^31,
// without leading zeros. Errors are [ErrPath].
func ParsePath(text string) ([]uint32, error) {
	steps := strings.Split(text, "/")
	if len(steps) > maxPath {
		return nil, fmt.Errorf("%w: %d steps, at most %d", ErrPath, len(steps), maxPath)
	}
	var path []uint32
	for _, s := range steps {
		if strings.TrimRight(s, "'hH") != s {
			return nil, fmt.Errorf("%w: %q is hardened, which shares can't derive", ErrPath, s)
		}
		i, err := strconv.ParseUint(s, 10, 31)
		if err != nil || strconv.FormatUint(i, 10) != s {
			return nil, fmt.Errorf("%w: %q is not a number below 2^31", ErrPath, s)
		}
		path = append(path, uint32(i))
	}
	return path, nil
}

// FormatPath is the reverse of [ParsePath].
func FormatPath(path []uint32) string {
	steps := make([]string, len(path))
	for i, s := range path {
		steps[i] = strconv.FormatUint(uint64(s), 10)
	}
	return strings.Join(steps, "/")
}

// DerivedKey is the compressed public key at a path below the key of an encoded
// share, which is lent. Errors are [ErrShare] and [ErrPath].
func DerivedKey(encodedShare []byte, path []uint32) ([]byte, error) {
	o, err := decodeShare(encodedShare)
	if err != nil {
		return nil, err
	}
	d, err := derive(o.set.PublicKey, o.chainCode, path)
	return d.publicKey, err
}

// ChainCodeOf is the chain code in an encoded share, which is lent; nil for a key that
// nothing is derived from. Errors are [ErrShare].
func ChainCodeOf(encodedShare []byte) ([]byte, error) {
	o, err := decodeShare(encodedShare)
	return slices.Clone(o.chainCode), err
}

// derivation is a child of a key.
type derivation struct {
	publicKey []byte
	// tweak is what each share is to add, 32 bytes, big-endian; nil for the key itself.
	tweak []byte
}

// derive is CKDpub of BIP-32, once for each step. An empty path is the key itself.
func derive(publicKey, chainCode []byte, path []uint32) (derivation, error) {
	if len(path) == 0 {
		return derivation{publicKey: publicKey}, nil
	}
	if chainCode == nil {
		return derivation{}, fmt.Errorf("%w: the key has no chain code", ErrPath)
	}
	if len(path) > maxPath {
		return derivation{}, fmt.Errorf("%w: %d steps, at most %d", ErrPath, len(path), maxPath)
	}
	parent, err := secp256k1.ParsePubKey(publicKey)
	if err != nil {
		return derivation{}, fmt.Errorf("parsing public key: %w", err)
	}
	var point, step secp256k1.JacobianPoint
	parent.AsJacobian(&point)
	var sum secp256k1.ModNScalar
	for _, i := range path {
		if i >= hardened {
			return derivation{}, fmt.Errorf("%w: step %d is hardened", ErrPath, i-hardened)
		}
		mac := hmac.New(sha512.New, chainCode)
		mac.Write(publicKey)
		mac.Write(binary.BigEndian.AppendUint32(nil, i))
		out := mac.Sum(nil)
		var left secp256k1.ModNScalar
		if overflow := left.SetByteSlice(out[:32]); overflow || left.IsZero() {
			return derivation{}, fmt.Errorf("%w: there is no child %d", ErrPath, i)
		}
		secp256k1.ScalarBaseMultNonConst(&left, &step)
		secp256k1.AddNonConst(&point, &step, &point)
		if point.Z.IsZero() {
			return derivation{}, fmt.Errorf("%w: there is no child %d", ErrPath, i)
		}
		point.ToAffine()
		publicKey, chainCode = secp256k1.NewPublicKey(&point.X, &point.Y).SerializeCompressed(), out[32:]
		sum.Add(&left)
	}
	if sum.IsZero() {
		return derivation{publicKey: publicKey}, nil
	}
	tweak := sum.Bytes()
	return derivation{publicKey, tweak[:]}, nil
}

// The messages by which the parties of a new key agree on its chain code: first a
// hash of each party's part, then the parts, so that none chooses it alone.
const (
	kindChainHash = "mpc/chain-code/1"
	kindChainPart = "mpc/chain-code/2"
)

// makeChainCode returns the chain code of a new key, nil for schemes without.
func makeChainCode(ctx context.Context, c Committee, joint *Joint) ([]byte, error) {
	if c.Scheme != chains.ECDSASecp256k1 {
		return nil, nil
	}
	members := c.Members()
	codes := make([][]byte, len(members))
	cer := ceremony{op: "chain-code", sets: []Committee{c}, members: members, round: signRound, maxPayload: 1 + sha256.Size, joint: joint}
	if joint != nil {
		cer.round = makeRound // the other side may still be making its pre-parameters
	}
	_, err := cer.run(ctx, func(ctx context.Context, s Session, i int) (err error) {
		codes[i], err = agreeChainCode(ctx, s, members, members[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	codes = slices.DeleteFunc(codes, func(code []byte) bool { return code == nil }) // of parties elsewhere
	for i := range codes {
		if !hmac.Equal(codes[i], codes[0]) {
			return nil, fmt.Errorf("%w: parties have different chain codes", ErrProtocol)
		}
	}
	return codes[0], nil
}

// agreeChainCode is one party's part.
func agreeChainCode(ctx context.Context, s Session, all []Member, self Member) ([]byte, error) {
	x := NewExchange(s, self, map[string][]Member{kindChainHash: all, kindChainPart: all})
	bind := func(m Member, part []byte) []byte {
		h, id, who := sha256.New(), s.ID(), m.Hash()
		h.Write([]byte("sigild/mpc/chain-code/v1"))
		h.Write(id[:])
		h.Write(who[:])
		h.Write(part)
		return h.Sum(nil)
	}
	own := make([]byte, sha256.Size)
	rand.Read(own) // never fails, see crypto/rand
	if err := x.Broadcast(ctx, kindChainHash, all, bind(self, own), false); err != nil {
		return nil, err
	}
	hashes, err := x.Collect(ctx, kindChainHash, sha256.Size)
	if err != nil {
		return nil, err
	}
	if err := x.Broadcast(ctx, kindChainPart, all, own, false); err != nil {
		return nil, err
	}
	parts, err := x.Collect(ctx, kindChainPart, sha256.Size)
	if err != nil {
		return nil, err
	}
	code := sha256.New()
	for _, m := range all {
		part := own
		if m != self {
			if part = parts[m]; !hmac.Equal(bind(m, part), hashes[m]) {
				return nil, Accuse(m, "a part of the chain code that it was not bound to")
			}
		}
		code.Write(bind(m, part))
	}
	return code.Sum(nil), nil
}
