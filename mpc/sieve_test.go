package mpc

import (
	"context"
	"errors"
	"math/big"
	"testing"
)

func TestSafePrimesAreSafePrimes(t *testing.T) {
	for _, size := range []int{64, 100, 256, 512} {
		ps, err := safePrimes(t.Context(), 3, size, 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range ps {
			if !p.ProbablyPrime(20) || !new(big.Int).Rsh(p, 1).ProbablyPrime(20) {
				t.Errorf("%d bits: %v is not a safe prime", size, p)
			}
			if p.BitLen() != size || p.Bit(size-2) != 1 {
				t.Errorf("%d bits: %v has %d bits, or the second is clear", size, p, p.BitLen())
			}
			if new(big.Int).Mul(p, ps[0]).BitLen() != 2*size || i > 0 && p.Cmp(ps[i-1]) == 0 {
				t.Errorf("%d bits: %v and %v have a short product or are the same", size, p, ps[0])
			}
		}
	}
}

// The sieve strikes exactly the candidates with a small factor.
func TestStrikeAgreesWithTrialDivision(t *testing.T) {
	s := newSieve(256)
	q0, err := s.start()
	if err != nil {
		t.Fatal(err)
	}
	if m := new(big.Int).Mod(q0, big.NewInt(6)).Int64(); m != 5 {
		t.Fatalf("start is %d modulo 6, want 5", m)
	}
	s.strike(q0)
	small := smallProduct()
	gcd := new(big.Int)
	for k := 0; k < sieveWindow; k += 499 {
		q := new(big.Int).Add(q0, big.NewInt(int64(6*k)))
		p := new(big.Int).Add(new(big.Int).Lsh(q, 1), one)
		want := gcd.GCD(nil, nil, q, small).Cmp(one) != 0 || gcd.GCD(nil, nil, p, small).Cmp(one) != 0
		if s.struck[k] != want {
			t.Errorf("candidate %d: struck %v, want %v", k, s.struck[k], want)
		}
	}
}

// smallProduct multiplies all primes below the bound, found in the plainest way.
func smallProduct() *big.Int {
	var factors []*big.Int
	for n := int64(2); n < sieveBound; n++ {
		if x := big.NewInt(n); x.ProbablyPrime(0) {
			factors = append(factors, x)
		}
	}
	for len(factors) > 1 { // pairwise, so that the numbers stay balanced
		var next []*big.Int
		for i := 0; i+1 < len(factors); i += 2 {
			next = append(next, new(big.Int).Mul(factors[i], factors[i+1]))
		}
		if len(factors)%2 == 1 {
			next = append(next, factors[len(factors)-1])
		}
		factors = next
	}
	return factors[0]
}

func TestIsSafePrimeRefuses(t *testing.T) {
	for n, want := range map[int64]bool{5: false, 7: true, 11: true, 13: false, 23: true, 47: true, 59: true, 31: false, 15: false, 0: false, 1: false, 561: false} {
		if got := isSafePrime(big.NewInt(n), 10); got != want {
			t.Errorf("isSafePrime(%d) = %v, want %v", n, got, want)
		}
	}
}

func TestSafePrimesRefusesNonsense(t *testing.T) {
	for _, a := range [][3]int{{0, 256, 1}, {1, 32, 1}, {1, 256, 0}} {
		if _, err := safePrimes(t.Context(), a[0], a[1], a[2], nil); err == nil {
			t.Errorf("safePrimes%v succeeded", a)
		}
	}
}

func TestYieldEndsTheSearch(t *testing.T) {
	stop := errors.New("stop")
	_, err := safePrimes(t.Context(), 1, 1024, 2, func(context.Context) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("error %v, want the one of yield", err)
	}
}

// BenchmarkSafePrimeSieve finds one safe prime of 1024 bits on one core.
func BenchmarkSafePrimeSieve(b *testing.B) {
	for b.Loop() {
		if _, err := safePrimes(b.Context(), 1, 1024, 1, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStrike is the sieve alone: one window of 131,072 candidates.
func BenchmarkStrike(b *testing.B) {
	s := newSieve(1024)
	q0, err := s.start()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		s.strike(q0)
	}
}
