package hsm

import (
	"encoding/binary"
	"testing"
	"time"
)

func TestPoisonRemembersWhatEndedWorkers(t *testing.T) {
	p, now := newPoison(), time.Unix(1_800_000_000, 0)
	frame := func(o op, first byte) []byte {
		fields := extremes(shapes[o].request)[0]
		for _, field := range fields {
			if len(field) > 0 {
				field[0] = first
			}
		}
		f, err := encodeRequest(o, fields...)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	want := func(f []byte, refused bool, when string) {
		t.Helper()
		if got := p.refuses(f, now); got != refused {
			t.Errorf("%s: refused is %v, want %v", when, got, refused)
		}
	}
	bad, other := frame(opDecryptOAEP, 1), frame(opDecryptOAEP, 2)
	p.blame(bad, opDecryptOAEP, now)
	want(bad, false, "after one worker")
	p.blame(bad, opDecryptOAEP, now)
	want(bad, true, "after two workers")
	want(other, false, "another request")
	setSeq(bad, 77)
	setRung(bad, rungFind)
	want(bad, true, "the same request, later")
	now = now.Add(poisonFor)
	want(bad, false, "after its time")

	p.blame(bad, opDecryptOAEP, now)
	p.blame(bad, opDecryptOAEP, now)
	p.forgive(bad)
	want(bad, false, "after a success")

	// Requests that carry nothing of others' are always alike, and never refused.
	for _, o := range []op{opInfo, opHealth, opRandom, opCheckKey} {
		for range 2 * poisonLimit {
			p.blame(frame(o, 1), o, now)
		}
		want(frame(o, 1), false, o.String())
	}

	// The memory is bounded: the oldest go first.
	for i := range 3 * poisonMax {
		f := frame(opDecryptOAEP, 1)
		binary.BigEndian.PutUint32(f[len(f)-4:], uint32(i))
		p.blame(f, opDecryptOAEP, now.Add(time.Duration(i)*time.Millisecond))
	}
	if n := len(p.ended); n > poisonMax {
		t.Errorf("%d requests are remembered, want at most %d", n, poisonMax)
	}
}
