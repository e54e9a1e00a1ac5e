package mpc

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"slices"

	"github.com/sigild/sigild/internal/secmem"
)

// The encoded form of pre-parameters, version 1, is
//
//	0x01 ‖ the two primes of the Paillier key ‖ the two primes of NTilde ‖ h1 ‖ alpha
//
// 128 bytes for each prime and 256 for each of the others, big-endian. All else
// follows from these.
const (
	preParamsVersion = 1
	primeBits        = 1024
	primeBytes       = primeBits / 8
	preParamsBytes   = 1 + 4*primeBytes + 2*2*primeBytes
	// minDistanceBits: |p-q| of each modulus has more bits than this
	// (FIPS 186-5 A.1.3: nlen/2 - 100).
	minDistanceBits = primeBits - 100
)

// PreParams are one party's secret numbers for an ECDSA keygen or issue: a
// Paillier key and a modulus for range proofs (GG18 §3 and appendix A), of four
// safe primes, each modulus of exactly 2048 bits. They are for one use: whoever
// breaks one set would break every other set made from them. They are in locked
// memory until Destroy and print as "[redacted]". Safe for concurrent use.
type PreParams struct {
	secret
	buf *secmem.Buf
}

// PreParamNumbers are the numbers in a [PreParams], lent to an engine.
type PreParamNumbers struct {
	secret
	// PaillierP and PaillierQ are safe primes; the Paillier modulus is their product.
	PaillierP, PaillierQ *big.Int
	// TildeP and TildeQ are safe primes, NTilde is their product.
	TildeP, TildeQ, NTilde *big.Int
	// P = (TildeP-1)/2 and Q = (TildeQ-1)/2 are primes.
	P, Q *big.Int
	// H1 generates the squares modulo NTilde, a group of order PQ. H2 = H1^Alpha
	// modulo NTilde and H1 = H2^Beta.
	H1, H2, Alpha, Beta *big.Int
}

// GeneratePreParams makes pre-parameters on all cores: about half a second of
// CPU for each of the four safe primes. It can be cancelled at any time.
func GeneratePreParams(ctx context.Context) (*PreParams, error) {
	return generatePreParams(ctx, runtime.GOMAXPROCS(0), nil)
}

func generatePreParams(ctx context.Context, workers int, yield func(context.Context) error) (*PreParams, error) {
	primes, err := safePrimes(ctx, 4, primeBits, workers, yield)
	if err != nil {
		return nil, fmt.Errorf("generating pre-parameters: %w", err)
	}
	defer wipeInts(primes...)
	// In order of size, each with the next but one: then no pair is close.
	slices.SortFunc(primes, (*big.Int).Cmp)
	n := PreParamNumbers{PaillierP: primes[0], PaillierQ: primes[2], TildeP: primes[1], TildeQ: primes[3]}
	defer n.Wipe()
	pq := new(big.Int).Mul(new(big.Int).Rsh(n.TildeP, 1), new(big.Int).Rsh(n.TildeQ, 1))
	defer wipeInts(pq)
	// A random square fails to generate the squares with probability 2^-1021, and
	// then check refuses it; so it does an alpha without inverse.
	f, err := rand.Int(rand.Reader, new(big.Int).Mul(n.TildeP, n.TildeQ))
	if err != nil {
		return nil, fmt.Errorf("generating pre-parameters: %w", err)
	}
	n.H1 = f.Mod(f.Mul(f, f), new(big.Int).Mul(n.TildeP, n.TildeQ))
	if n.Alpha, err = rand.Int(rand.Reader, pq); err != nil {
		return nil, fmt.Errorf("generating pre-parameters: %w", err)
	}
	encoded := n.encode()
	if _, err := decodePreParams(encoded); err != nil {
		clear(encoded)
		return nil, fmt.Errorf("generating pre-parameters: %w", err)
	}
	return newPreParams(encoded)
}

// newPreParams takes encoded over and wipes it.
func newPreParams(encoded []byte) (*PreParams, error) {
	buf, err := secmem.From(encoded)
	if err != nil {
		return nil, fmt.Errorf("keeping pre-parameters: %w", err)
	}
	return &PreParams{buf: buf}, nil
}

// ParsePreParams checks encoded pre-parameters, arithmetic included, and keeps a
// copy; the caller wipes its own. It takes about 50 ms.
func ParsePreParams(encoded []byte) (*PreParams, error) {
	n, err := decodePreParams(encoded)
	if err != nil {
		return nil, fmt.Errorf("parsing pre-parameters: %w", err)
	}
	n.Wipe()
	return newPreParams(slices.Clone(encoded))
}

// Lend calls use with the encoded form, which [ParsePreParams] reads. use must
// neither keep nor change it. The error of use is returned as it is.
func (p *PreParams) Lend(use func(encoded []byte) error) error { return p.buf.Use(use) }

