package signing_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// clocks are a wall clock and a steady one in a test's hands.
type clocks struct {
	mu     sync.Mutex
	wall   time.Time
	steady time.Duration
}

func (c *clocks) read() (time.Time, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wall, c.steady
}

func (c *clocks) add(wall, steady time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wall, c.steady = c.wall.Add(wall), c.steady+steady
}

// stash is a house whose delegations keep presignatures.
type stash struct {
	*house
	*signing.Presignatures
	clocks *clocks
	// root, if not "", is shown as the root set of every key.
	root string
}

func (s *stash) Presigning() []*signing.Presigning {
	var out []*signing.Presigning
	for _, p := range s.delegation.Presigning() {
		out = append(out, s.shown(p))
	}
	return out
}

func (s *stash) PresigningOf(id string) *signing.Presigning {
	return s.shown(s.delegation.PresigningOf(id))
}

func (s *stash) shown(p *signing.Presigning) *signing.Presigning {
	if p == nil || s.root == "" {
		return p
	}
	return &signing.Presigning{Standing: p.Standing, RootSet: s.root}
}

func newStash(t testing.TB, limit int, ts ...terms) (*stash, []*grant) {
	t.Helper()
	h, g := newHouse(t, ts...)
	return h.stash(limit), g
}

// stash gives the house a store of presignatures.
func (h *house) stash(limit int) *stash {
	s := &stash{house: h, clocks: &clocks{wall: began}}
	s.Presignatures = signing.NewPresignatures(signing.PresignConfig{Authority: s, Vault: h.vault, Max: limit, CPU: 1,
		Failed: h.delegation.CountFailure, Log: h.log.logger(), Clocks: s.clocks.read})
	s.Proved()
	h.serve(signing.Config{Presignatures: s.Presignatures})
	return s
}

func etherTerms(t testing.TB) terms {
	return terms{set: mpctest.ECDSADelegateSet(t), presignatures: true}
}

// fill makes n presignatures for g.
func (s *stash) fill(g *grant, n int) {
	s.t.Helper()
	for s.have() < n {
		p := s.PresigningOf(g.id)
		if p == nil {
			s.t.Fatal("the delegation may keep none")
		}
		if err := s.Make(context.Background(), p); err != nil {
			s.t.Fatal(err)
		}
	}
}

// have looks what is due to go, and counts what is left.
func (s *stash) have() int {
	s.Prune()
	_, all := s.Ready("")
	return all
}

// presignedBy is the presignature that the approval of a request names.
func (h *house) presignedBy(id string) string {
	h.t.Helper()
	for _, e := range h.entries(journal.KindApproved) {
		if e.RequestID == id {
			return e.Facts["presignature"]
		}
	}
	h.t.Fatalf("request %s was not approved", id)
	return ""
}

func TestPresignaturesServeRequests(t *testing.T) {
	s, g := newStash(t, 4, etherTerms(t))
	if s.have() != 0 {
		t.Fatal("there are presignatures before any was made")
	}
	s.mustSign(g[0], "whole", transfer(t, 1, 1))
	if p := s.presignedBy("whole"); p != "" {
		t.Errorf("the entry names presignature %s, and there was none", p)
	}
	s.fill(g[0], 2)
	// On disk before it is used: a crash at the last moment has its entry.
	s.signing.BeforeRelease(func() {
		if s.again().presignedBy("first") == "" {
			t.Error("the presignature is used and not in the journal on disk")
		}
	})
	s.mustSign(g[0], "first", transfer(t, 2, 1))
	s.signing.BeforeRelease(nil)
	if of, all := s.Ready("key_" + g[0].set.ID); of != 1 || all != 1 {
		t.Errorf("%d of the key and %d in all are left, want 1", of, all)
	}
	s.mustSign(g[0], "second", transfer(t, 3, 1))
	if a, b := s.presignedBy("first"), s.presignedBy("second"); a == "" || b == "" || a == b {
		t.Errorf("presignatures %q and %q, want two", a, b)
	}
	// Asked again, the stored answer; and a refused request takes none.
	s.fill(g[0], 1)
	s.mustSign(g[0], "second", transfer(t, 3, 1))
	_, err := s.sign(g[0], "too much", transfer(t, 4, 501))
	wantRefusal(t, err, refusal.PolicyDenied)
	if n := s.have(); n != 1 {
		t.Errorf("%d are left, want 1", n)
	}
}

