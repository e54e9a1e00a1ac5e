// Package sealtest is the conformance suite of seal: what the vault and the
// journal rely on in every provider. A provider's tests call [Run] on a real
// device. It is for tests alone and holds no fake.
package sealtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/seal"
)

// Fixture is an open provider on a device of its own. The suite closes it.
type Fixture struct {
	Provider seal.Provider
	Sealer   seal.Sealer
	Signer   seal.Signer // nil: the provider signs nothing
	// Decrypter is nil when the provider opens nothing for others.
	Decrypter seal.Decrypter
	// Roller is nil when the provider's sealing keys stay what they are.
	Roller seal.Roller
	// Counter is nil when the provider counts nothing.
	Counter seal.Counter

	KEK        seal.KeyRef // seals
	OtherKEK   seal.KeyRef // seals too, and is another key
	Checkpoint seal.KeyRef // signs; empty when Signer is nil
	Missing    seal.KeyRef // well formed, and no such key
	// RSA and OtherRSA decrypt, are two keys, and may differ in size; empty when
	// Decrypter is nil.
	RSA, OtherRSA seal.KeyRef
	// Anchor and OtherAnchor count, and are two counters; empty when Counter is nil.
	Anchor, OtherAnchor seal.KeyRef

	// Reopen opens the same device again; the suite has closed the provider
	// before it calls Reopen, and uses it with the same key references.
	Reopen func(t testing.TB) Fixture
}

// timeout bounds the whole suite, so that a provider that hangs fails it.
const timeout = time.Minute

// Run runs the suite. open is called once.
func Run(t *testing.T, open func(t testing.TB) Fixture) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	f := open(t)
	t.Cleanup(func() { f.Provider.Close() })

	t.Run("identity and health", func(t *testing.T) { identity(ctx, t, f) })
	t.Run("round trip", func(t *testing.T) { roundTrip(ctx, t, f) })
	t.Run("sizes refused", func(t *testing.T) { sizes(ctx, t, f) })
	t.Run("aad is bound", func(t *testing.T) { aadBound(ctx, t, f) })
	t.Run("truncated and extended", func(t *testing.T) { truncated(ctx, t, f) })
	t.Run("bits flipped", func(t *testing.T) { flipped(ctx, t, f) })
	t.Run("another key", func(t *testing.T) { otherKey(ctx, t, f) })
	t.Run("missing key", func(t *testing.T) { missingKey(ctx, t, f) })
	t.Run("plaintext is lent", func(t *testing.T) { lent(ctx, t, f) })
	t.Run("context", func(t *testing.T) { contextEnds(t, f) })
	t.Run("concurrent", func(t *testing.T) { concurrent(ctx, t, f) })
	if f.Signer != nil {
		t.Run("signer", func(t *testing.T) { signer(ctx, t, f) })
		t.Run("signer refuses", func(t *testing.T) { signerRefuses(ctx, t, f) })
	}
	if f.Decrypter != nil {
		t.Run("decrypter", func(t *testing.T) { decrypter(ctx, t, f) })
		t.Run("decrypter refuses", func(t *testing.T) { decrypterRefuses(ctx, t, f) })
	}
	if f.Counter != nil {
		t.Run("counter", func(t *testing.T) { counter(ctx, t, f) })
		t.Run("counter refuses", func(t *testing.T) { counterRefuses(ctx, t, f) })
		t.Run("counter is one for all", func(t *testing.T) { counterRace(ctx, t, f) })
	}
	if f.Roller != nil {
		t.Run("roller", func(t *testing.T) { roller(ctx, t, &f) })
	}
	if maker, ok := f.Provider.(seal.KEKMaker); ok {
		t.Run("maker of sealing keys", func(t *testing.T) { kekMaker(ctx, t, f, maker) })
	}
	outer := t // the reopened provider outlives its subtest
	t.Run("reopen", func(t *testing.T) { reopen(ctx, t, outer, &f) })
	t.Run("closed", func(t *testing.T) { closed(ctx, t, f) })
}

func mustSeal(ctx context.Context, t testing.TB, f Fixture, plain, aad []byte) []byte {
	t.Helper()
	blob, err := f.Sealer.Seal(ctx, f.KEK, plain, aad)
	if err != nil {
		t.Fatalf("sealing %d bytes: %v", len(plain), err)
	}
	return blob
}

// wantUnseal unseals and compares.
func wantUnseal(ctx context.Context, t testing.TB, f Fixture, blob, aad, want []byte) {
	t.Helper()
	called := 0
	err := f.Sealer.Unseal(ctx, f.KEK, blob, aad, func(got []byte) error {
		called++
		if !bytes.Equal(got, want) {
			t.Errorf("unsealed %d bytes that are not what was sealed", len(got))
		}
		return nil
	})
	if err != nil || called != 1 {
		t.Errorf("unsealing: err %v, closure called %d times, want no error and once", err, called)
	}
}

