//go:build cgo

package hsm

import (
	"slices"
	"testing"
	"time"
)

// measure reports the median and 99th percentile beside the mean.
func measure(b *testing.B, use func() error) {
	took := make([]time.Duration, 0, 1<<16)
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

func BenchmarkWrap(b *testing.B) {
	r := newRig(b)
	plain, aad := make([]byte, 32), make([]byte, 96)
	measure(b, func() error {
		_, err := r.Seal(b.Context(), r.keys.KEK, plain, aad)
		return err
	})
}

func BenchmarkUnwrap(b *testing.B) {
	r := newRig(b)
	aad := make([]byte, 96)
	blob, err := r.Seal(b.Context(), r.keys.KEK, make([]byte, 32), aad)
	if err != nil {
		b.Fatal(err)
	}
	measure(b, func() error {
		return r.Unseal(b.Context(), r.keys.KEK, blob, aad, func([]byte) error { return nil })
	})
}

func BenchmarkSign(b *testing.B) {
	r := newRig(b)
	measure(b, func() error {
		_, err := r.SignP256(b.Context(), r.keys.Checkpoint, [32]byte{1})
		return err
	})
}

// BenchmarkRespawn is a call right after the worker died.
func BenchmarkRespawn(b *testing.B) {
	r := newRig(b)
	measure(b, func() error {
		r.sup.current.Load().kill()
		return r.Health(b.Context())
	})
}
