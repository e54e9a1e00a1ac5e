package systemd

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Watchdog tells the service manager, twice in every WatchdogSec=, that we are
// alive, as long as alive says so, and returns when ctx ends. alive must answer
// within half the interval, when its context ends; one that fails or never
// returns is a ping that isn't sent, and after the whole interval without one the
// manager kills us. alive says itself why. Without a watchdog in the unit it
// returns at once. The error is of the environment, or of the last ping if that
// could not be sent.
func Watchdog(ctx context.Context, alive func(context.Context) error) error {
	interval, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return fmt.Errorf("reading the watchdog's interval: %w", err)
	}
	if interval == 0 {
		return nil
	}
	every := time.NewTicker(interval / 2)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return err
		case <-every.C:
		}
		if answers(ctx, interval/2, alive) {
			err = notify(daemon.SdNotifyWatchdog) // the next one is the retry
		}
	}
}

func answers(ctx context.Context, within time.Duration, alive func(context.Context) error) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return alive(ctx) == nil
}
