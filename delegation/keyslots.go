package delegation

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// What opens the store is the operators' business: their quorum adds and removes
// keyslots and brings in new keys. The vault does it; here is who may, and the
// journal's entry in the same transaction.

// Keyslots lists what opens the store, on any operator's stamp.
func (s *Service) Keyslots(a Actor) ([]vault.SlotInfo, vault.Info, error) {
	if err := s.anyOperator(a); err != nil {
		return nil, vault.Info{}, err
	}
	return s.vault.Slots(), s.vault.Info(), nil
}

// VerifyKeyslots asks the devices of a group to open it, on any operator's stamp.
func (s *Service) VerifyKeyslots(ctx context.Context, a Actor, group uint32) error {
	if err := s.anyOperator(a); err != nil {
		return err
	}
	return keyslotRefusal(s.vault.VerifyGroup(ctx, group))
}

func (s *Service) anyOperator(a Actor) error {
	if a.Organization != "" || matching(s.book.appliance().Operators, a, s.clock()) == 0 {
		return quorumMissing("operators", 0, 1)
	}
	return nil
}

// NewCustodians asks for a recovery group.
type NewCustodians struct {
	RequestID  string
	Needed     int
	Recipients []string // age X25519
}

// KeyslotsAdded answers AddCustodians.
type KeyslotsAdded struct {
	Group uint32 `json:"group"`
}

// AddCustodians adds a recovery group under the operators' quorum. Durable on return.
func (s *Service) AddCustodians(ctx context.Context, a Actor, n NewCustodians) (KeyslotsAdded, error) {
	people, err := vault.NewCustodians(n.Needed, n.Recipients)
	if err != nil {
		return KeyslotsAdded{}, refusal.New(refusal.RequestInvalid, "the custodians are not well named: %v", err).With("field", "recipients")
	}
	if err := s.operators(a); err != nil { // before any work
		return KeyslotsAdded{}, err
	}
	group, err := s.vault.PrepareGroup(ctx, people.Holder())
	if err != nil {
		return KeyslotsAdded{}, keyslotRefusal(err)
	}
	return act(ctx, s, a, "", n.RequestID, func() error { return s.operators(a) }, func(tx *vault.Tx, e *journal.Entry) (KeyslotsAdded, error) {
		e.Facts = map[string]string{"group": strconv.FormatUint(uint64(group.ID()), 10), "custodians": string(people.Holder().Ref)}
		return KeyslotsAdded{group.ID()}, keyslotRefusal(tx.AddGroup(group))
	})
}

// NewDevices asks for a group of devices.
type NewDevices struct {
	RequestID string
	Names     []string // in the configuration
}

// AddDevices adds a group of devices under the operators' quorum, after they have opened
// it once. Durable on return.
func (s *Service) AddDevices(ctx context.Context, a Actor, n NewDevices) (KeyslotsAdded, error) {
	if err := s.operators(a); err != nil { // before any work
		return KeyslotsAdded{}, err
	}
	names := slices.Clone(n.Names)
	slices.Sort(names)
	if len(names) == 0 || len(slices.Compact(names)) != len(n.Names) || s.cfg.Holders == nil {
		return KeyslotsAdded{}, refusal.New(refusal.RequestInvalid, "the devices of a group are named, each once").With("field", "devices")
	}
	holders, err := s.cfg.Holders(ctx, n.Names)
	if err != nil {
		return KeyslotsAdded{}, keyslotRefusal(err)
	}
	group, err := s.vault.PrepareGroup(ctx, holders...)
	if err != nil {
		return KeyslotsAdded{}, keyslotRefusal(err)
	}
	return act(ctx, s, a, "", n.RequestID, func() error { return s.operators(a) }, func(tx *vault.Tx, e *journal.Entry) (KeyslotsAdded, error) {
		var ids []string
		for _, h := range holders {
			ids = append(ids, h.ID)
		}
		e.Facts = map[string]string{"group": strconv.FormatUint(uint64(group.ID()), 10), "devices": strings.Join(ids, " ")}
		return KeyslotsAdded{group.ID()}, keyslotRefusal(tx.AddGroup(group))
	})
}