// A signature that is refused at the last look takes its presignature with it.
func TestAPresignatureEndsWithItsRequest(t *testing.T) {
	s, g := newStash(t, 4, etherTerms(t))
	s.fill(g[0], 1)
	wallet := delegation.Scope{Organization: site.organization, Wallet: g[0].wallet}
	s.signing.BeforeRelease(func() {
		if err := s.pauseWallet("p", wallet); err != nil {
			t.Error(err)
		}
	})
	_, err := s.sign(g[0], "id", transfer(t, 1, 1))
	wantRefusal(t, err, refusal.Paused)
	if used := s.presignedBy("id"); used == "" || s.have() != 0 {
		t.Errorf("used %q, %d are left; want one used and none left", used, s.have())
	}
}

// pauseWallet has the owner pause without waiting for what is under way.
func (h *house) pauseWallet(id string, scope delegation.Scope) error {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := h.delegation.Pause(ctx, actor(site.organization, "Pause", site.dana), delegation.NewPause{RequestID: id, Scope: scope, Reason: "drill"})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil // it is on disk
	}
	return err
}

// What presignatures were made for must be as it was, or the next request gets none of
// them, whether anybody looked meanwhile or not.
func TestPresignaturesAreDropped(t *testing.T) {
	no := false
	s, g := newStash(t, 4, etherTerms(t))
	for _, c := range []struct {
		name   string
		change func()
		// for good: no further one can be made in this store.
		last bool
	}{
		{"too old", func() { s.clocks.add(10*time.Minute, 10*time.Minute) }, false},
		{"the clock went on", func() { s.clocks.add(3*time.Second, time.Second) }, false},
		{"the clock went back", func() { s.clocks.add(-time.Hour, time.Second) }, false},
		{"the machine slept", func() { s.clocks.add(time.Minute, 0) }, false},
		{"the machine was copied", func() { s.Drop("test") }, false},
		{"another root set", func() { s.root = "rotated" }, false},
		{"other rules", func() {
			if err := s.setDocument("rules", delegation.KindRules, "more", `{"policies":[{"id":"x","effect":"EFFECT_DENY","condition":"false"}]}`); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"sealed", func() { s.Close() }, true},
		{"not wanted any more", func() {
			n := delegation.KeySettings{RequestID: "off", Organization: site.organization, Wallet: g[0].wallet, Presignatures: &no}
			if _, err := s.delegation.SetKey(context.Background(), actor(site.organization, "SetKey", site.dana), n); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"paused", func() {
			if err := s.pauseWallet("p", delegation.Scope{Organization: site.organization, Wallet: g[0].wallet}); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"revoked", func() {
			if _, err := s.delegation.RevokeDelegation(context.Background(), actor(site.organization, "RevokeDelegation", site.dana), "r", site.organization, g[0].id); err != nil {
				t.Fatal(err)
			}
		}, true},
	} {
		s.fill(g[0], 1)
		before := s.PresigningOf(g[0].id).Standing
		c.change()
		st := before
		if now := s.PresigningOf(g[0].id); now != nil {
			st = now.Standing
		}
		if s.Take(st, evmDecoded) {
			t.Errorf("%s: a request got it", c.name)
		}
		if n := s.have(); n != 0 {
			t.Errorf("%s: %d are left", c.name, n)
		}
		if c.last {
			s, g = newStash(t, 4, etherTerms(t))
		}
	}
	// And one whom nothing happened to is taken.
	s.fill(g[0], 1)
	if !s.Take(s.PresigningOf(g[0].id).Standing, evmDecoded) {
		t.Error("a good one was not taken")
	}
}

// evmDecoded is what a decoder says of a transaction, as far as presignatures ask.
var evmDecoded = &chains.Decoded{Kind: chains.KindEVMTransaction, Sign: chains.SignInput{Scheme: chains.ECDSASecp256k1}}

func TestPresignaturesYoungEnoughStay(t *testing.T) {
	s, g := newStash(t, 4, etherTerms(t))
	s.fill(g[0], 1)
	s.clocks.add(10*time.Minute-time.Nanosecond, 10*time.Minute-time.Nanosecond)
	s.clocks.add(900*time.Millisecond, 0) // as NTP may
	if n := s.have(); n != 1 {
		t.Errorf("%d are left, want 1", n)
	}
}

// Off by default, never for Ed25519, at most 64, and only for what a decoder understood.
func TestWhoMayKeepPresignatures(t *testing.T) {
	off := etherTerms(t)
	off.presignatures = false
	ed := terms{presignatures: true} // no setting of ours makes it so
	s, g := newStash(t, 1000, off, ed)
	for _, one := range g {
		if p := s.PresigningOf(one.id); p != nil {
			t.Errorf("delegation of %s may keep presignatures", one.set.Scheme)
		}
	}
	if next := s.Prune(); next != nil {
		t.Errorf("one would be made for %s", next.Standing.Delegation)
	}
	if signing.MaxPresignatures != 64 {
		t.Errorf("as many as %d are kept", signing.MaxPresignatures)
	}
	st := &signing.Standing{Delegation: "dlg", Wallet: signing.WalletInfo{Scheme: chains.ECDSASecp256k1}}
	in := chains.SignInput{Scheme: chains.ECDSASecp256k1}
	if signing.Presignable(st, &chains.Decoded{Kind: signing.KindRawDigest, Sign: in}) {
		t.Error("a raw digest may use a presignature")
	}
	if !signing.Presignable(st, &chains.Decoded{Kind: chains.KindEVMTransaction, Sign: in}) {
		t.Error("a transaction may not use a presignature")
	}
}

// Shares that need a device at each use leave no copies in memory.
func TestPerUseSharesKeepNoPresignatures(t *testing.T) {
	s, g := newStash(t, 1, etherTerms(t))
	if s.PresigningOf(g[0].id) == nil {
		t.Fatal("the delegation may keep none from the beginning")
	}
	s.needing("the token", site.device, mpc.Server)
	if s.PresigningOf(g[0].id) != nil {
		t.Error("presignatures would spare the device its say")
	}
}

// A full store makes none; what is made while everything is dropped is dropped, too.
func TestPresignaturesAreBounded(t *testing.T) {
	s, g := newStash(t, 1, etherTerms(t))
	s.fill(g[0], 1)
	if next := s.Prune(); next != nil {
		t.Error("one more would be made")
	}
	if err := s.Make(context.Background(), s.PresigningOf(g[0].id)); err != nil || s.have() != 1 {
		t.Errorf("%v, %d are kept, want 1", err, s.have())
	}
	for spent, want := range map[time.Duration]time.Duration{0: time.Millisecond, 100 * time.Millisecond: time.Millisecond, time.Second: 4*time.Second - 500*time.Millisecond} {
		if got := signing.Pause(spent, 500*time.Millisecond, 0.25); got != want {
			t.Errorf("%v of CPU at a quarter of a core: pause %v, want %v", spent, got, want)
		}
	}
}

// An engine whose library does something else.
type otherwise struct{ gg18.Engine }

func (otherwise) Presign(ctx context.Context, s mpc.Session, p mpc.SignParams) (mpc.Presigned, error) {
	return nil, errors.New("a library that reads the digest in round 1")
}

func init() { mpc.Register("test-otherwise", otherwise{}) }

func TestAnEngineThatFailsTheTestPresignsNothing(t *testing.T) {
	x := etherTerms(t)
	x.set = x.set.WithEngine(t, "test-otherwise")
	s, g := newStash(t, 4, x)
	s.Unproved()
	if err := s.Make(context.Background(), s.PresigningOf(g[0].id)); err == nil || s.Refused() == nil {
		t.Errorf("error %v, refused %v, want both", err, s.Refused())
	}
	if next := s.Prune(); next != nil {
		t.Error("one would be made")
	}
	s.mustSign(g[0], "whole", transfer(t, 1, 1))
}

// Run proves the engine, fills the store, replaces what was used, and leaves nothing.
func TestRunKeepsPresignaturesReady(t *testing.T) {
	s, g := newStash(t, 2, etherTerms(t))
	s.Unproved()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	full := func() {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); ; runtime.Gosched() {
			if _, all := s.Ready(""); all == 2 {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("not full in two minutes; log:\n%s", s.log)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	full()
	s.mustSign(g[0], "one", transfer(t, 1, 1))
	if s.presignedBy("one") == "" {
		t.Error("it was signed without a presignature")
	}
	full()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
	s.Close()
	if n := s.have(); n != 0 {
		t.Errorf("%d are left after Close", n)
	}
}
