package vault

import (
	"context"
	"errors"
	"testing"
)

func TestWithAllLendsInOrderOrNotAtAll(t *testing.T) {
	v, _ := create(t, stateDir(t))
	ctx := context.Background()
	err := v.Update(ctx, func(tx *Tx) error {
		return errors.Join(tx.Put(TypeShare, "a", []byte("first")), tx.Put(TypeShare, "b", []byte("second")))
	})
	if err != nil {
		t.Fatal(err)
	}
	var kept [][]byte
	err = v.WithAll(ctx, TypeShare, []string{"b", "a"}, func(got [][]byte) error {
		if len(got) != 2 || string(got[0]) != "second" || string(got[1]) != "first" {
			t.Errorf("lent %q", got)
		}
		kept = got
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if string(kept[0]) == "second" || string(kept[1]) == "first" {
		t.Error("a plaintext was not wiped")
	}
	err = v.WithAll(ctx, TypeShare, []string{"a", "none"}, func([][]byte) error {
		t.Error("lent though one is missing")
		return nil
	})
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v, want ErrNotFound", err)
	}
}
