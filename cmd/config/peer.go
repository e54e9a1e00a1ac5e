package config

import (
	"errors"
	"fmt"

	"github.com/sigild/sigild/link"
)

// Peer is the door of devices and other appliances, and which appliances there are.
type Peer struct {
	// Socket is the door; without a path there is none.
	Socket Socket `yaml:"socket"`
	// SemiTrusted lets a party outside this host take part in ECDSA.
	SemiTrusted bool `yaml:"semi_trusted"`
	// Appliances may call, and are called for wallets that they co-sign.
	Appliances []Appliance `yaml:"appliances"`
}

// Appliance is another sigild.
type Appliance struct {
	// Name is ours for it; acts name it so.
	Name string `yaml:"name"`
	// Pin names its key: "sha256:" and 64 hexadecimal digits.
	Pin string `yaml:"pin"`
	// Socket is where it is called: its own peer.sock, or one of sigild link. "" for one
	// that only calls us.
	Socket string `yaml:"socket"`
}

func (p Peer) check() error {
	if p.Socket.Path != "" {
		if err := checkPath("peer.socket.path", p.Socket.Path); err != nil {
			return err
		}
		if _, err := p.Socket.FileMode(); err != nil {
			return fmt.Errorf("peer.socket.mode: %w", err)
		}
	}
	names, pins := map[string]bool{}, map[string]bool{}
	for _, a := range p.Appliances {
		if a.Name == "" || len(a.Name) > 64 || !plain(a.Name) {
			return fmt.Errorf("peer.appliances: name %.70q, want 1 to 64 of a-z, 0-9 and -", a.Name)
		}
		if _, err := link.ParsePin(a.Pin); err != nil {
			return fmt.Errorf("peer.appliances: %s: %w", a.Name, err)
		}
		if names[a.Name] || pins[a.Pin] {
			return fmt.Errorf("peer.appliances: %s: its name or its pin is there twice", a.Name)
		}
		names[a.Name], pins[a.Pin] = true, true
		if a.Socket != "" {
			if err := checkPath("peer.appliances: socket of "+a.Name, a.Socket); err != nil {
				return err
			}
		}
	}
	if len(p.Appliances) > 64 {
		return errors.New("peer.appliances: more than 64")
	}
	return nil
}

func plain(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// Pins are the pins of the appliances by name.
func (p Peer) Pins() map[string]string {
	pins := map[string]string{}
	for _, a := range p.Appliances {
		pins[a.Name] = a.Pin
	}
	return pins
}
