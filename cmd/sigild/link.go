package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/systemd"
)

// `sigild link` is the relay of a unit of its own: it has a network, and neither keys
// nor the store. docs/operating.md says how it is set up.

// runLink opens all listeners first, so that a mistake leaves nothing half open.
func runLink(ctx context.Context, path string, log *slog.Logger) error {
	c, err := config.LoadLink(path)
	if err != nil {
		return err
	}
	var relays []*link.Relay
	open := func(network, listen, toNetwork, to string) error {
		if network == "unix" {
			if err := os.Remove(listen); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err // of the link that was here before
			}
		}
		l, err := net.Listen(network, listen)
		if err != nil {
			return err
		}
		relays = append(relays, &link.Relay{Listener: l, Network: toNetwork, Address: to, Log: log})
		if network == "unix" {
			return os.Chmod(listen, 0o660)
		}
		return nil
	}
	for _, r := range c.Accept {
		err = errors.Join(err, open("tcp", r.Listen, "unix", r.To))
	}
	for _, r := range c.Connect {
		err = errors.Join(err, open("unix", r.Listen, "tcp", r.To))
	}
	if err != nil {
		for _, r := range relays {
			r.Listener.Close()
		}
		return fmt.Errorf("opening the link: %w", err)
	}
	tasks, ctx := errgroup.WithContext(ctx)
	for _, r := range relays {
		log.Info("relaying", "from", r.Listener.Addr().String(), "to", r.Address)
		tasks.Go(func() error { return r.Serve(ctx) })
	}
	if err := systemd.Ready(fmt.Sprintf("relaying %d ways", len(relays))); err != nil {
		log.Warn("telling systemd", "error", err)
	}
	return tasks.Wait()
}
