package delivery

import (
	"testing"

	"github.com/sigild/sigild/internal/testcost"
)

// BenchmarkIngest takes created events in: MAC, two RSA-3072 operations in the token,
// one durable transaction. The target is a median of 15 ms.
func BenchmarkIngest(b *testing.B) {
	h := newHouse(b)
	e := h.registerOf(3072, testOrg, testEnv, testSecret)
	bodies := make([][]byte, 256)
	for i := range bodies {
		id := numbered("ev", i)
		bodies[i] = body(b, e.created(b, id, "w-"+id, "", 1))
	}
	m := testcost.New(b)
	for i := range bodies {
		m.Time(func() {
			if got, err := h.send(e, bodies[i]); err != nil || got != Stored {
				b.Fatal(got, err)
			}
		})
	}
	m.Report(0)
	b.ReportMetric(0, "ns/op") // of 256, whatever b.N is
}

// BenchmarkIngestRepetition is the second repetition of a delivery, the cheapest
// way to bother us with a good MAC.
func BenchmarkIngestRepetition(b *testing.B) {
	h := newHouse(b)
	e := h.register(testOrg, testEnv, testSecret)
	again := body(b, e.created(b, "ev", "w", "", 1))
	for range 2 {
		if _, err := h.send(e, again); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if got, err := h.send(e, again); err != nil || got != Duplicate {
			b.Fatal(got, err)
		}
	}
}

// BenchmarkIngestForged is a delivery of the largest size with a wrong MAC.
func BenchmarkIngestForged(b *testing.B) {
	h := newHouse(b)
	e := h.register(testOrg, testEnv, testSecret)
	in := Received{Webhook: e.id, Body: make([]byte, MaxBody), Signature: sign(otherSecret, nil)}
	for b.Loop() {
		if _, err := h.Ingest(b.Context(), receiver, in); err == nil {
			b.Fatal("taken")
		}
	}
}