// KeyslotsChanged answers RemoveKeyslots and RotateKEK.
type KeyslotsChanged struct{}

// RemoveKeyslots removes a group under the operators' quorum. Durable on return.
func (s *Service) RemoveKeyslots(ctx context.Context, a Actor, requestID string, group uint32) error {
	_, err := act(ctx, s, a, "", requestID, func() error { return s.operators(a) }, func(tx *vault.Tx, e *journal.Entry) (KeyslotsChanged, error) {
		e.Facts = map[string]string{"group": strconv.FormatUint(uint64(group), 10)}
		return KeyslotsChanged{}, keyslotRefusal(tx.RemoveGroup(group))
	})
	return err
}

// RootKeyRotated answers RotateRootKey.
type RootKeyRotated struct {
	Generation uint32 `json:"generation"`
}

// RotateRootKey brings in a new root key under the operators' quorum. Durable on
// return; whoever runs the vault wraps the records anew (vault.Rewrap).
func (s *Service) RotateRootKey(ctx context.Context, a Actor, requestID string) (RootKeyRotated, error) {
	if err := s.operators(a); err != nil { // before any work
		return RootKeyRotated{}, err
	}
	root, failed := s.vault.PrepareRoot(ctx)
	if failed == nil {
		defer root.Discard()
	}
	return act(ctx, s, a, "", requestID, func() error { return s.operators(a) }, func(tx *vault.Tx, e *journal.Entry) (RootKeyRotated, error) {
		if failed != nil { // told here, so that a repeated call gets its stored answer while the rotation goes on
			return RootKeyRotated{}, keyslotRefusal(failed)
		}
		e.Facts = map[string]string{"root_key": strconv.FormatUint(uint64(root.Generation()), 10)}
		return RootKeyRotated{root.Generation()}, keyslotRefusal(tx.RotateRoot(root))
	})
}

// RotateKEK replaces the devices' sealing keys under the operators' quorum, those for
// shares' parts, too. Durable on return, and the old keys destroyed; when sealing shares
// anew fails, that is the error, and whoever runs the vault goes on with it
// (vault.ResealParts).
func (s *Service) RotateKEK(ctx context.Context, a Actor, requestID string) error {
	_, err := act(ctx, s, a, "", requestID, func() error { return s.operators(a) }, func(tx *vault.Tx, _ *journal.Entry) (KeyslotsChanged, error) {
		return KeyslotsChanged{}, keyslotRefusal(tx.RollKEK())
	})
	if err == nil {
		_, err = s.vault.ResealParts(ctx)
	}
	return keyslotRefusal(err)
}

// keyslotRefusal says to people what the vault refuses.
func keyslotRefusal(err error) error {
	for _, r := range []struct {
		is     error
		reason refusal.Reason
		text   string
	}{
		{vault.ErrRotating, refusal.NotActive, "a key is being replaced; that has to end first"},
		{vault.ErrKeyslotsMoved, refusal.NotActive, "keyslots changed meanwhile; ask again"},
		{vault.ErrLastKeyslot, refusal.RequestInvalid, "without this group no device would open the store"},
		{vault.ErrNoRoller, refusal.RequestInvalid, "no device of the keyslots can replace its sealing key"},
		{vault.ErrNoKeyslot, refusal.ProviderUnavailable, "a device that a keyslot needs is not here"},
		{vault.ErrNotFound, refusal.NotFound, "there is no such keyslot group"},
		{seal.ErrNotFound, refusal.RequestInvalid, "the configuration names no such device, or the device has lost its key"},
		{seal.ErrUnavailable, refusal.ProviderUnavailable, "the sealing device doesn't answer"},
	} {
		if errors.Is(err, r.is) {
			return refusal.New(r.reason, "%s", r.text).Because(err)
		}
	}
	return err
}
