package delegation

import (
	"context"
	"fmt"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A device is a program of the user's, wherever it runs, that plays the user's party
// of keys made with it: the user's share never is on this host. It is known by the pin
// of its key (package link), which the server sees in every handshake with it. The
// user's stamp registers it, so whoever has its key but not the user's credential has
// nothing; and whoever has the credential but not the device signs nothing with it.

// deviceRecord is a record of type vault.TypeDevice.
type deviceRecord struct {
	V            int       `json:"v"`
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	User         string    `json:"user"`
	Name         string    `json:"name"`
	Pin          string    `json:"pin"`
	CreatedAt    time.Time `json:"created_at"`
	// Removed ends it: it is let in no more.
	Removed bool `json:"removed,omitempty"`
}

// NewDevice asks to register one.
type NewDevice struct {
	RequestID    string
	Organization string
	User         string
	Name         string
	// Pin is the pin of its key, of the right form.
	Pin string
}

// DeviceRegistered answers RegisterDevice.
type DeviceRegistered struct {
	DeviceID string `json:"device_id"`
}

// RegisterDevice lets a device of an end user in, under that user's stamp. Durable on return.
func (s *Service) RegisterDevice(ctx context.Context, a Actor, n NewDevice) (DeviceRegistered, error) {
	if err := checkName("name", n.Name); err != nil {
		return DeviceRegistered{}, err
	}
	return act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.owner(a, n.Organization, n.User) }, func(tx *vault.Tx, e *journal.Entry) (DeviceRegistered, error) {
		if s.book.deviceOf(n.Pin) != nil {
			return DeviceRegistered{}, refusal.New(refusal.RequestInvalid, "a device with this key is registered").With("field", "pin")
		}
		d := &deviceRecord{V: recordVersion, ID: newID("dev"), Organization: n.Organization, User: n.User, Name: n.Name, Pin: n.Pin, CreatedAt: s.now().UTC()}
		e.User, e.Facts = n.User, map[string]string{"device": d.ID, "pin": d.Pin, "name": d.Name}
		return DeviceRegistered{d.ID}, s.putDevice(tx, d)
	})
}

// DeviceRemoved answers RemoveDevice.
type DeviceRemoved struct{}

// RemoveDevice lets a device in no more, under its user's stamp or the root quorum. The
// share in it is not destroyed by that: rotate the key, if it can be without the device.
// Durable on return: a ceremony that it takes part in comes to nothing and waits, and a
// signature ends at the next look. The server cuts its connections then.
func (s *Service) RemoveDevice(ctx context.Context, a Actor, requestID, org, id string) error {
	authorize := func() error {
		if _, err := s.inside(a, org); err != nil {
			return err
		}
		d, err := s.book.device(org, id)
		if err != nil {
			return err
		}
		if s.owner(a, org, d.User) == nil {
			return nil
		}
		return s.root(a, org)
	}
	_, err := act(ctx, s, a, org, requestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DeviceRemoved, error) {
		d, err := s.book.device(org, id)
		if err != nil {
			return DeviceRemoved{}, err
		}
		removed := *d
		removed.Removed = true
		tx.Advance() // no older copy of the store lets it in again
		e.User, e.Facts = d.User, map[string]string{"device": d.ID}
		return DeviceRemoved{}, s.putDevice(tx, &removed)
	})
	return err
}

func (s *Service) putDevice(tx *vault.Tx, d *deviceRecord) error {
	s.book.change(tx, func() { s.book.devices[d.ID] = d })
	return store(tx, vault.TypeDevice, d.ID, d)
}

// PartyOf is whose pinned key this is: a registered device's id, or "peer/" and the
// name of a configured peer; "" for nobody's, which the server lets in nowhere.
func (s *Service) PartyOf(pin string) string {
	if d := s.book.deviceOf(pin); d != nil && !d.Removed {
		return d.ID
	}
	for name, p := range s.cfg.Peers {
		if p == pin {
			return peerPrefix + name
		}
	}
	return ""
}

// peerPrefix begins the party ids of configured peers.
const peerPrefix = "peer/"

// deviceOf finds a device by its pin, removed or not.
func (b *book) deviceOf(pin string) *deviceRecord {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, d := range b.devices {
		if d.Pin == pin {
			return d
		}
	}
	return nil
}

func (b *book) device(org, id string) (*deviceRecord, error) {
	d := find(b, b.devices, id)
	if d == nil || d.Organization != org {
		return nil, refusal.New(refusal.NotFound, "no such device")
	}
	return d, nil
}

// liveDevice finds a device that is let in.
func (b *book) liveDevice(id string) (*deviceRecord, error) {
	d := find(b, b.devices, id)
	if d == nil || d.Removed {
		return nil, refusal.New(refusal.NotFound, "no such device")
	}
	return d, nil
}

// peerKeyPurpose names the key by which this appliance is known to devices and peers.
const peerKeyPurpose = "peer identity v1"

// PeerKey lends the seed of the Ed25519 key by which this appliance is known to devices
// and peers, 32 bytes, and wipes it. It is the same for the life of the store.
func PeerKey(v *vault.Vault, use func(seed []byte) error) error {
	if err := v.Derive(peerKeyPurpose, use); err != nil {
		return fmt.Errorf("deriving the peer key: %w", err)
	}
	return nil
}

// PeerKey is [PeerKey] of this service's vault.
func (s *Service) PeerKey(use func(seed []byte) error) error { return PeerKey(s.vault, use) }
