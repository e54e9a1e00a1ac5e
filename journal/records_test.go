package journal

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sigild/sigild/vault"
)

// What an act changes is in its entry, what an update without an act changes in one
// behind it; secrets are named, never kept.
func TestChangedRecordsAreJournaled(t *testing.T) {
	f := newFixture(t)
	ctx := context.Background()
	long := strings.Repeat("a long text ", 20_000)
	update := func(act bool, change func(tx *vault.Tx) error) {
		t.Helper()
		err := f.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
			if err := change(tx); err != nil || !act {
				return err
			}
			_, err := f.j.Append(tx, Entry{Kind: KindAct, Method: "act", Outcome: "done"})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	update(true, func(tx *vault.Tx) error {
		return errors.Join(tx.Put(vault.TypeUser, "u", []byte("name")), tx.Put(vault.TypeShare, "s", []byte("marker of a secret")))
	})
	update(true, func(tx *vault.Tx) error { return tx.Put(vault.TypeDocument, "d", []byte(long)) })
	update(false, func(tx *vault.Tx) error {
		return errors.Join(tx.Delete(vault.TypeShare, "s"), tx.Delete(vault.TypeUser, "u"), tx.Put(vault.TypeShare, "s2", []byte("marker of a secret")))
	})
	update(false, func(tx *vault.Tx) error { return tx.Put(vault.TypeShare, "s2", []byte("marker of a secret")) })
	update(false, func(*vault.Tx) error { return nil })

	es, err := f.j.Entries(ctx, 2, 100)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []Kind
	var told []vault.Change
	for i := range es {
		kinds = append(kinds, es[i].Kind)
		changes, err := openChanges(f.v, &es[i])
		if err != nil {
			t.Fatal(err)
		}
		told = append(told, changes...)
	}
	if want := []Kind{KindAct, KindAct, KindRecords, KindRecords, KindRecords}; !reflect.DeepEqual(kinds, want) {
		t.Fatalf("entries %v, want %v", kinds, want)
	}
	want := []vault.Change{
		{Type: vault.TypeUser, ID: "u", Content: []byte("name")},
		{Type: vault.TypeDocument, ID: "d", Content: []byte(long)},
		{Type: vault.TypeShare, ID: "s", Removed: true}, {Type: vault.TypeUser, ID: "u", Removed: true},
		{Type: vault.TypeShare, ID: "s2"}, // replaced
	}
	if !reflect.DeepEqual(told, want) {
		t.Errorf("told %d changes, want %d:\n%+v", len(told), len(want), told)
	}

	// Every bit counts, and the entry it is in.
	e := es[0]
	for i := range len(e.Records) * 8 {
		c := e
		c.Records = bytes.Clone(e.Records)
		c.Records[i/8] ^= 1 << (i % 8)
		if _, err := openChanges(f.v, &c); !errors.Is(err, vault.ErrTampered) {
			t.Fatalf("bit %d flipped: %v, want ErrTampered", i, err)
		}
	}
	for n := 1; n < len(e.Records); n++ {
		c := e
		c.Records = e.Records[:n]
		if _, err := openChanges(f.v, &c); !errors.Is(err, vault.ErrTampered) {
			t.Fatalf("cut to %d: %v, want ErrTampered", n, err)
		}
	}
	e.Seq++
	if _, err := openChanges(f.v, &e); !errors.Is(err, vault.ErrTampered) {
		t.Errorf("in another entry: %v, want ErrTampered", err)
	}
}

func FuzzUnpackChanges(f *testing.F) {
	f.Add(packChanges([]vault.Change{{Type: vault.TypeUser, ID: "u", Content: []byte("x")}, {Type: vault.TypeShare, ID: "s", Removed: true}, {Type: vault.TypeShare, ID: "s"}}))
	f.Add([]byte{0, 1, 2, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := unpackChanges(b)
		if err == nil && !bytes.Equal(packChanges(changes), b) {
			t.Errorf("accepted %x, which is written %x", b, packChanges(changes))
		}
	})
}
