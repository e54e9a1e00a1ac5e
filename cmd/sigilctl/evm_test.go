package main_test

import (
	"bytes"
	"context"
	"fmt"
	"math/big"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/rlp"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// etherWallet is a wallet of a place with the API key of a delegation.
type etherWallet struct {
	bot
	delegation string
}

// delegateEther has the owner delegate a wallet to a new program that may send ether.
func (p place) delegateEther(t testing.TB, b bot, wallet string) etherWallet {
	t.Helper()
	ctx := t.Context()
	c, err := client.Dial(p.path("admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	load := func(name string) *client.Client {
		k, err := credential.LoadKey(p.path(name))
		if err != nil {
			t.Fatal(err)
		}
		return c.WithStamps(b.Organization, k)
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	user, err := load("treasurer.key").Users().CreateUser(ctx, &sigilv1.CreateUserRequest{
		RequestId: "payer" + wallet, OrganizationId: b.Organization, Name: "payer", Kind: sigilv1.UserKind_USER_KIND_DELEGATED_USER,
	})
	if err != nil {
		t.Fatal(err)
	}
	owner, condition := load("owner.key"), "eth.tx.value <= 1000 && eth.tx.data == '0x' && eth.tx.chain_id == 1"
	consensus := fmt.Sprintf("approvers.any(user, user.id == '%s')", user.GetUserId())
	made, err := owner.Delegations().CreateDelegation(ctx, &sigilv1.CreateDelegationRequest{
		RequestId: "ether" + wallet, OrganizationId: b.Organization, WalletId: wallet, DelegatedUserId: user.GetUserId(), ApiKeyRecipient: identity.Recipient().String(),
		Policies: []*sigilv1.Policy{{Name: "ether", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition, Consensus: &consensus}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := awaitCeremony(owner, b.Organization, made.GetCeremonyId()); err != nil {
		t.Fatal(err)
	}
	shown, err := owner.Delegations().GetDelegation(ctx, &sigilv1.GetDelegationRequest{OrganizationId: b.Organization, DelegationId: made.GetDelegationId()})
	if err != nil {
		t.Fatal(err)
	}
	out := etherWallet{bot: b, delegation: made.GetDelegationId()}
	out.Wallet = wallet
	out.APIKey = openFile(t, shown.GetEncryptedApiKey(), identity)
	return out
}

func openFile(t testing.TB, ciphertext []byte, id age.Identity) []byte {
	t.Helper()
	r, err := age.Decrypt(bytes.NewReader(ciphertext), id)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// sendEther is an unsigned transfer of so many wei.
func sendEther(t testing.TB, nonce uint64, wei int64) []byte {
	t.Helper()
	body, err := rlp.EncodeToBytes([]any{uint64(1), nonce, big.NewInt(1), big.NewInt(2), uint64(21_000), common.HexToAddress("0x01"), big.NewInt(wei), []byte{}, types.AccessList{}})
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte{types.DynamicFeeTxType}, body...)
}

// wantSender signs a transfer of nonce and insists on whom go-ethereum says it is from.
func (p place) wantSender(t *testing.T, w etherWallet, nonce uint64, address string) {
	t.Helper()
	c, err := client.Dial(p.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer, err := c.WithAPIKey(w.APIKey).Signing().Sign(t.Context(), &sigilv1.SignRequest{
		RequestId: fmt.Sprintf("%s-%d", w.Wallet, nonce), WalletId: w.Wallet,
		Payload: &sigilv1.SignRequest_EvmTransaction{EvmTransaction: sendEther(t, nonce, 7)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var tx types.Transaction
	if err := tx.UnmarshalBinary(answer.GetSignedTransaction()); err != nil {
		t.Fatal(err)
	}
	from, err := types.Sender(types.LatestSignerForChainID(tx.ChainId()), &tx)
	if err != nil || from.Hex() != address || tx.Nonce() != nonce {
		t.Errorf("go-ethereum reads sender %s, nonce %d, %v; want %s, %d", from.Hex(), tx.Nonce(), err, address, nonce)
	}
}

// The key of Hardhat's and Foundry's first account comes in by its words, keeps its
// address, signs, has a further address derived (package signing signs with such a
// one), and signs with presignatures, which are gone when the machine is said to be a copy.
func TestAnEVMKeyFromItsWordsToItsSignatures(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := startFor(t, p)
	if err := os.WriteFile(p.path("words"), []byte("test test test test test test test test test test test junk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(p.must(t, b, "wallet import", "--owner", b.Owner, "--chain", "eip155", "--name", "imported",
		"--mnemonic", "words", "--path", "m/44'/60'/0'/0/0", "--key", "treasurer.key"))
	if len(fields) != 6 {
		t.Fatalf("import says %q", fields)
	}
	wallet := fields[1]
	show := func() string { return p.must(t, b, "wallet show", "--wallet", wallet, "--key", "owner.key") }
	if err := poll(2*time.Minute, func(context.Context) error {
		if out := show(); !strings.Contains(out, "waits for its owner") {
			return fmt.Errorf("wallet show says\n%s", out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	const address = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
	p.must(t, b, "wallet share", "--wallet", wallet, "--key", "owner.key", "--out", "ether.age")
	if out := show(); !strings.Contains(out, address) || !strings.Contains(out, "imported") {
		t.Errorf("wallet show says\n%s", out)
	}
	w := p.delegateEther(t, b, wallet)
	p.wantSender(t, w, 0, address)

	// A further address of the key.
	derived := strings.Fields(p.must(t, b, "wallet derive", "--wallet", wallet, "--path", "0/7", "--name", "seventh", "--key", "treasurer.key"))
	if len(derived) != 6 || derived[5] == address {
		t.Fatalf("derive says %q", derived)
	}

	// Presignatures.
	p.must(t, b, "key set", "--wallet", wallet, "--presignatures=true", "--key", "owner.key")
	ready := func(want string) func(context.Context) error {
		return func(context.Context) error {
			if out := show(); !strings.Contains(out, want) {
				return fmt.Errorf("wallet show says\n%s", out)
			}
			return nil
		}
	}
	if err := poll(2*time.Minute, ready("on, 2 ready")); err != nil {
		t.Fatal(err)
	}
	p.wantSender(t, w, 1, address)
	if err := poll(2*time.Minute, ready("on, 2 ready")); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	p.wantSender(t, w, 2, address)
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(d.log.String(), "presignatures dropped") {
		t.Errorf("nothing was dropped:\n%s", d.log)
	}
	if out, err := p.sigilctl("audit", "verify"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
