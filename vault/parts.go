package vault

// Devices' parts of a record's key. A record may name devices without which it does
// not open, whatever opened the store: of its DEK each has a random part, sealed in
// the envelope, and is asked for it every time the record is used. So a device that
// is switched off ends the use of its records at once; and when the shares of two
// parties need different devices, who has one device and the disk has one share.
//
//	parts  length u16 of what follows | count u8 | parts, in the order in which they are joined
//	part   provider len u16, text | key ref len u16, text | blob len u16, blob
//
// The device seals 32 bytes under AAD = infoPart | number of the part u8 | core. The
// section is under no MAC of its own: a part that is another gives another DEK, which
// the envelope's commitment refuses.

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/sigild/sigild/seal"
)

const (
	dekPartLen  = 32
	maxParts    = 4
	maxPartBlob = 2 << 10
	maxPartsLen = 1 + maxParts*(3*2+2*maxSlotText+maxPartBlob)
	infoPart    = "sigild/vault/envelope/part/v1"
)

// PartRule says which records need devices' parts.
type PartRule struct {
	// Text is the whole rule in words, the same for the same rule. When it is another
	// than the store was last brought to, records are sealed anew ([Vault.ResealParts]).
	Text string
	// Types are those that Devices has an answer for.
	Types []Type
	// Devices are the ids of the devices that a record needs, at most four; none is the
	// rule. They are joined in this order.
	Devices func(t Type, id string) []string
}

// UseParts sets the rule for what is written from now on; before that no record gets
// parts. What is there stays as it is until ResealParts.
func (v *Vault) UseParts(r PartRule) { v.partRule.Store(&r) }

// devicesFor are the devices that a record shall need.
func (v *Vault) devicesFor(t Type, id string) []string {
	r := v.partRule.Load()
	if r == nil || !slices.Contains(r.Types, t) {
		return nil
	}
	return r.Devices(t, id)
}

// devicePart is one device's part, as an envelope holds it.
type devicePart struct {
	provider string
	ref      seal.KeyRef
	blob     []byte
}

// newParts are those of an envelope that is being made.
type newParts struct {
	section []byte
	secret  []byte // dekPartLen each; lent by withParts
}

func (p *newParts) size() int {
	if p == nil {
		return 0
	}
	return len(p.section)
}

func partAAD(number int, core []byte) []byte {
	aad := make([]byte, 0, len(infoPart)+1+len(core))
	return append(append(append(aad, infoPart...), byte(number)), core...)
}

func encodeParts(parts []devicePart) []byte {
	b := []byte{0, 0, byte(len(parts))}
	for _, p := range parts {
		for _, field := range [][]byte{[]byte(p.provider), []byte(p.ref), p.blob} {
			b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
			b = append(b, field...)
		}
	}
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	return b
}

// parseParts reads the strict form at the beginning of b and gives what follows it.
func parseParts(b []byte) (parts []devicePart, rest []byte, err error) {
	bad := func(what string) ([]devicePart, []byte, error) {
		return nil, nil, fmt.Errorf("%w: devices' parts %s", ErrTampered, what)
	}
	if len(b) < 2+1 {
		return bad("are cut off")
	}
	n := int(binary.BigEndian.Uint16(b))
	if n < 1 || n > maxPartsLen || n > len(b)-2 {
		return bad("have a length that doesn't fit")
	}
	b, rest = b[2:2+n], b[2+n:]
	count := int(b[0])
	if b = b[1:]; count < 1 || count > maxParts {
		return bad(fmt.Sprintf("are %d", count))
	}
	field := func(most int) []byte {
		if len(b) < 2 {
			return nil
		}
		n := int(binary.BigEndian.Uint16(b))
		if n == 0 || n > most || n > len(b)-2 {
			return nil
		}
		f := b[2 : 2+n]
		b = b[2+n:]
		return f
	}
	for range count {
		provider, ref, blob := field(maxSlotText), field(maxSlotText), field(maxPartBlob)
		if provider == nil || ref == nil || blob == nil {
			return bad("are cut off")
		}
		parts = append(parts, devicePart{string(provider), seal.KeyRef(ref), blob})
	}
	if len(b) != 0 {
		return bad("are followed by something")
	}
	return parts, rest, nil
}

// makeParts has each device seal a fresh part for the envelope that m will be of, and
// asks it to open it again. It lends what sealEnvelope takes; nil without devices.
func (u *unsealed) makeParts(ctx context.Context, m recordMeta, devices []string, refs map[string]seal.KeyRef, use func(*newParts) error) error {
	if len(devices) == 0 {
		return use(nil)
	}
	if len(devices) > maxParts {
		return fmt.Errorf("sealing the parts of %d devices: at most %d", len(devices), maxParts)
	}
	m.StoreID = u.keys.storeID
	core := m.encodeCore(true)
	secret := make([]byte, dekPartLen*len(devices))
	defer clear(secret)
	rand.Read(secret)
	parts := make([]devicePart, len(devices))
	for i, id := range devices {
		var err error
		if parts[i], err = u.makePart(ctx, id, refs[id], secret[dekPartLen*i:dekPartLen*(i+1)], partAAD(i, core)); err != nil {
			return err
		}
	}
	return use(&newParts{section: encodeParts(parts), secret: secret})
}

