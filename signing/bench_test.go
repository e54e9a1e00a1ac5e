package signing_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/internal/testcost"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
)

// BenchmarkDecodeAndPolicyEVM is steps 5 and 6 of one transfer; the target is 50 µs.
func BenchmarkDecodeAndPolicyEVM(b *testing.B) {
	h, g := newHouse(b, terms{set: mpctest.ECDSADelegateSet(b)})
	st, err := h.delegation.Authenticate(g[0].wallet, g[0].key)
	if err != nil {
		b.Fatal(err)
	}
	r := g[0].request("id", transfer(b, 7, 400))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := h.signing.DecodeAndJudge(r, st); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRequestWithoutMPC is steps 3 to 7 of one EVM transfer, fsync included,
// by so many callers at once; the target is a median of 2 ms for one.
func BenchmarkRequestWithoutMPC(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) { benchRequests(b, callers) })
	}
}

func benchRequests(b *testing.B, callers int) {
	h, g := newHouse(b, terms{set: mpctest.ECDSADelegateSet(b), limits: []policy.Limit{
		{Name: "a day", Asset: wei, Max: *uint256.NewInt(1 << 62), Window: day},
	}})
	payloads := make([][]byte, b.N)
	for i := range payloads {
		payloads[i] = transfer(b, uint64(i), 1)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	m := testcost.New(b)
	for range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
					return
				}
				m.Time(func() {
					a, err := h.signing.Approve(context.Background(), g[0].request(fmt.Sprint("r", i), payloads[i]))
					if err != nil {
						b.Error(err)
						return
					}
					a.Forget()
				})
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	m.Report(b.Elapsed())
}
