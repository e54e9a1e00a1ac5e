package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// The worker of the HSM is this binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	os.Exit(m.Run())
}

// A roll that died before the store named the new key is undone when the store is
// opened; keys of other appliances on the token stay.
func TestInterruptedRollIsEnded(t *testing.T) {
	tok, ctx := testhsm.New(t), t.Context()
	p, err := hsm.Open(ctx, hsm.Config{Module: tok.Module, TokenLabel: tok.Label, PINFile: tok.PINFile, LatchFile: filepath.Join(tok.Dir, "latch"), EnvAllow: tok.Env})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	keys, err := p.Provision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	neighbour, err := p.Provision(ctx)
	if err != nil {
		t.Fatal(err)
	}
	v, _, err := vault.Create(ctx, vault.Config{Dir: filepath.Join(t.TempDir(), "state")}, vault.KeyHolder{Sealer: p, ID: p.ID(), Ref: keys.KEK})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	k := &keeper{vault: v, log: slog.New(slog.DiscardHandler)}
	next, err := p.BeginRoll(ctx, keys.KEK)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := k.endRolls(ctx, p); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Seal(ctx, next, []byte("x"), nil); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("sealing under the key that was never used: %v, want ErrNotFound", err)
	}
	for _, ref := range []seal.KeyRef{keys.KEK, neighbour.KEK} {
		if _, err := p.Seal(ctx, ref, []byte("x"), nil); err != nil {
			t.Errorf("sealing under %s: %v", ref, err)
		}
	}
	lacks, err := k.checkKeys(ctx, &devices{open: map[string]config.Device{config.MainDevice: p}}, keys.Checkpoint)
	if err != nil || len(lacks) != 0 {
		t.Errorf("the keys lack %q, %v, want nothing", lacks, err)
	}
}
