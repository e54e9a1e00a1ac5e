package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/sigild/sigild/link"
	"github.com/sigild/sigild/systemd"
)

// `sigild link` is the relay of a unit of its own: it has a network, and neither keys
// nor the store. docs/operating.md says how it is set up.

// defaultLinkPath is read when no --config is given.
const defaultLinkPath = "/etc/sigild/link.yaml"

// linkConfig is one whole file.
type linkConfig struct {
	// Accept takes connections from the network to a socket of this host.
	Accept []relayed `yaml:"accept"`
	// Connect takes connections on a socket of this host to another host.
	Connect []relayed `yaml:"connect"`
}

// relayed is one way: of Accept from host:port to a path, of Connect from a path to host:port.
type relayed struct {
	Listen string `yaml:"listen"`
	To     string `yaml:"to"`
}

func parseLink(b []byte) (linkConfig, error) {
	var c linkConfig
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return linkConfig{}, err
	}
	if len(c.Accept)+len(c.Connect) == 0 {
		return linkConfig{}, errors.New("neither accept nor connect has an entry")
	}
	path := func(p string) error {
		if !filepath.IsAbs(p) || len(p) > 107 {
			return fmt.Errorf("%q is not the absolute path of a socket", p)
		}
		return nil
	}
	address := func(a string) error {
		_, port, err := net.SplitHostPort(a)
		if err != nil || port == "" || strings.ContainsAny(a, " \t\n") {
			return fmt.Errorf("%q is not host:port", a)
		}
		return nil
	}
	for _, r := range c.Accept {
		if err := errors.Join(address(r.Listen), path(r.To)); err != nil {
			return linkConfig{}, fmt.Errorf("accept: %w", err)
		}
	}
	for _, r := range c.Connect {
		if err := errors.Join(path(r.Listen), address(r.To)); err != nil {
			return linkConfig{}, fmt.Errorf("connect: %w", err)
		}
	}
	return c, nil
}

// runLink opens all listeners first, so that a mistake leaves nothing half open.
func runLink(ctx context.Context, path string, log *slog.Logger) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the link's configuration: %w", err)
	}
	c, err := parseLink(text)
	if err != nil {
		return fmt.Errorf("reading the link's configuration %s: %w", path, err)
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
