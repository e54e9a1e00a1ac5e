package sealtest

import (
	"bytes"
	"context"
	"testing"

	"github.com/sigild/sigild/seal"
)

// kekMaker tests the optional capability seal.KEKMaker: what is made seals, opens, and
// is rolled without touching the other keys.
func kekMaker(ctx context.Context, t *testing.T, f Fixture, maker seal.KEKMaker) {
	s := f.Provider.(seal.Sealer)
	made, err := maker.MakeKEK(ctx)
	if err != nil {
		t.Fatalf("making a sealing key: %v", err)
	}
	opens := func(ref seal.KeyRef, blob []byte) {
		t.Helper()
		err := s.Unseal(ctx, ref, blob, []byte("aad"), func(p []byte) error {
			if !bytes.Equal(p, pattern(32)) {
				t.Errorf("unsealed %d bytes that are not what was sealed", len(p))
			}
			return nil
		})
		if err != nil {
			t.Errorf("unsealing under %s: %v", ref, err)
		}
	}
	under := func(ref seal.KeyRef) []byte {
		t.Helper()
		blob, err := s.Seal(ctx, ref, pattern(32), []byte("aad"))
		if err != nil {
			t.Fatalf("sealing under %s: %v", ref, err)
		}
		return blob
	}
	before, own := under(f.KEK), under(made)
	opens(made, own)
	if f.Roller == nil {
		return
	}
	next, err := f.Roller.BeginRoll(ctx, made)
	if err != nil {
		t.Fatalf("beginning a roll of it: %v", err)
	}
	if n, err := f.Roller.EndRoll(ctx, next); err != nil || n != 1 {
		t.Errorf("ending a roll of it: %d keys destroyed, %v, want one", n, err)
	}
	opens(next, under(next))
	opens(f.KEK, before)
}
