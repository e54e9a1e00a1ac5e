package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/mpc"
)

// solanaMainnet is the CAIP-2 id of the cluster the demo pretends to pay on.
const solanaMainnet = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

// initialize is step 1: token, init, daemon.
func (s *scene) initialize(ctx context.Context) (err error) {
	step(1, "A sealing device, an appliance, a daemon")
	if err := s.device(); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(s.dir, "run"), 0o755); err != nil {
		return err
	}
	if err := s.writeConfig(); err != nil {
		return err
	}
	args := []string{"init", "--quorum", "2"}
	for _, name := range []string{"alice", "bob", "carol"} {
		prefix := filepath.Join(s.dir, name)
		if _, err := sigilctl(ctx, s.dir, "credential", "create", "--purpose", "operator", "--name", name, "--out", prefix); err != nil {
			return err
		}
		key, err := credential.LoadKey(prefix + ".key")
		if err != nil {
			return err
		}
		s.operators = append(s.operators, key)
		args = append(args, "--operator", prefix+".json")
	}
	out, err := sigilctl(ctx, s.dir, args...)
	if err != nil {
		return err
	}
	for _, line := range strings.Split(out, "\n") {
		say("init: %s", line)
	}
	if err := s.pinSRK(out); err != nil {
		return err
	}
	if _, err := sigilctl(ctx, s.dir, args...); err == nil {
		return fmt.Errorf("a second init was accepted")
	}
	say("a second init is refused")
	if s.daemon, err = startDaemon(s.dir); err != nil {
		return err
	}
	if s.app, err = client.Dial(filepath.Join(s.dir, "run", "app.sock")); err != nil {
		return err
	}
	if s.admin, err = client.Dial(filepath.Join(s.dir, "run", "admin.sock")); err != nil {
		return err
	}
	st, err := s.admin.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
	if err != nil {
		return err
	}
	if err := check(!st.GetSealed(), "the daemon is sealed: %s", st.GetSealedReason()); err != nil {
		return err
	}
	say("sigild runs as pid %d, uid %d; appliance %s; rollback anchor: %s", s.daemon.cmd.Process.Pid, os.Geteuid(), st.GetApplianceId(), st.GetAnchor())
	return nil
}

// populate is step 2: organization, users, wallets.
func (s *scene) populate(ctx context.Context) (err error) {
	step(2, "An organization, an end user, two wallets by threshold keygen")
	if s.root, err = credential.GenerateKey(credential.Ed25519); err != nil {
		return err
	}
	if s.user, err = credential.GenerateKey(credential.P256); err != nil {
		return err
	}
	if s.userAge, err = age.GenerateX25519Identity(); err != nil {
		return err
	}
	if s.botAge, err = age.GenerateX25519Identity(); err != nil {
		return err
	}
	root, err := newCredential(s.root, credential.ForOrganizationRoot, "treasurer")
	if err != nil {
		return err
	}
	request := &sigilv1.CreateOrganizationRequest{RequestId: "create-acme", Name: "Acme Custody", RootCredentials: []*sigilv1.NewCredential{root}, RootQuorum: 1}
	if _, err := s.admin.WithStamps("", s.operators[0]).Organizations().CreateOrganization(ctx, request); client.Reason(err) != "QUORUM_MISSING" {
		return fmt.Errorf("one operator's stamp was enough, or failed otherwise: %w", err)
	}
	org, err := s.admin.WithStamps("", s.operators[0], s.operators[2]).Organizations().CreateOrganization(ctx, request)
	if err != nil {
		return err
	}
	s.organization = org.GetOrganizationId()
	say("2 of 3 operators stamped %s (1 of 3 was refused)", s.organization)

	cred, err := newCredential(s.user, credential.ForUser, "dana's phone")
	if err != nil {
		return err
	}
	recipient := s.userAge.Recipient().String()
	signature, err := credential.SignRecipient(s.user, recipient)
	if err != nil {
		return err
	}
	u, err := s.asRoot().Users().CreateUser(ctx, &sigilv1.CreateUserRequest{
		RequestId: "create-dana", OrganizationId: s.organization, Name: "Dana", Kind: sigilv1.UserKind_USER_KIND_END_USER,
		Credentials: []*sigilv1.NewCredential{cred}, ShareRecipient: &recipient, ShareRecipientSignature: signature,
	})
	if err != nil {
		return err
	}
	s.owner = u.GetUserId()
	say("end user %s, with a P-256 credential and an age recipient it signed", s.owner)
	if s.eth, err = s.wallet(ctx, "create-eth", "eip155", "Dana's ether"); err != nil {
		return err
	}
	if s.sol, err = s.wallet(ctx, "create-sol", solanaMainnet, "Dana's sol"); err != nil {
		return err
	}
	return nil
}

