package frost

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/sigild/sigild/mpc"
)

// The messages of a signature, after the version byte:
//
//	frost/sign/1   hiding ‖ binding commitment                    64 bytes, to all
//	frost/sign/2   SHA-256 of all of round 1 ‖ signature share    64 bytes, to all
//
// Every signer aggregates. The digest shows when signers were told different
// commitments: without it, an honest signer's share would look wrong.
const (
	kindCommit = "frost/sign/1"
	kindShare  = "frost/sign/2"
)

func sign(ctx context.Context, session mpc.Session, p mpc.SignParams) ([]byte, error) {
	if len(p.Input.Message) == 0 || len(p.Input.Message) > mpc.MaxMessage {
		return nil, mpc.ErrInput
	}
	if p.Tweak != nil {
		return nil, fmt.Errorf("%w: nothing is derived from an Ed25519 key", mpc.ErrPath)
	}
	if len(p.Quorum) < p.Committee.Threshold {
		return nil, errors.New("quorum is below the threshold")
	}
	sh, err := decodeBody(p.Body, p.Committee, p.Self, p.PublicKey)
	if err != nil {
		return nil, err
	}
	defer sh.wipe()
	self := mpc.Member{SetID: p.Committee.SetID, Party: p.Self}
	quorum := sh.members(p.Committee, p.Quorum)
	x := mpc.NewExchange(session, self, map[string][]mpc.Member{kindCommit: quorum, kindShare: quorum})

	// Round 1: commit to nonces for this session and message.
	n, own, err := freshNonces(session.ID(), p.Input.Message, sh.secret)
	if err != nil {
		return nil, err
	}
	defer n.wipe()
	if err := x.Broadcast(ctx, kindCommit, quorum, own.encoded, false); err != nil {
		return nil, err
	}
	commitments, err := x.Collect(ctx, kindCommit, 64)
	if err != nil {
		return nil, err
	}
	signers := map[mpc.Member]*signer{self: {id: sh.ids[self], public: sh.publics[self], commitment: own}}
	for m, b := range commitments {
		c, err := decodeCommitment(b)
		if err != nil {
			return nil, mpc.Accuse(m, "a bad commitment: %w", err)
		}
		signers[m] = &signer{id: sh.ids[m], public: sh.publics[m], commitment: c}
	}
	common := newSigning(p.PublicKey, p.Input.Message, values(signers, quorum))

	// Round 2: give up the share of the signature.
	id, seen := session.ID(), sha256.New()
	seen.Write(id[:])
	for _, m := range quorum {
		seen.Write(signers[m].encoded)
	}
	digest := seen.Sum(nil)
	z := common.share(signers[self], n, sh.secret)
	if err := x.Broadcast(ctx, kindShare, quorum, slices.Concat(digest, z.Bytes()), true); err != nil {
		return nil, err
	}
	got, err := x.Collect(ctx, kindShare, 64)
	if err != nil {
		return nil, err
	}
	return aggregate(common, signers, quorum, self, z, digest, got)
}

// aggregate adds the shares up. When the sum is no signature, whose share does not
// fit is to blame.
func aggregate(common *signing, signers map[mpc.Member]*signer, quorum []mpc.Member, self mpc.Member, own *scalar, digest []byte, got map[mpc.Member][]byte) ([]byte, error) {
	var others []mpc.Member
	shares := []*scalar{own}
	for _, m := range quorum {
		if m == self {
			continue
		}
		z, err := decodeScalar(got[m][32:])
		if err != nil {
			return nil, mpc.Accuse(m, "a bad signature share: %w", err)
		}
		others, shares = append(others, m), append(shares, z)
	}
	if err := checkEcho(quorum, others, got, digest); err != nil {
		return nil, err
	}
	sig := common.aggregate(shares)
	if ed25519.Verify(common.key, common.message, sig) {
		return sig, nil
	}
	var liars []mpc.Member
	for i, m := range others {
		if !common.verifyShare(signers[m], shares[1+i]) {
			liars = append(liars, m)
		}
	}
	if len(liars) == 0 {
		return nil, fmt.Errorf("%w: and every share of it fits", mpc.ErrSignature)
	}
	return nil, &mpc.Blame{Culprits: liars, Err: fmt.Errorf("%w: signature shares that don't fit their commitments", mpc.ErrProtocol)}
}

func values(signers map[mpc.Member]*signer, order []mpc.Member) []*signer {
	var out []*signer
	for _, m := range order {
		out = append(out, signers[m])
	}
	return out
}

// drawn counts the nonces drawn by this process.
var drawn atomic.Uint64

// freshNonces draws nonces from the system's randomness. Session, message and a
// counter are mixed in, and the secret by nonceGenerate: with randomness that
// repeats, other signatures still get other nonces.
func freshNonces(session [32]byte, msg []byte, secret *scalar) (*nonces, *commitment, error) {
	var random [64]byte
	defer clear(random[:])
	rand.Read(random[:]) // never fails, see crypto/rand
	digest := sha256.Sum256(msg)
	count := binary.BigEndian.AppendUint64(nil, drawn.Add(1))
	wide := sum512([]byte("sigild/frost/nonce/v1"), random[:], session[:], digest[:], count)
	defer clear(wide[:])
	return commit([32]byte(wide[:32]), [32]byte(wide[32:]), secret)
}
