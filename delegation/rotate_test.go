package delegation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func (h *house) rotate(id, wallet string, by ...holder) (CeremonyStarted, error) {
	n := NewRotation{RequestID: id, Organization: site.acme, Wallet: wallet}
	return h.RotateKey(context.Background(), stamped(site.acme, n, by...), n)
}

// keyOfWallet reads what is in the book.
func (h *house) keyOfWallet(wallet string) *key {
	h.t.Helper()
	w := find(h.book, h.book.wallets, wallet)
	return find(h.book, h.book.keys, w.Key)
}

// sharesHere are the parties of a set whose shares are in the store.
func (h *house) sharesHere(set string) (here []mpc.Party) {
	h.t.Helper()
	for _, p := range []mpc.Party{mpc.Delegate, mpc.Recovery, mpc.Server, mpc.User} {
		err := h.cfg.Vault.With(context.Background(), vault.TypeShare, ShareID(set, p), func([]byte) error { return nil })
		if err == nil {
			here = append(here, p)
		} else if !errors.Is(err, vault.ErrNotFound) {
			h.t.Fatal(err)
		}
	}
	return here
}

// ownersShare fetches, opens and confirms the share that waits for dana.
func (h *house) ownersShare(id, wallet string, identity member) []byte {
	h.t.Helper()
	ctx := context.Background()
	out, err := h.FetchShare(ctx, look(site.acme, identity.holder), site.acme, wallet)
	if err != nil {
		h.t.Fatal(err)
	}
	sum := sha256.Sum256(out.Ciphertext)
	r := NewReceipt{RequestID: id, Organization: site.acme, Wallet: wallet, SHA256: sum[:]}
	if w, err := h.ConfirmShare(ctx, stamped(site.acme, r, identity.holder), r); err != nil || w.Status != statusActive {
		h.t.Fatalf("confirming: %+v, %v", w, err)
	}
	share := openAge(h.t, out.Ciphertext, identity.age)
	h.secrets = append(h.secrets, middle(share))
	return share
}

// wantOneSet insists that the key has one root set whose quorums sign, and that no
// share of the set gone is left.
func (h *house) wantOneSet(wallet, gone string, user []byte) {
	h.t.Helper()
	k := h.keyOfWallet(wallet)
	if k.Root.ID == gone {
		h.t.Fatalf("the root set is still %s", gone)
	}
	if left := h.sharesHere(gone); len(left) > 0 {
		h.t.Errorf("shares of %v of the old set are left", left)
	}
	want := []mpc.Party{mpc.Recovery, mpc.Server}
	if here := h.sharesHere(k.Root.ID); !slices.Equal(here, want) || !slices.Equal(k.Here, want) {
		h.t.Errorf("shares %v are here, the key says %v, want %v", here, k.Here, want)
	}
	in := chains.SignInput{Scheme: k.Scheme, Message: []byte("m")}
	if k.Scheme == chains.ECDSASecp256k1 {
		in = chains.SignInput{Scheme: k.Scheme, Digest: [32]byte{1}}
	}
	err := h.cfg.Vault.With(context.Background(), vault.TypeShare, ShareID(k.Root.ID, mpc.Server), func(server []byte) error {
		_, err := mpc.Sign(context.Background(), mpc.SignRequest{Set: k.Root, Shares: [][]byte{server, user}, Input: in})
		return err
	})
	if err != nil {
		h.t.Errorf("the owner's new share does not sign with the server's: %v", err)
	}
}

