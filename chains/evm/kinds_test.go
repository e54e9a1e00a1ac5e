package evm

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	"github.com/sigild/sigild/chains"
)

const (
	goodAuthorization = `{"chainId":1,"address":"0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045","nonce":"7"}`
	goodOperation     = `{"version":"0.8","chainId":1,"entryPoint":"0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108","packed":{"sender":"0x1111111111111111111111111111111111111111","nonce":"1","initCode":"0x","callData":"0x","accountGasLimits":"0x00000000000000000000000000000001000000000000000000000000000000a0","preVerificationGas":"5","gasFees":"0x0000000000000000000000000000000200000000000000000000000000000003","paymasterAndData":"0x"}}`
	goodOperation06   = `{"version":"0.6","chainId":1,"entryPoint":"0x5FF137D4b0FDCD49DcA30c7CF57E578a026d2789","packed":{"sender":"0x1111111111111111111111111111111111111111","nonce":1,"initCode":"0x","callData":"0x","callGasLimit":"2","verificationGasLimit":"3","preVerificationGas":"5","maxFeePerGas":"7","maxPriorityFeePerGas":"1","paymasterAndData":"0x","signature":"0x"}}`
	goodSafe          = `{"domain":{"chainId":1,"verifyingContract":"0x2222222222222222222222222222222222222222"},"message":{"to":"0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045","value":"5","data":"0x","operation":0,"safeTxGas":"0","baseGas":"0","gasPrice":"0","gasToken":"0x0000000000000000000000000000000000000000","refundReceiver":"0x0000000000000000000000000000000000000000","nonce":"3"}}`
)

// goodPayloads has one of every kind.
func goodPayloads(t testing.TB) map[chains.Kind][]byte {
	return map[chains.Kind][]byte{
		chains.KindEVMTransaction:     encode(t, transfer()),
		chains.KindEVMMessage:         []byte("hello"),
		chains.KindEVMTypedData:       []byte(typed("uint8", "1")),
		chains.KindEVMAuthorization:   []byte(goodAuthorization),
		chains.KindEVMUserOperation:   []byte(goodOperation),
		chains.KindEVMSafeTransaction: []byte(goodSafe),
	}
}

// Every kind has the roots it says, laid out as they say, and a summary in ASCII.
func TestKindsAndTheirRoots(t *testing.T) {
	payloads := goodPayloads(t)
	if len(payloads) != len(Roots) {
		t.Errorf("%d kinds have roots, %d payloads are here", len(Roots), len(payloads))
	}
	for kind, payload := range payloads {
		for _, o := range []Options{{}, {Wallet: testWallet}} {
			d, err := Decode(kind, payload, o)
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			if d.Kind != kind || string(d.Raw) != string(payload) || &d.Raw[0] == &payload[0] || d.Chain == "" || d.Sign.Scheme != chains.ECDSASecp256k1 {
				t.Errorf("%s: %+v", kind, d)
			}
			checkView(t, d)
		}
	}
	for _, kind := range []chains.Kind{"", "evm.other", chains.KindSolanaMessage} {
		if d, err := Decode(kind, []byte{1}, Options{}); err == nil {
			t.Errorf("%s: %+v", kind, d)
		}
	}
}

func checkView(t testing.TB, d *chains.Decoded) {
	t.Helper()
	if len(d.View) != len(Roots[d.Kind]) {
		t.Fatalf("%s has %d roots", d.Kind, len(d.View))
	}
	for root, typ := range Roots[d.Kind] {
		if v := d.View[root]; v.Kind == chains.KindAbsent || typ.Conform(v) != nil {
			t.Fatalf("%s: %s: %v", d.Kind, root, typ.Conform(v))
		}
	}
	for i := range len(d.Summary) {
		if c := d.Summary[i]; c < ' ' || c > '~' {
			t.Fatalf("%s: summary %q", d.Kind, d.Summary)
		}
	}
	if d.Summary == "" {
		t.Fatalf("%s has no summary", d.Kind)
	}
}

