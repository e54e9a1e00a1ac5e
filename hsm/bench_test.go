//go:build cgo

package hsm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/seal"
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
	b.ReportMetric(float64(took[len(took)/10].Nanoseconds()), "p10-ns")
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

// BenchmarkWrapDirect is the peer of BenchmarkWrap: the same encryption in a process
// that has loaded the module itself, with the key at hand.
func BenchmarkWrapDirect(b *testing.B) {
	r := newRig(b)
	cmd := exec.Command("/proc/self/exe", wrapDirectArg, r.tok.Module, r.tok.Label, r.tok.PINFile, string(r.keys.KEK), strconv.Itoa(max(b.N, 1000)))
	cmd.Env = append(os.Environ(), r.tok.Env...)
	out, err := cmd.Output()
	if err != nil {
		b.Fatal(err)
	}
	p50, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(p50, "p50-ns")
}

// wrapDirectArg makes this binary the process that loads the module itself.
const wrapDirectArg = "wrap-direct"

// wrapDirectMain prints the median of n encryptions in nanoseconds. It is run as:
// <binary> wrap-direct module label pinfile id n
func wrapDirectMain(args []string) int {
	var t token
	n, err := strconv.Atoi(args[4])
	if err == nil {
		err = t.start(args[0], selection{label: args[1]}, args[2])
	}
	var r keyRef
	if err == nil {
		r, err = parseRef(seal.KeyRef(args[3]))
	}
	took := make([]time.Duration, 0, n)
	for i := 0; i < n && err == nil; i++ {
		began := time.Now()
		_, err = t.wrap(r, make([]byte, 32), make([]byte, 96))
		took = append(took, time.Since(began))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	slices.Sort(took)
	fmt.Println(took[len(took)/2].Nanoseconds())
	return 0
}

// BenchmarkColdUnseal is what a start of the daemon waits for: a worker, the login,
// the key found and checked, one blob opened.
func BenchmarkColdUnseal(b *testing.B) {
	r := newRig(b)
	aad := make([]byte, 96)
	blob, err := r.Seal(b.Context(), r.keys.KEK, make([]byte, 32), aad)
	if err != nil {
		b.Fatal(err)
	}
	r.Close()
	measure(b, func() error {
		p, err := Open(b.Context(), r.cfg)
		if err != nil {
			return err
		}
		err = p.Unseal(b.Context(), r.keys.KEK, blob, aad, func([]byte) error { return nil })
		b.StopTimer()
		defer b.StartTimer()
		return errors.Join(err, p.Close())
	})
}

func BenchmarkSign(b *testing.B) {
	r := newRig(b)
	measure(b, func() error {
		_, err := r.SignP256(b.Context(), r.keys.Checkpoint, [32]byte{1})
		return err
	})
}

// BenchmarkRespawn is from the death of the worker to the end of the next good call.
func BenchmarkRespawn(b *testing.B) {
	r := newRig(b)
	measure(b, func() error {
		if err := syscall.Kill(r.pid(b), syscall.SIGKILL); err != nil {
			return err
		}
		return r.Health(b.Context())
	})
}
