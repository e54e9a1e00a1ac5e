package delegation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/clock"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// ClockConfirmation is the operators' word that the host's clock is right.
type ClockConfirmation struct {
	RequestID string
	// BootID is the boot it is for, Time what the operators know from elsewhere.
	BootID string
	Time   time.Time
}

// ClockConfirmed answers ConfirmClock.
type ClockConfirmed struct {
	At time.Time `json:"at"`
}

// ConfirmClock lets time go by the wall clock again, under the operators' quorum.
// Durable on return.
func (s *Service) ConfirmClock(ctx context.Context, a Actor, n ClockConfirmation) (ClockConfirmed, error) {
	return act(ctx, s, a, "", n.RequestID, func() error { return s.operators(a) }, func(tx *vault.Tx, e *journal.Entry) (ClockConfirmed, error) {
		if s.cfg.Clock == nil {
			return ClockConfirmed{}, errors.New("confirming the clock: there is none")
		}
		anchor, err := s.cfg.Clock.Confirmed(n.Time, n.BootID)
		if err != nil {
			return ClockConfirmed{}, refusal.New(refusal.ClockUnconfirmed, "%v", err)
		}
		if err := clock.Keep(tx, anchor); err != nil {
			return ClockConfirmed{}, err
		}
		tx.Advance() // an older copy of the store must not take another boot's time for confirmed
		tx.OnCommit(func() { s.cfg.Clock.Confirm(anchor) })
		at := time.UnixMilli(anchor.WallMS).UTC()
		e.Facts = map[string]string{"boot_id": anchor.BootID, "wall_ms": fmt.Sprint(anchor.WallMS)}
		return ClockConfirmed{At: at}, nil
	})
}

// Clock is the appliance's; zero without one.
func (s *Service) Clock() clock.State {
	if s.cfg.Clock == nil {
		return clock.State{}
	}
	return s.cfg.Clock.State()
}
