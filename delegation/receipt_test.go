package delegation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// The owner and the root get the receipt of an end, others don't hear that there was one.
func TestReceiptOfAnEnd(t *testing.T) {
	h := newHouse(t, withWallet)
	id, _ := h.delegate("a", solWallet)
	set := find(h.book, h.book.delegations, id).Set.ID
	receipt := func(by ...holder) ([]byte, error) {
		return h.Receipt(t.Context(), look(site.acme, by...), site.acme, id)
	}
	_, err := receipt(site.dana.holder)
	wantRefusal(t, "while it is active", err, refusal.NotActive)
	if _, err := h.RevokeDelegation(t.Context(), stamped(site.acme, "end", site.dana.holder), "end", site.acme, id); err != nil {
		t.Fatal(err)
	}
	_, err = receipt(site.erin.holder)
	wantRefusal(t, "for another user", err, refusal.NotFound)
	_, err = h.Receipt(t.Context(), look(site.globex, site.globexRoot...), site.globex, id)
	wantRefusal(t, "for another organization", err, refusal.NotFound)
	_, err = h.Receipt(t.Context(), look(site.globex, site.globexRoot...), site.acme, id)
	wantRefusal(t, "for another organization's root under this one's name", err, refusal.NotFound)
	_, err = h.Receipt(t.Context(), look(site.acme, site.dana.holder), site.acme, "dlg_none")
	wantRefusal(t, "of none", err, refusal.NotFound)

	h.restart()
	key := h.cfg.Journal.Genesis().CheckpointKey
	for name, by := range map[string]holder{"owner": site.dana.holder, "root": site.root[0]} {
		b, err := receipt(by)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r, err := journal.OpenExtract(b, key)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if e := r.Act; e.Delegation != id || e.Method == "" || e.RequestID != "end" || e.Records != nil || r.StoreID != h.cfg.Journal.Genesis().StoreID {
			t.Errorf("%s: the receipt is of %+v", name, e)
		}
		for _, p := range []mpc.Party{mpc.Delegate, mpc.Server} {
			if !slices.ContainsFunc(r.Act.Destroyed, func(d string) bool { return strings.HasSuffix(d, " "+ShareID(set, p)) }) {
				t.Errorf("%s: the share of %s is not among what was destroyed: %v", name, p, r.Act.Destroyed)
			}
		}
		if _, err := journal.OpenExtract(bytes.Replace(b, []byte(id), []byte("dlg_other"), 1), key); !errors.Is(err, journal.ErrDocument) {
			t.Errorf("%s: a changed receipt: %v", name, err)
		}
		other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := journal.OpenExtract(b, &other.PublicKey); !errors.Is(err, journal.ErrDocument) {
			t.Errorf("%s: under another key: %v", name, err)
		}
	}

	// One that an earlier build ended has no mark.
	d := *find(h.book, h.book.delegations, id)
	d.EndedAfter = 0
	h.put(func(tx *vault.Tx) error { h.book.change(tx, func() { h.book.delegations[id] = &d }); return nil })
	_, err = receipt(site.dana.holder)
	wantRefusal(t, "without a mark", err, refusal.NotActive)
}

// What ends by itself, or with others, has a receipt, too.
func TestReceiptOfAnExpiry(t *testing.T) {
	h := newHouse(t, withWallet)
	n := newDelegation("short", solWallet)
	end := h.clock.now().Add(time.Hour)
	n.ExpiresAt = &end
	made, err := h.CreateDelegation(t.Context(), stamped(site.acme, n, site.dana.holder), n)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	h.clock.add(2 * time.Hour)
	_, err = h.Receipt(t.Context(), look(site.acme, site.dana.holder), site.acme, made.DelegationID)
	wantRefusal(t, "before anybody wrote the end down", err, refusal.NotActive)
	if err := h.Expire(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := h.Receipt(t.Context(), look(site.acme, site.dana.holder), site.acme, made.DelegationID)
	if err != nil {
		t.Fatal(err)
	}
	r, err := journal.OpenExtract(b, h.cfg.Journal.Genesis().CheckpointKey)
	if err != nil || r.Act.Method != "delegation/expire" || r.Act.Delegation != made.DelegationID || len(r.Act.Destroyed) < 2 {
		t.Errorf("the receipt is of %+v, %v", r.Act, err)
	}
}
