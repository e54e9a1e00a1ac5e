package gg18

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"sync"

	"github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
)

// Presignatures. Rounds 1 to 4 of a signature, 99 of 100 parts of its work, do not
// read the digest: round 5 is the first that does. tss-lib has no way to stop there,
// but it keeps the number it was given. So each party starts with an empty one, its
// message of round 4 is held back, and the digest is put into that number before the
// message leaves. Nobody knows R before round 4's messages are exchanged, and so
// nobody can choose a digest by it.
//
// That the library keeps the number is a detail that it promises to no one: package
// mpc signs a test with the first presignature of a process before it trusts any.

// presigned is one party that waits for its digest.
type presigned struct {
	mu sync.Mutex // guards signer, which is nil once used or destroyed
	// digest is the number that tss-lib's party reads in round 5.
	digest *big.Int
	signer *ecdsaSigner
}

var _ mpc.Presigner = Engine{}

// Presign runs one party up to the message of round 4, which it holds back.
func (Engine) Presign(ctx context.Context, s mpc.Session, p mpc.SignParams) (_ mpc.Presigned, err error) {
	defer recovered(&err)
	if p.Committee.Scheme != chains.ECDSASecp256k1 {
		return nil, fmt.Errorf("gg18 presigns no %q", p.Committee.Scheme) // tss-lib's EdDSA must know the message from round 1
	}
	digest := new(big.Int)
	signer, err := newSigner(s, p, digest)
	if err != nil {
		return nil, err
	}
	signer.hold = func(c tss.MessageContent) bool { _, is := c.(*signing.SignRound4Message); return is }
	if err := signer.run(ctx, func() bool { return len(signer.waiting) > 0 }); err != nil {
		wipeECDSA(signer.key)
		return nil, err
	}
	return &presigned{digest: digest, signer: signer}, nil
}

// Sign ends the signature: rounds 4 to 9.
func (p *presigned) Sign(ctx context.Context, s mpc.Session, in chains.SignInput) (sig []byte, err error) {
	defer recovered(&err)
	p.mu.Lock()
	signer := p.signer
	p.signer = nil
	p.mu.Unlock()
	if signer == nil {
		return nil, errors.New("presignature was used")
	}
	defer wipeECDSA(signer.key)
	if in.Scheme != chains.ECDSASecp256k1 {
		return nil, mpc.ErrInput
	}
	if err := setDigest(p.digest, in.Digest); err != nil {
		return nil, err
	}
	if err := signer.letGo(ctx, s, signer.signed); err != nil {
		return nil, err
	}
	return signer.signature()
}

// Destroy wipes the party's copy of the share. The numbers of the half-done signature
// are the library's own and wait for the garbage collector.
func (p *presigned) Destroy() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.signer != nil {
		wipeECDSA(p.signer.key)
		p.signer = nil
	}
}
