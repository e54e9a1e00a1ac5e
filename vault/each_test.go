package vault

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
)

// Whether a sweep reads the table or asks for each record, it lends the same ones, once
// each, and a record that was changed is an error.
func TestSweepLendsEveryRecordOnce(t *testing.T) {
	v, pin := create(t, stateDir(t))
	want := map[string]int{}
	for i := range 3*chunkRecords + 5 {
		put(t, v, TypeWallet, fmt.Sprint("w", i), "text")
		want[fmt.Sprint("w", i)] = 1
	}
	put(t, v, TypeUser, "u1", "one")
	put(t, v, TypeUser, "u2", "two")
	sweep := func(v *Vault, types ...Type) (map[string]int, error) {
		var mu sync.Mutex
		got := map[string]int{}
		err := v.EachOf(context.Background(), types, func(_ Type, id string, _ []byte) error {
			mu.Lock()
			defer mu.Unlock()
			got[id]++
			return nil
		})
		return got, err
	}
	users := map[string]int{"u1": 1, "u2": 1}
	if got, err := sweep(v, TypeUser); err != nil || !maps.Equal(got, users) {
		t.Errorf("few of many: %v, %v", got, err)
	}
	maps.Copy(want, users)
	if got, err := sweep(v, TypeWallet, TypeUser); err != nil || !maps.Equal(got, want) {
		t.Errorf("%d records of %d, %v", len(got), len(want), err)
	}
	if got, err := sweep(v, TypeDevice); err != nil || len(got) != 0 {
		t.Errorf("none: %v, %v", got, err)
	}
	stop := errors.New("enough")
	if err := v.EachOf(context.Background(), []Type{TypeWallet}, func(Type, string, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("an error of use came back as %v", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, v.cfg.Dir, func(db *sql.DB) {
		sqlExec(t, db, "UPDATE rec SET v = (SELECT v FROM rec r WHERE r.k <> rec.k LIMIT 1) WHERE k IN (SELECT k FROM leaf WHERE t = 4)")
	})
	bad, err := openUnsealed(v.cfg.Dir, pin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = bad.Close() }()
	for _, types := range [][]Type{{TypeUser}, {TypeWallet, TypeUser}} {
		if _, err := sweep(bad, types...); !errors.Is(err, ErrTampered) {
			t.Errorf("%v: %v, want ErrTampered", types, err)
		}
	}
	if got, err := sweep(bad, TypeWallet); err != nil || len(got) != len(want)-2 {
		t.Errorf("the others: %d, %v", len(got), err)
	}
}
