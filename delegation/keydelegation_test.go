package delegation

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// delayWallet is the organization's, with a key that may be delegated; treasuryWallet's may not.
const (
	delayWallet    = "wal_delay"
	treasuryWallet = "wal_treasury"
)

func withDelay(h *house) {
	h.t.Helper()
	h.owned(delayWallet, true)
	h.owned(treasuryWallet, false)
}

// owned writes an active wallet of acme itself, with all shares here.
func (h *house) owned(id string, delay bool) {
	h.t.Helper()
	set := mpctest.Keygen(h.t, mpc.KeygenRequest{SetID: "key_" + id + "/root/1", Scheme: chains.EdDSAEd25519, Parties: []mpc.Party{mpc.Recovery, mpc.Server, mpc.User}, Threshold: 2})
	h.wallet(id, cluster, set)
	h.put(func(tx *vault.Tx) error {
		k, w := key{}, wallet{}
		err := errors.Join(tx.With(vault.TypeKey, "key_"+id, func(b []byte) error { return decodeRecord(b, &k) }),
			tx.With(vault.TypeWallet, id, func(b []byte) error { return decodeRecord(b, &w) }))
		k.Owner, w.Owner, k.Delay, k.Here = "", "", delay, append(k.Here, mpc.User)
		err = errors.Join(err, tx.Put(vault.TypeShare, ShareID(k.Root.ID, mpc.User), set.Shares(h.t, mpc.User)[0]))
		return errors.Join(err, store(tx, vault.TypeKey, k.ID, &k), store(tx, vault.TypeWallet, w.ID, &w))
	})
}

func newKeyDelegation(id, wallet, to string) NewKeyDelegation {
	return NewKeyDelegation{RequestID: id, Organization: site.acme, Key: "key_" + wallet, To: to}
}

func (h *house) delegateKey(id, wallet, to string, by ...holder) (KeyDelegated, error) {
	n := newKeyDelegation(id, wallet, to)
	return h.DelegateKey(context.Background(), stamped(site.acme, n, by...), n)
}

// ownership insists that a key and all its wallets have the same owner.
func (h *house) ownership(keyID, want string) {
	h.t.Helper()
	k := h.book.keys[keyID]
	if k.Owner != want {
		h.t.Errorf("key %s is %q's, want %q", keyID, k.Owner, want)
	}
	for _, w := range h.book.walletsOf(keyID) {
		if w.Owner != k.Owner {
			h.t.Errorf("wallet %s is %q's, its key %q's", w.ID, w.Owner, k.Owner)
		}
	}
}

// holdCeremonies keeps ceremonies from beginning until release.
func (h *house) holdCeremonies() (release func()) {
	s := h.Service
	s.ceremonySlot <- struct{}{}
	return func() { <-s.ceremonySlot }
}

