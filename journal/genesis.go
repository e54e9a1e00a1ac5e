package journal

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
)

// Genesis is what the first entry tells: what the journal is of, and by which
// keys it may be believed.
type Genesis struct {
	ApplianceID string
	// StoreID and CheckpointKey are filled in by Create.
	StoreID       [16]byte
	CheckpointKey *ecdsa.PublicKey // P-256
	// Operators are the operators' public keys, in the spelling of their own room.
	Operators []string
	// Facts are further facts of the caller; their names must not be ours
	// ("appliance", "store", "checkpoint_key", "operator.…").
	Facts map[string]string
}

const (
	factAppliance     = "appliance"
	factStore         = "store"          // hex
	factCheckpointKey = "checkpoint_key" // hex of the SubjectPublicKeyInfo, DER
	factOperator      = "operator."      // and its number from 1
)

func (g Genesis) entry() (Entry, error) {
	der, err := x509.MarshalPKIXPublicKey(g.CheckpointKey)
	if err != nil {
		return Entry{}, fmt.Errorf("writing the genesis: %w", err)
	}
	if g.ApplianceID == "" {
		return Entry{}, errors.New("writing the genesis: no appliance id")
	}
	facts := map[string]string{
		factAppliance:     g.ApplianceID,
		factStore:         hex.EncodeToString(g.StoreID[:]),
		factCheckpointKey: hex.EncodeToString(der),
	}
	for i, o := range g.Operators {
		facts[factOperator+strconv.Itoa(i+1)] = o
	}
	for k, v := range g.Facts {
		if _, taken := facts[k]; taken || strings.HasPrefix(k, factOperator) {
			return Entry{}, fmt.Errorf("writing the genesis: the fact %q is the journal's own", k)
		}
		facts[k] = v
	}
	return Entry{Kind: KindGenesis, Facts: facts}, nil
}

// parseGenesis is the inverse of entry.
func parseGenesis(e Entry) (Genesis, error) {
	g := Genesis{ApplianceID: e.Facts[factAppliance], Facts: maps.Clone(e.Facts)}
	if g.ApplianceID == "" {
		return g, errors.New("genesis names no appliance")
	}
	store := e.Facts[factStore]
	if len(store) != 2*len(g.StoreID) {
		return g, errors.New("genesis names no store")
	}
	if _, err := hex.Decode(g.StoreID[:], []byte(store)); err != nil {
		return g, errors.New("genesis names no store")
	}
	var err error
	if g.CheckpointKey, err = parseKey(e.Facts[factCheckpointKey]); err != nil {
		return g, err
	}
	for i := 1; ; i++ {
		o, ok := e.Facts[factOperator+strconv.Itoa(i)]
		if !ok {
			break
		}
		g.Operators = append(g.Operators, o)
	}
	maps.DeleteFunc(g.Facts, func(k, _ string) bool {
		return k == factAppliance || k == factStore || k == factCheckpointKey || strings.HasPrefix(k, factOperator)
	})
	return g, nil
}

func parseKey(text string) (*ecdsa.PublicKey, error) {
	der, err := hex.DecodeString(text)
	if err != nil {
		return nil, errors.New("genesis names no checkpoint key")
	}
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("genesis names no checkpoint key")
	}
	p, ok := k.(*ecdsa.PublicKey)
	if !ok || p.Curve != elliptic.P256() {
		return nil, errors.New("genesis names a checkpoint key that is not P-256")
	}
	return p, nil
}
