package evm

import (
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// EIP-7702. An authorization puts the code of a contract behind the signer's own
// address. Signed alone it is a payload of its own; in a transaction of type 4
// it comes signed already, by anybody.

// AuthorizationRoot is the root of an authorization's view.
const AuthorizationRoot = "eth.eip_7702_authorization"

// AuthorizationType lays out the root "eth.eip_7702_authorization".
var AuthorizationType = &chains.Type{Kind: chains.KindStruct, Fields: []chains.Field{
	{Name: "address", Type: typeAddress, Doc: "the contract whose code the account will run; the zero address revokes"},
	{Name: "chain_id", Type: typeInt, Doc: "EIP-155 chain id; 0 is every chain"},
	{Name: "nonce", Type: typeInt, Doc: "the wallet's transaction count when it takes effect"},
}}

// maxAuthorizations bounds the list of one transaction: each is recovered.
const maxAuthorizations = 256

// authorization is one tuple; parity, r and s are set in signed ones.
type authorization struct {
	chainID uint256.Int
	address [20]byte
	nonce   uint64
	parity  byte
	r, s    uint256.Int
}

// digest is keccak(0x05 ‖ rlp([chain id, address, nonce])).
func (a *authorization) digest() [32]byte {
	b, err := rlp.EncodeToBytes([]any{&a.chainID, a.address, a.nonce})
	if err != nil { // three values that always encode
		panic(fmt.Sprintf("evm: encoding an authorization: %v", err))
	}
	return crypto.Keccak256Hash([]byte{0x05}, b)
}

// authority is who signed it; ok is false when nobody did, and then it has no effect.
func (a *authorization) authority() (who [20]byte, ok bool) {
	if !crypto.ValidateSignatureValues(a.parity, a.r.ToBig(), a.s.ToBig(), true) {
		return who, false
	}
	r, s, digest := a.r.Bytes32(), a.s.Bytes32(), a.digest()
	pub, err := crypto.SigToPub(digest[:], append(append(append(make([]byte, 0, 65), r[:]...), s[:]...), a.parity))
	if err != nil {
		return who, false
	}
	return crypto.PubkeyToAddress(*pub), true
}

func (a *authorization) revokes() bool { return a.address == [20]byte{} }

// readAuthorization reads one signed tuple.
func readAuthorization(r *reader, end int) (a authorization) {
	stop := r.list(end, "authorization")
	r.uint256(stop, "chain id of an authorization", &a.chainID)
	copy(a.address[:], r.fixed(stop, 20, "address of an authorization"))
	a.nonce = r.uint64(stop, "nonce of an authorization")
	at := r.pos
	parity := r.uint64(stop, "y parity of an authorization")
	if r.err == nil && parity > 1 {
		r.err = fail(chains.CodeSemantic, at, "y parity of an authorization is %d", parity)
	}
	a.parity = byte(parity)
	r.uint256(stop, "r of an authorization", &a.r)
	r.uint256(stop, "s of an authorization", &a.s)
	if r.err == nil && r.pos != stop {
		r.fail(r.pos, "more items than an authorization may have")
	}
	return a
}

// readAuthorizations checks the list and keeps its bytes; being canonical they
// stand for the contents. An empty list leaves one byte.
func (t *tx) readAuthorizations(r *reader, end int) {
	start := r.pos
	stop := r.list(end, "authorization list")
	for n := 0; r.err == nil && r.pos < stop; n++ {
		if n == maxAuthorizations {
			r.err = fail(chains.CodeSemantic, r.pos, "more than %d authorizations", maxAuthorizations)
			return
		}
		readAuthorization(r, stop)
	}
	if r.err == nil {
		t.auths = r.b[start:stop:stop]
	}
}

// authorizations reads the kept list once more.
func (t *tx) authorizations() []authorization {
	r := &reader{b: t.auths}
	var out []authorization
	for stop := r.list(len(t.auths), "authorization list"); r.err == nil && r.pos < stop; {
		out = append(out, readAuthorization(r, stop))
	}
	return out
}

func (t *tx) gethAuthorizations() []types.SetCodeAuthorization {
	var out []types.SetCodeAuthorization
	for _, a := range t.authorizations() {
		out = append(out, types.SetCodeAuthorization{ChainID: a.chainID, Address: a.address, Nonce: a.nonce, V: a.parity, R: a.r, S: a.s})
	}
	return out
}

func parseAuthorization(raw []byte) (a authorization, err error) {
	j := newJSON(raw)
	j.object([]member{
		{"chainId", func() { j.uint256(&a.chainID) }},
		{"address", func() { a.address = j.address() }},
		{"nonce", func() { a.nonce = j.uint64() }},
	})
	return a, j.end()
}

// decodeAuthorization reads the JSON text {"chainId","address","nonce"}, integers
// as numbers or strings. It spends nothing by itself; the code it installs may
// spend everything, so it is charged without a bound. Chain id 0 holds on every
// chain and, like nothing else here, for ever: a policy must read the chain id to
// allow it.
func decodeAuthorization(raw []byte, o Options) (*chains.Decoded, error) {
	a, err := parseAuthorization(raw)
	if err != nil {
		return nil, err
	}
	if a.nonce == ^uint64(0) {
		return nil, fail(chains.CodeSemantic, -1, "nonce 2^64-1 (EIP-2681)")
	}
	d := &chains.Decoded{Chain: chainName(&a.chainID), Sign: chains.SignInput{Digest: a.digest()}}
	d.View = chains.View{AuthorizationRoot: chains.StructValue(
		chains.AddressValue(a.address), chains.IntValue(&a.chainID), chains.Uint64Value(a.nonce))}
	d.Guards = []string{AuthorizationRoot}
	if a.chainID.IsZero() {
		d.Guards = []string{AuthorizationRoot + ".chain_id"}
	}
	if !a.revokes() {
		d.Opaque = true
		d.Charges = []chains.Charge{unbounded(d.Chain, Checksum(a.address))}
	}
	if o.walletKnown() {
		d.ReplayKeys = []string{fmt.Sprintf("evm-authorization:%s:0x%x:%d", a.chainID.Dec(), o.Wallet, a.nonce)}
	}
	d.Summary = a.summary()
	return d, nil
}

func (a *authorization) summary() string {
	where := "on chain " + a.chainID.Dec()
	if a.chainID.IsZero() {
		where = "on EVERY EVM chain"
	}
	if a.revokes() {
		return fmt.Sprintf("remove the code from this account %s (EIP-7702); nonce %d", where, a.nonce)
	}
	return fmt.Sprintf("let the code of %s run as this account, with everything it owns, %s (EIP-7702); nonce %d", Checksum(a.address), where, a.nonce)
}

// chainName is the CAIP-2 id of a chain, or "eip155" for id 0: all of them.
func chainName(id *uint256.Int) string {
	if id.IsZero() {
		return "eip155"
	}
	return "eip155:" + id.Dec()
}

// unbounded is a charge of native coins that nothing bounds.
func unbounded(chain, to string) chains.Charge {
	return chains.Charge{Chain: chain, Asset: chain + "/slip44:60", Unbounded: true, What: "transfer", To: to}
}

// signedAuthorization is rlp([chain id, address, nonce, y parity, r, s]), as a
// transaction's authorization list takes it, read again.
func signedAuthorization(raw []byte, wallet [20]byte, r, s [32]byte, recid byte) ([]byte, error) {
	a, err := parseAuthorization(raw)
	if err != nil {
		return nil, fmt.Errorf("decoding payload again: %w", err)
	}
	a.parity = recid
	a.r.SetBytes32(r[:])
	a.s.SetBytes32(s[:])
	signed, err := rlp.EncodeToBytes(&types.SetCodeAuthorization{ChainID: a.chainID, Address: common.Address(a.address), Nonce: a.nonce, V: a.parity, R: a.r, S: a.s})
	if err != nil {
		return nil, fmt.Errorf("encoding signed authorization: %w", err)
	}
	again := &reader{b: signed}
	got := readAuthorization(again, len(signed))
	if who, ok := got.authority(); again.err != nil || again.pos != len(signed) || got != a || !ok || who != wallet {
		return nil, fmt.Errorf("comparing signed authorization: %w", ErrMismatch)
	}
	return signed, nil
}