func TestDelegatedKeyIsItsOwnersForEver(t *testing.T) {
	h := newHouse(t, withDelay, idle)
	ctx := context.Background()
	root := site.root[:2]
	// What the key is used by: a delegation, a policy of its own, one of everybody's, a stamp.
	d := newDelegation("d", delayWallet)
	wantRefusal(t, "a delegation by somebody else", second(h.CreateDelegation(ctx, stamped(site.acme, d, site.dana.holder), d)), refusal.QuorumMissing)
	made, err := h.CreateDelegation(ctx, stamped(site.acme, d, root...), d)
	if err != nil {
		t.Fatal(err)
	}
	trader := h.trader(apiUser.NewCredential)
	own := soleIntent(trader, 1)
	own.Wallet = delayWallet
	p := NewIntents{RequestID: "p", Organization: site.acme, Policies: []Intent{own, soleIntent(trader, 2)}}
	if _, err := h.FetchOrCreatePolicies(ctx, stamped(site.acme, p.RequestID, root...), p); err != nil {
		t.Fatal(err)
	}
	before, err := h.AuthenticateStamps(site.acme, delayWallet, []credential.PublicKey{apiUser.PublicKey})
	if err != nil || len(before.ShareIDs) != 2 {
		t.Fatalf("%+v, %v", before, err)
	}
	wantCustody := func(when string, here ...mpc.Party) {
		t.Helper()
		if k := h.book.keys["key_"+delayWallet]; k.custody() != "host" || !slices.Equal(k.Here, here) {
			t.Errorf("%s: custody %s, shares here %v, want %v", when, k.custody(), k.Here, here)
		}
	}
	wantCustody("before", mpc.Recovery, mpc.Server, mpc.User)

	_, err = h.delegateKey("t", treasuryWallet, site.dana.id, root...)
	wantRefusal(t, "a treasury", err, refusal.NotDelegatable)
	_, err = h.delegateKey("g", delayWallet, site.gina.id, root...)
	wantRefusal(t, "a user of another organization", err, refusal.NotFound)
	_, err = h.delegateKey("b", delayWallet, site.bot, root...)
	wantRefusal(t, "a delegated user", err, refusal.RequestInvalid)
	_, err = h.delegateKey("n", "nowhere", site.dana.id, root...)
	wantRefusal(t, "no key", err, refusal.NotFound)
	for name, by := range map[string][]holder{"one root member": site.root[:1], "the user": {site.dana.holder}, "operators": site.operators, "a delegated user": {apiUser}} {
		_, err = h.delegateKey("q", delayWallet, site.dana.id, by...)
		wantRefusal(t, name, err, refusal.QuorumMissing)
	}
	h.ownership("key_"+delayWallet, "")

	old := h.book.keys["key_"+delayWallet].Root
	var given []byte
	if err := h.cfg.Vault.With(ctx, vault.TypeShare, ShareID(old.ID, mpc.User), func(b []byte) error { given = bytes.Clone(b); return nil }); err != nil {
		t.Fatal(err)
	}
	release := h.holdCeremonies()
	out, err := h.delegateKey("k", delayWallet, site.dana.id, root...)
	if want := (KeyDelegated{"key_" + delayWallet, "Delegated", "host"}); err != nil || out != want {
		t.Fatalf("%+v, %v, want %+v", out, err, want)
	}
	check := func(when string) {
		t.Helper()
		h.ownership("key_"+delayWallet, site.dana.id)
		wantCustody(when, mpc.Recovery, mpc.Server)
		if d := h.book.delegations[made.DelegationID]; d.alive() {
			t.Errorf("%s: delegation is %s", when, d.Status)
		}
		if n := len(h.book.rulebook(site.acme).documents); n != 1 {
			t.Errorf("%s: %d policies are left, want that of all wallets", when, n)
		}
		st, err := h.AuthenticateStamps(site.acme, delayWallet, []credential.PublicKey{apiUser.PublicKey})
		if err != nil {
			t.Fatal(err)
		}
		asked := policy.Request{Approvers: st.Approvers, Credentials: st.Credentials, Now: h.clock.now()}
		if got := st.Rules.Evaluate(asked).Outcome; got == policy.Allowed || got == policy.RequiresConsensus {
			t.Errorf("%s: the organization's policies still allow: %v", when, got)
		}
		if st.Version == before.Version {
			t.Errorf("%s: a signature under way would not notice", when)
		}
	}
	check("after")
	if again, err := h.delegateKey("k2", delayWallet, site.dana.id, root...); err != nil || again != out {
		t.Errorf("again: %+v, %v", again, err)
	}
	_, err = h.delegateKey("k3", delayWallet, site.erin.id, root...)
	wantRefusal(t, "another user", err, refusal.NotDelegatable)

	// The organization's root set is owed an end: what a restart interrupts begins again,
	// and until it is done there is no share of the owner's, nor one of the user's here.
	owed := func(when string, want bool) {
		t.Helper()
		k, err := h.Key(ctx, look(site.acme, site.dana.holder), site.acme, delayWallet)
		if err != nil || k.Renew != want || (k.RootSet == old.ID) != want || k.ShareWaits == want {
			t.Errorf("%s: %+v, %v; want a renewal owed: %v", when, k, err, want)
		}
	}
	owed("after", true)
	_, err = h.FetchShare(ctx, look(site.acme, site.dana.holder), site.acme, delayWallet)
	wantRefusal(t, "a share of the old set", err, refusal.NotActive)
	h.Service.Close()
	release()
	h.restart()
	check("after a restart")
	owed("after a restart", true)
	if err := h.RotateDue(ctx); err != nil {
		t.Fatal(err)
	}
	h.running.Wait()
	owed("after the rotation", false)
	check("after the rotation")
	k := h.book.keys["key_"+delayWallet]
	if !bytes.Equal(k.Root.PublicKey, old.PublicKey) {
		t.Error("the key is another")
	}
	h.wantSigns("after the rotation", k)

	// The share is the owner's, and of the old set none is left.
	share, err := h.FetchShare(ctx, look(site.acme, site.dana.holder), site.acme, delayWallet)
	if err != nil {
		t.Fatal(err)
	}
	if plain := openAge(t, share.Ciphertext, site.dana.age); len(plain) == 0 || bytes.Equal(plain, given) {
		t.Error("the outbox holds the user's share of the organization's root set")
	}
	for _, p := range old.Parties {
		if err := h.cfg.Vault.With(ctx, vault.TypeShare, ShareID(old.ID, p), func([]byte) error { return nil }); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("the share of %s of the old set: %v, want ErrNotFound", p, err)
		}
	}
	if err := h.cfg.Vault.With(ctx, vault.TypeShare, ShareID(k.Root.ID, mpc.User), func([]byte) error { return nil }); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("the user's share here: %v, want ErrNotFound", err)
	}
	wantRefusal(t, "the root delegates it", second(h.CreateDelegation(ctx, stamped(site.acme, newDelegation("e", delayWallet), root...), newDelegation("e", delayWallet))), refusal.QuorumMissing)
}

