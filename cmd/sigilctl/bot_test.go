package main_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"filippo.io/age"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	chainsolana "github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// bot is the application of the stories: a program of its own that signs Solana
// transfers with a wallet API key. It works in a place, where bot.json lies.
//
//	bot sign FILE       sign until the daemon is gone, FILE gets what it acknowledged
//	bot ask-again FILE  ask for the same again: the signatures must be the same
//	bot carry PREFIX    write a transfer and the API key to PREFIX.hex and PREFIX.key
//	bot pay-twice ID    ask for two transfers at once, which Dana has to approve
//	bot once ID         sign one transfer under this request id
type bot struct {
	Wallet string `json:"wallet"`
	APIKey []byte `json:"api_key"`
	// From is the wallet's public key.
	From []byte `json:"from"`
	// The rest is for whoever holds treasurer.key or, of the owner, owner.key.
	Organization string `json:"organization"`
	Owner        string `json:"owner"`
	User         string `json:"user"`
	Delegation   string `json:"delegation"`
	Recipient    string `json:"recipient"`
}

// acknowledged is a line of FILE.
type acknowledged struct {
	ID        string `json:"id"`
	Lamports  uint64 `json:"lamports"`
	Signature []byte `json:"signature"`
}

func botMain(args []string) int {
	err := errors.New("usage: bot sign FILE | bot ask-again FILE | bot carry PREFIX | bot pay-twice ID | bot once ID")
	if len(args) == 2 {
		err = botRun(args[0], args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bot:", err)
		return 1
	}
	return 0
}

func readBot(path string) (b bot, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return b, err
	}
	return b, json.Unmarshal(text, &b)
}

func botRun(verb, file string) error {
	b, err := readBot("bot.json")
	if err != nil {
		return err
	}
	if verb == "carry" {
		return b.carry(file+".hex", file+".key")
	}
	c, err := client.Dial("app.sock")
	if err != nil {
		return err
	}
	defer c.Close()
	c = c.WithAPIKey(b.APIKey)
	switch verb {
	case "sign":
		return b.sign(c, file)
	case "ask-again":
		return b.askAgain(c, file)
	case "pay-twice":
		answer, err := b.payTwice(c, file)
		fmt.Printf("rule %q; %s %v\n", answer.GetRule(), client.Reason(err), client.Details(err))
		return nil
	case "once":
		if _, err := b.ask(c, acknowledged{ID: file, Lamports: 7}); err != nil {
			return fmt.Errorf("%s: %w", client.Reason(err), err)
		}
		fmt.Println("signed", file)
		return nil
	}
	return fmt.Errorf("unknown verb %q", verb)
}

// carry writes a transfer that does not expire, in hexadecimal, and the API key.
func (b bot) carry(message, key string) error {
	text := fmt.Sprintf("%x\n", nonceTransfer([32]byte(b.From), 15_000_000))
	return errors.Join(os.WriteFile(message, []byte(text), 0o644), os.WriteFile(key, b.APIKey, 0o600))
}

