package tpm

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// indexes lists the NV handles of our range.
func (r *rig) indexes(t testing.TB) (ours []tpm2.TPMHandle) {
	t.Helper()
	err := r.do(t.Context(), func(turn *turn) error {
		all, err := turn.handles(tpm2.TPMHTNVIndex)
		for _, h := range all {
			if h >= firstNV && h <= lastNV {
				ours = append(ours, h)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ours
}

func (r *rig) value(t testing.TB, ref seal.KeyRef) uint64 {
	t.Helper()
	n, err := r.ReadCounter(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestCounterIsDurable(t *testing.T) {
	r := newRig(t)
	ref := r.counter(t)
	n := r.value(t, ref)
	for range 5 {
		if _, err := r.Increment(t.Context(), ref, n); err != nil {
			t.Fatal(err)
		}
		n++
		if err := r.tpm.Restart(); err != nil { // kill -9: nothing was shut down
			t.Fatal(err)
		}
		if got := r.value(t, ref); got != n {
			t.Fatalf("after a power loss the counter is %d, was acknowledged as %d", got, n)
		}
	}
}

// The answer to an increment is lost: it counts once.
func TestIncrementOverALostAnswer(t *testing.T) {
	r, b := busRig(t)
	ref := r.counter(t)
	n := r.value(t, ref)
	once := true
	b.set(nil, changing(tpm2.TPMCCNVIncrement, func(a []byte) []byte {
		if once {
			a[0] = 0x7f // unreadable
		}
		once = false
		return a
	}))
	if got, err := r.Increment(t.Context(), ref, n); err != nil || got != n+1 || once {
		t.Errorf("incrementing from %d: %d, %v, want %d", n, got, err, n+1)
	}
	b.set(nil, nil)
	if got := r.value(t, ref); got != n+1 {
		t.Errorf("the counter is %d, want %d", got, n+1)
	}
}

// Somebody who knows the auth value counts between our look and our increment.
func TestIncrementBesideAnother(t *testing.T) {
	r, b := busRig(t)
	ref := r.counter(t)
	n := r.value(t, ref)
	var x nvIndex
	if err := r.do(t.Context(), func(turn *turn) (err error) { x, err = turn.counter(ref); return err }); err != nil {
		t.Fatal(err)
	}
	// The bus shows an older value than the TPM has: our session's HMAC sees it.
	b.set(nil, changing(tpm2.TPMCCNVRead, func(a []byte) []byte { a[headerLen+4+2+counterLen-1]--; return a }))
	if got, err := r.Increment(t.Context(), ref, n-1); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("incrementing with a changed answer: %d, %v, want ErrUnavailable", got, err)
	}
	b.set(nil, nil)
	if got := r.value(t, ref); got != n {
		t.Errorf("the counter is %d, want %d", got, n)
	}
	if x.handle != firstNV {
		t.Errorf("the counter is at %#x, want the first of our range", uint32(x.handle))
	}
}

func TestCounterThatWasRemoved(t *testing.T) {
	r := newRig(t)
	ref := r.counter(t)
	n := r.value(t, ref)
	r.Close()
	r.tpm.Run(t, "tpm2_nvundefine", "-C", "o", "0x01820000")
	r.reopen(t)
	if _, err := r.ReadCounter(t.Context(), ref); !errors.Is(err, seal.ErrNotFound) || !strings.Contains(err.Error(), "hint") {
		t.Errorf("reading a counter that was removed: %v, want ErrNotFound and a hint", err)
	}

	// An ordinary index at its handle, which could be set to anything.
	r.Close()
	r.tpm.Run(t, "tpm2_nvdefine", "-C", "o", "-s", "8", "-a", "authread|authwrite|no_da", "0x01820000")
	r.reopen(t)
	for range 2 {
		if _, err := r.ReadCounter(t.Context(), ref); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "not the counter it was") {
			t.Errorf("reading an ordinary index: %v, want ErrPolicy", err)
		}
	}
	if _, err := r.Increment(t.Context(), ref, n); !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("incrementing an ordinary index: %v, want ErrPolicy", err)
	}

	// A counter of the same form: it has the Name, but not our auth value.
	r.Close()
	r.tpm.Run(t, "tpm2_nvundefine", "-C", "o", "0x01820000")
	r.tpm.Run(t, "tpm2_nvdefine", "-C", "o", "-s", "8", "-a", "authread|authwrite|no_da|nt=counter", "0x01820000")
	r.tpm.Run(t, "tpm2_nvincrement", "-C", "0x01820000", "0x01820000")
	r.reopen(t)
	if _, err := r.ReadCounter(t.Context(), ref); !errors.Is(err, seal.ErrAuth) || !strings.Contains(err.Error(), "made it anew") {
		t.Errorf("reading a counter that was made anew: %v, want ErrAuth", err)
	}

	// And whoever makes it with our secret finds it further on.
	r.Close()
	r.tpm.Run(t, "tpm2_nvundefine", "-C", "o", "0x01820000")
	r.reopen(t)
	if again := r.counter(t); again != ref {
		t.Errorf("the same counter has the Name %s, had %s", again, ref)
	}
	if got := r.value(t, ref); got <= n {
		t.Errorf("a counter made anew is %d, the one before was %d", got, n)
	}
}

func TestCounterIsGoneWithAClearedTPM(t *testing.T) {
	r := newRig(t)
	ref := r.counter(t)
	err := r.do(t.Context(), func(turn *turn) error {
		_, err := tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}}.Execute(turn)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadCounter(t.Context(), ref); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("reading a counter of a cleared TPM: %v, want ErrNotFound", err)
	}
}

func TestAnotherSecretCountsNothing(t *testing.T) {
	r := newRig(t)
	ref := r.counter(t)
	n := r.value(t, ref)
	right := r.cfg.SecretFile
	r.reopen(t, func(c *Config) { c.SecretFile = secretFile(t) })
	for range 40 { // more than any lockout allows
		if _, err := r.Increment(t.Context(), ref, n); !errors.Is(err, seal.ErrAuth) {
			t.Fatalf("incrementing with another secret: %v, want ErrAuth", err)
		}
	}
	r.reopen(t, func(c *Config) { c.SecretFile = right })
	if got := r.value(t, ref); got != n {
		t.Errorf("the counter is %d, was %d", got, n)
	}
}

func TestFailedMakeCounterLeavesNone(t *testing.T) {
	r, b := busRig(t)
	for _, row := range []struct {
		cc   tpm2.TPMCC
		rc   tpm2.TPMRC
		want error
	}{
		{tpm2.TPMCCNVDefineSpace, 0x14b, seal.ErrUnavailable},
		{tpm2.TPMCCNVDefineSpace, 0x9a2, seal.ErrPolicy},
		{tpm2.TPMCCNVIncrement, 0x9a2, seal.ErrAuth},
		{tpm2.TPMCCNVIncrement, 0x920, seal.ErrUnavailable},
	} {
		b.set(only(row.cc, func([]byte) []byte { return refusal(row.rc) }), nil)
		if _, err := r.MakeCounter(t.Context()); !errors.Is(err, row.want) {
			t.Errorf("%v answers %v: %v, want %v", row.cc, row.rc, err, row.want)
		}
		b.set(nil, nil)
		if left := r.indexes(t); len(left) != 0 {
			t.Fatalf("%v answers %v: %x is left", row.cc, row.rc, left)
		}
	}
	for _, cc := range []tpm2.TPMCC{tpm2.TPMCCNVDefineSpace, tpm2.TPMCCNVIncrement} {
		once := true
		b.set(nil, changing(cc, func(a []byte) []byte {
			if once {
				a[0] = 0x7f
			}
			once = false
			return a
		}))
		before := len(r.indexes(t))
		ref := r.counter(t)
		if after := r.indexes(t); len(after) != before+1 || once {
			t.Errorf("the answer to %v was lost: the indexes are %x, want one more than %d", cc, after, before)
		}
		b.set(nil, nil)
		r.value(t, ref)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b.set(nil, changing(tpm2.TPMCCNVIncrement, func([]byte) []byte { cancel(); return nil }))
	before := len(r.indexes(t))
	if _, err := r.MakeCounter(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("making a counter while the caller leaves: %v, want context.Canceled", err)
	}
	b.set(nil, nil)
	if after := r.indexes(t); len(after) != before {
		t.Errorf("the caller left: the indexes are %x, want %d", after, before)
	}
}
