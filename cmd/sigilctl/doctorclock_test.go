package main

import (
	"testing"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// What a daemon says of its clock, without a machine whose clock is set: others run on this one.
func TestDoctorReadsWhatADaemonSaysOfItsClock(t *testing.T) {
	alarm := "the clock went back by 1h0m0s"
	for _, st := range []*sigilv1.GetStatusResponse{{}, {Sealed: true, ClockAlarm: &alarm}} {
		p := &patient{status: once[*sigilv1.GetStatusResponse]{asked: true, value: st}}
		all := map[string]string{"clock": checkClock(p).Verdict}
		wantVerdict(t, all, "clock", "ok")
	}
	p := &patient{status: once[*sigilv1.GetStatusResponse]{asked: true, value: &sigilv1.GetStatusResponse{ClockAlarm: &alarm}}}
	all := map[string]string{"clock": checkClock(p).Verdict}
	wantVerdict(t, all, "clock", "fail")
}

func wantVerdict(t testing.TB, all map[string]string, id, verdict string) {
	t.Helper()
	if all[id] != verdict {
		t.Errorf("%s: %q, want %s", id, all[id], verdict)
	}
}