// wantRefused unseals and wants one sentinel and no plaintext.
func wantRefused(ctx context.Context, t testing.TB, f Fixture, ref seal.KeyRef, blob, aad []byte, sentinel error) {
	t.Helper()
	err := f.Sealer.Unseal(ctx, ref, blob, aad, func([]byte) error {
		t.Error("the closure was called for a blob that must be refused")
		return nil
	})
	if !errors.Is(err, sentinel) {
		t.Errorf("unsealing: %v, want %v", err, sentinel)
	}
	if sentinel == seal.ErrTampered && errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("unsealing: %v, is both tampered and unavailable", err)
	}
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + 7)
	}
	return b
}

func identity(ctx context.Context, t *testing.T, f Fixture) {
	if id := f.Provider.ID(); id == "" || id != f.Provider.ID() {
		t.Errorf("ID is %q, want something that stays", id)
	}
	if err := f.Provider.Health(ctx); err != nil {
		t.Errorf("Health of a fresh provider: %v", err)
	}
}

func roundTrip(ctx context.Context, t *testing.T, f Fixture) {
	for _, n := range []int{1, 2, 15, 16, 17, 31, 32, 33, 64, 127, seal.MaxSealed} {
		for _, aad := range [][]byte{nil, {0}, []byte("slot 1"), pattern(1024)} {
			plain := pattern(n)
			blob := mustSeal(ctx, t, f, plain, aad)
			if !bytes.Equal(plain, pattern(n)) {
				t.Fatalf("Seal changed the caller's %d bytes", n)
			}
			if n >= 16 && bytes.Contains(blob, plain) {
				t.Fatalf("the blob of %d bytes holds its plaintext", n)
			}
			wantUnseal(ctx, t, f, blob, aad, plain)
		}
	}
	a, b := mustSeal(ctx, t, f, pattern(32), nil), mustSeal(ctx, t, f, pattern(32), nil)
	if bytes.Equal(a, b) {
		t.Error("sealing twice gave the same blob")
	}
	if err := f.Provider.Health(ctx); err != nil {
		t.Errorf("Health after use: %v", err)
	}
}

func sizes(ctx context.Context, t *testing.T, f Fixture) {
	for _, n := range []int{0, seal.MaxSealed + 1, 4096, 1 << 20} {
		if _, err := f.Sealer.Seal(ctx, f.KEK, make([]byte, n), nil); err == nil {
			t.Errorf("sealing %d bytes succeeded, want an error", n)
		}
	}
	for _, n := range []int{0, 1, 1 << 20} {
		wantRefused(ctx, t, f, f.KEK, make([]byte, n), nil, seal.ErrTampered)
	}
}

func aadBound(ctx context.Context, t *testing.T, f Fixture) {
	aad := []byte("sigild/slot/v1 store 7")
	blob := mustSeal(ctx, t, f, pattern(32), aad)
	flipped := bytes.Clone(aad)
	flipped[len(flipped)-1] ^= 1
	for _, wrong := range [][]byte{nil, aad[:len(aad)-1], aad[1:], append(bytes.Clone(aad), 0), flipped} {
		wantRefused(ctx, t, f, f.KEK, blob, wrong, seal.ErrTampered)
	}
	without := mustSeal(ctx, t, f, pattern(32), nil)
	wantRefused(ctx, t, f, f.KEK, without, aad, seal.ErrTampered)
	wantUnseal(ctx, t, f, blob, aad, pattern(32))
}

func truncated(ctx context.Context, t *testing.T, f Fixture) {
	aad := []byte("aad")
	blob := mustSeal(ctx, t, f, pattern(32), aad)
	for n := range blob {
		wantRefused(ctx, t, f, f.KEK, blob[:n], aad, seal.ErrTampered)
	}
	for _, more := range []int{1, 16, 4096} {
		wantRefused(ctx, t, f, f.KEK, append(bytes.Clone(blob), make([]byte, more)...), aad, seal.ErrTampered)
	}
	wantUnseal(ctx, t, f, blob, aad, pattern(32))
}

func flipped(ctx context.Context, t *testing.T, f Fixture) {
	aad := []byte("aad")
	blob := mustSeal(ctx, t, f, pattern(32), aad)
	for i := range blob {
		bad := bytes.Clone(blob)
		bad[i] ^= 1 << (i % 8)
		wantRefused(ctx, t, f, f.KEK, bad, aad, seal.ErrTampered)
	}
	wantUnseal(ctx, t, f, blob, aad, pattern(32))
}

func otherKey(ctx context.Context, t *testing.T, f Fixture) {
	blob := mustSeal(ctx, t, f, pattern(32), nil)
	wantRefused(ctx, t, f, f.OtherKEK, blob, nil, seal.ErrTampered)
}

func missingKey(ctx context.Context, t *testing.T, f Fixture) {
	blob := mustSeal(ctx, t, f, pattern(32), nil)
	for _, ref := range []seal.KeyRef{f.Missing, "", "not hex", seal.KeyRef(strings.Repeat("ab", 4096))} {
		wantRefused(ctx, t, f, ref, blob, nil, seal.ErrNotFound)
		if _, err := f.Sealer.Seal(ctx, ref, pattern(32), nil); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("sealing under %.20q: %v, want ErrNotFound", ref, err)
		}
	}
}

