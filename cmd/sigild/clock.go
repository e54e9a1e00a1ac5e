package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/sigild/sigild/clock"
	"github.com/sigild/sigild/vault"
)

// clockEvery is how often somebody looks at the clock who is not in need of it.
const clockEvery = 10 * time.Second

// openClock goes on from the anchor that the store keeps.
func openClock(ctx context.Context, v *vault.Vault) (*clock.Clock, clock.Anchor, error) {
	kept, err := clock.Kept(ctx, v)
	if err != nil {
		return nil, clock.Anchor{}, err
	}
	c := clock.New(clock.Host{}, kept)
	if kept == nil {
		kept = &clock.Anchor{}
	}
	return c, *kept, nil
}

// tendClock tells when the time stops or begins to be confirmed, and keeps the anchors
// that NTP makes, so that a restart within this boot needs nobody.
func tendClock(ctx context.Context, c *clock.Clock, kept clock.Anchor, v *vault.Vault, log *slog.Logger) {
	told := ""
	for {
		s := c.State()
		why := ""
		if s.Why != nil {
			why = s.Why.Error()
		}
		switch {
		case why != "" && told == "":
			log.ErrorContext(ctx, "the time is not relied on: windows do not end by it, rules about time are errors", "why", why, "wall", s.Wall.UTC(), "now", s.Now.UTC())
		case why == "" && told != "":
			log.InfoContext(ctx, "the time is confirmed", "by", s.Anchor.By, "wall", s.Wall.UTC())
		}
		told = why
		if s.Anchor.By == "ntp" && !s.Anchor.Near(kept) {
			err := v.Update(ctx, func(tx *vault.Tx) error { return clock.Keep(tx, s.Anchor) })
			switch {
			case err == nil:
				kept = s.Anchor
			case ctx.Err() == nil:
				log.WarnContext(ctx, "keeping the clock's anchor; after a restart it is asked for anew", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(clockEvery):
		}
	}
}
