package evm

import (
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/sigild/sigild/chains"
)

func TestAssembleSendersAgree(t *testing.T) {
	list := types.AccessList{{Address: testTo, StorageKeys: []common.Hash{{1}, {2}}}, {Address: testTo}}
	for name, data := range map[string]types.TxData{
		"legacy":  &types.LegacyTx{Nonce: 1, GasPrice: big.NewInt(2e9), Gas: 21000, To: &testTo, Value: big.NewInt(3), V: big.NewInt(137)},
		"2930":    &types.AccessListTx{ChainID: big.NewInt(5), GasPrice: big.NewInt(1), Gas: 50000, To: &testTo, Value: big.NewInt(0), AccessList: list},
		"1559":    transfer(func(x *types.DynamicFeeTx) { x.AccessList = list }),
		"create":  transfer(func(x *types.DynamicFeeTx) { x.To = nil; x.Data = []byte{0x60, 0x00} }),
		"chain38": transfer(func(x *types.DynamicFeeTx) { x.ChainID = new(big.Int).Lsh(big.NewInt(1), 200) }),
	} {
		t.Run(name, func(t *testing.T) {
			d, err := decodeTx(encode(t, data), testWallet)
			if err != nil {
				t.Fatal(err)
			}
			r, s, recid := sign(t, testKey, d.Sign.Digest)
			signed, hash, err := assembleTx(d, testWallet, r, s, recid)
			if err != nil {
				t.Fatal(err)
			}
			var tx types.Transaction
			if err := tx.UnmarshalBinary(signed); err != nil {
				t.Fatal(err)
			}
			from, err := types.Sender(types.LatestSignerForChainID(tx.ChainId()), &tx)
			if err != nil || from != common.Address(testWallet) {
				t.Errorf("sender %s (%v), want %x", from, err, testWallet)
			}
			if tx.Hash() != common.Hash(hash) {
				t.Errorf("hash %x, want %s", hash, tx.Hash())
			}
		})
	}
}

func TestAssembleRefusesBadSignatures(t *testing.T) {
	d, err := decodeTx(encode(t, transfer()), testWallet)
	if err != nil {
		t.Fatal(err)
	}
	r, s, recid := sign(t, testKey, d.Sign.Digest)
	if _, _, err := assembleTx(d, testWallet, r, s, recid); err != nil {
		t.Fatalf("good signature: %v", err)
	}
	n := crypto.S256().Params().N
	highS := [32]byte(new(big.Int).Sub(n, new(big.Int).SetBytes(s[:])).FillBytes(make([]byte, 32)))
	order := [32]byte(n.FillBytes(make([]byte, 32)))
	or, os, orec := sign(t, otherKey, d.Sign.Digest)
	dr, ds, drec := sign(t, testKey, [32]byte{1})
	for name, tc := range map[string]struct {
		r, s  [32]byte
		recid byte
	}{
		"high s":           {r, highS, recid ^ 1},
		"recovery id 2":    {r, s, 2},
		"recovery id 27":   {r, s, recid + 27},
		"wrong recovery":   {r, s, recid ^ 1},
		"zero r":           {[32]byte{}, s, recid},
		"zero s":           {r, [32]byte{}, recid},
		"r is the order":   {order, s, recid},
		"s is the order":   {r, order, recid},
		"another key":      {or, os, orec},
		"another digest":   {dr, ds, drec},
		"swapped r and s":  {s, r, recid},
		"one bit in r":     {flip(r), s, recid},
		"one bit in s":     {r, flip(s), recid},
		"all of it zero":   {},
		"signature of FFs": {[32]byte(ff()), [32]byte(ff()), 1},
	} {
		signed, hash, err := assembleTx(d, testWallet, tc.r, tc.s, tc.recid)
		if !errors.Is(err, ErrSignature) || signed != nil || hash != [32]byte{} {
			t.Errorf("%s: got %x, %v; want ErrSignature", name, signed, err)
		}
	}
}

func flip(b [32]byte) [32]byte { b[31] ^= 1; return b }

func ff() []byte {
	b := make([]byte, 32)
	for i := range b {
		b[i] = 0xff
	}
	return b
}