func (s *scene) asRoot() *client.Client { return s.app.WithStamps(s.organization, s.root) }
func (s *scene) asUser() *client.Client { return s.app.WithStamps(s.organization, s.user) }

func newCredential(k *credential.PrivateKey, purpose credential.Purpose, name string) (*sigilv1.NewCredential, error) {
	proof, err := credential.NewProof(k, purpose, name)
	if err != nil {
		return nil, err
	}
	algorithms := map[credential.Algorithm]sigilv1.CredentialAlgorithm{
		credential.P256:      sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_P256,
		credential.Ed25519:   sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_ED25519,
		credential.Secp256k1: sigilv1.CredentialAlgorithm_CREDENTIAL_ALGORITHM_SECP256K1,
	}
	return &sigilv1.NewCredential{Name: name, Algorithm: algorithms[k.Public().Algorithm], PublicKey: k.Public().Bytes, Proof: proof}, nil
}

// wallet makes one wallet, takes the user's share out and confirms it.
func (s *scene) wallet(ctx context.Context, id, chain, name string) (*account, error) {
	made, err := s.asRoot().Wallets().CreateWallet(ctx, &sigilv1.CreateWalletRequest{
		RequestId: id, OrganizationId: s.organization, OwnerUserId: s.owner, Chain: chain, Name: name,
	})
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, "keygen of "+name, made.GetCeremonyId()); err != nil {
		return nil, err
	}
	shown, err := s.asUser().Wallets().GetWallet(ctx, &sigilv1.GetWalletRequest{OrganizationId: s.organization, WalletId: made.GetWalletId()})
	if err != nil {
		return nil, err
	}
	w := shown.GetWallet()
	if err := check(w.GetStatus() == sigilv1.WalletStatus_WALLET_STATUS_PENDING, "the wallet is not pending before its owner has the share"); err != nil {
		return nil, err
	}
	out, err := s.asUser().Wallets().FetchShare(ctx, &sigilv1.FetchShareRequest{OrganizationId: s.organization, WalletId: w.GetWalletId()})
	if err != nil {
		return nil, err
	}
	share, err := openAge(out.GetAgeCiphertext(), s.userAge)
	if err != nil {
		return nil, err
	}
	defer clear(share)
	set, party, err := mpc.DescribeShare(share)
	if err != nil {
		return nil, err
	}
	if err := check(party == mpc.User && bytes.Equal(set.PublicKey, w.GetPublicKey()), "the share that came out is not the user's"); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(out.GetAgeCiphertext())
	confirmed, err := s.asUser().Wallets().ConfirmShare(ctx, &sigilv1.ConfirmShareRequest{
		RequestId: id + "-receipt", OrganizationId: s.organization, WalletId: w.GetWalletId(), CiphertextSha256: sum[:],
	})
	if err != nil {
		return nil, err
	}
	w = confirmed.GetWallet()
	if err := check(w.GetStatus() == sigilv1.WalletStatus_WALLET_STATUS_ACTIVE, "the wallet is not active after the receipt"); err != nil {
		return nil, err
	}
	say("%s: %s", name, w.GetAddress())
	say("  %s, root set 2-of-3; here: %s; origin %s, custody %s", w.GetScheme(), strings.Join(w.GetSharesHere(), ", "), w.GetOrigin(), w.GetCustody())
	say("  the user's share left as an age file of %d bytes; its receipt made the wallet active", len(out.GetAgeCiphertext()))
	return &account{wallet: w.GetWalletId(), address: w.GetAddress(), publicKey: w.GetPublicKey()}, nil
}

