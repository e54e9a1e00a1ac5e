package oracles

import (
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/crypto"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
)

// invention makes valid payloads of every kind, from a seed.
type invention struct{ *rand.Rand }

func (r invention) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (r invention) hex(n int) string { return fmt.Sprintf("0x%x", r.bytes(n)) }

func (r invention) address() string { return evm.Checksum([20]byte(r.bytes(20))) }

// integer is any value of a type of that many bits, as a number or as text. The
// ends of the range come often.
func (r invention) integer(bits int, signed bool) any {
	high := new(big.Int).Lsh(big.NewInt(1), uint(bits))
	n := new(big.Int).SetBytes(r.bytes((bits + 7) / 8))
	n.Mod(n, high)
	switch r.IntN(5) {
	case 0:
		n.SetInt64(int64(r.IntN(2)))
	case 1:
		n.Sub(high, big.NewInt(1))
	}
	if signed {
		if half := new(big.Int).Rsh(high, 1); n.Cmp(half) >= 0 {
			n.Sub(n, high)
		}
	}
	if n.IsInt64() && n.BitLen() <= 52 && r.IntN(2) == 0 {
		return n.Int64()
	}
	return n.String()
}

// typed makes EIP-712 data with nested structs and arrays.
func (r invention) typed() string {
	domain := members{}
	var fields []members
	for _, f := range []struct {
		name, typ string
		value     any
	}{{"name", "string", "Ümläut \"quoted\" \u4e2d"}, {"version", "string", ""}, {"chainId", "uint256", r.IntN(1 << 30)}, {"verifyingContract", "address", r.address()}, {"salt", "bytes32", r.hex(32)}} {
		if r.IntN(4) > 0 {
			fields = append(fields, members{"name": f.name, "type": f.typ})
			domain[f.name] = f.value
		}
	}
	types := members{"EIP712Domain": fields}
	if fields == nil {
		types["EIP712Domain"] = []members{}
	}
	message := r.structure("Top", types, 3)
	b, err := json.Marshal(members{"types": types, "primaryType": "Top", "domain": domain, "message": message})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func (r invention) structure(name string, types members, depth int) members {
	value := members{}
	var fields []members
	for i := range 1 + r.IntN(5) {
		field := fmt.Sprintf("f%d", i)
		typ, make := r.typ(name, i, types, depth)
		for r.IntN(4) == 0 {
			inner, n := make, r.IntN(4)
			suffix := "[]"
			if r.IntN(2) == 0 {
				n++
				suffix = fmt.Sprintf("[%d]", n)
			}
			typ += suffix
			make = func() any {
				list := []any{}
				for range n {
					list = append(list, inner())
				}
				return list
			}
		}
		fields = append(fields, members{"name": field, "type": typ})
		value[field] = make()
	}
	types[name] = fields
	return value
}

// typ picks a type, and what makes values of it.
func (r invention) typ(parent string, i int, types members, depth int) (string, func() any) {
	switch n := r.IntN(8); {
	case n == 0 && depth > 0:
		name := fmt.Sprintf("%s_%d", parent, i)
		value := r.structure(name, types, depth-1)
		return name, func() any { return value }
	case n == 1:
		return "string", func() any { return strings.Repeat("\u20ac\t\\x", r.IntN(4)) }
	case n == 2:
		return "bytes", func() any { return r.hex(r.IntN(70)) }
	case n == 3:
		size := 1 + r.IntN(32)
		return fmt.Sprintf("bytes%d", size), func() any { return r.hex(size) }
	case n == 4:
		return "address", func() any { return r.address() }
	case n == 5:
		return "bool", func() any { return r.IntN(2) == 0 }
	case n == 6:
		bits := 8 * (1 + r.IntN(32))
		return fmt.Sprintf("int%d", bits), func() any { return r.integer(bits, true) }
	}
	bits := 8 * (1 + r.IntN(32))
	return fmt.Sprintf("uint%d", bits), func() any { return r.integer(bits, false) }
}

func (r invention) operation() members {
	number := func(bits int) any { return fmt.Sprint(r.integer(bits, false)) }
	packed := members{"sender": r.address(), "nonce": number(256), "initCode": "0x", "callData": r.hex(r.IntN(90)), "preVerificationGas": number(100), "paymasterAndData": "0x"}
	row := members{"chainId": 1 + r.IntN(1<<30), "packed": packed}
	if r.IntN(2) == 0 {
		packed["initCode"] = r.hex(20 + r.IntN(50))
	}
	version := []string{"0.6", "0.7", "0.8"}[r.IntN(3)]
	row["version"] = version
	row["entryPoint"] = map[string]string{"0.6": "0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789", "0.7": "0x0000000071727De22E5E9d8BAf0edAc6f37da032", "0.8": "0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108"}[version]
	if version == "0.6" {
		for _, name := range []string{"callGasLimit", "verificationGasLimit", "maxFeePerGas", "maxPriorityFeePerGas"} {
			packed[name] = number(128)
		}
		packed["paymasterAndData"] = r.hex(r.IntN(2) * 40)
		return row
	}
	packed["accountGasLimits"], packed["gasFees"] = r.hex(32), r.hex(32)
	if r.IntN(2) == 0 {
		packed["paymasterAndData"] = r.hex(52 + r.IntN(30))
	}
	return row
}

// payload makes a row of a kind for the oracle, and the payload for our decoder.
func (r invention) payload(kind chains.Kind) (row members, payload []byte) {
	switch kind {
	case chains.KindEVMMessage:
		b := r.bytes(r.IntN(200))
		return members{"bytes": fmt.Sprintf("0x%x", b)}, b
	case chains.KindEVMTypedData:
		text := r.typed()
		return members{"rawJson": text}, []byte(text)
	case chains.KindEVMAuthorization:
		row = members{"chainId": fmt.Sprint(r.integer(64, false)), "address": r.address(), "nonce": fmt.Sprint(r.IntN(1 << 40))}
	case chains.KindEVMUserOperation:
		row = r.operation()
	case chains.KindEVMSafeTransaction:
		message := members{"to": r.address(), "data": r.hex(r.IntN(90)), "operation": r.IntN(2), "gasToken": r.address(), "refundReceiver": r.address()}
		for _, name := range []string{"value", "safeTxGas", "baseGas", "gasPrice", "nonce"} {
			message[name] = fmt.Sprint(r.integer(256, false))
		}
		row = members{"domain": members{"chainId": 1 + r.IntN(1<<30), "verifyingContract": r.address()}, "message": message}
	}
	payload, err := json.Marshal(row)
	if err != nil {
		panic(err)
	}
	return row, payload
}

// TestLibrariesAgreeOnWhatIsSigned: of invented payloads of every kind, ethers and
// viem compute our digest, and find the wallet behind the signature we release.
func TestLibrariesAgreeOnWhatIsSigned(t *testing.T) {
	key, err := crypto.HexToECDSA(strings.Repeat("46", 32))
	if err != nil {
		t.Fatal(err)
	}
	options := evm.Options{Wallet: crypto.PubkeyToAddress(key.PublicKey)}
	r := invention{rand.New(rand.NewPCG(7, 12))}
	var sent []members
	for kind, n := range map[chains.Kind]int{chains.KindEVMMessage: 20, chains.KindEVMTypedData: 150, chains.KindEVMAuthorization: 20, chains.KindEVMUserOperation: 60, chains.KindEVMSafeTransaction: 20} {
		for i := range n {
			row, payload := r.payload(kind)
			d, err := evm.Decode(kind, payload, options)
			if err != nil {
				t.Fatalf("%s %s: %v", kind, payload, err)
			}
			sig, err := crypto.Sign(d.Sign.Digest[:], key)
			if err != nil {
				t.Fatal(err)
			}
			out, err := evm.Assemble(d, options, [32]byte(sig[:32]), [32]byte(sig[32:64]), sig[64])
			if err != nil {
				t.Fatalf("%s %s: %v", kind, payload, err)
			}
			signature := out.Signed
			if kind == chains.KindEVMAuthorization { // rlp there; libraries take r, s, v
				signature = append(append([]byte(nil), sig[:64]...), 27+sig[64])
			}
			row["id"], row["kind"], row["digest"] = fmt.Sprintf("%s %d", kind, i), kind, fmt.Sprintf("0x%x", d.Sign.Digest)
			row["signature"], row["from"], row["hash"] = fmt.Sprintf("0x%x", signature), evm.Checksum(options.Wallet), out.ID
			sent = append(sent, row)
		}
	}
	accept(t, "signables.mjs", sent)
	var tampered []members
	for _, row := range sent[:40] {
		other := members{}
		for k, v := range row {
			other[k] = v
		}
		s := []byte(row["signature"].(string))
		s[20] ^= 1
		if s[20] == '`' || s[20] > 'f' || s[20] > '9' && s[20] < 'a' {
			s[20] = '0'
		}
		if string(s) == row["signature"] {
			s[20] = '1'
		}
		other["signature"] = string(s)
		tampered = append(tampered, other)
	}
	refuse(t, "signables.mjs", tampered)
}
