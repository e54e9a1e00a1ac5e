package evm

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Errors of [Assemble].
var (
	// ErrSignature: the signature is not a low-s one of the wallet over the digest.
	ErrSignature = errors.New("signature is not the wallet's over this transaction")
	// ErrMismatch: what would be released is not what was decoded.
	ErrMismatch = errors.New("assembled transaction differs from the decoded one")
)

// Assemble builds the signed transaction of d for wallet from the signature
// (r, s big-endian; recid 0 or 1) and returns its network encoding and its hash.
// Nothing is returned that does not decode, field for field, to d.View, or whose
// signature does not recover to wallet with s in the lower half (EIP-2).
func Assemble(d *chains.Decoded, wallet [20]byte, r, s [32]byte, recid byte) (signed []byte, txHash [32]byte, err error) {
	// Step 1: d must still say what its bytes say.
	fresh, err := Decode(d.Raw, wallet)
	if err != nil {
		return nil, txHash, fmt.Errorf("decoding payload again: %w", err)
	}
	if fresh.Sign.Digest != d.Sign.Digest || !fresh.View.Equal(d.View) {
		return nil, txHash, fmt.Errorf("decoding payload again: %w", ErrMismatch)
	}
	// Step 2: the signature must be the wallet's.
	if err := checkSignature(d.Sign.Digest, r, s, recid, wallet); err != nil {
		return nil, txHash, err
	}
	// Step 3: go-ethereum assembles, from our fields.
	t, err := parse(fresh.Raw, false)
	if err != nil {
		return nil, txHash, fmt.Errorf("decoding payload again: %w", err)
	}
	sig := append(append(append(make([]byte, 0, 65), r[:]...), s[:]...), recid)
	signer := types.LatestSignerForChainID(t.chainID.ToBig())
	gtx, err := types.NewTx(t.txData()).WithSignature(signer, sig)
	if err != nil {
		return nil, txHash, fmt.Errorf("adding the signature: %w", err)
	}
	signed, err = gtx.MarshalBinary()
	if err != nil {
		return nil, txHash, fmt.Errorf("encoding signed transaction: %w", err)
	}
	// Step 4: what leaves must decode to what was judged, by our reader and theirs.
	if err := compare(signed, t, d.View, wallet, r, s, recid); err != nil {
		return nil, txHash, err
	}
	if from, err := types.Sender(signer, gtx); err != nil || from != common.Address(wallet) {
		return nil, txHash, fmt.Errorf("recovering the sender: %w", ErrMismatch)
	}
	return signed, crypto.Keccak256Hash(signed), nil
}

func checkSignature(digest, r, s [32]byte, recid byte, wallet [20]byte) error {
	var ri, si uint256.Int
	ri.SetBytes32(r[:])
	si.SetBytes32(s[:])
	if recid > 1 || !crypto.ValidateSignatureValues(recid, ri.ToBig(), si.ToBig(), true) {
		return fmt.Errorf("checking r, s and recovery id: %w", ErrSignature)
	}
	sig := append(append(append(make([]byte, 0, 65), r[:]...), s[:]...), recid)
	pub, err := crypto.SigToPub(digest[:], sig)
	if err != nil || crypto.PubkeyToAddress(*pub) != common.Address(wallet) {
		return fmt.Errorf("recovering the signer: %w", ErrSignature)
	}
	return nil
}

// compare decodes the signed bytes and holds every field against what was judged.
func compare(signed []byte, want *tx, view chains.View, wallet [20]byte, r, s [32]byte, recid byte) error {
	got, err := parse(signed, true)
	if err != nil {
		return fmt.Errorf("decoding signed transaction: %w", err)
	}
	var ri, si uint256.Int
	ri.SetBytes32(r[:])
	si.SetBytes32(s[:])
	if !(chains.View{Root: got.view(wallet)}).Equal(view) || got.typ != want.typ ||
		!bytes.Equal(got.accessList, want.accessList) || got.parity != recid || got.r != ri || got.s != si {
		return fmt.Errorf("comparing signed transaction: %w", ErrMismatch)
	}
	return nil
}

// txData hands the fields to go-ethereum.
func (t *tx) txData() types.TxData {
	var to *common.Address
	if len(t.to) == 20 {
		a := common.Address(t.to)
		to = &a
	}
	switch t.typ {
	case typeLegacy:
		return &types.LegacyTx{Nonce: t.nonce, GasPrice: t.price.ToBig(), Gas: t.gas, To: to, Value: t.value.ToBig(), Data: t.data}
	case typeAccess:
		return &types.AccessListTx{ChainID: t.chainID.ToBig(), Nonce: t.nonce, GasPrice: t.price.ToBig(), Gas: t.gas,
			To: to, Value: t.value.ToBig(), Data: t.data, AccessList: t.accessTuples()}
	}
	return &types.DynamicFeeTx{ChainID: t.chainID.ToBig(), Nonce: t.nonce, GasTipCap: t.tip.ToBig(), GasFeeCap: t.price.ToBig(),
		Gas: t.gas, To: to, Value: t.value.ToBig(), Data: t.data, AccessList: t.accessTuples()}
}

// accessTuples reads the access list once more; readAccessList has checked it.
func (t *tx) accessTuples() types.AccessList {
	r := &reader{b: t.accessList}
	stop := r.list(len(t.accessList), "access list")
	list := types.AccessList{}
	for r.err == nil && r.pos < stop {
		entry := r.list(stop, "access list entry")
		tuple := types.AccessTuple{Address: common.BytesToAddress(r.fixed(entry, 20, "access list address")), StorageKeys: []common.Hash{}}
		keys := r.list(entry, "storage keys")
		for r.err == nil && r.pos < keys {
			tuple.StorageKeys = append(tuple.StorageKeys, common.BytesToHash(r.fixed(keys, 32, "storage key")))
		}
		list = append(list, tuple)
	}
	return list
}
