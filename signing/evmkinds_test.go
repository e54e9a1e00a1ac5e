package signing_test

import (
	"context"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/ethereum/go-ethereum/accounts"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/rlp"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// What EVM wallets sign beside transactions, and what an organization says of contracts.

const usdc = "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"

// evmAllows is terms of an EVM wallet with one ALLOW for each condition.
func evmAllows(t *testing.T, conditions ...string) terms {
	x := terms{set: mpctest.ECDSADelegateSet(t)}
	for i, c := range conditions {
		x.policies = append(x.policies, policy.Policy{Name: fmt.Sprint("allow ", i), Effect: policy.Allow, Lang: policy.LangSigild, Condition: c})
	}
	return x
}

func permit(value string) []byte {
	return []byte(`{"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"chainId","type":"uint256"},{"name":"verifyingContract","type":"address"}],
		"Permit":[{"name":"owner","type":"address"},{"name":"spender","type":"address"},{"name":"value","type":"uint256"},{"name":"nonce","type":"uint256"},{"name":"deadline","type":"uint256"}]},
		"primaryType":"Permit","domain":{"name":"USD Coin","chainId":1,"verifyingContract":"` + usdc + `"},
		"message":{"owner":"` + usdc + `","spender":"` + evmPayee.Hex() + `","value":"` + value + `","nonce":0,"deadline":1}}`)
}

func authorization(chainID int) []byte {
	return []byte(fmt.Sprintf(`{"chainId":%d,"address":"%s","nonce":7}`, chainID, evmPayee.Hex()))
}

var (
	userOperation = `{"version":"0.7","chainId":1,"entryPoint":"0x0000000071727De22E5E9d8BAf0edAc6f37da032","packed":{"sender":"0x1111111111111111111111111111111111111111","nonce":"1","initCode":"0x","callData":"0x","accountGasLimits":"0x00000000000000000000000000000001000000000000000000000000000000a0","preVerificationGas":"5","gasFees":"0x0000000000000000000000000000000200000000000000000000000000000003","paymasterAndData":"0x"}}`
	safeTx        = `{"domain":{"chainId":1,"verifyingContract":"0x2222222222222222222222222222222222222222"},"message":{"to":"` + evmPayee.Hex() + `","value":"5","data":"0x","operation":0,"safeTxGas":"0","baseGas":"0","gasPrice":"0","gasToken":"0x0000000000000000000000000000000000000000","refundReceiver":"0x0000000000000000000000000000000000000000","nonce":"3"}}`
)

// TestEVMKindsAreSigned: every kind comes out under a policy that reads it, signed
// over the digest that go-ethereum or the decoder's vectors know; none under a
// policy about something else.
func TestEVMKindsAreSigned(t *testing.T) {
	h, g := newHouse(t, evmAllows(t,
		"eth.message.text == 'hello'",
		"eth.eip_712.primary_type == 'Permit' && eth.eip_712.domain.chain_id == 1 && eth.eip_712.message['value'] <= 100",
		"eth.eip_7702_authorization.address == '"+evmPayee.Hex()+"' && eth.eip_7702_authorization.nonce == 7",
		"eth.user_operation.sender == '0x1111111111111111111111111111111111111111' && eth.user_operation.calls.count() == 1",
		"eth.safe_transaction.safe == '0x2222222222222222222222222222222222222222' && eth.safe_transaction.calls.all(c, c.to == '"+evmPayee.Hex()+"' && c.value <= 5)",
	), evmAllows(t, "true", "eth.tx.value < 10"))
	sign := func(g *grant, id string, kind chains.Kind, payload []byte) (*signing.Result, error) {
		r := g.request(id, payload)
		r.Kind = kind
		return h.signing.Sign(context.Background(), r)
	}
	wallet, err := evm.Address(g[0].set.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for id, tc := range map[string]struct {
		kind    chains.Kind
		payload []byte
	}{
		"message":       {chains.KindEVMMessage, []byte("hello")},
		"permit":        {chains.KindEVMTypedData, permit("100")},
		"authorization": {chains.KindEVMAuthorization, authorization(1)},
		"operation":     {chains.KindEVMUserOperation, []byte(userOperation)},
		"safe":          {chains.KindEVMSafeTransaction, []byte(safeTx)},
	} {
		out, err := sign(g[0], id, tc.kind, tc.payload)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		d, err := evm.Decode(tc.kind, tc.payload, evm.Options{Wallet: wallet})
		if err != nil {
			t.Fatal(err)
		}
		digest := d.Sign.Digest
		switch tc.kind {
		case chains.KindEVMMessage:
			digest = [32]byte(accounts.TextHash(tc.payload))
		case chains.KindEVMAuthorization:
			var a types.SetCodeAuthorization
			if err := rlp.DecodeBytes(out.Signed, &a); err != nil {
				t.Fatal(err)
			}
			if who, err := a.Authority(); err != nil || who != common.Address(wallet) {
				t.Errorf("go-ethereum finds authority %s (%v), want %x", who, err, wallet)
			}
		}
		pub, err := crypto.SigToPub(digest[:], out.Signature)
		if err != nil || crypto.PubkeyToAddress(*pub) != common.Address(wallet) {
			t.Errorf("%s: the signature is of %v (%v), want %x", id, pub, err, wallet)
		}
		if out.Summary == "" || len(out.Signed) == 0 {
			t.Errorf("%s: %+v", id, out)
		}
	}
	for id, tc := range map[string]struct {
		g       *grant
		kind    chains.Kind
		payload []byte
		want    refusal.Reason
	}{
		"other-text":   {g[0], chains.KindEVMMessage, []byte("bye"), refusal.PolicyDenied},
		"larger":       {g[0], chains.KindEVMTypedData, permit("101"), refusal.PolicyDenied},
		"every-chain":  {g[0], chains.KindEVMAuthorization, authorization(0), refusal.PolicyDenied}, // its policy does not read the chain
		"other-safe":   {g[0], chains.KindEVMSafeTransaction, []byte(strings.Replace(safeTx, `"value":"5"`, `"value":"6"`, 1)), refusal.PolicyDenied},
		"malformed":    {g[0], chains.KindEVMTypedData, append(permit("1"), '}'), refusal.PayloadMalformed},
		"no-operation": {g[0], chains.KindEVMUserOperation, []byte(`{}`), refusal.PayloadMalformed},
		// an ALLOW without a word of them does not mean these
		"true-message":       {g[1], chains.KindEVMMessage, []byte("hello"), refusal.PolicyDenied},
		"true-authorization": {g[1], chains.KindEVMAuthorization, authorization(1), refusal.PolicyDenied},
		"true-operation":     {g[1], chains.KindEVMUserOperation, []byte(userOperation), refusal.PolicyDenied},
	} {
		_, err := sign(tc.g, id, tc.kind, tc.payload)
		h.wantRefused(wantRefusal(t, err, tc.want), id)
	}
}

// Permits count against limits on their token, and what has no bound is refused by them.
func TestPermitsAreLimited(t *testing.T) {
	x := evmAllows(t, "eth.eip_712.primary_type in ['Permit', 'SafeTx']", "eth.eip_7702_authorization.chain_id == 1")
	x.limits = []policy.Limit{
		{Name: "usdc", Asset: "eip155:1/erc20:" + strings.ToLower(usdc), Max: *uint256.NewInt(100)},
		{Name: "ether", Asset: wei, Max: *uint256.NewInt(1000)},
	}
	h, g := newHouse(t, x)
	sign := func(id string, kind chains.Kind, payload []byte) error {
		r := g[0].request(id, payload)
		r.Kind = kind
		_, err := h.signing.Sign(context.Background(), r)
		return err
	}
	if err := sign("sixty", chains.KindEVMTypedData, permit("60")); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, sign("sixty-more", chains.KindEVMTypedData, permit("60")), refusal.LimitExceeded)
	wantRefusal(t, sign("everything", chains.KindEVMTypedData, permit("115792089237316195423570985008687907853269984665640564039457584007913129639935")), refusal.LimitExceeded)
	wantRefusal(t, sign("safe", chains.KindEVMSafeTransaction, []byte(safeTx)), refusal.LimitExceeded)
	wantRefusal(t, sign("authorization", chains.KindEVMAuthorization, authorization(1)), refusal.LimitExceeded)
}

// tokenTransfer is an unsigned transaction that calls transfer(payee, amount) of the token.
func tokenTransfer(t testing.TB, nonce uint64, n int64) []byte {
	t.Helper()
	data := append([]byte("\xa9\x05\x9c\xbb"), common.LeftPadBytes(evmPayee[:], 32)...)
	data = append(data, common.LeftPadBytes(big.NewInt(n).Bytes(), 32)...)
	body, err := rlp.EncodeToBytes([]any{uint64(1), nonce, big.NewInt(1), big.NewInt(2), uint64(60_000), common.HexToAddress(usdc), big.NewInt(0), data, types.AccessList{}})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{types.DynamicFeeTxType}, body...)
}