func TestRotationReplacesTheRootSet(t *testing.T) {
	for name, tc := range map[string]struct {
		with   func(*house)
		wallet string
		old    mpctest.Set
		by     []holder
	}{
		"Ed25519, by the owner": {withWallet, solWallet, mpctest.Ed25519RootSet(t), []holder{site.dana.holder}},
		"ECDSA, by root":        {withEther, ethWallet, mpctest.ECDSARootSet(t), site.root},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, tc.with)
			before, err := h.Wallet(look(site.acme, site.dana.holder), site.acme, tc.wallet)
			if err != nil {
				t.Fatal(err)
			}
			made, err := h.rotate("r", tc.wallet, tc.by...)
			if err != nil {
				t.Fatal(err)
			}
			h.wantCeremony(made.CeremonyID, statusDone)
			if e := h.last(); e.Method != "ceremony/rotate" || e.Outcome != statusDone || e.Facts["from"] != tc.old.ID || e.ShareSet != h.keyOfWallet(tc.wallet).Root.ID {
				t.Errorf("last entry %+v, want the rotation's end", e)
			}
			k, err := h.Key(context.Background(), look(site.acme, site.dana.holder), site.acme, tc.wallet)
			if err != nil || !k.ShareWaits || k.Epoch != tc.old.Epoch+1 || !k.RootSince.Equal(h.clock.now()) {
				t.Errorf("key %+v, %v, want another epoch and a share that waits", k, err)
			}
			after, err := h.Wallet(look(site.acme, site.dana.holder), site.acme, tc.wallet)
			if err != nil || after.Address != before.Address || !bytes.Equal(after.PublicKey, before.PublicKey) || after.Status != statusActive {
				t.Errorf("wallet %+v, %v, want address and key as before: %+v", after, err, before)
			}
			h.wantOneSet(tc.wallet, tc.old.ID, h.ownersShare("receipt", tc.wallet, site.dana))
			// The owner's old share, and a copy of the server's, sign with nothing that is left.
			k2 := h.keyOfWallet(tc.wallet)
			if _, err := mpc.Sign(context.Background(), mpc.SignRequest{Set: k2.Root, Shares: tc.old.Shares(t, mpc.Server, mpc.User)}); err == nil {
				t.Error("old shares sign for the new set")
			}
			h.restart()
			if again := h.keyOfWallet(tc.wallet); again.Root.ID != k2.Root.ID {
				t.Errorf("after a restart the root set is %s, want %s", again.Root.ID, k2.Root.ID)
			}
			if tc.wallet == ethWallet {
				return // an issue is the same for both, and takes seconds here
			}
			// What is issued from now on is of the new set.
			if _, key := h.delegate("d", tc.wallet); apiKeyID(key) == "" {
				t.Error("no API key")
			}
		})
	}
}

