package signing_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// A backup is made, then much happens that must not be undone, then the store is lost.
// What is restored never signs as the backup would: by the newest segments it knows
// what happened, and without them nobody signs before the organization's root has looked.

// disaster is what is left after the store is lost.
type disaster struct {
	lost            *house
	backup, archive string
	people          []age.Identity
	spender, ended  *grant // that spent since, that was revoked since
	stored          *signing.Result
	rules           [32]byte // the policy set of the lost store
}

func newDisaster(t *testing.T) *disaster {
	t.Helper()
	h, gs := newHouse(t, terms{limits: limit(400, day)}, terms{set: mpctest.ECDSADelegateSet(t)})
	d := &disaster{lost: h, backup: filepath.Join(t.TempDir(), "backup.db"), archive: t.TempDir(), spender: gs[0], ended: gs[1]}
	h.reopenWith(journal.Archive{Dir: d.archive, Entries: 1})
	checkpoint := func() {
		if err := h.journal.Checkpoint(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	var recipients []string
	for range 3 {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		d.people, recipients = append(d.people, id), append(recipients, id.Recipient().String())
	}
	if _, err := h.delegation.AddCustodians(ctx, actor("", "AddCustodians", site.operator), delegation.NewCustodians{RequestID: "people", Recipients: recipients, Needed: 2}); err != nil {
		t.Fatal(err)
	}
	h.mustSign(d.spender, "before", d.spender.pay(100, 1))
	h.mustSign(d.ended, "before-too", transfer(t, 1, 100))
	if _, err := vault.BackUp(ctx, filepath.Join(h.dir, vault.FileName), d.backup, site.pin); err != nil {
		t.Fatal(err)
	}
	// Spending, a revocation, other rules, an ended credential, a changed wallet; a
	// snapshot between them.
	d.stored = h.mustSign(d.spender, "since", d.spender.pay(200, 2))
	checkpoint()
	h.revoke(d.ended)
	if err := h.journal.Snapshot(ctx); err != nil {
		t.Fatal(err)
	}
	h.mustSign(d.spender, "since too", d.spender.pay(50, 3))
	checkpoint()
	h.setRules("tighter", `{"policies":[{"id":"stop","effect":"EFFECT_DENY","condition":"solana.tx.transfers.any(t, t.amount == 13)"}]}`)
	h.changeRecord(vault.TypeUser, site.owner, "credentials", "[]")
	h.changeRecord(vault.TypeWallet, d.ended.wallet, "name", `"renamed"`)
	d.rules = h.policySet(d.spender)
	h.signing.Close()
	h.delegation.Close()
	if err := h.journal.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.vault.Close(); err != nil {
		t.Fatal(err)
	}
	return d
}

// reopenWith opens h's rooms again, with an archive.
func (h *house) reopenWith(a journal.Archive) {
	h.t.Helper()
	h.signing.Close()
	h.delegation.Close()
	h.archive = a
	h.openRooms(signing.Config{})
}

// changeRecord changes a member of a record, as an act would: a user's credentials when
// they end.
func (h *house) changeRecord(t vault.Type, id, member, value string) {
	h.t.Helper()
	h.update(func(tx *vault.Tx) error {
		var rec map[string]json.RawMessage
		err := tx.With(t, id, func(b []byte) error { return json.Unmarshal(bytes.Clone(b), &rec) })
		if err != nil {
			return err
		}
		rec[member] = json.RawMessage(value)
		h.put(tx, t, id, rec)
		return nil
	})
}

// wantRecord insists on a text in a record.
func (h *house) wantRecord(t vault.Type, id, text string) {
	h.t.Helper()
	h.update(func(tx *vault.Tx) error {
		return tx.With(t, id, func(b []byte) error {
			if !strings.Contains(string(b), text) {
				h.t.Errorf("%s %s is %s, want %s", t, id, b, text)
			}
			return nil
		})
	})
}

// restore puts the backup in the place of what was lost, and opens it.
func (d *disaster) restore(t *testing.T, segments []string) (*house, delegation.Restored) {
	t.Helper()
	ctx := context.Background()
	h := &house{t: t, dir: filepath.Join(t.TempDir(), "restored"), clock: &clock{t: d.lost.clock.now()}, log: &logBuffer{}, grants: d.lost.grants}
	r, err := vault.BeginRestore(ctx, vault.Config{Dir: h.dir, Now: h.clock.now}, d.backup, site.pin, vault.PresentCustodians(d.people[0], d.people[2]))
	if err != nil {
		t.Fatal(err)
	}
	var ref seal.KeyRef
	for _, s := range r.Vault().Slots() {
		if s.Provider == site.device.ID() {
			ref = s.Ref
		}
	}
	restoring := delegation.Restoring{Backup: r, Device: site.device, Ref: ref, Segments: segments, Now: h.clock.now}
	if site.pin.Anchor.Kind() == vault.AnchorKEKRoll && segments == nil {
		keys, err := site.device.(*hsm.Provider).Provision(ctx) // as --new-key does
		if err != nil {
			t.Fatal(err)
		}
		restoring.Ref, restoring.NewKey = keys.KEK, true
	}
	done, err := delegation.Restore(ctx, restoring)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Finish(ctx, site.device); err != nil {
		t.Fatal(err)
	}
	h.openVault()
	h.openRooms(signing.Config{})
	return h, done
}

func (d *disaster) segments(t *testing.T) []string {
	t.Helper()
	files, err := journal.SegmentFiles(d.archive)
	if err != nil || len(files) < 2 {
		t.Fatalf("segments %v, %v; want several", files, err)
	}
	return files
}

// remembers holds a restored store against what happened after the backup.
func (d *disaster) remembers(t *testing.T, h *house) {
	t.Helper()
	_, err := h.sign(d.ended, "after", transfer(t, 9, 1))
	wantRefusal(t, err, refusal.APIKeyInvalid)
	if got := h.policySet(d.spender); got != d.rules {
		t.Errorf("policy set %x, the lost store had %x", got, d.rules)
	}
	if s := h.spent(d.spender, sol); s != 350 {
		t.Errorf("%d count as spent, want 350", s)
	}
	h.wantRecord(vault.TypeUser, site.owner, `"credentials":[]`)
	h.wantRecord(vault.TypeWallet, d.ended.wallet, `"name":"renamed"`)
	if ok, err := h.hasShare(d.ended); ok || err != nil {
		t.Errorf("the destroyed share is back: %v, %v", ok, err)
	}
	if st, ok, err := h.journal.Request(site.organization, "since"); !ok || err != nil || !bytes.Equal(st.Answer, d.stored.Signature) {
		t.Errorf("the answer to a request since the backup is %+v, %v, %v", st, ok, err)
	}
}

func (h *house) hasShare(g *grant) (ok bool, err error) {
	err = h.vault.Update(context.Background(), func(tx *vault.Tx) (err error) {
		ok, err = tx.Has(vault.TypeShare, delegation.ShareID(g.set.ID, "server"))
		return err
	})
	return ok, err
}

// With an anchor the newest segments show that they are, and it signs at once, under
// all that happened.
func TestRestoredWithTheNewestSegments(t *testing.T) {
	for _, kind := range []vault.AnchorKind{vault.AnchorNV, vault.AnchorKEKRoll} {
		anchoredBy(t, kind, func(t *testing.T) {
			d := newDisaster(t)
			h, done := d.restore(t, d.segments(t))
			if !done.Newest || done.Quarantined != 0 || done.Replayed.Through <= done.Through || done.Replayed.Records == 0 {
				t.Errorf("restored %+v", done)
			}
			d.remembers(t, h)
			h.mustSign(d.spender, "the rest", d.spender.pay(50, 4))
			_, err := h.sign(d.spender, "too much", d.spender.pay(1, 5))
			wantRefusal(t, err, refusal.LimitExceeded)
			if _, err := journal.VerifyFull(context.Background(), filepath.Join(h.dir, vault.FileName), nil); err != nil {
				t.Error(err)
			}
			wantRollback(t, d.lost.dir) // the lost store, should it come back
		})
	}
}

// Without an anchor nobody knows whether segments are the newest: what they say holds,
// and nothing signs before the root has looked; then limits count as full.
func TestRestoredWithoutAnAnchor(t *testing.T) {
	d := newDisaster(t)
	h, done := d.restore(t, d.segments(t))
	if done.Newest || done.Quarantined != 1 {
		t.Errorf("restored %+v", done)
	}
	_, err := h.sign(d.spender, "quarantined", d.spender.pay(1, 4))
	wantRefusal(t, err, refusal.Quarantined)
	h.released()
	d.remembers(t, h)
	d.countsFromNow(t, h)
}

// Without the newest segments the anchor says that something is missing.
func TestRestoredWithoutTheNewestSegments(t *testing.T) {
	for _, kind := range []vault.AnchorKind{vault.AnchorNV, vault.AnchorKEKRoll} {
		anchoredBy(t, kind, func(t *testing.T) {
			d := newDisaster(t)
			h, done := d.restore(t, nil)
			if done.Newest || done.Quarantined != 1 || done.Replayed.Through != 0 {
				t.Errorf("restored %+v", done)
			}
			_, err := h.sign(d.spender, "quarantined", d.spender.pay(1, 4))
			wantRefusal(t, err, refusal.Quarantined)
			_, err = h.sign(d.ended, "quarantined too", transfer(t, 4, 1))
			wantRefusal(t, err, refusal.Quarantined)
			h.released()
			d.countsFromNow(t, h)
		})
	}
}

// Segments that stop short of what the anchor saw are not the newest.
func TestRestoredWithSomeSegments(t *testing.T) {
	anchoredBy(t, vault.AnchorNV, func(t *testing.T) {
		d := newDisaster(t)
		files := d.segments(t)
		h, done := d.restore(t, files[:len(files)-1])
		if done.Newest || done.Quarantined != 1 {
			t.Errorf("restored %+v", done)
		}
		_, err := h.sign(d.spender, "quarantined", d.spender.pay(1, 4))
		wantRefusal(t, err, refusal.Quarantined)
	})
}

// countsFromNow insists that the resumed organization's windows count as full for
// their length.
func (d *disaster) countsFromNow(t *testing.T, h *house) {
	t.Helper()
	_, err := h.sign(d.spender, "full", d.spender.pay(1, 5))
	no := wantRefusal(t, err, refusal.LimitExceeded)
	if no.After < day-1 || no.After > day+1e9 {
		t.Errorf("asked to wait %s, want a day", no.After)
	}
	h.clock.add(day)
	h.mustSign(d.spender, "a day later", d.spender.pay(400, 6))
	_, err = h.sign(d.spender, "no more", d.spender.pay(1, 7))
	wantRefusal(t, err, refusal.LimitExceeded)
}

// released resumes a restored organization.
func (h *house) released() {
	h.t.Helper()
	if err := h.delegation.Resume(context.Background(), actor(site.organization, "Resume", site.root), "looked", delegation.Scope{Organization: site.organization}); err != nil {
		h.t.Fatal(err)
	}
}

// Segments of another continuation, cut, changed, or with a gap are refused whole.
func TestRestoreRefusesSegments(t *testing.T) {
	d := newDisaster(t)
	files := d.segments(t)
	begin := func() *vault.Restoration {
		r, err := vault.BeginRestore(context.Background(), vault.Config{Dir: filepath.Join(t.TempDir(), "x")}, d.backup, site.pin, vault.PresentCustodians(d.people[0], d.people[1]))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	last, err := os.ReadFile(files[len(files)-1])
	if err != nil {
		t.Fatal(err)
	}
	lists := map[string][]string{
		"with a gap":    files[len(files)-1:],
		"another order": append([]string{files[len(files)-1]}, files[:len(files)-1]...),
	}
	for name, change := range map[string]func([]byte) []byte{
		"cut":            func(b []byte) []byte { return b[:len(b)-1] },
		"longer":         func(b []byte) []byte { return append(b, 0) },
		"another store":  func(b []byte) []byte { b[5] ^= 1; return b },
		"another before": func(b []byte) []byte { b[40] ^= 1; return b },
		"another entry":  func(b []byte) []byte { b[len(b)-100] ^= 1; return b },
		"another MAC":    func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"another signer": func(b []byte) []byte { b[100] ^= 1; return b },
		"no segment":     func([]byte) []byte { return []byte("nothing") },
	} {
		path := filepath.Join(t.TempDir(), filepath.Base(files[len(files)-1]))
		if err := os.WriteFile(path, change(bytes.Clone(last)), 0o600); err != nil {
			t.Fatal(err)
		}
		lists[name] = append(slices.Clone(files[:len(files)-1]), path)
	}
	for name, list := range lists {
		r := begin()
		_, err := delegation.Restore(context.Background(), delegation.Restoring{Backup: r, Device: site.device, Ref: r.Vault().Slots()[0].Ref, Segments: list})
		var of *journal.SegmentError
		var at *journal.VerifyError
		if !errors.As(err, &of) && !errors.As(err, &at) {
			t.Errorf("%s: %v, want a segment's refusal", name, err)
		}
		if err := r.Abandon(); err != nil {
			t.Error(err)
		}
	}
}
