package journal

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/sigild/sigild/vault"
)

// A flood of refusals is one entry, and every one of them is in its counts.
func TestRefusalsAreToldInOneEntry(t *testing.T) {
	f := newFixture(t)
	r := NewRefusals(f.clock.now)
	cfg := f.config()
	cfg.Refusals = r
	f.openVault()
	j, err := Open(context.Background(), f.v, cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.j = j
	for i := range 10_000 {
		r.Refused("API_KEY_INVALID", "sigild.sock", 1000)
		if i%10 == 0 {
			r.Refused("CALLER_NOT_ALLOWED", "admin.sock", 1001)
		}
	}
	if err := j.tellRefusals(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := j.tellRefusals(context.Background()); err != nil { // nothing new
		t.Fatal(err)
	}
	es, err := j.Entries(context.Background(), 2, 10)
	if err != nil || len(es) != 1 || es[0].Kind != KindRefusals {
		t.Fatalf("entries %+v, %v; want one of refusals", es, err)
	}
	for name, want := range map[string]string{
		"refused.API_KEY_INVALID.sigild.sock.1000": "10000", "refused.CALLER_NOT_ALLOWED.admin.sock.1001": "1000",
		"since_ms": fmt.Sprint(testStart.UnixMilli()),
	} {
		if es[0].Facts[name] != want {
			t.Errorf("%s = %q, want %s", name, es[0].Facts[name], want)
		}
	}
	if n := r.Totals(); n["API_KEY_INVALID"] != 10_000 || n["CALLER_NOT_ALLOWED"] != 1000 {
		t.Errorf("totals = %v", n)
	}
	// What can't be written is kept for the next time.
	r.Refused("STAMP_INVALID", "admin.sock", 7)
	f.v.Seal()
	if err := j.tellRefusals(context.Background()); err == nil {
		t.Error("journaling into a sealed vault went well")
	}
	f.reopen()
	f.j.cfg.Refusals = r
	if err := f.j.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	es, err = f.j.Entries(context.Background(), 3, 1)
	if err != nil || len(es) != 1 || es[0].Facts["refused.STAMP_INVALID.admin.sock.7"] != "1" {
		t.Errorf("after a seal: %+v, %v", es, err)
	}
}

func TestRefusalsOfManyCallersStayOneSmallEntry(t *testing.T) {
	r := NewRefusals(nil)
	for uid := range uint32(100_000) {
		r.Refused("CALLER_NOT_ALLOWED", "sigild.sock", uid)
	}
	e, _, ok := r.take()
	b, err := e.encode()
	if !ok || err != nil || len(e.Facts) > maxCounts+2 || len(b) > 32<<10 {
		t.Errorf("%d facts, %d bytes, %v", len(e.Facts), len(b), err)
	}
	sum := 0
	for name, n := range e.Facts {
		var x int
		if _, err := fmt.Sscan(n, &x); err == nil && name != factSince {
			sum += x
		}
	}
	if sum != 100_000 {
		t.Errorf("the counts add up to %d", sum)
	}
}

func TestAKeysBudgetOfRefusals(t *testing.T) {
	c := &clock{t: testStart}
	r := NewRefusals(c.now)
	spend := func(n int) (entries int) {
		for range n {
			if r.Spend("key-1", "POLICY_DENIED") {
				entries++
			}
		}
		return entries
	}
	if n := spend(1000); n != refusalBudget {
		t.Errorf("%d entries for 1000 refusals, want %d", n, refusalBudget)
	}
	if !r.Spend("key-2", "POLICY_DENIED") {
		t.Error("another key pays for the first")
	}
	c.add(3*refusalRefill + time.Second)
	if n := spend(1000); n != 3 {
		t.Errorf("%d entries three minutes later, want 3", n)
	}
	e, _, ok := r.take()
	if !ok || e.Facts["suppressed.key-1.POLICY_DENIED"] != fmt.Sprint(1000-refusalBudget+997) {
		t.Errorf("entry = %+v", e)
	}
	c.add(refusalBudget * refusalRefill)
	if r.take(); len(r.budgets) != 0 {
		t.Errorf("full budgets are kept: %v", r.budgets)
	}
}

// Run tells them by itself.
func TestRunTellsRefusals(t *testing.T) {
	f := newFixture(t)
	f.openVault()
	cfg := f.config()
	cfg.Refusals, cfg.RefusalsEvery = NewRefusals(nil), time.Millisecond
	j, err := Open(context.Background(), f.v, cfg)
	if err != nil {
		t.Fatal(err)
	}
	f.j = j
	cfg.Refusals.Refused("API_KEY_INVALID", "sigild.sock", 1)
	f.running()
	f.await("the entry", func(Status) bool {
		found := false
		_ = f.v.JournalRows(context.Background(), 2, 0, func(row vault.JournalRow) error {
			e, err := decodeEntry(row.Body)
			found = found || err == nil && e.Kind == KindRefusals
			return err
		})
		return found
	})
}
