package stamping

import (
	"fmt"
	"testing"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/stamping/turnkey"
)

// BenchmarkStampRequest is steps 3 to 10 of one Turnkey body, two fsyncs included:
// read, decoded, judged under a limit, journaled, stamped, journaled.
func BenchmarkStampRequest(b *testing.B) {
	h := newHouse(b)
	limits := []policy.Limit{{Name: "in all", Asset: "eip155:1/slip44:60", Max: *uint256.NewInt(1 << 62)}}
	w := h.bind(h.binding("bind", h.turnkey().CredentialID, address, limits, small))
	n := uint64(0)
	for b.Loop() {
		n++
		if _, err := h.stamp(w, fmt.Sprint("r-", n), h.body(pay(b, n, 1))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkStampAlone is the peer: the body read and the key's signature, nothing else,
// as a program with the key in its memory does it.
func BenchmarkStampAlone(b *testing.B) {
	h := &house{t: b, now: began}
	binding := turnkey.Binding{Organization: turnkeyOrg, SignWith: []string{address}, EVM: true}
	err := makeKey(func(raw []byte) error {
		n := uint64(0)
		for b.Loop() {
			n++
			body := h.body(pay(b, n, 1))
			if _, err := turnkey.Read(body, binding); err != nil {
				return err
			}
			if _, err := sign(raw, body); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRead is the reading of one body.
func BenchmarkRead(b *testing.B) {
	h := &house{t: b, now: began}
	body := h.body(pay(b, 1, 1))
	binding := turnkey.Binding{Organization: turnkeyOrg, SignWith: []string{address}, EVM: true}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := turnkey.Read(body, binding); err != nil {
			b.Fatal(err)
		}
	}
}
