// Package gg18 runs one party of threshold ECDSA over secp256k1 (Gennaro and
// Goldfeder, 2018) and of threshold EdDSA over Ed25519 with tss-lib v2.0.2. It
// registers itself with mpc as the engine of new secp256k1 keys, and it is the
// only package that imports tss-lib. What its EdDSA makes, mpc/engines/frost uses.
//
// It is for parties that trust each other's programs to a degree: all in one
// process, or the owner's own machines. tss-lib v2.0.2 lacks later hardening of its
// proofs: its Fiat-Shamir challenges bind no session, the range proof of round 1
// neither that nor the verifier's modulus, and nothing proves that NTilde is a
// product of two primes. A peer that may be hostile belongs on another engine, or
// this engine in a process of its own.
//
// What it does about tss-lib's edges: every call runs under recover and a panic
// becomes blame; every message is parsed and checked before the library sees it
// (guard.go has the rules), because many of its verifiers run in goroutines whose
// panic nobody can recover; save data is decoded afresh for each ceremony, because
// a reshare zeroes the share it is given; the lengths of digests and messages are
// always passed, because leading zero bytes are dropped without; party keys are
// hashes, checked to be distinct and not zero; proofs are never switched off; its
// logger is replaced by one that discards.
package gg18

import (
	"context"
	"fmt"

	"github.com/bnb-chain/tss-lib/v2/common"
	"go.uber.org/zap"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
)

// ID is the engine's id in share sets. It names the library's version, because
// versions don't interoperate.
const ID = "gg18-tsslib-v2.0.2"

// Engine implements mpc.Engine. It has no state.
type Engine struct{}

func init() {
	// tss-lib logs messages and culprits through a package variable, to stderr and
	// at a level set by the environment (GOLOG_LOG_LEVEL).
	common.Logger.SugaredLogger = *zap.NewNop().Sugar()
	mpc.Register(ID, Engine{}, chains.ECDSASecp256k1)
}

// Keygen makes this party's share of a new key.
func (Engine) Keygen(ctx context.Context, s mpc.Session, p mpc.KeygenParams) (body, pub []byte, err error) {
	defer recovered(&err)
	switch p.Committee.Scheme {
	case chains.ECDSASecp256k1:
		return ecdsaKeygen(ctx, s, p)
	case chains.EdDSAEd25519:
		return eddsaKeygen(ctx, s, p)
	}
	return nil, nil, fmt.Errorf("gg18 has no scheme %q", p.Committee.Scheme)
}

// Reshare takes part in moving a key to another committee.
func (Engine) Reshare(ctx context.Context, s mpc.Session, p mpc.ReshareParams) (body, pub []byte, err error) {
	defer recovered(&err)
	switch p.From.Scheme {
	case chains.ECDSASecp256k1:
		return ecdsaReshare(ctx, s, p)
	case chains.EdDSAEd25519:
		return eddsaReshare(ctx, s, p)
	}
	return nil, nil, fmt.Errorf("gg18 has no scheme %q", p.From.Scheme)
}

// Sign takes part in a signature.
func (Engine) Sign(ctx context.Context, s mpc.Session, p mpc.SignParams) (sig []byte, err error) {
	defer recovered(&err)
	switch p.Committee.Scheme {
	case chains.ECDSASecp256k1:
		return ecdsaSign(ctx, s, p)
	case chains.EdDSAEd25519:
		return eddsaSign(ctx, s, p)
	}
	return nil, fmt.Errorf("gg18 has no scheme %q", p.Committee.Scheme)
}

// recovered turns a panic outside of a step, as in a constructor of tss-lib or in
// the caller's release check, into an error that blames nobody.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: engine crashed: %v", mpc.ErrProtocol, r)
	}
}
