package gg18

import (
	"bytes"
	"crypto/elliptic"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"filippo.io/edwards25519"
	"github.com/bnb-chain/tss-lib/v2/crypto"
	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	edkeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	"github.com/bnb-chain/tss-lib/v2/tss"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/sigild/sigild/mpc"
)

// A share body is tss-lib's save data as JSON, exactly as Go encodes it: any
// other spelling of the same numbers is refused. The numbers are checked against
// each other and against the share's header each time they are read.

// modulusBits is the only size of Paillier and NTilde moduli we take.
const modulusBits = 2048

var one = big.NewInt(1)

func encodeECDSA(save *eckeygen.LocalPartySaveData, c mpc.Committee, self mpc.Party) (body, pub []byte, err error) {
	if save.ECDSAPub == nil {
		return nil, nil, errors.New("tss-lib returned no public key")
	}
	pub = compressed(save.ECDSAPub)
	if err := checkECDSA(save, c, self, pub); err != nil {
		return nil, nil, fmt.Errorf("checking what tss-lib returned: %w", err)
	}
	body, err = json.Marshal(save)
	wipeECDSA(save)
	return body, pub, err
}

func encodeEdDSA(save *edkeygen.LocalPartySaveData, c mpc.Committee, self mpc.Party) (body, pub []byte, err error) {
	if save.EDDSAPub == nil {
		return nil, nil, errors.New("tss-lib returned no public key")
	}
	pub = edwardsBytes(save.EDDSAPub)
	if err := checkEdDSA(save, c, self, pub); err != nil {
		return nil, nil, fmt.Errorf("checking what tss-lib returned: %w", err)
	}
	body, err = json.Marshal(save)
	wipeEdDSA(save)
	return body, pub, err
}

func decodeECDSA(body []byte, c mpc.Committee, self mpc.Party, pub []byte) (*eckeygen.LocalPartySaveData, error) {
	save := new(eckeygen.LocalPartySaveData)
	err := decodeStrict(body, save, func() error { return checkECDSA(save, c, self, pub) })
	if err != nil {
		wipeECDSA(save)
		return nil, err
	}
	return save, nil
}

func decodeEdDSA(body []byte, c mpc.Committee, self mpc.Party, pub []byte) (*edkeygen.LocalPartySaveData, error) {
	save := new(edkeygen.LocalPartySaveData)
	err := decodeStrict(body, save, func() error { return checkEdDSA(save, c, self, pub) })
	if err != nil {
		wipeEdDSA(save)
		return nil, err
	}
	return save, nil
}

// decodeStrict decodes canonical JSON. Its errors never quote the body.
func decodeStrict(body []byte, save any, check func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: body can't be decoded", mpc.ErrShare)
		}
	}()
	if err := json.Unmarshal(body, save); err != nil {
		return fmt.Errorf("%w: body is not save data of tss-lib", mpc.ErrShare)
	}
	if err := check(); err != nil {
		return fmt.Errorf("%w: %w", mpc.ErrShare, err)
	}
	again, err := json.Marshal(save)
	defer clear(again)
	if err != nil || !bytes.Equal(again, body) {
		return fmt.Errorf("%w: body is not in canonical form", mpc.ErrShare)
	}
	return nil
}

func checkECDSA(save *eckeygen.LocalPartySaveData, c mpc.Committee, self mpc.Party, pub []byte) error {
	ec := tss.S256()
	i, err := checkCommon(ec, save.Ks, save.BigXj, save.ECDSAPub, save.Xi, save.ShareID, c, self)
	if err != nil {
		return err
	}
	var k secp256k1.ModNScalar
	k.SetByteSlice(save.Xi.FillBytes(make([]byte, 32)))
	priv := secp256k1.NewPrivateKey(&k)
	defer priv.Zero()
	defer k.Zero()
	switch n := len(c.Parties); {
	case !bytes.Equal(compressed(save.ECDSAPub), pub):
		return errors.New("body is of another public key")
	case !bytes.Equal(priv.PubKey().SerializeCompressed(), compressed(save.BigXj[i])):
		return errors.New("secret does not fit its public share")
	case len(save.NTildej) != n || len(save.H1j) != n || len(save.H2j) != n || len(save.PaillierPKs) != n:
		return errors.New("body has another number of parties")
	}
	for j, pk := range save.PaillierPKs {
		switch nt, h1, h2 := save.NTildej[j], save.H1j[j], save.H2j[j]; {
		case pk == nil || !isModulus(pk.N) || !isModulus(nt):
			return fmt.Errorf("a modulus of party %d has not %d bits", j, modulusBits)
		case !inside(h1, nt) || !inside(h2, nt) || h1.Cmp(h2) == 0:
			return fmt.Errorf("h1 or h2 of party %d is out of range", j)
		}
	}
	return checkOwn(save, i)
}

