package evm

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// vector is one row of testdata/evm_tx.jsonl.
type vector struct {
	ID       string
	Type     int
	Unsigned string
	Fields   struct {
		ChainID, Nonce, To, Value, Data, Gas         string
		GasPrice, MaxFeePerGas, MaxPriorityFeePerGas string
		MaxFeePerBlobGas                             string
		BlobVersionedHashes                          []string
		AccessList                                   []struct {
			Address     string
			StorageKeys []string
		}
		AuthorizationList []struct{ ChainID, Address, Nonce, Authority string }
	}
	SigningHash string
	From        string
	Signature   struct {
		R, S    string
		YParity byte
	}
	Signed, TxHash string
}

func rows[T any](t testing.TB, file string) []T {
	t.Helper()
	f, err := os.Open("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []T
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var row T
		if err := json.Unmarshal(s.Bytes(), &row); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		out = append(out, row)
	}
	if s.Err() != nil || len(out) == 0 {
		t.Fatalf("%s: %d rows, %v", file, len(out), s.Err())
	}
	return out
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimPrefix(s, "0x"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// field reads one field of the view by its name in the policy language.
func field(t testing.TB, d *chains.Decoded, name string) chains.Value {
	t.Helper()
	if err := TxType.Conform(d.View[Root]); err != nil {
		t.Fatalf("view: %v", err)
	}
	i := TxType.Index(name)
	if i < 0 {
		t.Fatalf("no field %s", name)
	}
	return d.View[Root].List[i]
}

func wantCode(t *testing.T, err error, code string) *chains.DecodeError {
	t.Helper()
	var de *chains.DecodeError
	if !errors.As(err, &de) {
		t.Fatalf("got error %v, want a DecodeError with code %s", err, code)
	}
	if de.Code != code {
		t.Fatalf("got code %s (%v), want %s", de.Code, err, code)
	}
	return de
}

func TestVectors(t *testing.T) {
	decoded := 0
	for _, v := range rows[vector](t, "evm_tx.jsonl") {
		t.Run(v.ID, func(t *testing.T) {
			wallet := common.HexToAddress(v.From)
			in := unhex(t, v.Unsigned)
			d, err := decodeTx(in, wallet)
			if err != nil {
				t.Fatal(err)
			}
			decoded++
			checkFields(t, d, v)
			if got := "0x" + hex.EncodeToString(d.Sign.Digest[:]); got != v.SigningHash {
				t.Errorf("signing hash %s, want %s", got, v.SigningHash)
			}
			if !bytes.Equal(d.Raw, in) || &d.Raw[0] == &in[0] {
				t.Error("Raw is not a copy of the payload")
			}
			signed, hash, err := assembleTx(d, wallet, [32]byte(unhex(t, v.Signature.R)), [32]byte(unhex(t, v.Signature.S)), v.Signature.YParity)
			if err != nil {
				t.Fatal(err)
			}
			if got := "0x" + hex.EncodeToString(signed); got != v.Signed {
				t.Errorf("signed %s, want %s", got, v.Signed)
			}
			if got := "0x" + hex.EncodeToString(hash[:]); got != v.TxHash {
				t.Errorf("transaction hash %s, want %s", got, v.TxHash)
			}
			if _, err := decodeTx(signed, wallet); err == nil {
				t.Error("the signed transaction was taken as unsigned")
			} else {
				wantCode(t, err, chains.CodeForm)
			}
		})
	}
	if decoded < 40 {
		t.Errorf("only %d rows decoded", decoded)
	}
}

func checkFields(t *testing.T, d *chains.Decoded, v vector) {
	t.Helper()
	f := v.Fields
	price, maxFee, tip := f.GasPrice, "", ""
	if v.Type >= 2 {
		price, maxFee, tip = f.MaxFeePerGas, f.MaxFeePerGas, f.MaxPriorityFeePerGas
	}
	for name, want := range map[string]string{
		"value": f.Value, "gas": f.Gas, "gas_price": price, "chain_id": f.ChainID, "nonce": f.Nonce,
		"max_fee_per_gas": maxFee, "max_priority_fee_per_gas": tip, "max_fee_per_blob_gas": f.MaxFeePerBlobGas,
	} {
		got := field(t, d, name)
		if want == "" {
			if got.Kind != chains.KindAbsent {
				t.Errorf("%s is present", name)
			}
		} else if got.Kind != chains.KindInt || got.Int.Dec() != want {
			t.Errorf("%s = %s, want %s", name, got.Int.Dec(), want)
		}
	}
	if got := field(t, d, "from").Raw; common.BytesToAddress(got).Hex() != v.From {
		t.Errorf("from = %x, want %s", got, v.From)
	}
	to := field(t, d, "to")
	if f.To == "" && to.Kind != chains.KindAbsent || f.To != "" && common.BytesToAddress(to.Raw).Hex() != f.To {
		t.Errorf("to = %x, want %s", to.Raw, f.To)
	}
	if got := field(t, d, "data"); got.Str != f.Data {
		t.Errorf("data = %s, want %s", got.Str, f.Data)
	}
	if got, want := field(t, d, "type").Str, []string{"LEGACY", "TYPE_1", "TYPE_2", "TYPE_3", "TYPE_4"}[v.Type]; got != want {
		t.Errorf("type = %s, want %s", got, want)
	}
	if want := "eip155:" + f.ChainID; d.Chain != want {
		t.Errorf("chain = %s, want %s", d.Chain, want)
	}
	if want := "evm-nonce:" + f.ChainID + ":" + strings.ToLower(v.From) + ":" + f.Nonce; len(d.ReplayKeys) != 1 || d.ReplayKeys[0] != want {
		t.Errorf("replay keys %v, want %s", d.ReplayKeys, want)
	}
	checkLists(t, d, v)
	plain := f.Data == "0x" && f.To != ""
	token := strings.HasPrefix(f.Data, "0xa9059cbb000000000000000000000000") && len(f.Data) == 2+2*68
	if (plain || token) && !d.Opaque {
		checkCharges(t, d, v, price, token)
	} else if plain || token || len(d.Charges) == 0 && f.Value != "0" {
		t.Errorf("opaque = %v, charges %+v with data %s", d.Opaque, d.Charges, f.Data)
	}
}

// checkLists compares access list, blob hashes and authorizations.
func checkLists(t *testing.T, d *chains.Decoded, v vector) {
	t.Helper()
	var got, want []string
	for _, e := range v.Fields.AccessList {
		want = append(want, strings.ToLower(e.Address))
		for _, k := range e.StorageKeys {
			want = append(want, strings.ToLower(k))
		}
	}
	want = append(want, v.Fields.BlobVersionedHashes...)
	for _, a := range v.Fields.AuthorizationList {
		want = append(want, a.ChainID, strings.ToLower(a.Address), a.Nonce)
	}
	for _, e := range field(t, d, "access_list").List {
		got = append(got, hexText(e.List[0].Raw))
		for _, k := range e.List[1].List {
			got = append(got, k.Str)
		}
	}
	for _, h := range field(t, d, "blob_versioned_hashes").List {
		got = append(got, h.Str)
	}
	for _, a := range field(t, d, "authorization_list").List {
		got = append(got, a.List[1].Int.Dec(), hexText(a.List[0].Raw), a.List[2].Int.Dec())
	}
	if !slices.Equal(got, want) {
		t.Errorf("lists %v, want %v", got, want)
	}
}

func checkCharges(t *testing.T, d *chains.Decoded, v vector, price string, token bool) {
	t.Helper()
	fee := new(uint256.Int).Mul(uint256.MustFromDecimal(v.Fields.Gas), uint256.MustFromDecimal(price))
	if n := len(v.Fields.BlobVersionedHashes); n > 0 {
		blobs := new(uint256.Int).Mul(uint256.NewInt(uint64(n)*131072), uint256.MustFromDecimal(v.Fields.MaxFeePerBlobGas))
		fee.Add(fee, blobs)
	}
	native := d.Chain + "/slip44:60"
	var want []chains.Charge
	if value := uint256.MustFromDecimal(v.Fields.Value); !value.IsZero() {
		want = append(want, chains.Charge{Chain: d.Chain, Asset: native, Amount: *value, What: "transfer", To: v.Fields.To})
	}
	if token {
		c := chains.Charge{Chain: d.Chain, Asset: d.Chain + "/erc20:" + strings.ToLower(v.Fields.To), What: "transfer"}
		data := unhex(t, v.Fields.Data)
		c.Amount.SetBytes(data[36:])
		c.To = common.BytesToAddress(data[16:36]).Hex()
		want = append(want, c)
	}
	if !fee.IsZero() {
		want = append(want, chains.Charge{Chain: d.Chain, Asset: native, Amount: *fee, What: "fee"})
	}
	if len(d.Charges) != len(want) {
		t.Fatalf("charges %+v, want %+v", d.Charges, want)
	}
	for i := range want {
		if d.Charges[i] != want[i] {
			t.Errorf("charge %d is %+v, want %+v", i, d.Charges[i], want[i])
		}
	}
}

func TestMalformedVectorsAreRefused(t *testing.T) {
	type malformed struct{ ID, Tier, Class, Input string }
	for _, v := range rows[malformed](t, "evm_malformed.jsonl") {
		t.Run(v.ID+"_"+v.Class, func(t *testing.T) {
			if v.Tier == "input-form" { // not hex as the command line takes it; its text is no transaction either
				if _, err := decodeTx([]byte(v.Input), [20]byte{}); err == nil {
					t.Fatal("accepted")
				}
				return
			}
			in := unhex(t, v.Input)
			_, err := decodeTx(in, [20]byte{})
			if de := wantCode(t, err, v.Tier); de.Offset >= len(in)+1 {
				t.Errorf("offset %d beyond %d bytes", de.Offset, len(in))
			}
		})
	}
}
