package config

import (
	"errors"
	"fmt"
	"net"
	"strings"
)

// LinkPath is read by `sigild link` when no --config is given.
const LinkPath = "/etc/sigild/link.yaml"

// Link configures `sigild link`; packaging/link.yaml is the example.
type Link struct {
	// Accept takes connections from the network to a socket of this host.
	Accept []Relayed `yaml:"accept"`
	// Connect takes connections on a socket of this host to another host.
	Connect []Relayed `yaml:"connect"`
}

// Relayed is one way: of Accept from host:port to a path, of Connect from a path to host:port.
type Relayed struct {
	Listen string `yaml:"listen"`
	To     string `yaml:"to"`
}

// LoadLink reads and checks the file.
func LoadLink(path string) (Link, error) {
	var l Link
	if err := loadOne(path, &l); err != nil {
		return Link{}, err
	}
	if err := l.check(); err != nil {
		return Link{}, fmt.Errorf("reading config %s: %w", path, err)
	}
	return l, nil
}

func (l Link) check() error {
	if len(l.Accept)+len(l.Connect) == 0 {
		return errors.New("neither accept nor connect has an entry")
	}
	address := func(a string) error {
		_, port, err := net.SplitHostPort(a)
		if err != nil || port == "" || strings.ContainsAny(a, " \t\n") {
			return fmt.Errorf("%q is not host:port", a)
		}
		return nil
	}
	for _, r := range l.Accept {
		if err := errors.Join(address(r.Listen), checkPath("accept: to", r.To)); err != nil {
			return err
		}
	}
	for _, r := range l.Connect {
		if err := errors.Join(checkPath("connect: listen", r.Listen), address(r.To)); err != nil {
			return err
		}
		if len(r.Listen) > 107 {
			return fmt.Errorf("connect: %s is too long for a socket, at most 107 bytes", r.Listen)
		}
	}
	return nil
}
