package signing_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/internal/testcost"
)

// BenchmarkStampedRequestWithoutMPC is a stamp's verification and steps 3 to 7 of a
// delegated user's request, fsync included, by so many callers at once. What the socket
// costs is server's BenchmarkCallWithStamp. The targets are 2,000/s with 64 callers and
// a median of 1.5 ms with one.
func BenchmarkStampedRequestWithoutMPC(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) { benchStamped(b, callers) })
	}
}

func benchStamped(b *testing.B, callers int) {
	r := newRealm(b)
	appliance, method := r.delegation.ApplianceID(), signMethod
	stamps := make([]credential.Stamp, b.N)
	for i := range stamps {
		var err error
		stamps[i], err = credential.NewStamp(r.robot.key, credential.Act{ApplianceID: appliance, OrganizationID: r.made.OrganizationID, Method: method, IssuedAt: began,
			MessageHash: sha256.Sum256([]byte(fmt.Sprint(i)))})
		if err != nil {
			b.Fatal(err)
		}
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
					party, known := r.delegation.KnownCredential(r.made.OrganizationID, r.robot.PublicKey)
					if _, err := stamps[i].VerifyAs(party, appliance, method, []byte(fmt.Sprint(i))); err != nil || !known {
						b.Error(err)
						return
					}
					a, err := r.signing.Approve(context.Background(), r.asked(fmt.Sprint("r", i), r.pay(uint64(1+i%500), byte(i)), r.robot))
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