func (u *unsealed) makePart(ctx context.Context, id string, ref seal.KeyRef, part, aad []byte) (p devicePart, err error) {
	d, err := u.device(id)
	if err != nil {
		return p, err
	}
	if ref == "" {
		return p, fmt.Errorf("sealing a part with %s: %w: no key was made in it for that", id, seal.ErrNotFound)
	}
	p = devicePart{provider: id, ref: ref}
	if p.blob, err = d.Seal(ctx, ref, part, aad); err != nil {
		return p, fmt.Errorf("sealing a part with %s: %w", id, err)
	}
	if len(p.blob) == 0 || len(p.blob) > maxPartBlob {
		return p, fmt.Errorf("sealing a part with %s: blob of %d bytes, want 1 to %d", id, len(p.blob), maxPartBlob)
	}
	err = d.Unseal(ctx, ref, p.blob, aad, func(again []byte) error {
		if !bytes.Equal(again, part) {
			return errors.New("the device gives back other bytes")
		}
		return nil
	})
	if err != nil {
		return p, fmt.Errorf("opening a new part with %s: %w", id, err)
	}
	return p, nil
}

// withParts asks the devices that env names for their parts, and lends them; nil for
// an envelope without. Errors: [seal.ErrUnavailable] for a device that is not here,
// [ErrTampered], those of the devices.
func (u *unsealed) withParts(ctx context.Context, env []byte, use func(parts []byte) error) error {
	if !hasParts(env) {
		return use(nil)
	}
	e, err := parseEnvelope(env)
	if err != nil {
		return err
	}
	secret := make([]byte, dekPartLen*len(e.parts))
	defer clear(secret)
	for i, p := range e.parts {
		d, err := u.device(p.provider)
		if err != nil {
			return err
		}
		err = d.Unseal(ctx, p.ref, p.blob, partAAD(i, e.core), func(part []byte) error {
			if len(part) != dekPartLen {
				return fmt.Errorf("%w: part of %d bytes", ErrTampered, len(part))
			}
			copy(secret[dekPartLen*i:], part)
			return nil
		})
		if errors.Is(err, seal.ErrTampered) {
			return fmt.Errorf("%w: the part of %s: %w", ErrTampered, p.provider, err)
		}
		if err != nil {
			return fmt.Errorf("asking %s for its part: %w", p.provider, err)
		}
	}
	return use(secret)
}

// hasParts reads the flag, without any check.
func hasParts(env []byte) bool {
	return len(env) > 8 && binary.BigEndian.Uint16(env[6:])&flagParts != 0
}

// Parts lists the devices without which the record doesn't open, whatever opened the
// store; none is the rule. No device is asked. Errors: as [Vault.With].
func (v *Vault) Parts(t Type, id string) ([]string, error) {
	u := v.open.Load()
	if u == nil {
		return nil, ErrSealed
	}
	if err := checkID(t, id); err != nil {
		return nil, err
	}
	k, err := u.keys.recordKey(t, id)
	if err != nil {
		return nil, err
	}
	_, env, err := v.fetch(u, k)
	if err != nil {
		return nil, fmt.Errorf("reading %s %q: %w", t, id, err)
	}
	e, err := parseEnvelope(env)
	if err != nil {
		return nil, fmt.Errorf("reading %s %q: %w", t, id, err)
	}
	return e.providers(), nil
}

// providers are the devices whose parts the envelope needs.
func (e *envelope) providers() (ids []string) {
	for _, p := range e.parts {
		ids = append(ids, p.provider)
	}
	return ids
}

// eachWhole calls use for every record of a type that is what was written: it opens, or,
// where it needs a device that is not here, its envelope is the one that the head lists.
func (v *Vault) eachWhole(ctx context.Context, t Type, use func()) error {
	u := v.open.Load()
	if u == nil {
		return ErrSealed
	}
	all, _ := u.tree.ofTypes(t)
	for _, listed := range all {
		l, env, err := v.fetch(u, listed.key)
		if err == nil {
			err = openRecord(ctx, u, l, env, "", func(string, []byte) error { return nil })
		}
		if err != nil && !errors.Is(err, seal.ErrUnavailable) {
			return fmt.Errorf("reading a %s: %w", t, err)
		}
		use()
	}
	return nil
}

// device is one of those given to Unseal, or connected since.
func (u *unsealed) device(id string) (seal.Sealer, error) {
	if d := u.devices()[id]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("%w: %s is not here", seal.ErrUnavailable, id)
}

func (u *unsealed) devices() map[string]seal.Sealer { return *u.here.Load() }

// Connect adds a device that was not there when the store was unsealed. It is kept
// until Seal.
func (v *Vault) Connect(id string, d seal.Sealer) error {
	return v.submit(context.Background(), &job{internal: func() error {
		u := v.open.Load()
		if u == nil {
			return ErrSealed
		}
		more := maps.Clone(u.devices())
		more[id] = d
		u.here.Store(&more)
		return nil
	}})
}
