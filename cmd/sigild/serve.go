package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/server"
	"github.com/sigild/sigild/systemd"
	"github.com/sigild/sigild/vault"
)

// serve opens the store, still sealed, opens the sockets, and runs until ctx
// ends: one task answers calls, the other unseals and, at the end, closes.
func serve(ctx context.Context, cfg config.Config, log *slog.Logger) (err error) {
	pin, err := readPin(cfg.PinFile)
	if err != nil {
		return err
	}
	v, err := vault.Open(ctx, vault.Config{Dir: cfg.StateDir, Log: log}, pin)
	if err != nil {
		return fmt.Errorf("opening the store: %w", err)
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	appliance := server.NewAppliance(version)
	refusals := journal.NewRefusals(nil)
	doors, err := endpoints(cfg)
	if err != nil {
		return err
	}
	s, err := server.New(server.Config{App: doors.app, Admin: doors.admin, Roles: roles(cfg.Roles), Refusals: refusals, Log: log}, appliance, appliance.Services())
	if err != nil {
		return err
	}
	var peers *server.PeerDoor
	if doors.peer.Path != "" {
		if peers, err = server.NewPeerDoor(doors.peer, appliance, server.Limits{}, log); err != nil {
			s.Close()
			return err
		}
	}
	// The first try comes before READY, so that a start that can unseal is ready unsealed.
	k := &keeper{cfg: cfg, log: log, vault: v, appliance: appliance, refusals: refusals}
	k.try(ctx)
	state := k.status()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { return s.Serve(ctx) })
	if peers != nil {
		tasks.Go(func() error { return peers.Serve(ctx) })
	}
	tasks.Go(func() error { return k.watch(ctx) })
	tasks.Go(func() error { return k.reloadAtHangup(ctx) })
	tasks.Go(func() error { return k.dropAtCopy(ctx) })
	tasks.Go(func() error { return k.dropAtFork(ctx) })
	pulse := pulse{log: log, status: appliance.Services().Status, doors: []server.Endpoint{doors.app, doors.admin}}
	tasks.Go(func() error { pulse.beat(ctx); return nil })
	gauges := &gauges{cfg: cfg, keeper: k, server: s, status: appliance.Services().Status, began: time.Now()}
	if err := gauges.run(ctx, tasks.Go, doors.metrics, log); err != nil {
		stop()
		return errors.Join(err, tasks.Wait(), k.close())
	}
	if err := systemd.Ready(state); err != nil {
		log.Warn("telling systemd", "error", err)
	}
	log.Info("serving", "app", cfg.Sockets.App.Path, "admin", cfg.Sockets.Admin.Path, "state", state)
	<-ctx.Done()
	if err := systemd.Stopping(); err != nil {
		log.Warn("telling systemd", "error", err)
	}
	log.Info("stopping")
	err = tasks.Wait() // no handler runs after this
	return errors.Join(err, k.close())
}

func readPin(path string) (vault.Pin, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return vault.Pin{}, fmt.Errorf("reading the pin: %s does not exist; hint: run sigilctl init", path)
	}
	if err != nil {
		return vault.Pin{}, fmt.Errorf("reading the pin: %w", err)
	}
	pin, err := vault.ParsePin(b)
	if err != nil {
		return vault.Pin{}, fmt.Errorf("reading the pin %s: %w", path, err)
	}
	return pin, nil
}

// doors are where the sockets are: systemd's, or those we make.
type doors struct{ app, admin, metrics, peer server.Endpoint }

func endpoints(cfg config.Config) (d doors, err error) {
	for _, x := range []struct {
		at *server.Endpoint
		of config.Socket
	}{{&d.app, cfg.Sockets.App}, {&d.admin, cfg.Sockets.Admin}, {&d.metrics, cfg.Metrics.Socket}, {&d.peer, cfg.Peer.Socket}} {
		if *x.at, err = endpoint(x.of); err != nil {
			return d, err
		}
	}
	from, err := systemd.Listeners()
	if err != nil || from.App == nil {
		return d, err
	}
	d.app.Listener, d.admin.Listener, d.metrics.Listener, d.peer.Listener = from.App, from.Admin, from.Metrics, from.Peer
	for _, e := range []server.Endpoint{d.app, d.admin, d.metrics, d.peer} {
		if e.Listener == nil {
			continue
		}
		if got := e.Listener.Addr().String(); got != e.Path {
			err = errors.Join(err, fmt.Errorf("systemd listens on %s where the configuration says %s; hint: change ListenStream= or path", got, e.Path))
		}
	}
	if err != nil {
		for _, e := range []server.Endpoint{d.app, d.admin, d.metrics, d.peer} {
			if e.Listener != nil {
				err = errors.Join(err, e.Listener.Close())
			}
		}
	}
	return d, err
}

func endpoint(s config.Socket) (server.Endpoint, error) {
	mode, err := s.FileMode()
	if err != nil {
		return server.Endpoint{}, err
	}
	return server.Endpoint{Path: s.Path, Mode: mode, Group: s.Group}, nil
}

func roles(r config.Roles) server.Roles {
	holders := func(x config.Role) server.Holders { return server.Holders{UIDs: x.UIDs, GIDs: x.GIDs} }
	return server.Roles{App: holders(r.App), Operator: holders(r.Operator), Auditor: holders(r.Auditor), Courier: holders(r.Courier)}
}
