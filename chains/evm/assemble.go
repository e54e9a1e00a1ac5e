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
	ErrSignature = errors.New("signature is not the wallet's over this payload")
	// ErrMismatch: what would be released is not what was decoded.
	ErrMismatch = errors.New("assembled payload differs from the decoded one")
)

// Assembled is what may be released.
type Assembled struct {
	// Signed is the network encoding of a transaction; rlp([chain id, address,
	// nonce, y parity, r, s]) of an authorization; else the 65 bytes r ‖ s ‖ v with
	// v 27 or 28, as contracts and libraries take them.
	Signed []byte
	// ID is the hash of a transaction, of a user operation (userOpHash) or of a Safe
	// transaction (safeTxHash), with 0x; empty for the others.
	ID string
}

// Assemble puts the signature (r, s big-endian; recid 0 or 1) to the payload that d
// was decoded from. o must be what it was decoded with. Nothing is returned that
// does not decode again, field for field, to d.View, or whose signature does not
// recover to the wallet with s in the lower half (EIP-2).
func Assemble(d *chains.Decoded, o Options, r, s [32]byte, recid byte) (*Assembled, error) {
	// Step 1: d must still say what its bytes say.
	fresh, err := Decode(d.Kind, d.Raw, o)
	if err != nil {
		return nil, fmt.Errorf("decoding payload again: %w", err)
	}
	if fresh.Sign.Digest != d.Sign.Digest || !fresh.View.Equal(d.View) {
		return nil, fmt.Errorf("decoding payload again: %w", ErrMismatch)
	}
	// Step 2: the signature must be the wallet's.
	if err := checkSignature(d.Sign.Digest, r, s, recid, o.Wallet); err != nil {
		return nil, err
	}
	// Step 3: put it where its kind has it, and look again at what leaves.
	switch d.Kind {
	case chains.KindEVMTransaction:
		return assembleTransaction(fresh, d.View, o, r, s, recid)
	case chains.KindEVMAuthorization:
		signed, err := signedAuthorization(fresh.Raw, o.Wallet, r, s, recid)
		if err != nil {
			return nil, err
		}
		return &Assembled{Signed: signed}, nil
	}
	out := &Assembled{Signed: append(append(append(make([]byte, 0, 65), r[:]...), s[:]...), 27+recid)}
	switch d.Kind {
	case chains.KindEVMUserOperation:
		out.ID = d.View[UserOperationRoot].List[UserOperationType.Index("user_operation_hash")].Str
	case chains.KindEVMSafeTransaction:
		out.ID = fmt.Sprintf("0x%x", d.Sign.Digest)
	}
	return out, nil
}

// assembleTransaction lets go-ethereum assemble, from our fields.
func assembleTransaction(fresh *chains.Decoded, view chains.View, o Options, r, s [32]byte, recid byte) (*Assembled, error) {
	t, err := parse(fresh.Raw, false)
	if err != nil {
		return nil, fmt.Errorf("decoding payload again: %w", err)
	}
	sig := append(append(append(make([]byte, 0, 65), r[:]...), s[:]...), recid)
	signer := types.LatestSignerForChainID(t.chainID.ToBig())
	gtx, err := types.NewTx(t.txData()).WithSignature(signer, sig)
	if err != nil {
		return nil, fmt.Errorf("adding the signature: %w", err)
	}
	signed, err := gtx.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("encoding signed transaction: %w", err)
	}
	// What leaves must decode to what was judged, by our reader and theirs.
	if err := compare(signed, t, view, o, r, s, recid); err != nil {
		return nil, err
	}
	if from, err := types.Sender(signer, gtx); err != nil || from != common.Address(o.Wallet) {
		return nil, fmt.Errorf("recovering the sender: %w", ErrMismatch)
	}
	return &Assembled{Signed: signed, ID: crypto.Keccak256Hash(signed).Hex()}, nil
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
func compare(signed []byte, want *tx, view chains.View, o Options, r, s [32]byte, recid byte) error {
	got, err := parse(signed, true)
	if err != nil {
		return fmt.Errorf("decoding signed transaction: %w", err)
	}
	var ri, si uint256.Int
	ri.SetBytes32(r[:])
	si.SetBytes32(s[:])
	auths, _ := got.authorizationViews(o)
	if !(chains.View{Root: got.view(got.flatten(o), auths)}).Equal(view) || got.typ != want.typ ||
		!bytes.Equal(got.accessList, want.accessList) || !bytes.Equal(got.blobHashes, want.blobHashes) || !bytes.Equal(got.auths, want.auths) ||
		got.parity != recid || got.r != ri || got.s != si {
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
	case typeBlob:
		return &types.BlobTx{ChainID: &t.chainID, Nonce: t.nonce, GasTipCap: &t.tip, GasFeeCap: &t.price, Gas: t.gas,
			To: *to, Value: &t.value, Data: t.data, AccessList: t.accessTuples(), BlobFeeCap: &t.blobFee, BlobHashes: t.gethHashes()}
	case typeSetCode:
		return &types.SetCodeTx{ChainID: &t.chainID, Nonce: t.nonce, GasTipCap: &t.tip, GasFeeCap: &t.price, Gas: t.gas,
			To: *to, Value: &t.value, Data: t.data, AccessList: t.accessTuples(), AuthList: t.gethAuthorizations()}
	}
	return &types.DynamicFeeTx{ChainID: t.chainID.ToBig(), Nonce: t.nonce, GasTipCap: t.tip.ToBig(), GasFeeCap: t.price.ToBig(),
		Gas: t.gas, To: to, Value: t.value.ToBig(), Data: t.data, AccessList: t.accessTuples()}
}

func (t *tx) accessTuples() types.AccessList {
	list := types.AccessList{}
	t.eachAccess(func(address []byte, keys [][]byte) {
		tuple := types.AccessTuple{Address: common.BytesToAddress(address), StorageKeys: []common.Hash{}}
		for _, k := range keys {
			tuple.StorageKeys = append(tuple.StorageKeys, common.BytesToHash(k))
		}
		list = append(list, tuple)
	})
	return list
}

func (t *tx) gethHashes() (out []common.Hash) {
	for _, h := range t.hashes() {
		out = append(out, common.BytesToHash(h))
	}
	return out
}