const usdcABI = `[{"type":"function","name":"transfer","inputs":[{"name":"dst","type":"address"},{"name":"wad","type":"uint256"}],"outputs":[{"name":"","type":"bool"}],"stateMutability":"nonpayable"}]`

func TestABIsTellPoliciesNames(t *testing.T) {
	h, g := newHouse(t, evmAllows(t, "eth.tx.function_name == 'transfer' && eth.tx.contract_call_args['dst'] == '"+evmPayee.Hex()+"' && eth.tx.contract_call_args['wad'] <= 5"))
	payload := tokenTransfer(t, 1, 5)
	_, err := h.sign(g[0], "before", payload)
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "before")
	for name, bad := range map[string][2]string{
		"no name": {"usdc", usdcABI}, "no chain": {usdc, usdcABI}, "chain 0": {"0." + usdc, usdcABI}, "leading zero": {"01." + usdc, usdcABI}, "checksum": {"1." + strings.Replace(usdc, "A0", "a0", 1), usdcABI},
		"no list": {"1." + usdc, "{}"}, "twice": {"1." + usdc, "[" + strings.Repeat(usdcABI[1:len(usdcABI)-1]+",", 1) + usdcABI[1:]}, "shadow": {"1." + usdc, `[{"type":"function","name":"many_msg_babbage","inputs":[{"name":"a","type":"bytes1"}]}]`},
		"too large": {"1." + usdc, "[" + strings.Repeat(" ", evm.MaxABI) + "]"},
	} {
		if err := h.setDocument(strings.ReplaceAll(name, " ", "-"), delegation.KindABI, bad[0], bad[1]); err == nil {
			t.Errorf("%s: an ABI was taken", name)
		}
	}
	before := h.policySet(g[0])
	if err := h.setDocument("chain-10", delegation.KindABI, "10."+usdc, usdcABI); err != nil {
		t.Fatal(err)
	}
	_, err = h.sign(g[0], "other-chain", payload)
	h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), "other-chain")
	if err := h.setDocument("abi", delegation.KindABI, "1."+usdc, usdcABI); err != nil {
		t.Fatal(err)
	}
	if h.policySet(g[0]) == before {
		t.Error("the policy set has the same name with an ABI")
	}
	if err := h.setDocument("same", delegation.KindABI, "1."+strings.ToLower(usdc), usdcABI); err == nil {
		t.Error("a contract got two ABIs")
	}
	g[0].verify(t, h.mustSign(g[0], "five", payload), payload)
	for id, payload := range map[string][]byte{"six": tokenTransfer(t, 2, 6), "plain": transfer(t, 2, 5)} {
		_, err := h.sign(g[0], id, payload)
		h.wantRefused(wantRefusal(t, err, refusal.PolicyDenied), id)
	}
	// What was read by the ABI is read by it after a restart, too.
	c := h.again()
	payload = tokenTransfer(t, 2, 4)
	g[0].verify(t, c.mustSign(g[0], "again", payload), payload)
}

// policySet names what judges a grant's requests now.
func (h *house) policySet(g *grant) [32]byte {
	h.t.Helper()
	st, err := h.delegation.Current(&signing.Standing{Delegation: g.id})
	if err != nil {
		h.t.Fatal(err)
	}
	return st.PolicySet
}
