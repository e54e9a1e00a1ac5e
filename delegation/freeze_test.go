package delegation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func broken(err error, culprits ...mpc.Party) error {
	return fmt.Errorf("signing: %w", &mpc.Error{Op: "sign", Culprits: culprits, Err: err})
}

func (h *house) fails(cause error) {
	h.t.Helper()
	h.put(func(tx *vault.Tx) error { return h.CountFailure(tx, "key_"+solWallet, cause) })
}

func (h *house) frozen() bool {
	err := h.book.stopped(site.acme, solWallet)
	var no *refusal.Error
	return errors.As(err, &no) && no.Reason == refusal.Paused
}

func TestThreeFailuresOfOnePartyFreezeTheKey(t *testing.T) {
	h := newHouse(t, withWallet)
	for _, cause := range []error{
		errors.New("storage"), broken(mpc.ErrAborted, mpc.Delegate), broken(mpc.ErrSilent, mpc.Delegate), broken(context.Canceled, mpc.Delegate),
		broken(mpc.ErrShare, mpc.Delegate), broken(mpc.ErrProtocol, mpc.Delegate), broken(mpc.ErrProtocol, mpc.User), broken(mpc.ErrSignature),
		broken(mpc.ErrProtocol, mpc.User, mpc.Delegate), broken(mpc.ErrSignature),
	} {
		h.fails(cause)
	}
	if h.frozen() {
		t.Fatal("frozen after two failures each")
	}
	h.restart() // the count is on disk
	h.fails(broken(mpc.ErrProtocol, mpc.Delegate))
	if !h.frozen() {
		t.Fatal("not frozen after three failures of the delegate")
	}
	p := h.Paused(Scope{Organization: site.acme, Wallet: solWallet})
	if p.Level != LevelAppliance {
		t.Errorf("paused by %q, want the appliance", p.Level)
	}
	h.restart()
	if !h.frozen() {
		t.Fatal("a restart thaws the key")
	}

	// Nothing is issued from it either, and its owner can't resume it: the root quorum can.
	n := newDelegation("frozen", solWallet)
	_, err := h.CreateDelegation(context.Background(), stamped(site.acme, n, site.dana.holder), n)
	wantRefusal(t, "issuing from a frozen key", err, refusal.Paused)
	scope := Scope{Organization: site.acme, Wallet: solWallet}
	wantRefusal(t, "the owner resumes", h.Resume(context.Background(), stamped(site.acme, "r1", site.dana.holder), "r1", scope), refusal.QuorumMissing)
	if err := h.Resume(context.Background(), stamped(site.acme, "r2", site.root...), "r2", scope); err != nil {
		t.Fatal(err)
	}
	if h.frozen() {
		t.Error("still frozen after the root quorum resumed it")
	}
	// The count began anew.
	h.fails(broken(mpc.ErrProtocol, mpc.Delegate))
	h.fails(broken(mpc.ErrProtocol, mpc.Delegate))
	if h.frozen() {
		t.Error("frozen after two failures since it was resumed")
	}
}

func TestUnnamedFailuresFreezeToo(t *testing.T) {
	h := newHouse(t, withWallet)
	for range maxFailures {
		h.fails(broken(mpc.ErrSignature))
	}
	if !h.frozen() {
		t.Error("three failures whose culprit is unknown do not freeze")
	}
}

func TestFreezeDoesNotHideAnotherKeysWallets(t *testing.T) {
	h := newHouse(t, withWallet, withEther)
	for range maxFailures {
		h.fails(broken(mpc.ErrProtocol, mpc.Delegate))
	}
	if err := h.book.stopped(site.acme, ethWallet); err != nil {
		t.Errorf("the other wallet: %v", err)
	}
	if of := h.book.walletsOf("key_" + solWallet); len(of) != 1 || !slices.ContainsFunc(of, func(w *wallet) bool { return w.ID == solWallet }) {
		t.Errorf("%d wallets of the key", len(of))
	}
}

// A key's wallets are found without a look at others': what is walked is as long as the
// answer, and the answer is what a look at all wallets gives, before and after a restart.
func TestWalletsOfAKeyAreFoundByIndex(t *testing.T) {
	h := newFullHouse(t)
	made, err := h.createWallet(newWallet("one-more"))
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	for range 2 {
		all := 0
		for id := range h.book.keys {
			var want, got []string
			for _, w := range h.book.wallets {
				if w.Key == id {
					want = append(want, w.ID)
				}
			}
			for _, w := range h.book.walletsOf(id) {
				got = append(got, w.ID)
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) || len(h.book.byKey[id]) != len(want) {
				t.Errorf("key %s: wallets %v, want %v; %d are walked", id, got, want, len(h.book.byKey[id]))
			}
			all += len(want)
		}
		if all != len(h.book.wallets) || all < 3 {
			t.Errorf("%d wallets found, %d are there", all, len(h.book.wallets))
		}
		h.restart()
	}
}
