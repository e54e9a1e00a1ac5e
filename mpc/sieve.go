package mpc

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"math/big"
	"math/bits"
	"sync"
)

// Safe primes p = 2q+1 by a sieve over the progression q ≡ 5 (mod 6), the only
// class above 3 in which neither q nor 2q+1 is divisible by 2 or 3. For every
// prime r below 2^20 the sieve strikes out the q with r | q or r | 2q+1; about
// one in 800 of the survivors at 1023 bits is right. Survivors are tried in
// order: Fermat's test to base 2 on q, then on p, then 30 rounds of Miller-Rabin
// and a Baillie-PSW test on both.
//
// Each prime gets a fresh random start: two primes out of one window would be
// close, and their product easy to factor.

const (
	sieveBound = 1 << 20
	// sieveWindow is the number of candidates struck at once; about two safe
	// primes of 1024 bits are found in each.
	sieveWindow = 1 << 17
	// primalityRounds are the Miller-Rabin rounds on the result.
	primalityRounds = 30
)

// sievePrime is a prime with the inverse of 6 modulo it.
type sievePrime struct{ r, inv6 uint32 }

// sieveGroup is consecutive primes whose product fits in one word, so that the
// start is divided once for all of them.
type sieveGroup struct {
	product uint64
	primes  []sievePrime
}

// sieveTable is made once; swapped never.
var sieveTable = sync.OnceValue(func() []sieveGroup {
	composite := make([]bool, sieveBound)
	var groups []sieveGroup
	product := uint64(0)
	for r := uint64(3); r < sieveBound; r += 2 {
		if composite[r] {
			continue
		}
		for m := r * r; m < sieveBound; m += 2 * r {
			composite[m] = true
		}
		if r == 3 {
			continue // the progression avoids it
		}
		// 6·inv ≡ 1: one of r+1, 5r+1 is divisible by 6, as r ≡ ±1 (mod 6).
		inv := (5*r + 1) / 6
		if r%6 == 5 {
			inv = (r + 1) / 6
		}
		if hi, lo := bits.Mul64(product, r); product != 0 && hi == 0 {
			product = lo
			g := &groups[len(groups)-1]
			g.product, g.primes = product, append(g.primes, sievePrime{uint32(r), uint32(inv)})
			continue
		}
		product = r
		groups = append(groups, sieveGroup{r, []sievePrime{{uint32(r), uint32(inv)}}})
	}
	return groups
})

// safePrimes finds n distinct safe primes of exactly size bits with the two top
// bits set, so that the product of any two has exactly 2·size bits. It uses
// workers goroutines, all ended on return. yield is called between candidates
// and may block; its error ends the search. size must be at least 64.
func safePrimes(ctx context.Context, n, size, workers int, yield func(context.Context) error) ([]*big.Int, error) {
	if size < 64 || n < 1 || workers < 1 {
		return nil, errors.New("finding safe primes: bad size, count or workers")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards found
		found []*big.Int
	)
	add := func(p *big.Int) {
		mu.Lock()
		defer mu.Unlock()
		for _, have := range found {
			if have.Cmp(p) == 0 {
				return
			}
		}
		if len(found) < n {
			found = append(found, p)
		}
		if len(found) == n {
			cancel(errEnough)
		}
	}
	for range workers {
		wg.Go(func() {
			s := newSieve(size)
			for {
				p, err := s.search(ctx, yield)
				if err != nil {
					cancel(err)
					return
				}
				if p != nil {
					add(p)
				}
			}
		})
	}
	wg.Wait()
	if len(found) < n {
		return nil, context.Cause(ctx)
	}
	return found, nil
}

var errEnough = errors.New("enough primes")

// sieve is one worker's memory.
type sieve struct {
	size   int
	struck []bool
	// Scratch numbers, reused for every candidate.
	q, p, exp, rem, step *big.Int
}

func newSieve(size int) *sieve {
	return &sieve{size: size, struck: make([]bool, sieveWindow),
		q: new(big.Int), p: new(big.Int), exp: new(big.Int), rem: new(big.Int), step: new(big.Int)}
}

// search tries one window at a random start and returns a safe prime, or nil
// when the window has none.
func (s *sieve) search(ctx context.Context, yield func(context.Context) error) (*big.Int, error) {
	start, err := s.start()
	if err != nil {
		return nil, err
	}
	s.strike(start)
	for k, struck := range s.struck {
		if struck {
			continue
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		if yield != nil {
			if err := yield(ctx); err != nil {
				return nil, err
			}
		}
		s.q.Add(start, s.step.SetUint64(6*uint64(k)))
		if s.safe() {
			return new(big.Int).Set(s.p), nil
		}
	}
	return nil, nil
}

// start draws q0 ≡ 5 (mod 6) of size-1 bits, the two top bits set, low enough
// that the whole window keeps that size.
func (s *sieve) start() (*big.Int, error) {
	b := make([]byte, (s.size+6)/8)
	defer clear(b)
	for {
		if _, err := rand.Read(b); err != nil {
			return nil, err
		}
		q0 := new(big.Int).SetBytes(b)
		q0.Rsh(q0, uint(len(b)*8-(s.size-1)))
		q0.SetBit(q0, s.size-2, 1)
		q0.SetBit(q0, s.size-3, 1)
		mod6 := s.rem.Mod(q0, s.step.SetUint64(6)).Uint64()
		q0.Add(q0, s.step.SetUint64(5-mod6))
		if s.q.Add(q0, s.step.SetUint64(6*sieveWindow)).BitLen() == s.size-1 {
			return q0, nil
		}
	}
}

// strike marks each k for which q0+6k or 2(q0+6k)+1 has a small factor.
func (s *sieve) strike(q0 *big.Int) {
	clear(s.struck)
	be := q0.FillBytes(make([]byte, (s.size+63)/64*8))
	defer clear(be)
	for _, g := range sieveTable() {
		var rem uint64
		for i := 0; i < len(be); i += 8 {
			_, rem = bits.Div64(rem, binary.BigEndian.Uint64(be[i:]), g.product)
		}
		for _, pr := range g.primes {
			r, inv6 := uint64(pr.r), uint64(pr.inv6)
			x := rem % r
			// q0+6k ≡ 0, then q0+6k ≡ (r-1)/2, which is where 2q+1 ≡ 0.
			for k := (r - x) * inv6 % r; k < sieveWindow; k += r {
				s.struck[k] = true
			}
			for k := ((r-1)/2 + r - x) * inv6 % r; k < sieveWindow; k += r {
				s.struck[k] = true
			}
		}
	}
}

var (
	one = big.NewInt(1)
	two = big.NewInt(2)
)

// safe tests q and p = 2q+1; p is set when it returns true.
func (s *sieve) safe() bool {
	if !s.fermat(s.q) {
		return false
	}
	s.p.Lsh(s.q, 1)
	s.p.Add(s.p, one)
	return s.fermat(s.p) && isSafePrime(s.p, primalityRounds)
}

func (s *sieve) fermat(n *big.Int) bool {
	s.exp.Sub(n, one)
	return s.rem.Exp(two, s.exp, n).Cmp(one) == 0
}

// isSafePrime tests p and (p-1)/2 with Baillie-PSW and rounds of Miller-Rabin.
func isSafePrime(p *big.Int, rounds int) bool {
	if p.Bit(0) == 0 || p.Bit(1) == 0 {
		return false
	}
	return p.ProbablyPrime(rounds) && new(big.Int).Rsh(p, 1).ProbablyPrime(rounds)
}