// Killed at any of its steps, the key is the organization's with all it had, or the
// user's with nothing of before.
func TestKeyDelegationIsAllOrNothing(t *testing.T) {
	h := newHouse(t, withDelay, idle)
	d := newDelegation("d", delayWallet)
	made, err := h.CreateDelegation(context.Background(), stamped(site.acme, d, site.root[:2]...), d)
	if err != nil {
		t.Fatal(err)
	}
	h.running.Wait()
	h.active("dlg_delay", mpctest.Ed25519DelegateSet(t))
	h.put(func(tx *vault.Tx) error {
		r := delegationRecord{}
		err := tx.With(vault.TypeDelegation, "dlg_delay", func(b []byte) error { return decodeRecord(b, &r) })
		r.Wallet, r.Owner = delayWallet, ""
		return errors.Join(err, store(tx, vault.TypeDelegation, r.ID, &r), store(tx, vault.TypeWallet, solWallet, &wallet{
			V: recordVersion, ID: solWallet, Organization: site.acme, Key: "key_" + delayWallet, Chain: cluster, Status: statusActive}))
	})
	h.restart()
	var copies []*house
	var catch func()
	catch = func() {
		h.clock.look(nil)
		copies = append(copies, h.crashed())
		h.clock.look(catch)
	}
	defer h.holdCeremonies()()
	h.clock.look(catch)
	if _, err := h.delegateKey("k", delayWallet, site.dana.id, site.root[:2]...); err != nil {
		t.Fatal(err)
	}
	h.clock.look(nil)
	if len(copies) < 5 {
		t.Fatalf("caught at %d steps", len(copies))
	}
	for i, c := range append(copies, h.crashed()) {
		k := c.book.keys["key_"+delayWallet]
		mine := k.Owner == site.dana.id
		if alive := c.book.delegations["dlg_delay"].alive(); alive == mine || len(k.Here) == 3 == mine || i == len(copies) && !mine || i == 0 && mine {
			t.Errorf("crash %d of %d: delegated %v, a delegation alive %v, shares here %v", i, len(copies), mine, alive, k.Here)
		}
		c.ownership(k.ID, k.Owner)
	}
	if d := h.book.delegations[made.DelegationID]; d.alive() {
		t.Errorf("the delegation that was asked for before is %s", d.Status)
	}
}

// Ten thousand random histories of a key: whatever happens to it, in which order,
// it and its wallets have one owner, on disk, too.
func TestKeyAndWalletOwnersNeverDiffer(t *testing.T) {
	const houses, each = 40, 250
	set := mpctest.ECDSARootSet(t).WithChainCode(t, bytes.Repeat([]byte{7}, 32))
	shares := set.Shares(t, mpc.User, mpc.Recovery)
	random, delegated := rand.New(rand.NewPCG(11, 2)), 0
	for range houses {
		h := newHouse(t, withDelay, idle)
		h.keys(each, random, set, shares)
		for i := range each {
			if h.history(random, i) != "" {
				delegated++
			}
		}
		h.restart() // refuses a wallet that is not its key's owner's
		for id, k := range h.book.keys {
			h.ownership(id, k.Owner)
		}
		h.Service.Close()
	}
	if delegated < houses*each/10 {
		t.Errorf("%d of %d keys were delegated", delegated, houses*each)
	}
}

// keys writes n keys of acme's with a wallet each, most of which may be delegated.
func (h *house) keys(n int, random *rand.Rand, set mpctest.Set, shares [][]byte) {
	h.t.Helper()
	h.put(func(tx *vault.Tx) error {
		var errs []error
		for i := range n {
			k, w := *h.book.keys["key_"+delayWallet], *h.book.wallets[delayWallet]
			k.ID, w.ID, k.Delay = fmt.Sprint("key_", i), fmt.Sprint("wal_", i), random.IntN(4) > 0
			k.Scheme, k.Root, w.Chain, w.Key = set.Scheme, set.ShareSet, "eip155", k.ID
			k.Root.ID = k.ID + "/root/1"
			// A ceremony that goes on, in memory alone, keeps the rotation of a hand-over from beginning.
			goes := &ceremonyRecord{ID: fmt.Sprint("cer_", i), Organization: site.acme, Kind: kindRotate, Target: w.ID, Status: statusRunning}
			h.book.change(tx, func() { h.book.fileKey(&k); h.book.fileWallet(&w); h.book.ceremonies[goes.ID] = goes })
			errs = append(errs, tx.Put(vault.TypeShare, ShareID(k.Root.ID, mpc.User), shares[0]), tx.Put(vault.TypeShare, ShareID(k.Root.ID, mpc.Recovery), shares[1]),
				store(tx, vault.TypeKey, k.ID, &k), store(tx, vault.TypeWallet, w.ID, &w))
		}
		return errors.Join(errs...)
	})
}