// await follows a ceremony and shows its progress.
func (s *scene) await(ctx context.Context, what, id string) error {
	last, start := "", time.Now()
	for {
		answer, err := s.asUser().Wallets().GetCeremony(ctx, &sigilv1.GetCeremonyRequest{OrganizationId: s.organization, CeremonyId: id})
		if err != nil {
			return err
		}
		c := answer.GetCeremony()
		line := fmt.Sprintf("%s: %s %d/%d", what, c.GetStage(), c.GetStepsDone(), c.GetStepsTotal())
		switch {
		case c.GetStatus() == sigilv1.CeremonyStatus_CEREMONY_STATUS_DONE:
			if terminal() && last != "" {
				fmt.Printf("\r%70s\r", "")
			}
			say("%s: done in %.1f s", what, time.Since(start).Seconds())
			return nil
		case c.GetStatus() == sigilv1.CeremonyStatus_CEREMONY_STATUS_FAILED:
			return fmt.Errorf("%s failed: %s", what, c.GetError())
		case line != last && c.GetStage() != "":
			last = line
			if terminal() {
				fmt.Printf("\r   %-66s", line)
			} else {
				say("%s", line)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// delegate is step 3: a delegated user with shares, key, policy and limit of its own.
func (s *scene) delegate(ctx context.Context) error {
	step(3, "Two delegations, each with its own 2-of-2 share set, API key, policy and daily limit")
	u, err := s.asRoot().Users().CreateUser(ctx, &sigilv1.CreateUserRequest{
		RequestId: "create-bot", OrganizationId: s.organization, Name: "payout bot", Kind: sigilv1.UserKind_USER_KIND_DELEGATED_USER,
	})
	if err != nil {
		return err
	}
	s.bot = u.GetUserId()
	day := uint32(24 * 60 * 60)
	if err := s.grant(ctx, "delegate-eth", s.eth, nil,
		fmt.Sprintf("eth.tx.to == '%s' && eth.tx.value <= 500000000000000000 && eth.tx.data == '0x' && eth.tx.chain_id == 1", payee),
		&sigilv1.Limit{Name: "one ether a day", Asset: "eip155:1/slip44:60", MaxAmount: ether(1, 1).String(), WindowSeconds: &day},
	); err != nil {
		return err
	}
	// The ether delegation's ceremony has used the pool; both keep working meanwhile.
	solRule := fmt.Sprintf("solana.tx.transfers.count() == 1 && solana.tx.instructions.count() == 1 && solana.tx.transfers.all(t, t.to == '%s' && t.amount <= 500000000)", solanaPayee())
	if err := s.grant(ctx, "delegate-sol", s.sol, nil, solRule,
		&sigilv1.Limit{Name: "one sol a day", Asset: solanaMainnet + "/slip44:501", MaxAmount: "1000000000", WindowSeconds: &day},
	); err != nil {
		return err
	}
	end := time.Now().Add(5 * time.Second)
	short := *s.sol
	s.short = &short
	return s.grant(ctx, "delegate-short", s.short, &end, solRule,
		&sigilv1.Limit{Name: "one sol a day", Asset: solanaMainnet + "/slip44:501", MaxAmount: "1000000000", WindowSeconds: &day})
}

// grant makes one delegation and opens its API key.
func (s *scene) grant(ctx context.Context, id string, a *account, end *time.Time, condition string, limit *sigilv1.Limit) error {
	consensus := fmt.Sprintf("approvers.any(user, user.id == '%s')", s.bot)
	request := &sigilv1.CreateDelegationRequest{
		RequestId: id, OrganizationId: s.organization, WalletId: a.wallet, DelegatedUserId: s.bot,
		ApiKeyRecipient: s.botAge.Recipient().String(),
		Policies:        []*sigilv1.Policy{{Name: "payouts", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition, Consensus: &consensus}},
		Limits:          []*sigilv1.Limit{limit},
	}
	if end != nil {
		request.ExpiresAt, a.expires = timestamppb.New(*end), *end
	}
	made, err := s.asUser().Delegations().CreateDelegation(ctx, request)
	if err != nil {
		return err
	}
	if err := s.await(ctx, "issue for "+id, made.GetCeremonyId()); err != nil {
		return err
	}
	shown, err := s.asUser().Delegations().GetDelegation(ctx, &sigilv1.GetDelegationRequest{OrganizationId: s.organization, DelegationId: made.GetDelegationId()})
	if err != nil {
		return err
	}
	if a.apiKey, err = openAge(shown.GetEncryptedApiKey(), s.botAge); err != nil {
		return err
	}
	a.delegation = made.GetDelegationId()
	say("%s: {%s}, API key sgk_%s_… (it came as an age file)", a.delegation, strings.Join(shown.GetDelegation().GetShareSetParties(), ", "), a.apiKey[4:12])
	say("  allow when %s", condition)
	say("  limit %q: %s of %s in %d s", limit.GetName(), limit.GetMaxAmount(), limit.GetAsset(), limit.GetWindowSeconds())
	return nil
}

func openAge(ciphertext []byte, id age.Identity) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(ciphertext), id)
	if err != nil {
		return nil, fmt.Errorf("opening an age file: %w", err)
	}
	return io.ReadAll(r)
}

// ether is n/d ether in wei.
func ether(n, d int64) *big.Int {
	wei := new(big.Int).Mul(big.NewInt(1_000_000_000_000_000_000), big.NewInt(n))
	return wei.Div(wei, big.NewInt(d))
}