// What is released of each kind, signed by the wallet; nothing of another key,
// another digest, or a view that was changed.
func TestAssembleEveryKind(t *testing.T) {
	o := Options{Wallet: testWallet}
	for kind, payload := range goodPayloads(t) {
		decode := func() *chains.Decoded {
			d, err := Decode(kind, payload, o)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		d := decode()
		r, s, recid := sign(t, testKey, d.Sign.Digest)
		out, err := Assemble(d, o, r, s, recid)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		switch kind {
		case chains.KindEVMTransaction:
		case chains.KindEVMAuthorization:
			var a types.SetCodeAuthorization
			if err := rlp.DecodeBytes(out.Signed, &a); err != nil {
				t.Fatal(err)
			}
			if who, err := a.Authority(); err != nil || who != common.Address(testWallet) || a.Nonce != 7 || a.Address != testTo {
				t.Errorf("go-ethereum reads %+v of %s, %v", a, who, err)
			}
		default:
			if len(out.Signed) != 65 || out.Signed[64] != 27+recid || [32]byte(out.Signed) != r {
				t.Errorf("%s: released %x", kind, out.Signed)
			}
		}
		if _, err := Assemble(d, o, r, flip(s), recid); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: another s: %v", kind, err)
		}
		or, os, orec := sign(t, otherKey, d.Sign.Digest)
		if _, err := Assemble(d, o, or, os, orec); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: another key: %v", kind, err)
		}
		for what, change := range map[string]func(*chains.Decoded){
			"digest": func(d *chains.Decoded) { d.Sign.Digest[0] ^= 1 },
			"view":   func(d *chains.Decoded) { d.View = chains.View{} },
			"raw":    func(d *chains.Decoded) { d.Raw = append([]byte(nil), d.Raw[:len(d.Raw)-1]...) },
			"kind":   func(d *chains.Decoded) { d.Kind = "evm.other" },
		} {
			d := decode()
			change(d)
			if out, err := Assemble(d, o, r, s, recid); err == nil {
				t.Errorf("%s: changed %s: released %x", kind, what, out.Signed)
			}
		}
	}
}

// refused must be refused with a code, whatever was replaced.
func refused(t *testing.T, kind chains.Kind, good string, bad map[string][2]string) {
	t.Helper()
	if _, err := Decode(kind, []byte(good), Options{}); err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	for what, change := range bad {
		text := strings.Replace(good, change[0], change[1], 1)
		if text == good {
			t.Errorf("%s, %s: nothing changed", kind, what)
		}
		_, err := Decode(kind, []byte(text), Options{})
		var de *chains.DecodeError
		if !errors.As(err, &de) {
			t.Errorf("%s, %s: %v for %s", kind, what, err, text)
		}
	}
}