// A delegation has a set of its own: it signs before, while and after.
func TestRotationLeavesDelegationsAlone(t *testing.T) {
	h := newHouse(t, withWallet)
	id, apiKey := h.delegate("d", solWallet)
	before, err := h.Authenticate(solWallet, apiKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := h.rotate("r", solWallet, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	after, err := h.Authenticate(solWallet, apiKey)
	if err != nil || after.Version != before.Version || after.Set.ID != before.Set.ID || after.Delegation != id {
		t.Fatalf("standing %+v, %v, want it as before", after, err)
	}
	err = h.cfg.Vault.WithAll(context.Background(), vault.TypeShare, after.ShareIDs, func(shares [][]byte) error {
		_, err := mpc.Sign(context.Background(), mpc.SignRequest{Set: after.Set, Shares: shares, Input: chains.SignInput{Scheme: chains.EdDSAEd25519, Message: []byte("m")}})
		return err
	})
	if err != nil {
		t.Errorf("signing with the delegation's set: %v", err)
	}
}

// An issue that waited while a rotation ran is of the new root set.
func TestIssueAfterARotationItWaitedFor(t *testing.T) {
	h := newHouse(t, withWallet)
	made, err := h.rotate("r", solWallet, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	h.delegate("d", solWallet)
	h.wantCeremony(made.CeremonyID, statusDone)
}

func TestRotationsThatAreRefused(t *testing.T) {
	gate, h := held(t, withEther, withWallet)
	for name, by := range map[string][]holder{"one root of two": site.root[:1], "another user": {site.erin.holder}, "operators": site.operators} {
		_, err := h.rotate("short", ethWallet, by...)
		wantRefusal(t, name, err, refusal.QuorumMissing)
	}
	_, err := h.rotate("none", "wal_none", site.dana.holder)
	wantRefusal(t, "an unknown wallet", err, refusal.NotFound)

	first, err := h.rotate("r", ethWallet, site.dana.holder)
	if err != nil {
		t.Fatal(err)
	}
	<-gate.reached
	_, err = h.rotate("second", ethWallet, site.dana.holder)
	if no := wantRefusal(t, "a second one", err, refusal.NotActive); no.Details["ceremony"] != first.CeremonyID {
		t.Errorf("refusal %v does not name the ceremony that runs", no)
	}
	close(gate.opened)
	h.wantCeremony(first.CeremonyID, statusFailed)

	// The owner's device holds a share that was never here; and a host with one share.
	set := func(change func(*key)) {
		k := *h.keyOfWallet(solWallet)
		change(&k)
		h.put(func(tx *vault.Tx) error { return h.putKey(tx, &k) })
	}
	set(func(k *key) { k.Origin = "device" })
	_, err = h.rotate("device", solWallet, site.dana.holder)
	if no := wantRefusal(t, "a device's key", err, refusal.NotActive); !strings.Contains(no.Message, "device has to take part") {
		t.Errorf("message %q", no.Message)
	}
	set(func(k *key) { k.Origin, k.Here = originInProcess, []mpc.Party{mpc.Server} })
	_, err = h.rotate("one", solWallet, site.dana.holder)
	wantRefusal(t, "one share here", err, refusal.NotActive)
	set(func(k *key) { k.Here, k.Status = []mpc.Party{mpc.Recovery, mpc.Server}, statusFailed })
	_, err = h.rotate("failed", solWallet, site.dana.holder)
	wantRefusal(t, "a failed key", err, refusal.NotActive)
}

// A rotation that fails, or that a restart interrupts, changes nothing.
func TestRotationThatEndsEarlyChangesNothing(t *testing.T) {
	for name, end := range map[string]func(g *gate, h *house) *house{
		"failed":  func(g *gate, h *house) *house { close(g.opened); h.running.Wait(); return h },
		"closed":  func(_ *gate, h *house) *house { h.restart(); return h },
		"crashed": func(_ *gate, h *house) *house { return h.crashed() },
	} {
		t.Run(name, func(t *testing.T) {
			g, h := held(t, withEther)
			old := h.keyOfWallet(ethWallet)
			made, err := h.rotate("r", ethWallet, site.root...)
			if err != nil {
				t.Fatal(err)
			}
			<-g.reached
			h = end(g, h)
			if c := h.wantCeremony(made.CeremonyID, statusFailed); c.Stage != "pre-parameters" {
				t.Errorf("ceremony %+v, want the stage it failed in", c)
			}
			k := h.keyOfWallet(ethWallet)
			if k.Root.ID != old.Root.ID || k.Status != statusActive || len(h.sharesHere(k.Root.ID)) != 2 {
				t.Errorf("key %+v, want it as before", k)
			}
			_, err = h.FetchShare(context.Background(), look(site.acme, site.dana.holder), site.acme, ethWallet)
			wantRefusal(t, "a share of no set", err, refusal.NotActive)
		})
	}
}

func (h *house) setKey(id, wallet string, n KeySettings, by ...holder) (Key, error) {
	n.RequestID, n.Organization, n.Wallet = id, site.acme, wallet
	return h.SetKey(context.Background(), stamped(site.acme, n, by...), n)
}

func TestRotationsThatAreDue(t *testing.T) {
	ctx, h := context.Background(), newHouse(t, withWallet)
	root := func() string { return h.keyOfWallet(solWallet).Root.ID }
	due := func() {
		t.Helper()
		if err := h.RotateDue(ctx); err != nil {
			t.Fatal(err)
		}
		h.running.Wait()
	}
	first := root()
	h.clock.add(1000 * time.Hour)
	h.unchanged("no schedule", due)

	week := 7 * 24 * time.Hour
	if k, err := h.setKey("s", solWallet, KeySettings{RotateEvery: &week}, site.dana.holder); err != nil || k.RotateEvery != week {
		t.Fatalf("key %+v, %v", k, err)
	}
	h.restart() // the setting is on disk
	due()
	second := root()
	if second == first {
		t.Fatal("it was due and was not rotated")
	}
	e := slices.DeleteFunc(h.entries(), func(e journal.Entry) bool { return e.Kind == journal.KindRecords })
	if e = e[len(e)-2:]; e[0].Method != "schedule/rotate" || e[0].Outcome != "started" || e[1].Outcome != statusDone {
		t.Errorf("last entries %+v, want what the schedule did", e)
	}
	h.clock.add(week)
	h.unchanged("the owner has not confirmed the last share", due)
	h.ownersShare("receipt", solWallet, site.dana)
	due()
	if root() == second {
		t.Error("it was due again and was not rotated")
	}
	h.ownersShare("receipt2", solWallet, site.dana)
	h.clock.add(week - time.Second)
	h.unchanged("not due yet", due)

	never := time.Duration(0)
	if _, err := h.setKey("n", solWallet, KeySettings{RotateEvery: &never}, site.root...); err != nil {
		t.Fatal(err)
	}
	h.clock.add(week)
	h.unchanged("the schedule ended", due)
	for _, bad := range []time.Duration{time.Minute, -1, 11 * 365 * 24 * time.Hour} {
		_, err := h.setKey("bad", solWallet, KeySettings{RotateEvery: &bad}, site.dana.holder)
		wantRefusal(t, bad.String(), err, refusal.RequestInvalid)
	}
	yes := true
	_, err := h.setKey("pre", solWallet, KeySettings{Presignatures: &yes}, site.dana.holder)
	wantRefusal(t, "presignatures of an Ed25519 key", err, refusal.RequestInvalid)
}

// Failures are shown to those whose key it is.
func TestKeyShowsFailures(t *testing.T) {
	h := newHouse(t, withWallet)
	for range maxFailures {
		h.fails(broken(mpc.ErrProtocol, mpc.Delegate))
	}
	h.fails(broken(mpc.ErrSignature))
	k, err := h.Key(context.Background(), look(site.acme, site.root[0]), site.acme, solWallet)
	if err != nil || k.Failures["delegate"] != maxFailures || k.Failures["unknown"] != 1 || !k.Frozen {
		t.Errorf("key %+v, %v, want its failures, and frozen", k, err)
	}
	_, err = h.Key(context.Background(), look(site.acme, site.erin.holder), site.acme, solWallet)
	wantRefusal(t, "another user", err, refusal.NotFound)
	// A frozen key can still be rotated.
	made, err := h.rotate("r", solWallet, site.root...)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
}

// Of an organization's own key all shares stay here, the user's too.
func TestAnOrganizationsKeyKeepsAllShares(t *testing.T) {
	h := newHouse(t, withWallet, func(h *house) {
		h.put(func(tx *vault.Tx) error {
			k, w := key{}, wallet{}
			err := errors.Join(tx.With(vault.TypeKey, "key_"+solWallet, func(b []byte) error { return decodeRecord(b, &k) }),
				tx.With(vault.TypeWallet, solWallet, func(b []byte) error { return decodeRecord(b, &w) }))
			k.Owner, w.Owner, k.Here = "", "", []mpc.Party{mpc.Recovery, mpc.Server, mpc.User}
			set := mpctest.Ed25519RootSet(h.t)
			return errors.Join(err, store(tx, vault.TypeKey, k.ID, &k), store(tx, vault.TypeWallet, w.ID, &w),
				tx.Put(vault.TypeShare, ShareID(set.ID, mpc.User), set.Shares(h.t, mpc.User)[0]))
		})
	})
	old := h.keyOfWallet(solWallet).Root.ID
	made, err := h.rotate("r", solWallet, site.root...)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	k := h.keyOfWallet(solWallet)
	want := []mpc.Party{mpc.Recovery, mpc.Server, mpc.User}
	if here := h.sharesHere(k.Root.ID); !slices.Equal(here, want) || !slices.Equal(k.Here, want) || len(h.sharesHere(old)) != 0 {
		t.Errorf("shares %v are here, the key says %v, of the old set %v; want all of the new one", here, k.Here, h.sharesHere(old))
	}
	if shown, err := h.Key(context.Background(), look(site.acme, site.root[0]), site.acme, solWallet); err != nil || shown.ShareWaits {
		t.Errorf("key %+v, %v: nobody waits for a share", shown, err)
	}
}

// A key that is handed over while it is rotated stays as its new owner got it.
func TestARotationDoesNotOutliveTheOwner(t *testing.T) {
	h := newHouse(t, withWallet)
	old := h.keyOfWallet(solWallet)
	h.ceremonySlot <- struct{}{} // the rotation waits
	made, err := h.rotate("r", solWallet, site.root...)
	if err != nil {
		t.Fatal(err)
	}
	shares := mpctest.Ed25519RootSet(t)
	moved := *old
	moved.Owner = site.erin.id
	h.put(func(tx *vault.Tx) error { return h.putKey(tx, &moved) })
	<-h.ceremonySlot
	c := h.wantCeremony(made.CeremonyID, statusFailed)
	if !strings.Contains(c.Error, "another owner") || h.keyOfWallet(solWallet).Root.ID != shares.ID {
		t.Errorf("ceremony %+v, root set %s, want it failed and the set as it was", c, h.keyOfWallet(solWallet).Root.ID)
	}
}