func TestAssembleRefusesWhatIsNotWhatWasDecoded(t *testing.T) {
	decode := func() *chains.Decoded {
		d, err := decodeTx(encode(t, transfer()), testWallet)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	r, s, recid := sign(t, testKey, decode().Sign.Digest)
	for name, change := range map[string]func(*chains.Decoded){
		"view":   func(d *chains.Decoded) { d.View[Root].List[TxType.Index("value")].Int.SetUint64(1) },
		"to":     func(d *chains.Decoded) { d.View[Root].List[TxType.Index("to")].Raw[0] ^= 1 },
		"digest": func(d *chains.Decoded) { d.Sign.Digest[0] ^= 1 },
		"raw":    func(d *chains.Decoded) { d.Raw[len(d.Raw)-20] ^= 1 },
		"root":   func(d *chains.Decoded) { d.View = chains.View{} },
	} {
		d := decode()
		change(d)
		if signed, _, err := assembleTx(d, testWallet, r, s, recid); err == nil || signed != nil {
			t.Errorf("changed %s: assembled", name)
		} else if !errors.Is(err, ErrMismatch) {
			t.Errorf("changed %s: %v, want ErrMismatch", name, err)
		}
	}
	d := decode()
	d.Raw = d.Raw[:10]
	if _, _, err := assembleTx(d, testWallet, r, s, recid); err == nil {
		t.Error("cut payload assembled")
	}
	if _, _, err := assembleTx(decode(), [20]byte{1}, r, s, recid); err == nil {
		t.Error("assembled for another wallet")
	}
}

// The comparison itself, fed with a transaction that somebody else assembled.
func TestCompareSeesEveryField(t *testing.T) {
	list := types.AccessList{{Address: testTo, StorageKeys: []common.Hash{{1}}}}
	base := func(x *types.DynamicFeeTx) { x.Data = []byte{1, 2}; x.AccessList = list }
	d, err := decodeTx(encode(t, transfer(base)), testWallet)
	if err != nil {
		t.Fatal(err)
	}
	want, err := parse(d.Raw, false)
	if err != nil {
		t.Fatal(err)
	}
	r, s, recid := sign(t, testKey, d.Sign.Digest)
	signed := func(change ...func(*types.DynamicFeeTx)) []byte {
		x := transfer(append([]func(*types.DynamicFeeTx){base}, change...)...)
		x.V, x.R, x.S = big.NewInt(int64(recid)), new(big.Int).SetBytes(r[:]), new(big.Int).SetBytes(s[:])
		for _, f := range change {
			f(x)
		}
		b, err := types.NewTx(x).MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := compare(signed(), want, d.View, Options{Wallet: testWallet}, r, s, recid); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	for name, change := range map[string]func(*types.DynamicFeeTx){
		"chain id":    func(x *types.DynamicFeeTx) { x.ChainID = big.NewInt(10) },
		"nonce":       func(x *types.DynamicFeeTx) { x.Nonce++ },
		"tip":         func(x *types.DynamicFeeTx) { x.GasTipCap = big.NewInt(2) },
		"fee":         func(x *types.DynamicFeeTx) { x.GasFeeCap = big.NewInt(31e9) },
		"gas":         func(x *types.DynamicFeeTx) { x.Gas++ },
		"to":          func(x *types.DynamicFeeTx) { x.To = &common.Address{1} },
		"create":      func(x *types.DynamicFeeTx) { x.To = nil },
		"value":       func(x *types.DynamicFeeTx) { x.Value = big.NewInt(1) },
		"data":        func(x *types.DynamicFeeTx) { x.Data = []byte{1, 3} },
		"access list": func(x *types.DynamicFeeTx) { x.AccessList = nil },
		"storage key": func(x *types.DynamicFeeTx) {
			x.AccessList = types.AccessList{{Address: testTo, StorageKeys: []common.Hash{{2}}}}
		},
		"parity": func(x *types.DynamicFeeTx) { x.V = big.NewInt(int64(recid ^ 1)) },
		"r":      func(x *types.DynamicFeeTx) { x.R = big.NewInt(1) },
		"s":      func(x *types.DynamicFeeTx) { x.S = big.NewInt(1) },
	} {
		if err := compare(signed(change), want, d.View, Options{Wallet: testWallet}, r, s, recid); !errors.Is(err, ErrMismatch) {
			t.Errorf("changed %s: %v, want ErrMismatch", name, err)
		}
	}
	if err := compare(signed()[:40], want, d.View, Options{Wallet: testWallet}, r, s, recid); err == nil {
		t.Error("cut transaction compares equal")
	}
	legacyV := mustRLP(t, []any{uint64(7), big.NewInt(1), uint64(1), testTo, big.NewInt(1), []byte{}, uint(27), uint(1), uint(1)})
	if err := compare(legacyV, want, d.View, Options{Wallet: testWallet}, r, s, recid); err == nil {
		t.Error("signature without a chain id compares equal")
	}
}

func TestAddress(t *testing.T) {
	want := Checksum(testWallet)
	for _, pub := range [][]byte{crypto.CompressPubkey(&testKey.PublicKey), crypto.FromECDSAPub(&testKey.PublicKey)} {
		got, err := Address(pub)
		if err != nil || Checksum(got) != want {
			t.Errorf("Address(%d bytes) = %x, %v; want %s", len(pub), got, err, want)
		}
	}
	bad := crypto.FromECDSAPub(&testKey.PublicKey)
	bad[64] ^= 1
	for _, pub := range [][]byte{nil, make([]byte, 33), make([]byte, 64), bad, append([]byte{5}, make([]byte, 32)...)} {
		if a, err := Address(pub); err == nil {
			t.Errorf("Address(%x) = %x, want an error", pub, a)
		}
	}
}

// Spellings from EIP-55.
func TestParseAddress(t *testing.T) {
	const good = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	for _, s := range []string{good, strings.ToLower(good), "0x" + strings.ToUpper(good[2:]), "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"} {
		a, err := ParseAddress(s)
		if err != nil || !strings.EqualFold("0x"+hex.EncodeToString(a[:]), s) {
			t.Errorf("ParseAddress(%s) = %x, %v", s, a, err)
		}
	}
	if _, err := ParseAddress("0x5aaeb6053F3E94C9b9A09f33669435E7Ef1BeAed"); !errors.Is(err, ErrChecksum) {
		t.Errorf("wrong checksum: %v, want ErrChecksum", err)
	}
	for _, s := range []string{"", "0x", good[2:], good + "0", good[:41], "0X" + good[2:], "0xg" + good[3:], " " + good[1:]} {
		if a, err := ParseAddress(s); err == nil {
			t.Errorf("ParseAddress(%q) = %x, want an error", s, a)
		}
	}
}