func lent(ctx context.Context, t *testing.T, f Fixture) {
	blob := mustSeal(ctx, t, f, pattern(32), nil)
	var kept []byte
	mine := errors.New("the closure's own error")
	err := f.Sealer.Unseal(ctx, f.KEK, blob, nil, func(p []byte) error {
		kept = p
		return mine
	})
	if err != mine {
		t.Errorf("Unseal returned %v, want the closure's error as it is", err)
	}
	if !bytes.Equal(kept, make([]byte, len(kept))) {
		t.Error("the lent plaintext was not wiped")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the closure's panic was swallowed")
			}
		}()
		_ = f.Sealer.Unseal(ctx, f.KEK, blob, nil, func(p []byte) error {
			kept = p
			panic("in the closure")
		})
	}()
	if !bytes.Equal(kept, make([]byte, len(kept))) {
		t.Error("the lent plaintext was not wiped after a panic")
	}
	wantUnseal(ctx, t, f, blob, nil, pattern(32))
}

func contextEnds(t *testing.T, f Fixture) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Sealer.Seal(ctx, f.KEK, pattern(32), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("sealing with a cancelled context: %v, want context.Canceled", err)
	}
	past, cancel := context.WithDeadline(context.Background(), time.Unix(1, 0))
	defer cancel()
	if err := f.Provider.Health(past); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("Health past its deadline: %v, want ErrUnavailable", err)
	}
}

func concurrent(ctx context.Context, t *testing.T, f Fixture) {
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			plain, aad := bytes.Repeat([]byte{byte(i)}, 32), fmt.Appendf(nil, "goroutine %d", i)
			for range 3 {
				blob, err := f.Sealer.Seal(ctx, f.KEK, plain, aad)
				if err != nil {
					t.Errorf("sealing: %v", err)
					return
				}
				wantUnseal(ctx, t, f, blob, aad, plain)
				blob[len(blob)-1] ^= 1
				wantRefused(ctx, t, f, f.KEK, blob, aad, seal.ErrTampered)
			}
			if f.Signer != nil {
				wantSignature(ctx, t, f, sha256.Sum256(aad))
			}
		})
	}
	wg.Wait()
}

func reopen(ctx context.Context, t *testing.T, outer testing.TB, f *Fixture) {
	blob := mustSeal(ctx, t, *f, pattern(32), []byte("over a restart"))
	id := f.Provider.ID()
	var pub *ecdsa.PublicKey
	if f.Signer != nil {
		var err error
		if pub, err = f.Signer.PublicP256(ctx, f.Checkpoint); err != nil {
			t.Fatal(err)
		}
	}
	var count uint64
	if f.Counter != nil {
		count = mustIncrement(ctx, t, *f, f.Anchor)
	}
	if err := f.Provider.Close(); err != nil {
		t.Fatalf("closing: %v", err)
	}
	next := f.Reopen(outer)
	next.KEK, next.OtherKEK, next.Checkpoint, next.Missing = f.KEK, f.OtherKEK, f.Checkpoint, f.Missing
	next.RSA, next.OtherRSA, next.Anchor, next.OtherAnchor = f.RSA, f.OtherRSA, f.Anchor, f.OtherAnchor
	outer.Cleanup(func() { next.Provider.Close() })
	*f = next
	if got := f.Provider.ID(); got != id {
		t.Errorf("ID is %q after reopening, was %q", got, id)
	}
	wantUnseal(ctx, t, *f, blob, []byte("over a restart"), pattern(32))
	if f.Signer != nil {
		again, err := f.Signer.PublicP256(ctx, f.Checkpoint)
		if err != nil {
			t.Fatal(err)
		}
		if !again.Equal(pub) {
			t.Error("the public key changed over reopening")
		}
		wantSignature(ctx, t, *f, sha256.Sum256([]byte("again")))
	}
	if f.Decrypter != nil {
		wantDecrypt(ctx, t, *f, encrypt(ctx, t, *f, f.RSA, pattern(32)), pattern(32))
	}
	if f.Counter != nil {
		if got := mustRead(ctx, t, *f, f.Anchor); got != count {
			t.Errorf("the counter is %d after reopening, was %d", got, count)
		}
		mustIncrement(ctx, t, *f, f.Anchor)
	}
}

func closed(ctx context.Context, t *testing.T, f Fixture) {
	blob := mustSeal(ctx, t, f, pattern(32), nil)
	for range 2 {
		if err := f.Provider.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	wantRefused(ctx, t, f, f.KEK, blob, nil, seal.ErrUnavailable)
	if err := f.Provider.Health(ctx); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("Health of a closed provider: %v, want ErrUnavailable", err)
	}
	if f.Signer != nil {
		if _, err := f.Signer.SignP256(ctx, f.Checkpoint, [32]byte{1}); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("signing with a closed provider: %v, want ErrUnavailable", err)
		}
	}
	if f.Counter != nil {
		if _, err := f.Counter.ReadCounter(ctx, f.Anchor); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("reading a counter of a closed provider: %v, want ErrUnavailable", err)
		}
		if _, err := f.Counter.Increment(ctx, f.Anchor, 1); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("incrementing a counter of a closed provider: %v, want ErrUnavailable", err)
		}
	}
}
