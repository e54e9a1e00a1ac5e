package tpm

import (
	"slices"
	"testing"
	"time"
)

// measure reports the median and 99th percentile beside the mean.
func measure(b *testing.B, use func() error) {
	took := make([]time.Duration, 0, 1<<14)
	for b.Loop() {
		began := time.Now()
		if err := use(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
}

func BenchmarkSeal(b *testing.B) {
	r := newRig(b)
	plain, aad := make([]byte, 32), make([]byte, 96)
	measure(b, func() error {
		_, err := r.Seal(b.Context(), r.keys.KEK, plain, aad)
		return err
	})
}

func BenchmarkUnseal(b *testing.B) {
	r := newRig(b)
	blob := r.sealed(b, "a root key of thirty-two bytes..")
	measure(b, func() error {
		return r.Unseal(b.Context(), r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
	})
}

func BenchmarkSign(b *testing.B) {
	r := newRig(b)
	measure(b, func() error {
		_, err := r.SignP256(b.Context(), r.keys.Checkpoint, [32]byte{1})
		return err
	})
}

// BenchmarkColdUnseal is what a start of the daemon costs: open, unseal, close.
func BenchmarkColdUnseal(b *testing.B) {
	r := newRig(b)
	blob := r.sealed(b, "a root key of thirty-two bytes..")
	r.Close()
	measure(b, func() error {
		p, err := Open(b.Context(), r.cfg)
		if err != nil {
			return err
		}
		defer p.Close()
		return p.Unseal(b.Context(), r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
	})
}

// BenchmarkColdUnsealBooted is the same with a PCR policy.
func BenchmarkColdUnsealBooted(b *testing.B) {
	r := newBootedRig(b)
	blob := r.sealed(b, "a root key of thirty-two bytes..")
	r.Close()
	measure(b, func() error {
		p, err := Open(b.Context(), r.cfg)
		if err != nil {
			return err
		}
		defer p.Close()
		return p.Unseal(b.Context(), r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
	})
}

func BenchmarkAttest(b *testing.B) {
	r := newRig(b)
	measure(b, func() error {
		_, err := r.Attest(b.Context(), nonce, []int{0, 7})
		return err
	})
}

func BenchmarkIncrement(b *testing.B) {
	r := newRig(b)
	ref := r.counter(b)
	n := r.value(b, ref)
	measure(b, func() (err error) {
		n, err = r.Increment(b.Context(), ref, n)
		return err
	})
}

func BenchmarkDecryptRSA(b *testing.B) {
	r := newRig(b)
	ref := r.rsa(b)
	ct := r.encrypted(b, ref, make([]byte, 32))
	measure(b, func() error {
		return r.DecryptOAEPSHA256(b.Context(), ref, ct, func([]byte) error { return nil })
	})
}