// checkOwn checks the party's own Paillier key and modulus.
func checkOwn(save *eckeygen.LocalPartySaveData, i int) error {
	if !save.LocalPreParams.ValidateWithProof() || save.PaillierSK.LambdaN == nil || save.PaillierSK.PhiN == nil || save.PaillierSK.N == nil {
		return errors.New("pre-parameters are missing")
	}
	sk := save.PaillierSK
	phi := new(big.Int).Mul(new(big.Int).Sub(sk.P, one), new(big.Int).Sub(sk.Q, one))
	tilde := func(x *big.Int) *big.Int { return new(big.Int).SetBit(new(big.Int).Lsh(x, 1), 0, 1) }
	defer wipeInts(phi)
	switch {
	case sk.P.Sign() <= 0 || sk.Q.Sign() <= 0 || save.P.Sign() <= 0 || save.Q.Sign() <= 0:
		return errors.New("a prime is not positive")
	case new(big.Int).Mul(sk.P, sk.Q).Cmp(sk.N) != 0 || sk.N.Cmp(save.PaillierPKs[i].N) != 0:
		return errors.New("own Paillier modulus does not fit its primes")
	case phi.Cmp(sk.PhiN) != 0 || new(big.Int).Rsh(phi, 1).Cmp(sk.LambdaN) != 0:
		return errors.New("own Paillier key does not fit its primes")
	case new(big.Int).Mul(tilde(save.P), tilde(save.Q)).Cmp(save.NTildei) != 0 || save.NTildei.Cmp(save.NTildej[i]) != 0:
		return errors.New("own NTilde does not fit its primes")
	case save.H1i.Cmp(save.H1j[i]) != 0 || save.H2i.Cmp(save.H2j[i]) != 0:
		return errors.New("own h1 or h2 is not what the others know")
	}
	return nil
}

func checkEdDSA(save *edkeygen.LocalPartySaveData, c mpc.Committee, self mpc.Party, pub []byte) error {
	i, err := checkCommon(tss.Edwards(), save.Ks, save.BigXj, save.EDDSAPub, save.Xi, save.ShareID, c, self)
	if err != nil {
		return err
	}
	le := save.Xi.FillBytes(make([]byte, 32))
	slices.Reverse(le)
	defer clear(le)
	x, err := edwards25519.NewScalar().SetCanonicalBytes(le)
	switch {
	case err != nil:
		return errors.New("secret is out of range")
	case !bytes.Equal(edwardsBytes(save.EDDSAPub), pub):
		return errors.New("body is of another public key")
	case !bytes.Equal(new(edwards25519.Point).ScalarBaseMult(x).Bytes(), edwardsBytes(save.BigXj[i])):
		return errors.New("secret does not fit its public share")
	}
	return nil
}

// checkCommon checks what both kinds of save data have and returns the party's
// index: party keys are those derived from the header, points are on the curve
// in canonical form, the secret is in range.
func checkCommon(ec elliptic.Curve, ks []*big.Int, points []*crypto.ECPoint, pub *crypto.ECPoint, xi, id *big.Int, c mpc.Committee, self mpc.Party) (int, error) {
	r, err := newRoster(ec, c.Members())
	if err != nil {
		return 0, err
	}
	own, err := r.self(mpc.Member{SetID: c.SetID, Party: self})
	if err != nil {
		return 0, err
	}
	ids := r.groups[0]
	if len(ks) != len(ids) || len(points) != len(ids) {
		return 0, errors.New("body has another number of parties")
	}
	for j, k := range ks {
		if k == nil || k.Cmp(ids[j].KeyInt()) != 0 {
			return 0, errors.New("party keys are not of this set")
		}
	}
	if id == nil || id.Cmp(own.KeyInt()) != 0 {
		return 0, errors.New("body is of another party")
	}
	for _, p := range append([]*crypto.ECPoint{pub}, points...) {
		if p == nil || !tss.SameCurve(p.Curve(), ec) || !p.ValidateBasic() ||
			p.X().Sign() < 0 || p.X().Cmp(ec.Params().P) >= 0 || p.Y().Sign() < 0 || p.Y().Cmp(ec.Params().P) >= 0 {
			return 0, errors.New("a point is not on the curve")
		}
	}
	if xi == nil || xi.Sign() <= 0 || xi.Cmp(ec.Params().N) >= 0 {
		return 0, errors.New("secret is out of range")
	}
	return own.Index, nil
}

func isModulus(n *big.Int) bool {
	return n != nil && n.Sign() > 0 && n.BitLen() == modulusBits && n.Bit(0) == 1
}

// inside says 1 < x < n.
func inside(x, n *big.Int) bool { return x != nil && x.Cmp(one) > 0 && x.Cmp(n) < 0 }

// compressed is SEC 1 §2.3.3.
func compressed(p *crypto.ECPoint) []byte { return compressedXY(p.X(), p.Y()) }

func compressedXY(x, y *big.Int) []byte {
	b := make([]byte, 33)
	b[0] = 2 + byte(y.Bit(0))
	x.FillBytes(b[1:])
	return b
}

// edwardsBytes is RFC 8032 §5.1.2.
func edwardsBytes(p *crypto.ECPoint) []byte { return edwardsXY(p.X(), p.Y()) }

func edwardsXY(x, y *big.Int) []byte {
	b := y.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	b[31] |= byte(x.Bit(0)) << 7
	return b
}

func wipeECDSA(s *eckeygen.LocalPartySaveData) {
	wipeInts(s.Xi, s.Alpha, s.Beta, s.P, s.Q)
	if s.PaillierSK != nil {
		wipeInts(s.PaillierSK.P, s.PaillierSK.Q, s.PaillierSK.PhiN, s.PaillierSK.LambdaN)
	}
}

func wipeEdDSA(s *edkeygen.LocalPartySaveData) { wipeInts(s.Xi) }

// wipeInts overwrites numbers as far as math/big lets us.
func wipeInts(xs ...*big.Int) {
	for _, x := range xs {
		if x != nil {
			w := x.Bits()
			clear(w[:cap(w)])
			x.SetInt64(0)
		}
	}
}
