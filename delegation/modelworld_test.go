package delegation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/delegation/model"
	"github.com/sigild/sigild/delivery"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// world is the real parts for one life of the model: token, vault, journal, delegation,
// delivery and signing, over a store of its own. The threshold engine and the vendor's
// program are doubles. A kill is this: the store is copied as it is on disk before a
// durable write, what went on is forgotten, and everything opens on the copy.
type world struct {
	*nature
	dir   string // of this world's stores
	store string // the one that is open
	clock *handClock

	vault      *vault.Vault
	journal    *journal.Journal
	delegation *Service
	deliveries *delivery.Service
	signing    *signing.Service
	program    vendorProgram

	// cut counts durable writes down to the kill; below is where the copy goes.
	cut  atomic.Int64
	copy string
	fail error // of the copy
	// made counts request ids and stores.
	made int

	delegations []made
	wallets     []string
	// signatures are what requests were answered with, and signature the last act's answer.
	signatures map[int][]byte
	signature  []byte
}

// made is a delegation and, once it was active, its API key.
type made struct {
	id  string
	key []byte
}

// open opens everything on w.store.
func (w *world) open() (err error) {
	ctx := context.Background()
	// The vault reads its clock once for each batch that it is about to write.
	write := func() time.Time {
		if w.cut.Load() > 0 && w.cut.Add(-1) == 0 {
			w.fail = copyFiles(w.store, w.copy)
		}
		return w.clock.now()
	}
	if w.vault, err = vault.Open(ctx, vault.Config{Dir: w.store, Now: write}, site.pin); err != nil {
		return err
	}
	if err := w.vault.Unseal(ctx, sealers()); err != nil {
		return err
	}
	cfg := site.config
	cfg.Now = w.clock.now
	if w.journal, err = journal.Open(ctx, w.vault, cfg); err != nil {
		return err
	}
	if w.delegation, err = Open(ctx, Config{Vault: w.vault, Journal: w.journal, Now: w.clock.now}); err != nil {
		return err
	}
	w.deliveries, err = delivery.Open(ctx, delivery.Config{
		Vault: w.vault, Journal: w.journal, Device: site.device, DeviceID: site.device.ID(), Delegations: w.delegation, Program: &w.program, Now: w.clock.now,
	})
	if err != nil {
		return err
	}
	w.delegation.Deliveries(w.deliveries)
	w.signing = signing.New(signing.Config{
		Authority: w.delegation, Vault: w.vault, Journal: w.journal, Vendors: w.deliveries, Failed: w.delegation.CountFailure, Now: w.clock.now,
	})
	return nil
}

func (w *world) close() error {
	w.signing.Close()
	w.delegation.Close()
	return w.vault.Close()
}

// restart opens everything anew: on the same store after an orderly end, else on a
// copy of it, made before the write that the process did not live to see, or now.
func (w *world) restart(kill, copied bool) error {
	if !kill {
		if err := w.close(); err != nil {
			return err
		}
		return w.open()
	}
	if !copied {
		w.fail = copyFiles(w.store, w.copy)
	}
	if err := errors.Join(w.fail, w.close(), os.RemoveAll(w.store)); err != nil {
		return err
	}
	w.store = w.copy
	return w.open()
}