func TestMalformedJSONKindsAreRefused(t *testing.T) {
	refused(t, chains.KindEVMAuthorization, goodAuthorization, map[string][2]string{
		"missing": {`,"nonce":"7"`, ""}, "more": {"{", `{"x":1,`}, "twice": {"{", `{"nonce":1,`}, "fraction": {`"7"`, "7.5"}, "negative": {`"7"`, "-7"},
		"last nonce": {`"7"`, `"18446744073709551615"`}, "65 bits": {`"7"`, `"18446744073709551616"`}, "checksum": {"0xd8dA", "0xD8dA"}, "19 bytes": {"045\"", "\""},
		"chain id text": {`"chainId":1`, `"chainId":"one"`}, "chain id 257 bits": {`"chainId":1`, `"chainId":"0x1` + strings.Repeat("0", 64) + `"`}, "null": {`"7"`, "null"}, "list": {"{", "[{"},
	})
	refused(t, chains.KindEVMSafeTransaction, goodSafe, map[string][2]string{
		"operation 2": {`"operation":0`, `"operation":2`}, "operation bool": {`"operation":0`, `"operation":false`}, "chain id 0": {`"chainId":1`, `"chainId":0`},
		"no chain": {`"chainId":1,`, ""}, "domain name": {`"chainId":1`, `"chainId":1,"name":"x"`}, "missing": {`"safeTxGas":"0",`, ""}, "more": {`"safeTxGas"`, `"x":0,"safeTxGas"`},
		"odd data": {`"data":"0x"`, `"data":"0x0"`}, "data null": {`"data":"0x"`, `"data":null`}, "twice": {`"to":`, `"value":"1","to":`}, "257 bits": {`"value":"5"`, `"value":"0x1` + strings.Repeat("0", 64) + `"`},
	})
	refused(t, chains.KindEVMUserOperation, goodOperation, map[string][2]string{
		"version": {`"0.8"`, `"0.5"`}, "version number": {`"0.8"`, `0.8`}, "entry point of another": {`"0.8"`, `"0.7"`}, "entry point": {"0x4337084D9E255Ff0702461CF8895CE9E3b5Ff108", "0x1111111111111111111111111111111111111111"},
		"chain id 0": {`"chainId":1`, `"chainId":0`}, "limits short": {`000000a0"`, `0000a0"`}, "missing": {`,"paymasterAndData":"0x"`, ""}, "of 0.6": {`"nonce"`, `"callGasLimit":"1","nonce"`},
		"signature no hex": {`"nonce"`, `"signature":"x","nonce"`}, "signature twice": {`"nonce"`, `"signature":"0x","signature":"0x","nonce"`}, "packed list": {`"packed":{`, `"packed":[{`},
		"delegated": {`"initCode":"0x"`, `"initCode":"0x7702"`}, "delegated, padded": {`"initCode":"0x"`, `"initCode":"0x7702` + strings.Repeat("00", 18) + `ff"`},
	})
	refused(t, chains.KindEVMUserOperation, goodOperation06, map[string][2]string{
		"of 0.7": {`"nonce"`, `"gasFees":"0x","nonce"`}, "missing": {`"callGasLimit":"2",`, ""}, "instead": {`"callGasLimit"`, `"callGas"`},
	})
}

func TestMessagesThatAreNoTextHaveNoBound(t *testing.T) {
	for text, opaque := range map[string]bool{
		"": false, "hello\nworld\t": false, "gr\u00fc\u00df dich \u4f60": false, strings.Repeat("x", 32): true, strings.Repeat("x", 31): false,
		"\x00": true, "\xff": true, "a\u202eb": true, "bell\a": true, "\u200b": true, "\U0001f469\u200d\U0001f52c": false,
	} {
		d, err := Decode(chains.KindEVMMessage, []byte(text), Options{})
		if err != nil {
			t.Fatal(err)
		}
		if d.Opaque != opaque || (len(d.Charges) == 1) != opaque || len(d.Guards) != 1 {
			t.Errorf("%q: opaque %v, charges %+v, guards %v", text, d.Opaque, d.Charges, d.Guards)
		}
		if absent := d.View[MessageRoot].List[1].Kind == chains.KindAbsent; absent != (opaque && len(text) != 32) {
			t.Errorf("%q: text absent %v", text, absent)
		}
	}
	if _, err := Decode(chains.KindEVMMessage, make([]byte, maxMessage+1), Options{}); err == nil {
		t.Error("a message of more than 64 kB was taken")
	}
}

