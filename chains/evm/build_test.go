package evm

import (
	"crypto/ecdsa"
	"math/big"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

var (
	testKey, _  = crypto.HexToECDSA("4646464646464646464646464646464646464646464646464646464646464646")
	testWallet  = [20]byte(crypto.PubkeyToAddress(testKey.PublicKey))
	otherKey, _ = crypto.HexToECDSA("4747474747474747474747474747474747474747474747474747474747474747")
	testTo      = common.HexToAddress("0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045")
)

// encode writes an unsigned transaction with go-ethereum's encoder: the other
// implementation that ours is held against.
func encode(t testing.TB, data types.TxData) []byte {
	t.Helper()
	var typ []byte
	var items []any
	switch x := data.(type) {
	case *types.LegacyTx: // V carries the chain id
		items = []any{x.Nonce, x.GasPrice, x.Gas, to(x.To), x.Value, x.Data, x.V, uint(0), uint(0)}
	case *types.AccessListTx:
		typ = []byte{1}
		items = []any{x.ChainID, x.Nonce, x.GasPrice, x.Gas, to(x.To), x.Value, x.Data, x.AccessList}
	case *types.DynamicFeeTx:
		typ = []byte{2}
		items = []any{x.ChainID, x.Nonce, x.GasTipCap, x.GasFeeCap, x.Gas, to(x.To), x.Value, x.Data, x.AccessList}
	case *types.BlobTx:
		typ = []byte{3}
		items = []any{x.ChainID, x.Nonce, x.GasTipCap, x.GasFeeCap, x.Gas, x.To, x.Value, x.Data, x.AccessList, x.BlobFeeCap, x.BlobHashes}
	case *types.SetCodeTx:
		typ = []byte{4}
		items = []any{x.ChainID, x.Nonce, x.GasTipCap, x.GasFeeCap, x.Gas, x.To, x.Value, x.Data, x.AccessList, x.AuthList}
	default:
		t.Fatalf("no encoder for %T", data)
	}
	b, err := rlp.EncodeToBytes(items)
	if err != nil {
		t.Fatal(err)
	}
	return append(typ, b...)
}

func to(a *common.Address) []byte {
	if a == nil {
		return nil
	}
	return a[:]
}

// transfer is a plain EIP-1559 transfer, changed by the caller's functions.
func transfer(change ...func(*types.DynamicFeeTx)) *types.DynamicFeeTx {
	x := &types.DynamicFeeTx{
		ChainID: big.NewInt(1), Nonce: 7, GasTipCap: big.NewInt(1e9), GasFeeCap: big.NewInt(30e9),
		Gas: 21000, To: &testTo, Value: big.NewInt(5e17),
	}
	for _, f := range change {
		f(x)
	}
	return x
}

// sign signs with a whole key, as the threshold engine would.
func sign(t testing.TB, key *ecdsa.PrivateKey, digest [32]byte) (r, s [32]byte, recid byte) {
	t.Helper()
	sig, err := crypto.Sign(digest[:], key)
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(sig[:32]), [32]byte(sig[32:64]), sig[64]
}

// decodeTx and assembleTx are for a transaction of a wallet without ABIs.
func decodeTx(b []byte, wallet [20]byte) (*chains.Decoded, error) {
	return Decode(chains.KindEVMTransaction, b, Options{Wallet: wallet})
}

func assembleTx(d *chains.Decoded, wallet [20]byte, r, s [32]byte, recid byte) (signed []byte, hash [32]byte, err error) {
	out, err := Assemble(d, Options{Wallet: wallet}, r, s, recid)
	if err != nil {
		return nil, hash, err
	}
	return out.Signed, common.HexToHash(out.ID), nil
}

// setCode is a transaction with authorizations.
func setCode(list []types.SetCodeAuthorization) *types.SetCodeTx {
	x := &types.SetCodeTx{ChainID: uint256.NewInt(1), Nonce: 7, GasTipCap: uint256.NewInt(1e9), GasFeeCap: uint256.NewInt(30e9), Gas: 100000, To: testTo, Value: new(uint256.Int), AuthList: list}
	return x
}
