package delegation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// picture is all that a service knows, as text.
func (h *house) picture() string {
	h.t.Helper()
	b := h.book
	var now []*signing.Standing
	for _, id := range []string{"dlg_1", "dlg_2"} {
		st, err := b.now(id)
		if err != nil {
			h.t.Fatal(err)
		}
		now = append(now, st)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	text, err := json.MarshalIndent([]any{b.self, b.organizations, b.users, b.keys, b.wallets, b.delegations, b.apiKeys, b.ceremonies}, "", " ")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, st := range now {
		if st != nil {
			text = fmt.Appendf(text, "\n%s %d %x %v %v %v", st.Delegation, st.Version, st.PolicySet, st.ShareIDs, st.ExpiresAt, st.Ended)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.rulebooks)) {
		r := b.rulebooks[id]
		text = fmt.Appendf(text, "\n%s %d %x %x", id, r.version, r.hash, rulesOf(h.t, r))
	}
	return string(text)
}

// rulesOf is the hash of a rulebook's rules.
func rulesOf(t testing.TB, r *rulebook) [32]byte {
	t.Helper()
	l, err := r.laws()
	if err != nil {
		t.Fatal(err)
	}
	return l.rules.Hash()
}

func TestStateReloadsEqual(t *testing.T) {
	h := newFullHouse(t)
	end := h.clock.now().Add(time.Hour + time.Nanosecond).In(time.FixedZone("somewhere", 3600))
	n := newDelegation("d", solWallet)
	n.ExpiresAt = &end
	n.Policies[0].NotAfter = end
	n.Limits = []policy.Limit{{Name: "a day", Asset: cluster + "/slip44:501", Max: *new(uint256.Int).SetAllOne(), Window: time.Hour}, {Name: "ever", Asset: cluster + "/slip44:501"}}
	made, err := h.createDelegation(n)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	key := h.apiKey(made.DelegationID)
	for i, c := range acts() {
		if _, err := c.do(h, c.org, c.by(), fmt.Sprint("id", i), 1); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		h.running.Wait() // of one key there is one ceremony at a time
	}
	before := h.picture()
	entries := len(h.entries())
	h.restart()
	if after := h.picture(); after != before {
		t.Errorf("after a restart:\n%s\nbefore:\n%s", after, before)
	}
	if n := len(h.entries()); n != entries {
		t.Errorf("the restart wrote %d entries", n-entries)
	}
	if st, err := h.Authenticate(solWallet, key); err != nil || !st.ExpiresAt.Equal(end) {
		t.Errorf("standing %+v, %v", st, err)
	}
}

// A ceremony that is interrupted, in order or not, has failed after the start, with
// its wallet or delegation. Asking again makes a new one.
func TestInterruptedCeremoniesFail(t *testing.T) {
	for name, again := range map[string]func(h *house) *house{
		"closed":  func(h *house) *house { h.restart(); return h },
		"crashed": func(h *house) *house { return h.crashed() },
	} {
		t.Run(name, func(t *testing.T) {
			gate, h := held(t, withEther)
			n := newWallet("w")
			n.Chain = "eip155"
			made, err := h.createWallet(n)
			if err != nil {
				t.Fatal(err)
			}
			<-gate.reached
			// The second ceremony waits for the first.
			issue, err := h.createDelegation(newDelegation("d", ethWallet))
			if err != nil {
				t.Fatal(err)
			}
			h = again(h)
			for _, id := range []string{made.CeremonyID, issue.CeremonyID} {
				if c := h.wantCeremony(id, statusFailed); !strings.Contains(c.Error, "interrupted by a restart") {
					t.Errorf("ceremony %+v, want it interrupted", c)
				}
			}
			w, err := h.Wallet(look(site.acme, site.dana.holder), site.acme, made.WalletID)
			if k := find(h.book, h.book.keys, made.KeyID); err != nil || w.Status != statusFailed || k.Status != statusFailed {
				t.Errorf("wallet %+v, key %+v, %v, want them failed", w, k, err)
			}
			d, err := h.Delegation(look(site.acme, site.dana.holder), site.acme, issue.DelegationID)
			if err != nil || d.Status != statusFailed {
				t.Errorf("delegation %+v, %v, want it failed", d, err)
			}
			h.restart()
			h.wantCeremony(made.CeremonyID, statusFailed)
			if answer, err := h.createWallet(n); err != nil || answer != made {
				t.Errorf("the old request gets %+v, %v, want its old answer", answer, err)
			}
		})
	}
}

// After Close acts are still written, but no ceremony begins.
func TestNoCeremonyBeginsAfterClose(t *testing.T) {
	h := newHouse(t)
	h.Service.Close()
	made, err := h.createWallet(newWallet("w"))
	if err != nil {
		t.Fatal(err)
	}
	h.running.Wait()
	if c, err := h.Ceremony(look(site.acme, site.dana.holder), site.acme, made.CeremonyID); err != nil || c.Status != statusRunning {
		t.Errorf("ceremony %+v, %v, want it untouched", c, err)
	}
	h.restart()
	h.wantCeremony(made.CeremonyID, statusFailed)
}

// Whatever is wrong with a record stops the start.
func TestBadRecordsStopTheStart(t *testing.T) {
	put := func(t vault.Type, id, text string) func(h *house) {
		return func(h *house) {
			h.put(func(tx *vault.Tx) error { return tx.Put(t, id, []byte(text)) })
		}
	}
	drop := func(t vault.Type, id string) func(h *house) {
		return func(h *house) {
			h.put(func(tx *vault.Tx) error { return tx.Delete(t, id) })
		}
	}
	stored := func(t vault.Type, id string, rec any) func(h *house) {
		return func(h *house) {
			h.put(func(tx *vault.Tx) error { return store(tx, t, id, rec) })
		}
	}
	u := user{V: recordVersion, ID: "usr_x", Organization: site.acme, Name: "x", Kind: DelegatedUser}
	for name, spoil := range map[string]func(h *house){
		"no JSON":                      put(vault.TypeUser, "usr_x", "x"),
		"nothing":                      put(vault.TypeUser, "usr_x", ""),
		"no version":                   put(vault.TypeUser, "usr_x", `{"id":"usr_x"}`),
		"another version":              put(vault.TypeUser, "usr_x", `{"v":2,"id":"usr_x"}`),
		"an unknown member":            put(vault.TypeUser, "usr_x", `{"v":1,"id":"usr_x","admin":true}`),
		"something behind":             put(vault.TypeUser, "usr_x", `{"v":1,"id":"usr_x"}{}`),
		"another's id":                 stored(vault.TypeUser, "usr_y", &u),
		"an unknown organization":      stored(vault.TypeUser, "usr_x", &user{V: recordVersion, ID: "usr_x", Organization: "org_x"}),
		"a wallet without key":         drop(vault.TypeKey, "key_"+solWallet),
		"a delegation without wallet":  drop(vault.TypeWallet, solWallet),
		"a delegation without its key": drop(vault.TypeAPIKey, "key_dlg_1"),
		"a key without delegation":     drop(vault.TypeDelegation, "dlg_1"),
		"a ceremony of nothing":        stored(vault.TypeCeremony, "cer_x", &ceremonyRecord{V: recordVersion, ID: "cer_x", Target: "wal_x", Status: statusDone}),
		"no appliance":                 drop(vault.TypeAppliance, applianceRecord),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, withWallet, withDelegations)
			h.Service.Close()
			spoil(h)
			s, err := Open(context.Background(), h.cfg)
			if err == nil {
				s.Close()
				t.Error("it started")
			}
			t.Log(err)
		})
	}
}

