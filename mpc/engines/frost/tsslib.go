package frost

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"slices"

	"filippo.io/edwards25519"
	"filippo.io/edwards25519/field"

	"github.com/sigild/sigild/mpc"
)

// This file reads the share bodies that tss-lib v2.0.2's Ed25519 keygen and
// resharing left: its save data as JSON, exactly as Go encodes it. Shares are the
// same polynomial at the same identifiers, so they sign as they are.
//
// math/big and JSON copy the secret as they go and take their time by its value;
// an issue from such a set makes a set in our own form.

// tssLibSave has the fields of keygen.LocalPartySaveData in their order.
type tssLibSave struct {
	Xi, ShareID *big.Int
	Ks          []*big.Int
	BigXj       []*tssLibPoint
	EDDSAPub    *tssLibPoint
}

type tssLibPoint struct {
	Curve  string
	Coords [2]*big.Int
}

// decodeTSSLib returns the secret and the public shares in the order of the
// committee's parties. Its errors never quote the body.
func decodeTSSLib(body []byte, c mpc.Committee, self mpc.Party, pub []byte) (secret []byte, publics [][]byte, err error) {
	var save tssLibSave
	defer func() { wipeInt(save.Xi) }()
	if err := json.Unmarshal(body, &save); err != nil {
		return nil, nil, errors.New("body is not save data of tss-lib")
	}
	again, err := json.Marshal(save)
	defer clear(again)
	if err != nil || !bytes.Equal(again, body) {
		return nil, nil, errors.New("body is not in canonical form")
	}
	// tss-lib sorts parties by their keys.
	members := c.Members()
	sorted := slices.SortedFunc(slices.Values(members), func(a, b mpc.Member) int { return compareScalars(identifier(a), identifier(b)) })
	if len(save.Ks) != len(sorted) || len(save.BigXj) != len(sorted) {
		return nil, nil, errors.New("body has another number of parties")
	}
	public := map[mpc.Member][]byte{}
	for i, m := range sorted {
		if !isIdentifier(save.Ks[i], m) {
			return nil, nil, errors.New("party keys are not of this set")
		}
		if public[m], err = save.BigXj[i].encode(); err != nil {
			return nil, nil, err
		}
	}
	if key, err := save.EDDSAPub.encode(); err != nil || !bytes.Equal(key, pub) {
		return nil, nil, errors.New("body is of another public key")
	}
	if !isIdentifier(save.ShareID, mpc.Member{SetID: c.SetID, Party: self}) {
		return nil, nil, errors.New("body is of another party")
	}
	if secret, err = littleEndian(save.Xi); err != nil {
		return nil, nil, errors.New("secret is out of range")
	}
	for _, m := range members {
		publics = append(publics, public[m])
	}
	return secret, publics, nil
}

func isIdentifier(k *big.Int, m mpc.Member) bool {
	b, err := littleEndian(k)
	return err == nil && bytes.Equal(b, identifier(m).Bytes())
}

// encode is RFC 8032 §5.1.2, for coordinates that are on the curve and canonical.
func (p *tssLibPoint) encode() ([]byte, error) {
	if p == nil || p.Curve != "ed25519" {
		return nil, errors.New("a point is not on the curve")
	}
	xb, err := littleEndian(p.Coords[0])
	yb, err2 := littleEndian(p.Coords[1])
	if err != nil || err2 != nil {
		return nil, errors.New("a point is not on the curve")
	}
	var x, y, xy field.Element
	if _, err := x.SetBytes(xb); err != nil {
		return nil, err
	}
	if _, err := y.SetBytes(yb); err != nil {
		return nil, err
	}
	q, err := new(edwards25519.Point).SetExtendedCoordinates(&x, &y, new(field.Element).One(), xy.Multiply(&x, &y))
	if err != nil || !bytes.Equal(x.Bytes(), xb) || !bytes.Equal(y.Bytes(), yb) {
		return nil, errors.New("a point is not on the curve")
	}
	return q.Bytes(), nil
}

// littleEndian takes numbers from 0 to 2^256 - 1.
func littleEndian(x *big.Int) ([]byte, error) {
	if x == nil || x.Sign() < 0 || x.BitLen() > 256 {
		return nil, errors.New("number is out of range")
	}
	b := x.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return b, nil
}

func wipeInt(x *big.Int) {
	if x != nil {
		w := x.Bits()
		clear(w[:cap(w)])
		x.SetInt64(0)
	}
}
