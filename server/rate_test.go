package server

import (
	"errors"
	"testing"
	"time"

	"github.com/sigild/sigild/refusal"
)

func TestOneUidCallsOnlySoFast(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	b := newBuckets(Limits{CallsPerSecond: 10, CallBurst: 3}, func() time.Time { return now })
	for i := range 3 {
		if err := b.take(7); err != nil {
			t.Fatalf("call %d of the burst: %v", i, err)
		}
	}
	err := b.take(7)
	var no *refusal.Error
	if !errors.As(err, &no) || no.Reason != refusal.RateLimited || no.After != 100*time.Millisecond {
		t.Fatalf("the call after the burst: %v", err)
	}
	if err := b.take(8); err != nil {
		t.Errorf("another uid: %v", err)
	}
	now = now.Add(no.After)
	if err := b.take(7); err != nil {
		t.Errorf("after the time that was told: %v", err)
	}
	if err := b.take(7); err == nil {
		t.Error("two calls in the time of one")
	}
}

func TestAFloodIsRefusedWithRetryInfo(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.CallsPerSecond, c.Limits.CallBurst = 0.001, 1 })
	if _, err := dial(t, h.app).Status().GetStatus(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	_, err := dial(t, h.app).Status().GetStatus(t.Context(), nil)
	wantReason(t, "the second call", err, "RATE_LIMITED")
}