// Numbers calls use with freshly checked numbers and wipes them when it returns.
func (p *PreParams) Numbers(use func(*PreParamNumbers) error) error {
	return p.Lend(func(encoded []byte) error {
		n, err := decodePreParams(encoded)
		if err != nil {
			return fmt.Errorf("reading pre-parameters: %w", err)
		}
		defer n.Wipe()
		return use(n)
	})
}

// Destroy wipes the pre-parameters. Idempotent.
func (p *PreParams) Destroy() { p.buf.Destroy() }

// sharesPrime says whether the two have a prime in common, or can't be read.
func (p *PreParams) sharesPrime(o *PreParams) bool {
	if p == o {
		return true
	}
	shares := true
	_ = p.Lend(func(a []byte) error {
		return o.Lend(func(b []byte) error {
			shares = false
			for i := range 4 {
				for j := range 4 {
					x, y := a[1+i*primeBytes:][:primeBytes], b[1+j*primeBytes:][:primeBytes]
					shares = shares || subtle.ConstantTimeCompare(x, y) == 1
				}
			}
			return nil
		})
	})
	return shares
}

func (n *PreParamNumbers) encode() []byte {
	b := make([]byte, preParamsBytes)
	b[0] = preParamsVersion
	rest := b[1:]
	for _, x := range []*big.Int{n.PaillierP, n.PaillierQ, n.TildeP, n.TildeQ} {
		x.FillBytes(rest[:primeBytes])
		rest = rest[primeBytes:]
	}
	n.H1.FillBytes(rest[:2*primeBytes])
	n.Alpha.FillBytes(rest[2*primeBytes:])
	return b
}

func decodePreParams(b []byte) (*PreParamNumbers, error) {
	if len(b) != preParamsBytes || b[0] != preParamsVersion {
		return nil, fmt.Errorf("%d bytes of pre-parameters, want %d that start with %#02x", len(b), preParamsBytes, preParamsVersion)
	}
	rest := b[1:]
	take := func(n int) *big.Int {
		x := new(big.Int).SetBytes(rest[:n])
		rest = rest[n:]
		return x
	}
	n := &PreParamNumbers{PaillierP: take(primeBytes), PaillierQ: take(primeBytes),
		TildeP: take(primeBytes), TildeQ: take(primeBytes), H1: take(2 * primeBytes), Alpha: take(2 * primeBytes)}
	if err := n.derive(); err != nil {
		n.Wipe()
		return nil, err
	}
	return n, nil
}

// derive checks what was drawn and computes what follows from it.
func (n *PreParamNumbers) derive() error {
	primes := []*big.Int{n.PaillierP, n.PaillierQ, n.TildeP, n.TildeQ}
	for i, p := range primes {
		if p.BitLen() != primeBits || p.Bit(primeBits-2) != 1 {
			return errors.New("a prime has the wrong size")
		}
		if slices.ContainsFunc(primes[:i], func(o *big.Int) bool { return o.Cmp(p) == 0 }) {
			return errors.New("two primes are the same")
		}
	}
	d := new(big.Int)
	for i := 0; i < 4; i += 2 {
		if d.Sub(primes[i], primes[i+1]).BitLen() <= minDistanceBits {
			return errors.New("the primes of a modulus are close")
		}
	}
	// What was written had its 30 rounds; Baillie-PSW sees a changed byte.
	for _, p := range primes {
		if !isSafePrime(p, 0) {
			return errors.New("a number is not a safe prime")
		}
	}
	n.NTilde = new(big.Int).Mul(n.TildeP, n.TildeQ)
	n.P, n.Q = new(big.Int).Rsh(n.TildeP, 1), new(big.Int).Rsh(n.TildeQ, 1)
	pq := new(big.Int).Mul(n.P, n.Q)
	defer wipeInts(pq)
	// H1 generates the squares when it is a square other than 1 modulo both primes.
	for _, p := range primes[2:] {
		if big.Jacobi(n.H1, p) != 1 || d.Mod(n.H1, p).Cmp(one) == 0 {
			return errors.New("h1 does not generate the squares")
		}
	}
	if n.H1.Cmp(n.NTilde) >= 0 || n.Alpha.Cmp(pq) >= 0 || n.Alpha.Cmp(one) <= 0 {
		return errors.New("h1 or alpha is out of range")
	}
	if n.Beta = new(big.Int).ModInverse(n.Alpha, pq); n.Beta == nil {
		return errors.New("alpha has no inverse")
	}
	n.H2 = new(big.Int).Exp(n.H1, n.Alpha, n.NTilde)
	return nil
}

// Wipe overwrites the secret numbers, as far as math/big lets us: it may have
// left copies behind while computing.
func (n *PreParamNumbers) Wipe() {
	wipeInts(n.PaillierP, n.PaillierQ, n.TildeP, n.TildeQ, n.P, n.Q, n.Alpha, n.Beta)
}

func wipeInts(xs ...*big.Int) {
	for _, x := range xs {
		if x != nil {
			words := x.Bits()
			clear(words[:cap(words)])
			x.SetInt64(0)
		}
	}
}
