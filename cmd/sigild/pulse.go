package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/server"
	"github.com/sigild/sigild/systemd"
)

// pulse is what the watchdog of systemd is told: that both doors are answered and
// that the rooms behind them can say their status, so that no lock is held for
// ever. It never asks the device: an HSM that is away is no reason to be killed.
type pulse struct {
	log    *slog.Logger
	status sigilv1.StatusServiceServer
	doors  []server.Endpoint
}

// beat runs until ctx ends.
func (p pulse) beat(ctx context.Context) {
	if err := systemd.Watchdog(ctx, p.check); err != nil {
		p.log.Warn("telling the watchdog", "error", err)
	}
}

// check says whether we are alive, and logs why not.
func (p pulse) check(ctx context.Context) error {
	var err error
	for _, d := range p.doors {
		err = errors.Join(err, knock(ctx, d.Path))
	}
	if _, e := p.status.GetStatus(ctx, &sigilv1.GetStatusRequest{}); e != nil {
		err = errors.Join(err, fmt.Errorf("asking ourselves for the status: %w", e))
	}
	if err != nil && ctx.Err() != context.Canceled {
		p.log.Error("not alive: the watchdog is not told", "error", err)
	}
	return err
}

// knock connects as anybody could and waits until the server speaks, as HTTP/2
// servers do first, or hangs up, as it does when it has connections enough. Either
// way somebody accepted. No call is made, so our own uid needs no role.
func knock(ctx context.Context, path string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("knocking: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetReadDeadline(deadline); err != nil {
			return fmt.Errorf("knocking: %w", err)
		}
	}
	// A cancelled context ends the read.
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	var first [1]byte
	var timeout net.Error
	if _, err := conn.Read(first[:]); errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("knocking: nobody answers on %s: %w", path, err)
	}
	return nil // a byte, an end, a reset: all of them by whoever accepted
}
