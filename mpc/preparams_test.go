package mpc

import (
	"bytes"
	"context"
	"errors"
	"math/big"
	"os"
	"slices"
	"testing"
	"time"
)

func readyPreParams(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("mpctest/testdata/preparams-0.bin")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGeneratedPreParamsHoldWhatTheyPromise(t *testing.T) {
	p, err := GeneratePreParams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Destroy()
	err = p.Numbers(func(n *PreParamNumbers) error {
		primes := []*big.Int{n.PaillierP, n.PaillierQ, n.TildeP, n.TildeQ}
		for i, x := range primes {
			if !isSafePrime(x, 20) || x.BitLen() != 1024 {
				t.Errorf("prime %d: %d bits, not a safe prime of 1024", i, x.BitLen())
			}
			for _, y := range primes[:i] {
				if x.Cmp(y) == 0 {
					t.Error("two primes are the same")
				}
			}
		}
		for i := 0; i < 4; i += 2 {
			if bits := new(big.Int).Mul(primes[i], primes[i+1]).BitLen(); bits != 2048 {
				t.Errorf("modulus %d has %d bits, want 2048", i/2, bits)
			}
			if bits := new(big.Int).Sub(primes[i], primes[i+1]).BitLen(); bits <= 924 {
				t.Errorf("primes of modulus %d differ in %d bits, want more than 924", i/2, bits)
			}
		}
		if back := new(big.Int).Exp(n.H2, n.Beta, n.NTilde); back.Cmp(n.H1) != 0 {
			t.Error("h2^beta is not h1")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	err = p.Lend(func(b []byte) error { _, err := ParsePreParams(b); return err })
	if err != nil {
		t.Errorf("parsing what was generated: %v", err)
	}
}

func TestPreParamsAreUsedWithoutTrace(t *testing.T) {
	b := readyPreParams(t)
	p, err := ParsePreParams(b)
	if err != nil {
		t.Fatal(err)
	}
	clear(b) // Parse took a copy
	var kept *PreParamNumbers
	if err := p.Numbers(func(n *PreParamNumbers) error { kept = n; return nil }); err != nil {
		t.Fatal(err)
	}
	if kept.PaillierP.Sign() != 0 || kept.Q.Sign() != 0 || kept.Alpha.Sign() != 0 {
		t.Error("numbers are still there after Numbers")
	}
	p.Destroy()
	if err := p.Numbers(func(*PreParamNumbers) error { return nil }); !errors.Is(err, ErrDestroyed) {
		t.Errorf("error %v, want ErrDestroyed", err)
	}
}

func TestParsePreParamsRefusesWrongNumbers(t *testing.T) {
	field := func(b []byte, i int) []byte { return b[1+i*primeBytes:][:primeBytes] }
	h1 := func(b []byte) []byte { return b[1+4*primeBytes:][:2*primeBytes] }
	alpha := func(b []byte) []byte { return b[1+6*primeBytes:] }
	set := func(dst []byte, x *big.Int) { x.FillBytes(dst) }
	for name, change := range map[string]func(b []byte) []byte{
		"version":         func(b []byte) []byte { b[0] = 2; return b },
		"short":           func(b []byte) []byte { return b[:len(b)-1] },
		"long":            func(b []byte) []byte { return append(b, 0) },
		"not prime":       func(b []byte) []byte { field(b, 0)[127] ^= 4; return b },
		"even":            func(b []byte) []byte { field(b, 1)[127] ^= 1; return b },
		"top bit clear":   func(b []byte) []byte { field(b, 2)[0] &= 0x7f; return b },
		"second bit":      func(b []byte) []byte { field(b, 2)[0] &= 0xbf; return b },
		"same prime":      func(b []byte) []byte { copy(field(b, 1), field(b, 0)); return b },
		"primes shared":   func(b []byte) []byte { copy(field(b, 3), field(b, 1)); return b },
		"h1 zero":         func(b []byte) []byte { clear(h1(b)); return b },
		"h1 one":          func(b []byte) []byte { set(h1(b), one); return b },
		"h1 not a square": func(b []byte) []byte { set(h1(b), new(big.Int).Sub(product(field(b, 2), field(b, 3)), one)); return b },
		"h1 too big": func(b []byte) []byte {
			set(h1(b), new(big.Int).Add(product(field(b, 2), field(b, 3)), big.NewInt(4)))
			return b
		},
		"alpha zero":    func(b []byte) []byte { clear(alpha(b)); return b },
		"alpha one":     func(b []byte) []byte { set(alpha(b), one); return b },
		"alpha too big": func(b []byte) []byte { copy(alpha(b), bytes.Repeat([]byte{0xff}, 256)); return b },
		"alpha no unit": func(b []byte) []byte {
			set(alpha(b), new(big.Int).Rsh(new(big.Int).SetBytes(field(b, 2)), 1))
			return b
		},
	} {
		if _, err := ParsePreParams(change(slices.Clone(readyPreParams(t)))); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
}

func product(a, b []byte) *big.Int {
	return new(big.Int).Mul(new(big.Int).SetBytes(a), new(big.Int).SetBytes(b))
}

func TestClosePrimesAreRefused(t *testing.T) {
	// The two are no primes; the distance is looked at first.
	n := PreParamNumbers{PaillierP: new(big.Int).Sub(new(big.Int).Lsh(one, 1024), one), TildeP: new(big.Int).Lsh(big.NewInt(3), 1022),
		TildeQ: new(big.Int).Lsh(big.NewInt(7), 1021), H1: one, Alpha: one}
	n.PaillierQ = new(big.Int).Sub(n.PaillierP, new(big.Int).Lsh(one, 900))
	if err := n.derive(); err == nil || err.Error() != "the primes of a modulus are close" {
		t.Errorf("error %v, want that they are close", err)
	}
}

func TestGeneratePreParamsStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	tried := 0
	_, err := generatePreParams(ctx, 1, func(context.Context) error {
		if tried++; tried == 3 {
			cancel(stop)
		}
		return nil
	})
	if !errors.Is(err, stop) || tried != 3 {
		t.Errorf("error %v after %d candidates, want the cause after 3", err, tried)
	}
}

func FuzzParsePreParams(f *testing.F) {
	good := readyPreParams(f)
	f.Add(good)
	f.Add(good[:700])
	f.Add([]byte{preParamsVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePreParams(b)
		if err != nil {
			return
		}
		if err := p.Lend(func(again []byte) error {
			if !bytes.Equal(again, b) {
				t.Error("parsed form differs from what was given")
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkPreParams makes one party's pre-parameters on all cores; the time
// varies widely, so the median is reported besides the mean.
func BenchmarkPreParams(b *testing.B) {
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		p, err := GeneratePreParams(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		p.Destroy()
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds(), "s-median")
	b.ReportMetric(took[len(took)-1].Seconds(), "s-max")
}
