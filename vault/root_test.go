package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
)

func TestRootKeyIsMadeOfBothSources(t *testing.T) {
	asked := 0
	for name, fill := range map[string]byte{"a source that is stuck at zero": 0, "a source that is stuck": 7} {
		cfg := Config{Random: func(_ context.Context, b []byte) error {
			asked++
			copy(b, bytes.Repeat([]byte{fill}, len(b)))
			return nil
		}}
		// The kernel's half stands whatever the other does.
		a, b := make([]byte, 32), make([]byte, 32)
		for _, root := range [][]byte{a, b} {
			if err := newRoot(t.Context(), cfg, root); err != nil {
				t.Fatal(err)
			}
		}
		if bytes.Equal(a, b) || bytes.Equal(a, bytes.Repeat([]byte{fill}, 32)) {
			t.Errorf("%s: the root keys are %x and %x", name, a, b)
		}
	}
	if asked != 4 {
		t.Errorf("the second source was asked %d times, want once for each of 4 keys", asked)
	}
	broken := errors.New("broken")
	cfg := Config{Dir: filepath.Join(t.TempDir(), "state"), Random: func(context.Context, []byte) error { return broken }}
	if _, _, err := Create(t.Context(), cfg, KeyHolder{Sealer: newSoftSealer(1), ID: "x", Ref: "1"}); !errors.Is(err, broken) {
		t.Errorf("creating with a source that fails: %v, want its error", err)
	}
}

// Keys for more purposes than are kept are as good, asked for in any order, after a
// rotation and a restart, too.
func TestDerivedKeysAreKeptAndTheSame(t *testing.T) {
	v, pin := create(t, stateDir(t))
	want := map[string]string{}
	ask := func(purpose string) string {
		t.Helper()
		got := ""
		if err := v.Derive(purpose, func(key []byte) error { got = string(key); return nil }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	for range 2 {
		for i := range 3 * maxDerived {
			purpose := fmt.Sprint("purpose ", i)
			got := ask(purpose)
			if before, known := want[purpose]; known && before != got || len(got) != 32 {
				t.Errorf("%s: %x, was %x", purpose, got, before)
			}
			want[purpose] = got
		}
		rotate(t, v)
		v = reopen(t, v, pin)
	}
	seen := map[string]bool{}
	for purpose, key := range want {
		if seen[key] || ask(purpose) != key {
			t.Errorf("%s: the key is another's, or another now", purpose)
		}
		seen[key] = true
	}
}