func copyFiles(from, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{vault.FileName, vault.FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) && name != vault.FileName {
			continue
		}
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Do implements model.World.
func (w *world) Do(a model.Act) (model.Answer, error) {
	w.made++
	w.copy = filepath.Join(w.dir, fmt.Sprint("store-", w.made))
	w.cut.Store(int64(a.Cut))
	var out model.Answer
	var made string // the delegation that the act made, if any
	var no *refusal.Error
	switch err := w.act(a, &out, &made); {
	case errors.As(err, &no):
		out.Refused = no.Reason
	case err != nil:
		return out, fmt.Errorf("no refusal: %w", err)
	}
	w.delegation.running.Wait()
	out.Cut = a.Cut > 0 && w.cut.Swap(0) == 0
	if a.Cut > 0 || a.Verb == model.Restart {
		if err := w.restart(a.Cut > 0 || a.On, out.Cut); err != nil {
			return out, fmt.Errorf("starting again: %w", err)
		}
	}
	if err := w.learn(made); err != nil {
		return out, err
	}
	if err := w.answered(a, out); err != nil {
		return out, err
	}
	out.Reached = w.reached()
	return out, nil
}

// answered insists that a request has one signature for ever. What a process said that
// died before it had, nobody heard.
func (w *world) answered(a model.Act, out model.Answer) error {
	if a.Verb != model.Sign || out.Cut || out.Refused != "" {
		return nil
	}
	if before := w.signatures[a.Request.ID]; before != nil && !bytes.Equal(before, w.signature) {
		return &model.Differs{What: fmt.Sprintf("request %d was answered with two signatures", a.Request.ID)}
	}
	w.signatures[a.Request.ID] = w.signature
	return nil
}

// learn takes in what the store has of a new delegation, and the keys of those that
// have become active.
func (w *world) learn(id string) error {
	b := w.delegation.book
	if d := find(b, b.delegations, id); d != nil {
		w.delegations = append(w.delegations, made{id: id})
		if !slices.Contains(w.wallets, d.Wallet) {
			w.wallets = append(w.wallets, d.Wallet)
		}
	}
	for i, d := range w.delegations {
		if d.key != nil {
			continue
		}
		shown, err := w.delegation.Delegation(look(site.acme, site.root[0]), site.acme, d.id)
		if err != nil {
			return err
		}
		if len(shown.EncryptedAPIKey) > 0 {
			if w.delegations[i].key, err = w.opened(shown.EncryptedAPIKey); err != nil {
				return err
			}
		}
	}
	return nil
}

// reached is the time of the journal's last entry.
func (w *world) reached() time.Time {
	now := w.clock.now()
	w.clock.set(time.Unix(0, 0))
	defer w.clock.set(now)
	return w.journal.Now()
}

// actor is who stamps an act.
func (w *world) actor(a model.Act) Actor {
	org := site.acme
	switch {
	case a.Foreign:
		org = site.globex
	case a.Above():
		org = ""
	}
	out := Actor{Caller: caller, Method: "/sigil.v1/" + strings.ReplaceAll(string(a.Verb), " ", "_"), Organization: org}
	out.RequestHash = sha256.Sum256(fmt.Append(nil, w.made))
	for _, p := range a.By.People() {
		out.Credentials = append(out.Credentials, w.people[p].key.Public())
	}
	return out
}

// act performs one act on the rooms.
func (w *world) act(a model.Act, out *model.Answer, made *string) error {
	ctx, s, by, id := context.Background(), w.delegation, w.actor(a), fmt.Sprint("act-", w.made)
	terms := func() NewDelegation {
		n := NewDelegation{
			RequestID: id, Organization: site.acme, DelegatedUser: w.bots[a.User], Recipient: site.recipient.Recipient().String(), Policies: []policy.Policy{allow},
			Limits: []policy.Limit{{Name: "in all", Asset: cluster + "/slip44:501", Max: *uint256.NewInt(1000)}},
		}
		if !a.Ends.IsZero() {
			n.ExpiresAt = &a.Ends
		}
		return n
	}
	switch a.Verb {
	case model.Enable:
		return s.SetDelegatedAccess(ctx, by, NewDelegatedAccess{RequestID: id, Organization: site.acme, Access: DelegatedAccess{Enabled: a.On, DelegatedUser: w.bots[0]}})
	case model.Propose:
		n := terms()
		n.Wallet = w.wallets[a.Wallet]
		got, err := s.RequestDelegation(ctx, by, n)
		*made = got.DelegationID
		return err
	case model.Create:
		n := terms()
		n.Wallet = w.wallets[a.Wallet]
		got, err := s.CreateDelegation(ctx, by, n)
		*made = got.DelegationID
		return err
	case model.Approve:
		text, err := s.termsOf(find(s.book, s.book.delegations, w.delegations[a.Delegation].id))
		if err != nil {
			return err
		}
		if a.Wrong {
			text = append(text, ' ')
		}
		sum := sha256.Sum256(text)
		_, err = s.ApproveDelegation(ctx, by, NewApproval{RequestID: id, Organization: site.acme, Delegation: w.delegations[a.Delegation].id, Terms: sum[:]})
		return err
	case model.Revoke:
		_, err := s.RevokeDelegation(ctx, by, id, site.acme, w.delegations[a.Delegation].id)
		return err
	case model.Pause:
		_, err := s.Pause(ctx, by, NewPause{RequestID: id, Scope: w.scope(a), Reason: "hold"})
		return err
	case model.Resume:
		return s.Resume(ctx, by, id, w.scope(a))
	case model.Deliver:
		outcome, err := w.deliveries.Ingest(ctx, s.Acting(Actor{Caller: caller, Method: "/sigil.v1/Ingest"}), w.received(a, w.clock.now()))
		out.Outcome = string(outcome)
		return err
	case model.Bind:
		n := NewBinding{NewDelegation: terms(), Delivery: w.deliveryOf(a.Event), Chain: cluster, Address: w.vendorAddress(a.Event.Vendor), Name: "theirs"}
		if a.Wrong {
			n.Address = w.vendorAddress(a.Event.Vendor + 1)
		}
		got, err := s.BindDelivery(ctx, by, n)
		*made = got.DelegationID
		return err
	case model.Sign:
		return w.sign(a)
	case model.SignStamped:
		_, err := w.signing.Sign(ctx, signing.Request{
			ID: id, WalletID: w.wallets[a.Wallet], Kind: chains.KindSolanaMessage, Payload: payment(w.publicOf(w.wallets[a.Wallet]), 1, 0),
			Organization: by.Organization, Stamps: by.Credentials, Method: "/sigil.v1.SigningService/Sign", Caller: caller,
		})
		return err
	case model.SetClock:
		w.clock.set(a.At)
	case model.Sweep:
		return s.Expire(ctx)
	case model.Deny:
		return w.deny(a, by, id)
	case model.RemoveUser:
		return s.RemoveUser(ctx, by, id, site.acme, w.bots[a.User])
	case model.EndCredential:
		_, err := s.RevokeCredential(ctx, by, Revocation{RequestID: id, Organization: site.acme, User: site.dana.id, Credential: w.people[model.DanaSecond].key.Public().ID()})
		return err
	case model.DropRoot:
		stay := []string{w.people[model.Rhea].key.Public().ID(), w.people[model.Rolf].key.Public().ID()}
		return s.SetRootQuorum(ctx, by, NewQuorum{RequestID: id, Organization: site.acme, Credentials: stay, Quorum: 2})
	case model.Meddle:
		return w.meddle(a, by, id)
	}
	return nil
}

func (w *world) scope(a model.Act) Scope {
	switch a.Scope {
	case model.OfAppliance:
		return Scope{}
	case model.OfOrganization:
		return Scope{Organization: site.acme}
	case model.OfWallet:
		return Scope{Organization: site.acme, Wallet: w.wallets[a.Wallet]}
	}
	return Scope{Organization: site.acme, Delegation: w.delegations[a.Delegation].id}
}

func (w *world) deny(a model.Act, by Actor, id string) error {
	stop := Intent{Policy: policy.Policy{Name: "stop", Effect: policy.Deny, Lang: policy.LangSigild, Condition: "solana.tx.transfers.count() >= 0"}}
	if a.On {
		_, err := w.delegation.FetchOrCreatePolicies(context.Background(), by, NewIntents{RequestID: id, Organization: site.acme, Policies: []Intent{stop}})
		return err
	}
	_, err := w.delegation.ReportOrderFilled(context.Background(), by, FilledOrder{RequestID: id, Organization: site.acme, Policies: []string{stop.id()}})
	return err
}

// meddle is one of the acts by which a delegated user would be more than that.
func (w *world) meddle(a model.Act, by Actor, id string) error {
	ctx, s := context.Background(), w.delegation
	switch w.made % 6 {
	case 0:
		_, err := s.RotateKey(ctx, by, NewRotation{RequestID: id, Organization: site.acme, Wallet: w.wallets[0]})
		return err
	case 1:
		_, err := s.CreateUser(ctx, by, NewUser{RequestID: id, Organization: site.acme, Name: "another", Kind: DelegatedUser})
		return err
	case 2:
		return s.SetRootQuorum(ctx, by, NewQuorum{RequestID: id, Organization: site.acme, Users: []string{w.bots[0]}, Quorum: 1})
	case 3:
		_, err := s.AddCredential(ctx, by, AddedCredential{RequestID: id, Organization: site.acme, User: site.dana.id, Credential: w.people[model.Stranger].NewCredential})
		return err
	case 4:
		all := Intent{Policy: policy.Policy{Name: "all", Effect: policy.Allow, Lang: policy.LangSigild, Condition: "solana.tx.transfers.count() >= 0", Consensus: soleConsensus(w.bots[0])}}
		_, err := s.FetchOrCreatePolicies(ctx, by, NewIntents{RequestID: id, Organization: site.acme, Policies: []Intent{all}})
		return err
	}
	return s.SetTags(ctx, by, NewTags{RequestID: id, Organization: site.acme, User: w.bots[0], Tags: []string{"treasury"}})
}

// sign asks for a signature, and verifies it with the standard library.
func (w *world) sign(a model.Act) error {
	public := w.publicOf(w.wallets[a.Wallet])
	key := bytes.Clone(w.delegations[a.Delegation].key)
	if key == nil {
		key = []byte("sgk_" + strings.Repeat("a", 26) + "_" + strings.Repeat("A", 43))
	}
	if a.Wrong {
		key[len(key)-2] ^= 1
	}
	payload := payment(public, a.Request.Lamports, a.Request.ID)
	w.program.away.Store(a.Away)
	got, err := w.signing.Sign(context.Background(), signing.Request{
		ID: fmt.Sprint("sign-", a.Request.ID), WalletID: w.wallets[a.Wallet], Kind: chains.KindSolanaMessage, Payload: payload,
		APIKey: key, Method: "/sigil.v1.SigningService/Sign", Caller: caller,
	})
	if err != nil {
		return err
	}
	w.signature = got.Signature
	if !ed25519.Verify(public, payload, got.Signature) {
		return errors.New("the signature does not verify")
	}
	return nil
}

// payment is a Solana message that pays some lamports, different for each request.
func payment(from ed25519.PublicKey, lamports uint64, request int) []byte {
	to, blockhash, system := [32]byte{7, 7, 1}, [32]byte{9, 9, byte(request >> 8), byte(request)}, [32]byte{}
	m := slices.Concat([]byte{0x80, 1, 0, 1, 3}, from, to[:], system[:], blockhash[:], []byte{1, 2, 2, 0, 1, 12, 2, 0, 0, 0})
	return append(binary.LittleEndian.AppendUint64(m, lamports), 0)
}

// publicOf is the key of a wallet, ours or the vendor's.
func (w *world) publicOf(wallet string) ed25519.PublicKey {
	b := w.delegation.book
	key, err := solana.ParseAddress(find(b, b.wallets, wallet).Address)
	if err != nil {
		panic(err)
	}
	return key[:]
}

// deliveryOf is the id of what an event brought; no delivery's if it is not there.
func (w *world) deliveryOf(e model.Event) string {
	all, err := w.deliveries.Deliveries(w.delegation.Acting(look(site.acme, site.root[0])), site.acme, "")
	if err != nil {
		panic(err)
	}
	for _, d := range all {
		if d.User == e.Name() {
			return d.ID
		}
	}
	return "vdl_none"
}

// Look implements model.World.
func (w *world) Look() (string, error) {
	var lines []string
	for i, d := range w.delegations {
		shown, err := w.delegation.Delegation(look(site.acme, site.root[0]), site.acme, d.id)
		if err != nil {
			return "", err
		}
		lines = append(lines, fmt.Sprintf("delegation %d of wallet %d to user %d: %s", i, slices.Index(w.wallets, shown.Wallet), slices.Index(w.bots[:], shown.DelegatedUser), shown.Status))
	}
	all, err := w.deliveries.Deliveries(w.delegation.Acting(look(site.acme, site.root[0])), site.acme, "")
	if err != nil {
		return "", err
	}
	var shown []string
	for _, d := range all {
		of := slices.IndexFunc(w.delegations, func(m made) bool { return m.id == d.Delegation })
		shown = append(shown, model.ShowMaterial(int(d.Wallet[len(d.Wallet)-1]-'0'), d.ShareSet, d.User, string(d.Status), of, d.Proven, d.Beside))
	}
	slices.Sort(shown)
	count := map[vault.Type]int{}
	for _, t := range []vault.Type{vault.TypeShare, vault.TypeAPIKey, vault.TypeVendorShare, vault.TypeVendorAPIKey} {
		if err := w.vault.Each(context.Background(), t, func(string, []byte) error { count[t]++; return nil }); err != nil {
			return "", err
		}
	}
	if count[vault.TypeVendorShare] != count[vault.TypeVendorAPIKey] {
		return "", fmt.Errorf("%d vendor's shares and %d API keys of theirs", count[vault.TypeVendorShare], count[vault.TypeVendorAPIKey])
	}
	for _, bot := range w.bots {
		checks, err := w.delegation.VerifyDelegatedAccess(look(site.acme, site.root[0]), site.acme, bot)
		if err != nil {
			return "", err
		}
		for _, c := range checks {
			if !c.Holds {
				return "", &model.Differs{What: fmt.Sprintf("invariant %s of delegated access does not hold: %s", c.ID, c.Text)}
			}
		}
	}
	return fmt.Sprintf("%s\n%d shares, %d API keys, %d vendor's shares", strings.Join(append(lines, shown...), "\n"),
		count[vault.TypeShare]-2*model.OwnWallets, count[vault.TypeAPIKey], count[vault.TypeVendorShare]), nil
}
