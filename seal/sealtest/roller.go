package sealtest

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/sigild/sigild/seal"
)

// This file tests the optional capability seal.Roller.

// roller rolls OtherKEK, and leaves the key that came out in its place.
func roller(ctx context.Context, t *testing.T, f *Fixture) {
	old := f.OtherKEK
	sealed := func(ref seal.KeyRef) []byte {
		t.Helper()
		blob, err := f.Sealer.Seal(ctx, ref, pattern(32), []byte("aad"))
		if err != nil {
			t.Fatalf("sealing under %s: %v", ref, err)
		}
		return blob
	}
	opens := func(ref seal.KeyRef, blob []byte, want error) {
		t.Helper()
		err := f.Sealer.Unseal(ctx, ref, blob, []byte("aad"), func(p []byte) error {
			if !bytes.Equal(p, pattern(32)) {
				t.Errorf("unsealed %d bytes that are not what was sealed", len(p))
			}
			return nil
		})
		if !errors.Is(err, want) {
			t.Errorf("unsealing under %s: %v, want %v", ref, err, want)
		}
	}
	begin := func(from seal.KeyRef) seal.KeyRef {
		t.Helper()
		next, err := f.Roller.BeginRoll(ctx, from)
		if err != nil {
			t.Fatalf("beginning a roll: %v", err)
		}
		return next
	}
	end := func(keep seal.KeyRef, want int) {
		t.Helper()
		if n, err := f.Roller.EndRoll(ctx, keep); err != nil || n != want {
			t.Errorf("ending a roll to %s: %d keys destroyed, %v, want %d", keep, n, err, want)
		}
	}

	// Undone: the successor goes, the old key stays.
	before := sealed(old)
	next := begin(old)
	if next == old {
		t.Fatal("the successor is the old key")
	}
	after := sealed(next)
	opens(old, before, nil)
	opens(next, after, nil)
	opens(old, after, seal.ErrTampered)
	if _, err := f.Roller.BeginRoll(ctx, old); !errors.Is(err, seal.ErrAmbiguous) {
		t.Errorf("beginning a second roll: %v, want ErrAmbiguous", err)
	}
	end(old, 1)
	opens(next, after, seal.ErrNotFound)
	opens(old, before, nil)

	// Finished: the old key goes, and with it what was sealed under it.
	next = begin(old)
	after = sealed(next)
	end(next, 1)
	end(next, 0)
	opens(next, after, nil)
	opens(old, before, seal.ErrNotFound)

	// A key that is gone takes nothing along, and neither does another's.
	for _, gone := range []seal.KeyRef{old, f.Missing, "", "not hex"} {
		if n, err := f.Roller.EndRoll(ctx, gone); !errors.Is(err, seal.ErrNotFound) || n != 0 {
			t.Errorf("ending a roll to the missing key %q: %d, %v, want ErrNotFound", gone, n, err)
		}
		if _, err := f.Roller.BeginRoll(ctx, gone); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("rolling the missing key %q: %v, want ErrNotFound", gone, err)
		}
	}
	end(f.KEK, 0)
	opens(next, after, nil)
	opens(f.KEK, sealed(f.KEK), nil)
	f.OtherKEK = next
}
