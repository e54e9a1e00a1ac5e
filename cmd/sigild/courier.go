package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/courier"
	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/systemd"
)

// The two processes that have the network: `sigild receive` and `sigild deliver`.
// They hold no secret of the appliance, and reach the daemon by its applications'
// socket, in the role courier.

func receiveMain(args []string) error {
	path, err := courierFlags("receive", config.ReceivePath, args)
	if err != nil {
		return err
	}
	cfg, certificate, err := config.LoadReceive(path)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return err
	}
	return withDaemon(cfg.Daemon, func(ctx context.Context, c *client.Client, log *slog.Logger) error {
		log.Info("receiving", "address", l.Addr().String(), "tls", certificate != nil)
		r := &courier.Receiver{Deliveries: c.Deliveries(), Certificate: certificate, Log: log}
		return r.Serve(ctx, l)
	})
}

func deliverMain(args []string) error {
	path, err := courierFlags("deliver", config.DeliverPath, args)
	if err != nil {
		return err
	}
	cfg, roots, err := config.LoadDeliver(path)
	if err != nil {
		return err
	}
	return withDaemon(cfg.Daemon, func(ctx context.Context, c *client.Client, log *slog.Logger) error {
		d := &courier.Deliverer{Courier: c.Courier(), Roots: roots, PublicOnly: cfg.PublicOnly, Log: log}
		return d.Run(ctx)
	})
}

func courierFlags(verb, path string, args []string) (string, error) {
	flags := flag.NewFlagSet("sigild "+verb, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&path, "config", path, "configuration `file`")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return "", fmt.Errorf("usage: sigild %s [--config FILE]", verb)
	}
	if os.Geteuid() == 0 {
		return "", errors.New("refusing to run as root; hint: start it under systemd, or as a user of its own")
	}
	return path, nil
}

// withDaemon runs one of them until it is told to stop.
func withDaemon(socket string, run func(context.Context, *client.Client, *slog.Logger) error) error {
	if err := secmem.HardenProcess(); err != nil {
		return fmt.Errorf("hardening the process: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	c, err := client.Dial(socket)
	if err != nil {
		return err
	}
	defer c.Close()
	log := slog.New(systemd.Journal(slog.NewTextHandler(os.Stderr, nil)))
	if err := systemd.Ready("running"); err != nil {
		log.Warn("telling systemd", "error", err)
	}
	return run(ctx, c, log)
}
