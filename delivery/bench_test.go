package delivery

import "testing"

// BenchmarkIngest takes created events in: MAC, two RSA operations in the token
// (2048 bits), one durable transaction.
func BenchmarkIngest(b *testing.B) {
	h := newHouse(b)
	e := h.register(testOrg, testEnv, testSecret)
	bodies := make([][]byte, 256)
	round := 0
	fill := func() {
		for i := range bodies {
			id := numbered("ev", round*len(bodies)+i)
			bodies[i] = body(b, e.created(b, id, "w-"+id, "", 1))
		}
		round++
	}
	i := len(bodies)
	for b.Loop() {
		if i == len(bodies) {
			b.StopTimer()
			fill()
			i = 0
			b.StartTimer()
		}
		if got, err := h.send(e, bodies[i]); err != nil || got != Stored {
			b.Fatal(got, err)
		}
		i++
	}
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
