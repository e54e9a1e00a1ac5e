package oracles

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
)

const (
	vitalik = "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045"
	usdc    = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"
)

type members map[string]any

// unsigned are transactions for ethers to make.
func unsigned() []members {
	key := strings.Repeat("ab", 32)
	list := []members{{"address": usdc, "storageKeys": []string{"0x" + key, "0x" + key}}, {"address": vitalik, "storageKeys": []string{}}}
	dynamic := func(more members) members {
		tx := members{"type": 2, "chainId": "1", "nonce": 7, "to": vitalik, "value": "500000000000000000", "data": "0x",
			"gasLimit": "21000", "maxFeePerGas": "30000000000", "maxPriorityFeePerGas": "1000000000"}
		for k, v := range more {
			tx[k] = v
		}
		return tx
	}
	return []members{
		dynamic(nil),
		dynamic(members{"chainId": "8453", "nonce": 0, "value": "0", "to": usdc, "data": "0xa9059cbb" + fmt.Sprintf("%064s", vitalik[2:]) + fmt.Sprintf("%064x", 1000000)}),
		dynamic(members{"accessList": list, "data": "0x12345678", "value": "1"}),
		dynamic(members{"to": nil, "data": "0x6000", "value": "0"}),
		dynamic(members{"type": 3, "maxFeePerBlobGas": "5", "blobVersionedHashes": []string{"0x01" + key[2:], "0x01" + key[2:]}, "accessList": list}),
		dynamic(members{"type": 4, "value": "0", "authorizationList": []members{
			{"address": usdc, "nonce": "7", "chainId": "0", "signature": members{"r": "0x" + key, "s": "0x11" + key[2:], "yParity": 1}},
			{"address": vitalik, "nonce": "18446744073709551615", "chainId": "1", "signature": members{"r": "0x" + key, "s": "0x12" + key[2:], "yParity": 0}},
		}}),
		{"type": 1, "chainId": "137", "nonce": 128, "to": usdc, "value": "1", "data": "0x", "gasLimit": "100000", "gasPrice": "7", "accessList": list},
		{"type": 0, "chainId": "11155111", "nonce": 256, "to": vitalik, "value": "12345678901234567890", "data": "0xff", "gasLimit": "50000", "gasPrice": "1000000000"},
	}
}

// TestEthersAndWeAgree: what ethers makes we decode to the same digest and
// fields, what we sign ethers accepts.
func TestEthersAndWeAgree(t *testing.T) {
	key, err := crypto.HexToECDSA(strings.Repeat("46", 32))
	if err != nil {
		t.Fatal(err)
	}
	wallet, err := evm.Address(crypto.FromECDSAPub(&key.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	options := evm.Options{Wallet: wallet}
	specs := unsigned()
	var requests []members
	for i, s := range specs {
		requests = append(requests, members{"id": i, "make": s})
	}
	var check, tampered []members
	for i, made := range accept(t, "evm.mjs", requests) {
		in, err := hex.DecodeString(made["unsigned"].(string)[2:])
		if err != nil {
			t.Fatal(err)
		}
		d, err := evm.Decode(chains.KindEVMTransaction, in, options)
		if err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
		if got := fmt.Sprintf("0x%x", d.Sign.Digest); got != made["digest"] {
			t.Errorf("row %d: digest %s, ethers %s", i, got, made["digest"])
		}
		sig, err := crypto.Sign(d.Sign.Digest[:], key)
		if err != nil {
			t.Fatal(err)
		}
		out, err := evm.Assemble(d, options, [32]byte(sig[:32]), [32]byte(sig[32:]), sig[64])
		if err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
		row := ours(d, fmt.Sprintf("0x%x", out.Signed), out.ID)
		row["id"] = i
		check = append(check, row)
		tampered = append(tampered, tamper(row, out.Signed)...)
	}
	accept(t, "evm.mjs", check)
	refuse(t, "evm.mjs", tampered)
}

// ours spells our view of a transaction in the members of ethers.
func ours(d *chains.Decoded, signed, hash string) members {
	get := func(name string) chains.Value { return d.View[evm.Root].List[evm.TxType.Index(name)] }
	row := members{"signed": signed, "hash": hash, "from": evm.Checksum([20]byte(get("from").Raw)), "to": nil, "data": get("data").Str}
	if to := get("to"); to.Kind != chains.KindAbsent {
		row["to"] = evm.Checksum([20]byte(to.Raw))
	}
	for theirs, name := range map[string]string{"value": "value", "chainId": "chain_id", "nonce": "nonce", "gasLimit": "gas",
		"maxFeePerGas": "max_fee_per_gas", "maxPriorityFeePerGas": "max_priority_fee_per_gas"} {
		if v := get(name); v.Kind != chains.KindAbsent {
			row[theirs] = v.Int.Dec()
		}
	}
	row["type"] = map[string]int{"LEGACY": 0, "TYPE_1": 1, "TYPE_2": 2, "TYPE_3": 3, "TYPE_4": 4}[get("type").Str]
	if row["type"].(int) < 2 {
		price := get("gas_price")
		row["gasPrice"] = price.Int.Dec()
	}
	return row
}

// tamper changes what is signed, and what is said of it.
func tamper(row members, signed []byte) []members {
	with := func(id, member string, value any) members {
		out := members{}
		for k, v := range row {
			out[k] = v
		}
		out["id"], out[member] = fmt.Sprintf("%v %s", row["id"], id), value
		return out
	}
	flip := append([]byte(nil), signed...)
	flip[len(flip)/3] ^= 1
	last := append([]byte(nil), signed...)
	last[len(last)-1] ^= 1
	return []members{
		with("byte of the body", "signed", fmt.Sprintf("0x%x", flip)),
		with("byte of s", "signed", fmt.Sprintf("0x%x", last)),
		with("cut", "signed", fmt.Sprintf("0x%x", signed[:len(signed)-1])),
		with("another sender", "from", vitalik),
		with("another value", "value", "1000"),
	}
}
