package gg18_test

import (
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// BenchmarkPresignedECDSA makes presignatures and signs with all of them at once: a
// burst, while the pool lasts, beside what is sustained, where each must be made first.
// The time of an op is that of a signature in the burst.
func BenchmarkPresignedECDSA(b *testing.B) {
	set, in := mpctest.ECDSADelegateSet(b), chains.SignInput{Scheme: chains.ECDSASecp256k1, Digest: [32]byte{1}}
	shares := set.Shares(b)
	const pool = 8
	var cpuMake, cpuSign, wallMake, wallSign time.Duration
	n := 0
	for b.Loop() {
		var ready []*mpc.Presignature
		before, start := cpu(b), time.Now()
		for range pool {
			p, err := mpc.Presign(b.Context(), mpc.PresignRequest{Set: set.ShareSet, Shares: shares})
			if err != nil {
				b.Fatal(err)
			}
			ready = append(ready, p)
		}
		cpuMake, wallMake = cpuMake+cpu(b)-before, wallMake+time.Since(start)
		before, start = cpu(b), time.Now()
		for _, p := range ready {
			if _, err := p.Sign(b.Context(), in, nil); err != nil {
				b.Fatal(err)
			}
		}
		cpuSign, wallSign = cpuSign+cpu(b)-before, wallSign+time.Since(start)
		n += pool
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(n) }
	b.ReportMetric(ms(cpuSign), "ms-cpu")
	b.ReportMetric(ms(wallSign), "ms-wall")
	b.ReportMetric(float64(n)/wallSign.Seconds(), "burst-sig/s")
	b.ReportMetric(ms(cpuMake), "ms-cpu-made-before")
	b.ReportMetric(float64(n)/(wallMake+wallSign).Seconds(), "sustained-sig/s")
	b.ReportMetric(0, "ns/op")
}