// history does one to three random acts with key i; it returns whose the key is in the end.
func (h *house) history(random *rand.Rand, i int) (owner string) {
	h.t.Helper()
	k, w := h.book.keys[fmt.Sprint("key_", i)], h.book.wallets[fmt.Sprint("wal_", i)]
	users := []string{site.dana.id, site.erin.id, site.gina.id, site.bot}
	for n := range 1 + random.IntN(3) {
		id := fmt.Sprint(i, "-", n)
		if random.IntN(3) == 0 {
			m := NewDerived{RequestID: id, Organization: site.acme, Wallet: w.ID, Path: fmt.Sprint(n), Name: "w"}
			if _, err := h.DeriveWallet(context.Background(), stamped(site.acme, m, site.root[:2]...), m); err != nil {
				h.t.Fatal(err)
			}
		} else {
			to := users[random.IntN(len(users))]
			_, err := h.DelegateKey(context.Background(), stamped(site.acme, id, site.root[:2]...), NewKeyDelegation{RequestID: id, Organization: site.acme, Key: k.ID, To: to})
			may := k.Delay && (to == site.dana.id || to == site.erin.id) && (owner == "" || owner == to)
			if (err == nil) != may {
				h.t.Fatalf("key %s, delay %v, of %q, to %q: %v", k.ID, k.Delay, owner, to, err)
			}
			if may {
				owner = to
			}
		}
		h.ownership(k.ID, owner)
	}
	return owner
}

// A wallet can be made to be handed over, too, and is the organization's until then.
func TestWalletWithDelayedDelegation(t *testing.T) {
	h := newHouse(t)
	root := site.root[:2]
	n := NewWallet{RequestID: "w", Organization: site.acme, Owner: site.dana.id, Chain: cluster, Name: "later", Delay: true}
	wantRefusal(t, "an owner from the start, and later", second(h.CreateWallet(context.Background(), stamped(site.acme, n, root...), n)), refusal.RequestInvalid)
	n.Owner = ""
	made, err := h.CreateWallet(context.Background(), stamped(site.acme, n, root...), n)
	if err != nil {
		t.Fatal(err)
	}
	h.running.Wait()
	h.ownership(made.KeyID, "")
	to := NewKeyDelegation{RequestID: "d", Organization: site.acme, Key: made.KeyID, To: site.dana.id}
	if _, err := h.DelegateKey(context.Background(), stamped(site.acme, to, root...), to); err != nil {
		t.Fatal(err)
	}
	h.running.Wait()
	h.ownership(made.KeyID, site.dana.id)
	if k := h.book.keys[made.KeyID]; k.Renew || k.Root.Epoch != 2 {
		t.Errorf("root set %s, epoch %d, owed %v", k.Root.ID, k.Root.Epoch, k.Renew)
	}
}

// A rotation of the organization's that goes on when the key is handed over does not hold
// that up, and its result is not taken; the owner's begins after it.
func TestHandedOverDuringARotation(t *testing.T) {
	h := newHouse(t, withDelay)
	root := site.root[:2]
	release := h.holdCeremonies()
	r := NewRotation{RequestID: "r", Organization: site.acme, Wallet: delayWallet}
	going, err := h.RotateKey(context.Background(), stamped(site.acme, r, root...), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.delegateKey("k", delayWallet, site.dana.id, root...); err != nil {
		t.Fatal(err)
	}
	release()
	h.wantCeremony(going.CeremonyID, statusFailed)
	h.running.Wait()
	old := h.book.keys["key_"+delayWallet].Root.ID
	if k := h.book.keys["key_"+delayWallet]; !k.Renew {
		t.Error("nothing is owed")
	}
	if err := h.RotateDue(context.Background()); err != nil {
		t.Fatal(err)
	}
	h.running.Wait()
	if k := h.book.keys["key_"+delayWallet]; k.Renew || k.Root.ID == old {
		t.Errorf("root set %s, owed %v\n%s", k.Root.ID, k.Renew, h.log)
	}
}