// sign keeps four requests under way until one isn't answered.
func (b bot) sign(c *client.Client, file string) error {
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards out and the two below
	count, last := 0, error(nil)
	var workers sync.WaitGroup
	for w := range 4 {
		workers.Go(func() {
			for n := 0; ; n++ {
				a := acknowledged{ID: fmt.Sprintf("pay-%d-%d", w, n), Lamports: uint64(1000*w + n + 1)}
				var err error
				a.Signature, err = b.ask(c, a)
				mu.Lock()
				if err == nil {
					count++
					err = json.NewEncoder(out).Encode(a)
				}
				if err != nil {
					last = err
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	workers.Wait()
	fmt.Printf("%d acknowledged; then: %v %v\n", count, last, client.Details(last))
	return out.Close()
}

func (b bot) askAgain(c *client.Client, file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	count := 0
	for lines := bufio.NewScanner(in); lines.Scan(); count++ {
		var a acknowledged
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return err
		}
		again, err := b.ask(c, a)
		if err != nil {
			return fmt.Errorf("asking %s again: %w", a.ID, err)
		}
		if !bytes.Equal(again, a.Signature) {
			return fmt.Errorf("%s has another signature now", a.ID)
		}
	}
	fmt.Printf("all of %d have the same signature\n", count)
	return nil
}

func (b bot) ask(c *client.Client, a acknowledged) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answer, err := c.Signing().Sign(ctx, &sigilv1.SignRequest{
		RequestId: a.ID, WalletId: b.Wallet,
		Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: transfer([32]byte(b.From), a.Lamports)},
	})
	return answer.GetSignature(), err
}

// transfer is a v0 message with one System transfer from the fee payer.
// payTwice asks for a message with two transfers, each time with a fresh blockhash.
func (b bot) payTwice(c *client.Client, id string) (*sigilv1.SignResponse, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	m := []byte{0x80, 1, 0, 1, 3}
	m = append(append(m, b.From...), bytes.Repeat([]byte{7}, 32)...)
	m = append(m, make([]byte, 32)...) // the System program
	hash := sha256.Sum256([]byte(time.Now().String()))
	m = append(append(m, hash[:]...), 2)
	for _, lamports := range []uint64{5, 6} {
		m = append(m, 2, 2, 0, 1, 12, 2, 0, 0, 0)
		m = binary.LittleEndian.AppendUint64(m, lamports)
	}
	return c.Signing().Sign(ctx, &sigilv1.SignRequest{RequestId: id, WalletId: b.Wallet, Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: append(m, 0)}})
}

func transfer(from [32]byte, lamports uint64) []byte {
	to, blockhash, system := [32]byte{7, 7, 1}, [32]byte{9, 9, 2}, [32]byte{}
	m := []byte{0x80, 1, 0, 1, 3}
	m = append(append(append(m, from[:]...), to[:]...), system[:]...)
	m = append(m, blockhash[:]...)
	m = append(m, 1, 2, 2, 0, 1, 12, 2, 0, 0, 0)
	return append(binary.LittleEndian.AppendUint64(m, lamports), 0)
}

// nonceAccount is the durable nonce that the bot's second policy names.
var nonceAccount = [32]byte{7, 7, 3}

// nonceTransfer is transfer under a durable nonce: it does not expire.
func nonceTransfer(from [32]byte, lamports uint64) []byte {
	to, nonce, system := [32]byte{7, 7, 1}, [32]byte{9, 9, 3}, [32]byte{}
	recent, err := chainsolana.ParseAddress("SysvarRecentB1ockHashes11111111111111111111")
	if err != nil {
		panic(err)
	}
	m := []byte{0x80, 1, 0, 2, 5}
	for _, key := range [][32]byte{from, nonceAccount, to, recent, system, nonce} {
		m = append(m, key[:]...)
	}
	m = append(m, 2, 4, 3, 1, 3, 0, 4, 4, 0, 0, 0) // AdvanceNonceAccount
	m = append(m, 4, 2, 0, 2, 12, 2, 0, 0, 0)
	return append(binary.LittleEndian.AppendUint64(m, lamports), 0)
}

// populate initialises the place and makes the bot's wallet: an organization, its
// owner, a Solana wallet by threshold keygen, a delegated user with a policy.
func (p place) populate() error {
	if _, err := p.sigilctl("credential", "create", "--name", "alice", "--out", "alice"); err != nil {
		return err
	}
	if _, err := p.sigilctl("init", "--operator", "alice.json", "--quorum", "1"); err != nil {
		return err
	}
	d, err := p.start()
	if err != nil {
		return err
	}
	b, err := p.enroll()
	if err := errors.Join(err, d.stop()); err != nil {
		return fmt.Errorf("%w\n%s", err, d.log)
	}
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	return os.WriteFile(p.path("bot.json"), text, 0o600)
}

const solana = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

func (p place) enroll() (b bot, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(p.path("admin.sock"))
	if err != nil {
		return b, err
	}
	defer c.Close()
	alice, err := credential.LoadKey(p.path("alice.key"))
	if err != nil {
		return b, err
	}
	treasurer, root, err := newCredential(credential.ForOrganizationRoot, "treasurer")
	if err != nil {
		return b, err
	}
	if err := treasurer.Save(p.path("treasurer.key")); err != nil {
		return b, err
	}
	phone, user, err := newCredential(credential.ForUser, "phone")
	if err != nil {
		return b, err
	}
	if err := phone.Save(p.path("owner.key")); err != nil {
		return b, err
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return b, err
	}
	if err := os.WriteFile(p.path("owner.age"), []byte(identity.String()+"\n"), 0o600); err != nil {
		return b, err
	}
	recipient := identity.Recipient().String()
	signature, err := credential.SignRecipient(phone, recipient)
	if err != nil {
		return b, err
	}
	organization, err := c.WithStamps("", alice).Organizations().CreateOrganization(ctx, &sigilv1.CreateOrganizationRequest{
		RequestId: "organization", Name: "Acme", RootCredentials: []*sigilv1.NewCredential{root}, RootQuorum: 1,
	})
	if err != nil {
		return b, err
	}
	org := organization.GetOrganizationId()
	asTreasurer, asOwner := c.WithStamps(org, treasurer), c.WithStamps(org, phone)
	owner, err := asTreasurer.Users().CreateUser(ctx, &sigilv1.CreateUserRequest{
		RequestId: "owner", OrganizationId: org, Name: "Dana", Kind: sigilv1.UserKind_USER_KIND_END_USER,
		Credentials: []*sigilv1.NewCredential{user}, ShareRecipient: &recipient, ShareRecipientSignature: signature,
	})
	if err != nil {
		return b, err
	}
	delegate, err := asTreasurer.Users().CreateUser(ctx, &sigilv1.CreateUserRequest{
		RequestId: "bot", OrganizationId: org, Name: "bot", Kind: sigilv1.UserKind_USER_KIND_DELEGATED_USER,
	})
	if err != nil {
		return b, err
	}
	wallet, err := asTreasurer.Wallets().CreateWallet(ctx, &sigilv1.CreateWalletRequest{
		RequestId: "wallet", OrganizationId: org, OwnerUserId: owner.GetUserId(), Chain: solana, Name: "sol",
	})
	if err != nil {
		return b, err
	}
	if err := awaitCeremony(asOwner, org, wallet.GetCeremonyId()); err != nil {
		return b, err
	}
	share, err := asOwner.Wallets().FetchShare(ctx, &sigilv1.FetchShareRequest{OrganizationId: org, WalletId: wallet.GetWalletId()})
	if err != nil {
		return b, err
	}
	sum := sha256.Sum256(share.GetAgeCiphertext())
	confirmed, err := asOwner.Wallets().ConfirmShare(ctx, &sigilv1.ConfirmShareRequest{
		RequestId: "receipt", OrganizationId: org, WalletId: wallet.GetWalletId(), CiphertextSha256: sum[:],
	})
	if err != nil {
		return b, err
	}
	durable := fmt.Sprintf("solana.tx.transfers.count() == 1 && solana.tx.durable_nonce.account == '%s'", chainsolana.Address(nonceAccount))
	condition, consensus := "solana.tx.transfers.count() == 1", fmt.Sprintf("approvers.any(user, user.id == '%s')", delegate.GetUserId())
	twice, withDana := "solana.tx.transfers.count() == 2", "approvers.any(user, user.alias == 'Dana')"
	day := uint32(24 * 60 * 60)
	delegation, err := asOwner.Delegations().CreateDelegation(ctx, &sigilv1.CreateDelegationRequest{
		RequestId: "delegation", OrganizationId: org, WalletId: wallet.GetWalletId(), DelegatedUserId: delegate.GetUserId(), ApiKeyRecipient: recipient,
		Policies: []*sigilv1.Policy{
			{Name: "payouts", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition, Consensus: &consensus},
			{Name: "payouts across the gap", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &durable, Consensus: &consensus},
			{Name: "two at once", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &twice, Consensus: &withDana},
		},
		Limits: []*sigilv1.Limit{{Name: "a sol a day", Asset: solana + "/slip44:501", MaxAmount: "1000000000", WindowSeconds: &day}},
	})
	if err != nil {
		return b, err
	}
	if err := awaitCeremony(asOwner, org, delegation.GetCeremonyId()); err != nil {
		return b, err
	}
	shown, err := asOwner.Delegations().GetDelegation(ctx, &sigilv1.GetDelegationRequest{OrganizationId: org, DelegationId: delegation.GetDelegationId()})
	if err != nil {
		return b, err
	}
	r, err := age.Decrypt(bytes.NewReader(shown.GetEncryptedApiKey()), identity)
	if err != nil {
		return b, err
	}
	b = bot{
		Wallet: wallet.GetWalletId(), From: confirmed.GetWallet().GetPublicKey(),
		Organization: org, Owner: owner.GetUserId(), User: delegate.GetUserId(), Delegation: delegation.GetDelegationId(), Recipient: recipient,
	}
	b.APIKey, err = io.ReadAll(r)
	return b, err
}

func newCredential(purpose credential.Purpose, name string) (*credential.PrivateKey, *sigilv1.NewCredential, error) {
	k, err := credential.GenerateKey(credential.P256)
	if err != nil {
		return nil, nil, err
	}
	proof, err := credential.NewProof(k, purpose, name)
	if err != nil {
		return nil, nil, err
	}
	return k, &sigilv1.NewCredential{
		Name: name, Algorithm: sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_P256, PublicKey: k.Public().Bytes, Proof: proof,
	}, nil
}

func awaitCeremony(c *client.Client, org, id string) error {
	return poll(5*time.Minute, func(ctx context.Context) error {
		answer, err := c.Wallets().GetCeremony(ctx, &sigilv1.GetCeremonyRequest{OrganizationId: org, CeremonyId: id})
		if s := answer.GetCeremony().GetStatus(); err == nil && s != sigilv1.CeremonyStatus_CEREMONY_STATUS_DONE {
			err = fmt.Errorf("ceremony %s: %s %s", id, s, answer.GetCeremony().GetError())
		}
		return err
	})
}
