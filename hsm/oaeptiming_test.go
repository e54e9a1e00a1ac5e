package hsm

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"math"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
)

// Does it take longer to refuse one malformed padding than another? The method is that
// of dudect (Reparaz, Balasch, Verbauwhede 2017): times of one fixed input and of random
// ones, taken in random order, are compared by Welch's t. Above 4.5 the two differ.

// tooDifferent is the |t| at which two classes count as told apart.
const tooDifferent = 4.5

// welch is Welch's t of two samples.
func welch(a, b []float64) float64 {
	moments := func(x []float64) (mean, variance float64) {
		for _, v := range x {
			mean += v
		}
		mean /= float64(len(x))
		for _, v := range x {
			variance += (v - mean) * (v - mean)
		}
		return mean, variance / float64(len(x)-1)
	}
	ma, va := moments(a)
	mb, vb := moments(b)
	return (ma - mb) / math.Sqrt(va/float64(len(a))+vb/float64(len(b)))
}

// fixedAgainstRandom times n calls of f, each on a fresh copy of fixed or of one of
// others. What was interrupted, the slowest tenth of both together, is left out.
func fixedAgainstRandom(f func(em []byte), fixed []byte, others [][]byte, n int) float64 {
	type sample struct {
		random bool
		took   float64
	}
	// As many copies of the fixed one as there are others: the caches see no difference.
	same := make([][]byte, len(others))
	for i := range same {
		same[i] = bytes.Clone(fixed)
	}
	samples := make([]sample, 0, n)
	work := make([]byte, len(fixed))
	for i := range n + n/10 {
		random := mathrand.IntN(2) == 1
		from := same
		if random {
			from = others
		}
		copy(work, from[mathrand.IntN(len(from))])
		start := time.Now()
		f(work)
		took := time.Since(start)
		if i >= n/10 { // the first ones warm up
			samples = append(samples, sample{random, float64(took)})
		}
	}
	slices.SortFunc(samples, func(x, y sample) int { return int(x.took - y.took) })
	var a, b []float64
	for _, s := range samples[:n-n/10] {
		if s.random {
			b = append(b, s.took)
		} else {
			a = append(a, s.took)
		}
	}
	return welch(a, b)
}

// malformed are paddings that are wrong in all places: in the first byte, the label's
// hash, between the zeros, without an end, or everywhere.
func malformed(n, count int) (all [][]byte) {
	for i := range count {
		var seed [32]byte
		_, _ = rand.Read(seed[:])
		message := make([]byte, 32)
		_, _ = rand.Read(message)
		db := block(n, message)
		first := byte(0)
		switch i % 5 {
		case 0:
			first = 1 + byte(mathrand.IntN(255))
		case 1:
			db[mathrand.IntN(sha256.Size)] ^= 1 + byte(mathrand.IntN(255))
		case 2:
			db[sha256.Size+mathrand.IntN(n-33-sha256.Size-33)] = 2 + byte(mathrand.IntN(254))
		case 3:
			clear(db[sha256.Size:])
		}
		em := pad(first, seed, db)
		if i%5 == 4 {
			_, _ = rand.Read(em)
		}
		all = append(all, em)
	}
	return all
}

// The whole of it is a statistic of 10^5 calls for each place in which a padding can be
// wrong, with CAMPAIGN=1; in make test few calls, which decide nothing but that all of
// them are refused, and that what stops early is told apart.
func TestCampaignUnpaddingFailsInTheSameTime(t *testing.T) {
	const n = 384 // RSA-3072
	all := os.Getenv("CAMPAIGN") != ""
	calls := 2000
	if all {
		calls = 100_000
	}
	others := malformed(n, 1000)
	refused := func(em []byte) {
		if _, ok := unpadOAEP(em); ok {
			t.Error("a malformed padding was taken")
		}
	}
	for i, name := range []string{"the first byte", "the label's hash", "a byte between", "no end", "random bytes"} {
		got := fixedAgainstRandom(refused, others[i], others, calls)
		t.Logf("%s wrong against random failures: t = %.2f in %d calls", name, got, calls)
		if all && math.Abs(got) >= tooDifferent {
			t.Errorf("%s: |t| = %.2f, want less than %.1f", name, math.Abs(got), tooDifferent)
		}
	}
	early := func(em []byte) {
		if em[0] == 0 { // Manger's oracle
			refused(em)
		}
	}
	if got := fixedAgainstRandom(early, others[0], others, calls); math.Abs(got) < tooDifferent {
		t.Errorf("what looks at the first byte first is not told apart: t = %.2f", got)
	}
}

// Whatever is wrong, the refusal is one and the message none.
func TestUnpaddingFailuresLookTheSame(t *testing.T) {
	for _, em := range malformed(384, 500) {
		if message, ok := unpadOAEP(em); ok || message != nil {
			t.Errorf("refused with %x, %v", message, ok)
		}
	}
}
