package examples_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"filippo.io/age"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

const (
	cluster = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
	// mostLamports is what the policy lets one transfer move.
	mostLamports = 1000
)

// account is what the examples get to know: a Solana wallet, a file with the API
// key of a delegation on it, and the key files of a member of its organization.
type account struct {
	organization, wallet, address string
	publicKey                     []byte
	apiKeyFile                    string
	keyFiles                      []string
}

// enroll makes an organization, an end user with a P-256 and an Ed25519
// credential, a wallet by threshold keygen, and a delegation on it.
func (d *daemon) enroll(t *testing.T) account {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.Dial(d.admin)
	must(err)
	defer c.Close()
	alice, err := credential.LoadKey(d.path("alice.key"))
	must(err)
	treasurer, root := newCredential(t, credential.Ed25519, credential.ForOrganizationRoot, "treasurer")
	phone, first := newCredential(t, credential.P256, credential.ForUser, "phone")
	tablet, second := newCredential(t, credential.Ed25519, credential.ForUser, "tablet")
	identity, err := age.GenerateX25519Identity()
	must(err)
	recipient := identity.Recipient().String()
	recipientSignature, err := credential.SignRecipient(phone, recipient)
	must(err)

	organization, err := c.WithStamps("", alice).Organizations().CreateOrganization(ctx, &sigilv1.CreateOrganizationRequest{
		RequestId: "organization", Name: "Acme", RootCredentials: []*sigilv1.NewCredential{root}, RootQuorum: 1,
	})
	must(err)
	a := account{organization: organization.GetOrganizationId()}
	asTreasurer, asOwner := c.WithStamps(a.organization, treasurer), c.WithStamps(a.organization, phone)
	owner, err := asTreasurer.Users().CreateUser(ctx, &sigilv1.CreateUserRequest{
		RequestId: "owner", OrganizationId: a.organization, Name: "Dana", Kind: sigilv1.UserKind_USER_KIND_END_USER,
		Credentials: []*sigilv1.NewCredential{first, second}, ShareRecipient: &recipient, ShareRecipientSignature: recipientSignature,
	})
	must(err)
	bot, err := asTreasurer.Users().CreateUser(ctx, &sigilv1.CreateUserRequest{
		RequestId: "bot", OrganizationId: a.organization, Name: "bot", Kind: sigilv1.UserKind_USER_KIND_DELEGATED_USER,
	})
	must(err)
	made, err := asTreasurer.Wallets().CreateWallet(ctx, &sigilv1.CreateWalletRequest{
		RequestId: "wallet", OrganizationId: a.organization, OwnerUserId: owner.GetUserId(), Chain: cluster, Name: "sol",
	})
	must(err)
	a.wallet = made.GetWalletId()
	must(await(ctx, asOwner, a.organization, made.GetCeremonyId()))
	share, err := asOwner.Wallets().FetchShare(ctx, &sigilv1.FetchShareRequest{OrganizationId: a.organization, WalletId: a.wallet})
	must(err)
	sum := sha256.Sum256(share.GetAgeCiphertext())
	confirmed, err := asOwner.Wallets().ConfirmShare(ctx, &sigilv1.ConfirmShareRequest{
		RequestId: "receipt", OrganizationId: a.organization, WalletId: a.wallet, CiphertextSha256: sum[:],
	})
	must(err)
	a.address, a.publicKey = confirmed.GetWallet().GetAddress(), confirmed.GetWallet().GetPublicKey()

	condition := fmt.Sprintf("solana.tx.transfers.count() == 1 && solana.tx.transfers.all(t, t.amount <= %d)", mostLamports)
	consensus := fmt.Sprintf("approvers.any(user, user.id == '%s')", bot.GetUserId())
	delegation, err := asOwner.Delegations().CreateDelegation(ctx, &sigilv1.CreateDelegationRequest{
		RequestId: "delegation", OrganizationId: a.organization, WalletId: a.wallet, DelegatedUserId: bot.GetUserId(), ApiKeyRecipient: recipient,
		Policies: []*sigilv1.Policy{{Name: "payouts", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition, Consensus: &consensus}},
	})
	must(err)
	must(await(ctx, asOwner, a.organization, delegation.GetCeremonyId()))
	shown, err := asOwner.Delegations().GetDelegation(ctx, &sigilv1.GetDelegationRequest{OrganizationId: a.organization, DelegationId: delegation.GetDelegationId()})
	must(err)
	r, err := age.Decrypt(bytes.NewReader(shown.GetEncryptedApiKey()), identity)
	must(err)
	apiKey, err := io.ReadAll(r)
	must(err)

	a.apiKeyFile = d.path("api-key")
	must(os.WriteFile(a.apiKeyFile, append(apiKey, '\n'), 0o600))
	for name, key := range map[string]*credential.PrivateKey{"phone.key": phone, "tablet.key": tablet} {
		must(key.Save(d.path(name)))
		a.keyFiles = append(a.keyFiles, d.path(name))
	}
	return a
}

func newCredential(t *testing.T, algorithm credential.Algorithm, purpose credential.Purpose, name string) (*credential.PrivateKey, *sigilv1.NewCredential) {
	t.Helper()
	k, err := credential.GenerateKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	proof, err := credential.NewProof(k, purpose, name)
	if err != nil {
		t.Fatal(err)
	}
	named := map[credential.Algorithm]sigilv1.CredentialAlgorithm{
		credential.P256:    sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_P256,
		credential.Ed25519: sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_ED25519,
	}[algorithm]
	return k, &sigilv1.NewCredential{Name: name, Algorithm: named, PublicKey: k.Public().Bytes, Proof: proof}
}

// await asks until a ceremony has ended.
func await(ctx context.Context, c *client.Client, org, id string) error {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		answer, err := c.Wallets().GetCeremony(ctx, &sigilv1.GetCeremonyRequest{OrganizationId: org, CeremonyId: id})
		if err != nil {
			return err
		}
		switch answer.GetCeremony().GetStatus() {
		case sigilv1.CeremonyStatus_CEREMONY_STATUS_DONE:
			return nil
		case sigilv1.CeremonyStatus_CEREMONY_STATUS_FAILED:
			return fmt.Errorf("ceremony %s failed: %s", id, answer.GetCeremony().GetError())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// transfer is a v0 message with one System transfer from the wallet.
func (a account) transfer(lamports uint64) []byte {
	to, blockhash, system := [32]byte{7, 7, 1}, [32]byte{9, 9, 2}, [32]byte{}
	m := []byte{0x80, 1, 0, 1, 3}
	m = append(append(append(m, a.publicKey...), to[:]...), system[:]...)
	m = append(m, blockhash[:]...)
	m = append(m, 1, 2, 2, 0, 1, 12, 2, 0, 0, 0)
	return append(binary.LittleEndian.AppendUint64(m, lamports), 0)
}
