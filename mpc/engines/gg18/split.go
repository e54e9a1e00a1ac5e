package gg18

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	"github.com/bnb-chain/tss-lib/v2/tss"
	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/sigild/sigild/mpc"
)

// The body of a virtual share, which [Engine.Split] makes and a reshare alone
// takes, has no Paillier key:
//
//	0x02 ‖ the secret, 32 bytes ‖ the public share of each party, 33 bytes
//
// in the order of the set's parties.
const virtualVersion = 2

// Split shares out a secp256k1 private key.
func (Engine) Split(secret []byte, c mpc.Committee) (bodies [][]byte, publicKey []byte, err error) {
	defer recovered(&err)
	var key secp256k1.ModNScalar
	defer key.Zero()
	if len(secret) != 32 || key.SetByteSlice(secret) || key.IsZero() {
		return nil, nil, fmt.Errorf("%w: not a private key of secp256k1", mpc.ErrInput)
	}
	// A polynomial with the key at zero.
	f := []*secp256k1.ModNScalar{&key}
	for len(f) < c.Threshold {
		a := randomScalar()
		defer a.Zero()
		f = append(f, a)
	}
	var publics []byte
	var secrets [][32]byte
	defer func() { clear(secrets) }()
	for _, m := range c.Members() {
		var x, y secp256k1.ModNScalar
		x.SetByteSlice(partyKey(tss.S256(), m).FillBytes(make([]byte, 32)))
		for _, a := range slices.Backward(f) {
			y.Mul(&x).Add(a)
		}
		priv := secp256k1.NewPrivateKey(&y)
		publics = append(publics, priv.PubKey().SerializeCompressed()...)
		secrets = append(secrets, y.Bytes())
		priv.Zero()
		y.Zero()
	}
	for i := range secrets {
		bodies = append(bodies, slices.Concat([]byte{virtualVersion}, secrets[i][:], publics))
	}
	whole := secp256k1.NewPrivateKey(&key)
	defer whole.Zero()
	return bodies, whole.PubKey().SerializeCompressed(), nil
}

func randomScalar() *secp256k1.ModNScalar {
	var b [32]byte
	defer clear(b[:])
	for {
		rand.Read(b[:]) // never fails, see crypto/rand
		s := new(secp256k1.ModNScalar)
		if s.SetBytes(&b) == 0 && !s.IsZero() {
			return s
		}
	}
}

// decodeOld reads the body of an old member of a reshare: a share or a virtual one.
func decodeOld(body []byte, c mpc.Committee, self mpc.Party, pub []byte) (*eckeygen.LocalPartySaveData, error) {
	if len(body) == 0 || body[0] != virtualVersion {
		return decodeECDSA(body, c, self, pub)
	}
	save, err := decodeVirtual(body, c, self, pub)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", mpc.ErrShare, err)
	}
	return save, nil
}

func decodeVirtual(body []byte, c mpc.Committee, self mpc.Party, pub []byte) (*eckeygen.LocalPartySaveData, error) {
	members := c.Members()
	if len(body) != 1+32+33*len(members) {
		return nil, fmt.Errorf("virtual share of %d bytes", len(body))
	}
	r, err := newRoster(tss.S256(), members)
	if err != nil {
		return nil, err
	}
	own, err := r.self(mpc.Member{SetID: c.SetID, Party: self})
	if err != nil {
		return nil, err
	}
	key, err := decompress(pub)
	if err != nil {
		return nil, err
	}
	save := eckeygen.NewLocalPartySaveData(len(members))
	save.Xi, save.ShareID, save.ECDSAPub = new(big.Int).SetBytes(body[1:33]), own.KeyInt(), key
	for i, m := range members {
		id := r.ids[m]
		p, err := decompress(body[33+33*i:][:33])
		if err != nil {
			return nil, err
		}
		save.Ks[id.Index], save.BigXj[id.Index] = id.KeyInt(), p
		// The library hashes these into its session id, and uses them for nothing else.
		save.NTildej[id.Index], save.H1j[id.Index], save.H2j[id.Index] = one, one, one
	}
	if save.Xi.Sign() == 0 || save.Xi.Cmp(tss.S256().Params().N) >= 0 ||
		!bytes.Equal(compressed(crypto.ScalarBaseMult(tss.S256(), save.Xi)), compressed(save.BigXj[own.Index])) {
		wipeECDSA(&save)
		return nil, errors.New("secret does not fit its public share")
	}
	return &save, nil
}

func decompress(b []byte) (*crypto.ECPoint, error) {
	p, err := secp256k1.ParsePubKey(b)
	if err != nil {
		return nil, errors.New("a point is not on the curve")
	}
	return crypto.NewECPoint(tss.S256(), p.X(), p.Y())
}

// tweak makes a share of a key one of the key plus t times the generator: each
// party adds t, as if to the constant of the polynomial.
func tweak(save *eckeygen.LocalPartySaveData, t []byte) (err error) {
	ec := tss.S256()
	k := new(big.Int).SetBytes(t)
	if len(t) != 32 || k.Sign() == 0 || k.Cmp(ec.Params().N) >= 0 {
		return errors.New("tweak is out of range")
	}
	step := crypto.ScalarBaseMult(ec, k)
	save.Xi.Mod(save.Xi.Add(save.Xi, k), ec.Params().N)
	if save.ECDSAPub, err = save.ECDSAPub.Add(step); err != nil {
		return err
	}
	for j := range save.BigXj {
		if save.BigXj[j], err = save.BigXj[j].Add(step); err != nil {
			return err
		}
	}
	return nil
}