func TestAuthorizationsSayWhatTheyGiveAway(t *testing.T) {
	for text, want := range map[string]struct {
		guard  string
		opaque bool
		says   string
	}{
		goodAuthorization: {AuthorizationRoot, true, "with everything it owns, on chain 1"},
		strings.Replace(goodAuthorization, `"chainId":1`, `"chainId":0`, 1):                                                               {AuthorizationRoot + ".chain_id", true, "on EVERY EVM chain"},
		strings.Replace(goodAuthorization, "0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045", "0x0000000000000000000000000000000000000000", 1): {AuthorizationRoot, false, "remove the code"},
	} {
		d, err := Decode(chains.KindEVMAuthorization, []byte(text), Options{Wallet: testWallet})
		if err != nil {
			t.Fatal(err)
		}
		if d.Guards[0] != want.guard || d.Opaque != want.opaque || (len(d.Charges) == 1) != want.opaque || !strings.Contains(d.Summary, want.says) || len(d.ReplayKeys) != 1 {
			t.Errorf("%s: %+v", text, d)
		}
	}
}

// A transaction that brings an authorization of the wallet's own is one of those.
func TestOwnAuthorizationInATransactionIsGuarded(t *testing.T) {
	own := types.SetCodeAuthorization{Address: testTo, Nonce: 8}
	own.ChainID.SetUint64(1)
	mine, err := types.SignSetCode(testKey, own)
	if err != nil {
		t.Fatal(err)
	}
	other, err := types.SignSetCode(otherKey, own)
	if err != nil {
		t.Fatal(err)
	}
	nobody := own
	for what, tc := range map[string]struct {
		list  []types.SetCodeAuthorization
		guard bool
	}{"own": {[]types.SetCodeAuthorization{other, mine}, true}, "others": {[]types.SetCodeAuthorization{other, nobody}, false}} {
		d, err := decodeTx(encode(t, setCode(tc.list)), testWallet)
		if err != nil {
			t.Fatal(err)
		}
		if guarded := len(d.Guards) == 1; guarded != tc.guard || d.Opaque != tc.guard {
			t.Errorf("%s: guards %v, opaque %v", what, d.Guards, d.Opaque)
		}
		list := field(t, d, "authorization_list").List
		if len(list) != 2 || list[0].List[3].Kind != chains.KindAddress || (list[1].List[3].Kind == chains.KindAbsent) == tc.guard {
			t.Errorf("%s: %+v", what, list)
		}
	}
}