// Signatures under way are counted by delegation; who waits for one waits for no other.
func TestFlights(t *testing.T) {
	f := newFlights()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	ctx := context.Background()
	a, b, other := f.enter("a"), f.enter("a"), f.enter("b")
	defer other()
	if err := f.wait(ctx, "c"); err != nil {
		t.Errorf("nothing is under way: %v", err)
	}
	if err := f.wait(gone, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting without patience: %v", err)
	}
	a()
	a() // once more changes nothing
	if err := f.wait(gone, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("one of two has ended: %v", err)
	}
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- f.wait(ctx, "a") }()
	}
	b()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if len(f.count) != 1 || len(f.idle) != 0 {
		t.Errorf("left behind: %v %v", f.count, f.idle)
	}
	undo := f.end("a")
	if !f.ending("a") || f.ending("b") {
		t.Error("a is not ending, or b is")
	}
	undo()
	if f.ending("a") {
		t.Error("a is ending though that was taken back")
	}
}

// A revocation that can't be committed is taken back: signatures go on.
func TestRevocationIsTakenBackWithItsTransaction(t *testing.T) {
	h := newHouse(t, withWallet, withDelegations)
	broken := errors.New("broken")
	err := h.cfg.Vault.UpdateAlone(context.Background(), func(tx *vault.Tx) error {
		tx.OnRollback(h.flights.end("dlg_1"))
		if _, err := h.Current("dlg_1"); !refusal.Is(err, refusal.DelegationRevoked) {
			t.Errorf("from its first moment: %v", err)
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	if _, err := h.Current("dlg_1"); err != nil {
		t.Errorf("taken back: %v", err)
	}
	_, leave, err := h.Enter("dlg_1")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	if _, err := h.Current("dlg_none"); !refusal.Is(err, refusal.NotActive) {
		t.Errorf("an unknown delegation: %v", err)
	}
}

func TestPreParamStore(t *testing.T) {
	ctx, h := context.Background(), newHouse(t)
	s, err := NewPreParamStore(ctx, h.cfg.Vault)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Take(ctx); !errors.Is(err, mpc.ErrEmpty) {
		t.Errorf("taking from an empty store: %v, want ErrEmpty", err)
	}
	want := map[string]bool{}
	for i := range 3 {
		b := mpctest.EncodedPreParams(t, i)
		want[string(b)] = true
		h.secrets = append(h.secrets, middle(b))
		if err := s.Put(ctx, b); err != nil {
			t.Fatal(err)
		}
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Take(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("taking without patience: %v", err)
	}
	if err := s.Put(gone, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("putting without patience: %v", err)
	}
	if n, _ := s.Count(ctx); n != 3 {
		t.Errorf("%d are ready, want 3: nothing was taken", n)
	}
	take := func(s *PreParamStore) {
		t.Helper()
		b, err := s.Take(ctx)
		if err != nil || !want[string(b)] {
			t.Fatalf("took %d bytes, %v, want one of those that were put and not yet taken", len(b), err)
		}
		delete(want, string(b))
	}
	take(s)
	// What was taken is gone for ever, the rest is still there.
	after := h.crashed()
	s, err = NewPreParamStore(ctx, after.cfg.Vault)
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := s.Count(ctx); n != 2 {
		t.Errorf("%d are ready after a crash, want 2", n)
	}
	take(s)
	take(s)
	if _, err := s.Take(ctx); !errors.Is(err, mpc.ErrEmpty) {
		t.Errorf("taking from an empty store: %v, want ErrEmpty", err)
	}
}
