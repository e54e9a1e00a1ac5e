package config

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/testhsm"
)

// The worker of the HSM is this binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	os.Exit(m.Run())
}

func TestRandomBytesOfTheTokenReachTheKernel(t *testing.T) {
	tok := testhsm.New(t)
	p, err := hsm.Open(t.Context(), hsm.Config{Module: tok.Module, TokenLabel: tok.Label, PINFile: tok.PINFile, LatchFile: filepath.Join(tok.Dir, "latch"), EnvAllow: tok.Env})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := StirRandomness(t.Context(), p); err != nil {
		t.Errorf("mixing into %s: %v", kernelPool, err)
	}
	// What is written there can't be read back; a file shows it.
	pool := filepath.Join(t.TempDir(), "pool")
	var seen [][]byte
	for range 2 {
		if err := os.WriteFile(pool, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := stir(t.Context(), p, pool); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(pool)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, b)
	}
	if len(seen[0]) != stirred || bytes.Equal(seen[0], seen[1]) || bytes.Equal(seen[0][:16], make([]byte, 16)) {
		t.Errorf("%d and %d bytes were mixed, want %d that differ", len(seen[0]), len(seen[1]), stirred)
	}
}

// deaf is a device whose generator fails after it has filled half.
type deaf struct{}

func (deaf) Random(_ context.Context, b []byte) error {
	copy(b, "half")
	return errors.New("no")
}

func TestFailingGeneratorMixesNothing(t *testing.T) {
	pool := filepath.Join(t.TempDir(), "pool")
	if err := os.WriteFile(pool, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := stir(t.Context(), deaf{}, pool); err == nil {
		t.Error("a generator that fails: no error")
	}
	if b, err := os.ReadFile(pool); err != nil || len(b) != 0 {
		t.Errorf("a generator that fails: %q was mixed, %v", b, err)
	}
	if err := stir(t.Context(), deaf{}, filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("no pool: no error")
	}
}
