package gg18

import (
	"crypto/elliptic"
	"math/big"
	"testing"

	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/mpc"
)

// What the tests of package gg18_test need from inside; they are outside because
// mpctest imports this package.
var (
	DecodeECDSA = decodeECDSA
	DecodeEdDSA = decodeEdDSA
	PartyKey    = partyKey
	NewRoster   = newRoster
)

// GuardMake is what a keygen or reshare checks of each message.
func GuardMake(ec elliptic.Curve, threshold int, pre *mpc.PreParamNumbers, publicKey []byte) func(*tss.PartyID, tss.MessageContent) error {
	return guardMake(ec, threshold, pre, publicKey).received
}

// GuardSign is what one of two signers checks of each message.
func GuardSign(t testing.TB, key *eckeygen.LocalPartySaveData) func(*tss.PartyID, tss.MessageContent) error {
	g, err := guardECDSASign(key, 2)
	if err != nil {
		t.Fatal(err)
	}
	return g.received
}

// ErrEarly is errEarly.
var ErrEarly = errEarly

// WithPreParams is withPreParams.
var WithPreParams = withPreParams

// CopyPreParams outlives the loan that p came with.
func CopyPreParams(p eckeygen.LocalPreParams) eckeygen.LocalPreParams {
	c := func(x *big.Int) *big.Int { return new(big.Int).Set(x) }
	sk := *p.PaillierSK
	sk.N, sk.LambdaN, sk.PhiN, sk.P, sk.Q = c(sk.N), c(sk.LambdaN), c(sk.PhiN), c(sk.P), c(sk.Q)
	return eckeygen.LocalPreParams{PaillierSK: &sk, NTildei: c(p.NTildei), H1i: c(p.H1i), H2i: c(p.H2i), Alpha: c(p.Alpha), Beta: c(p.Beta), P: c(p.P), Q: c(p.Q)}
}