func TestPermitsAreCharged(t *testing.T) {
	const token, spender = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "0x3535353535353535353535353535353535353535"
	build := func(contract, form, message string) string {
		types := map[string]any{"EIP712Domain": []map[string]string{{"name": "chainId", "type": "uint256"}, {"name": "verifyingContract", "type": "address"}}}
		primary := ""
		for part := range strings.SplitSeq(strings.TrimSuffix(form, ")"), ")") {
			name, fields, _ := strings.Cut(part, "(")
			list := []map[string]string{}
			for f := range strings.SplitSeq(fields, ",") {
				typ, field, _ := strings.Cut(f, " ")
				list = append(list, map[string]string{"name": field, "type": typ})
			}
			types[name] = list
			if primary == "" {
				primary = name
			}
		}
		b, err := json.Marshal(types)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`{"types":%s,"primaryType":"%s","domain":{"chainId":1,"verifyingContract":"%s"},"message":%s}`, b, primary, contract, message)
	}
	const zero32 = "0x0000000000000000000000000000000000000000000000000000000000000000"
	details := fmt.Sprintf(`{"token":"%s","amount":"7","expiration":0,"nonce":0}`, token)
	permitted := fmt.Sprintf(`{"token":"%s","amount":"7"}`, token)
	auth := fmt.Sprintf(`{"from":"%s","to":"%s","value":"7","validAfter":0,"validBefore":1,"nonce":"%s"}`, token, spender, zero32)
	usdc7 := "eip155:1/erc20:0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48 7"
	for what, tc := range map[string]struct {
		contract, form, message string
		want                    []string
		opaque                  bool
	}{
		"2612":            {token, formPermit, fmt.Sprintf(`{"owner":"%s","spender":"%s","value":"7","nonce":0,"deadline":0}`, token, spender), []string{usdc7}, false},
		"DAI":             {token, formDAI, fmt.Sprintf(`{"holder":"%s","spender":"%s","nonce":0,"expiry":0,"allowed":true}`, token, spender), []string{"eip155:1/erc20:0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48 unbounded"}, false},
		"DAI, taken":      {token, formDAI, fmt.Sprintf(`{"holder":"%s","spender":"%s","nonce":0,"expiry":0,"allowed":false}`, token, spender), nil, false},
		"3009":            {token, "Transfer" + form3009, auth, []string{usdc7}, false},
		"3009, receive":   {token, "Receive" + form3009, auth, []string{usdc7}, false},
		"3009, cancel":    {token, formCancel3009, fmt.Sprintf(`{"authorizer":"%s","nonce":"%s"}`, token, zero32), nil, false},
		"permit2":         {permit2Contract, formPermit2, fmt.Sprintf(`{"details":%s,"spender":"%s","sigDeadline":0}`, details, spender), []string{usdc7}, false},
		"permit2, batch":  {permit2Contract, formPermit2N, fmt.Sprintf(`{"details":[%s,%s],"spender":"%s","sigDeadline":0}`, details, details, spender), []string{usdc7, usdc7}, false},
		"transfer":        {permit2Contract, formTransfer, fmt.Sprintf(`{"permitted":%s,"spender":"%s","nonce":0,"deadline":0}`, permitted, spender), []string{usdc7}, false},
		"transfer, batch": {permit2Contract, formTransferN, fmt.Sprintf(`{"permitted":[%s,%s],"spender":"%s","nonce":0,"deadline":0}`, permitted, permitted, spender), []string{usdc7, usdc7}, false},
		"witness":         {permit2Contract, prefixWitness + "W witness)" + formPermitted + "W(uint256 x)", fmt.Sprintf(`{"permitted":%s,"spender":"%s","nonce":0,"deadline":0,"witness":{"x":1}}`, permitted, spender), []string{usdc7}, false},
		"witness of another token struct": {permit2Contract, prefixWitness + "ATokenPermissions witness)ATokenPermissions(address token,uint256 amount)TokenPermissions(address token)",
			fmt.Sprintf(`{"permitted":{"token":"%s"},"spender":"%s","nonce":0,"deadline":0,"witness":%s}`, token, spender, permitted), []string{"eip155:1/slip44:60 unbounded"}, true},
		"permit2 elsewhere": {token, formPermit2, fmt.Sprintf(`{"details":%s,"spender":"%s","sigDeadline":0}`, details, spender), []string{"eip155:1/slip44:60 unbounded"}, true},
		"almost a permit":   {token, strings.Replace(formPermit, "uint256 value", "uint128 value", 1), fmt.Sprintf(`{"owner":"%s","spender":"%s","value":"7","nonce":0,"deadline":0}`, token, spender), []string{"eip155:1/slip44:60 unbounded"}, true},
		"a Safe's": {token, safeForm, `{"to":"0xd8dA6BF26964aF9D7eEd9e03E53415D37aA96045","value":"5","data":"0x","operation":0,"safeTxGas":"0","baseGas":"0","gasPrice":"0","gasToken":"0x0000000000000000000000000000000000000000","refundReceiver":"0x0000000000000000000000000000000000000000","nonce":"3"}`,
			[]string{"eip155:1/slip44:60 unbounded"}, false},
	} {
		d, err := Decode(chains.KindEVMTypedData, []byte(build(tc.contract, tc.form, tc.message)), Options{Wallet: testWallet})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		var got []string
		for _, c := range d.Charges {
			amount := c.Amount.Dec()
			if c.Unbounded {
				amount = "unbounded"
			}
			got = append(got, c.Asset+" "+amount)
		}
		if d.Opaque != tc.opaque || strings.Join(got, ",") != strings.Join(tc.want, ",") {
			t.Errorf("%s: opaque %v, charges %v, want %v; %s", what, d.Opaque, got, tc.want, d.Summary)
		}
	}
}
