package vault

// Keyslots: how the root key is kept. Any one group opens it (OR); within a
// group every member is needed (AND). Each member's provider seals a random
// share of 32 bytes; the root key is wrapped under HKDF over all shares.
// Integers are big-endian.
//
//	group  "SGKG" | ver u8 | group u32 | generation u32 | store id 16 | members u16 | root-key commitment 32
//	       | created u64 | nonce 12 | wrapped root key 48                      AAD = all before the nonce
//	slot   "SGKS" | ver u8 | slot u32 | group u32 | generation u32 | scheme u8 | store id 16 | created u64
//	       | root-key commitment 32 | provider len u16, text | key ref len u16, text
//	       | blob len u32, blob                  AAD given to the provider = all before the blob's length
//
// Blobs of PKCS#11 or TPM devices aren't authenticated against being made anew
// by someone else; the signed generation statement and the pin are.

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/seal"
)

const (
	slotMagic        = "SGKS"
	groupMagic       = "SGKG"
	slotVersion      = 1
	groupVersion     = 1
	schemeSealer     = 1 // the share is sealed by a device
	schemeCustodians = 2 // the share is split among custodians (custodians.go)

	slotFixed   = 4 + 1 + 4 + 4 + 4 + 1 + 16 + 8 + 32
	groupHeader = 4 + 1 + 4 + 4 + 16 + 2 + 32 + 8
	groupLen    = groupHeader + nonceLen + 32 + tagLen
	maxSlotText = 255
	maxSlotBlob = 24 << 10
	infoGroup   = "sigild/vault/keyslot-group/v1"

	domainKeyslots = "sigild/vault/keyslots/v1"
	maxGroupSize   = 16
)

// KeyHolder is a provider's key that shall hold the root key, or a part of it.
type KeyHolder struct {
	Sealer seal.Sealer
	ID     string      // the provider's id, as seal.Provider.ID gives it; ≤ 255 bytes
	Ref    seal.KeyRef // the provider's key; ≤ 255 bytes
	// Group: holders with the same number are all needed; any one number is
	// enough. One holder of group 0 is the plain case.
	Group uint32
}

// SlotInfo describes one keyslot; nothing in it is secret.
type SlotInfo struct {
	ID         uint32
	Group      uint32 // all slots of one group are needed together
	Provider   string
	Ref        seal.KeyRef
	Generation uint32 // of the root key
	Created    time.Time
	// Custodians are the age recipients of a recovery group's keyslot.
	Custodians []string
}

type slot struct {
	info   SlotInfo
	scheme uint8
	store  [16]byte
	commit [32]byte
	header []byte // canonical, the provider's AAD
	blob   []byte
}

type slotGroup struct {
	id, generation uint32
	store          [16]byte
	members        uint16
	commit         [32]byte
	header         []byte // AAD of the wrap
	nonce, wrapped []byte
	slots          []slot // sorted by slot id
}

func (s *slot) encodeHeader() []byte {
	b := make([]byte, 0, slotFixed+4+len(s.info.Provider)+len(s.info.Ref))
	b = append(b, slotMagic...)
	b = append(b, slotVersion)
	b = binary.BigEndian.AppendUint32(b, s.info.ID)
	b = binary.BigEndian.AppendUint32(b, s.info.Group)
	b = binary.BigEndian.AppendUint32(b, s.info.Generation)
	b = append(b, s.scheme)
	b = append(b, s.store[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.info.Created.Unix()))
	b = append(b, s.commit[:]...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.info.Provider)))
	b = append(b, s.info.Provider...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.info.Ref)))
	return append(b, s.info.Ref...)
}

func (s *slot) encode() []byte {
	b := bytes.Clone(s.header)
	b = binary.BigEndian.AppendUint32(b, uint32(len(s.blob)))
	return append(b, s.blob...)
}

// parseSlot reads the strict form of one slot; the slot keeps parts of b.
func parseSlot(b []byte) (slot, error) {
	bad := func(what string) (slot, error) {
		return slot{}, fmt.Errorf("%w: keyslot %s", ErrTampered, what)
	}
	whole := b
	switch {
	case len(b) < slotFixed+4+4 || string(b[:4]) != slotMagic:
		return bad("has an unknown form")
	case b[4] != slotVersion:
		return bad(fmt.Sprintf("version %d is not known to this build", b[4]))
	case b[17] != schemeSealer && b[17] != schemeCustodians:
		return bad(fmt.Sprintf("scheme %d is not known to this build", b[17]))
	}
	var s slot
	s.info.ID = binary.BigEndian.Uint32(b[5:])
	s.info.Group = binary.BigEndian.Uint32(b[9:])
	s.info.Generation = binary.BigEndian.Uint32(b[13:])
	s.scheme = b[17]
	copy(s.store[:], b[18:])
	created := binary.BigEndian.Uint64(b[34:])
	if created > 1<<40 {
		return bad("has an impossible date")
	}
	s.info.Created = time.Unix(int64(created), 0).UTC()
	copy(s.commit[:], b[42:])
	b = b[slotFixed:]
	text := func() (string, bool) {
		if len(b) < 2 {
			return "", false
		}
		n := int(binary.BigEndian.Uint16(b))
		if n == 0 || n > maxSlotText || n > len(b)-2 {
			return "", false
		}
		t := string(b[2 : 2+n])
		b = b[2+n:]
		return t, true
	}
	provider, ok := text()
	ref, ok2 := text()
	if !ok || !ok2 || len(b) < 4 {
		return bad("is cut off")
	}
	s.info.Provider, s.info.Ref = provider, seal.KeyRef(ref)
	s.header = whole[:len(whole)-len(b)]
	n := binary.BigEndian.Uint32(b)
	if s.blob = b[4:]; uint64(n) != uint64(len(s.blob)) || n > maxSlotBlob {
		return bad("has a length that doesn't fit its bytes")
	}
	if s.scheme == schemeCustodians {
		g, err := parseCustodians(s.blob)
		if err != nil {
			return slot{}, err
		}
		for _, x := range g.custodians {
			s.info.Custodians = append(s.info.Custodians, x.recipient)
		}
	}
	return s, nil
}

func (g *slotGroup) encodeHeader() []byte {
	b := make([]byte, 0, groupLen)
	b = append(b, groupMagic...)
	b = append(b, groupVersion)
	b = binary.BigEndian.AppendUint32(b, g.id)
	b = binary.BigEndian.AppendUint32(b, g.generation)
	b = append(b, g.store[:]...)
	b = binary.BigEndian.AppendUint16(b, g.members)
	b = append(b, g.commit[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(g.created()))
}

// created of a group is that of its first slot.
func (g *slotGroup) created() int64 { return g.slots[0].info.Created.Unix() }

func (g *slotGroup) encode() []byte {
	return append(append(bytes.Clone(g.header), g.nonce...), g.wrapped...)
}

// parseGroup reads the strict form of one group; its slots come separately.
func parseGroup(b []byte) (slotGroup, error) {
	var g slotGroup
	if len(b) != groupLen || string(b[:4]) != groupMagic {
		return g, fmt.Errorf("%w: keyslot group has an unknown form", ErrTampered)
	}
	if b[4] != groupVersion {
		return g, fmt.Errorf("%w: keyslot group version %d is not known to this build", ErrTampered, b[4])
	}
	g.id = binary.BigEndian.Uint32(b[5:])
	g.generation = binary.BigEndian.Uint32(b[9:])
	copy(g.store[:], b[13:])
	g.members = binary.BigEndian.Uint16(b[29:])
	if g.members == 0 || g.members > maxGroupSize {
		return g, fmt.Errorf("%w: keyslot group of %d members", ErrTampered, g.members)
	}
	copy(g.commit[:], b[31:])
	g.header, b = b[:groupHeader], b[groupHeader:]
	g.nonce, g.wrapped = b[:nonceLen], b[nonceLen:]
	return g, nil
}

// sealGroup makes the slots and the wrap of one group: each holder's device
// seals a fresh share, and is asked to open it again before anything is kept.
func sealGroup(ctx context.Context, root []byte, g slotGroup, holders []KeyHolder) (slotGroup, error) {
	g.members = uint16(len(holders))
	shares, err := secmem.New(32 * len(holders))
	if err != nil {
		return g, fmt.Errorf("holding keyslot shares: %w", err)
	}
	defer shares.Destroy()
	err = shares.Use(func(all []byte) error {
		rand.Read(all)
		for i, h := range holders {
			s := &g.slots[i]
			s.header = s.encodeHeader()
			share := all[32*i : 32*i+32]
			if s.blob, err = h.Sealer.Seal(ctx, h.Ref, share, s.header); err != nil {
				return fmt.Errorf("sealing keyslot %d with %s: %w", s.info.ID, h.ID, err)
			}
			if len(s.blob) == 0 || len(s.blob) > maxSlotBlob {
				return fmt.Errorf("sealing keyslot %d with %s: blob of %d bytes, want 1 to %d", s.info.ID, h.ID, len(s.blob), maxSlotBlob)
			}
			if c, ok := h.Sealer.(*Custodians); ok {
				s.info.Custodians = c.recipients
				continue // they are people: nobody can ask them now
			}
			err := h.Sealer.Unseal(ctx, h.Ref, s.blob, s.header, func(again []byte) error {
				if !bytes.Equal(again, share) {
					return fmt.Errorf("sealing keyslot %d with %s: the device gives back other bytes", s.info.ID, h.ID)
				}
				return nil
			})
			if err != nil {
				return fmt.Errorf("opening the new keyslot %d with %s: %w", s.info.ID, h.ID, err)
			}
		}
		g.header = g.encodeHeader()
		return g.withKey(all, func(key []byte) error {
			gcm, err := newGCM(key)
			if err != nil {
				return err
			}
			defer secmem.Scrub(gcm)
			g.nonce = make([]byte, nonceLen)
			rand.Read(g.nonce)
			g.wrapped = gcm.Seal(nil, g.nonce, root, g.header)
			return nil
		})
	})
	return g, err
}

// unsealGroup lends the root key to use, after asking every member's device.
func (g *slotGroup) unsealGroup(ctx context.Context, sealers map[string]seal.Sealer, use func(root []byte) error) error {
	shares, err := secmem.New(32 * len(g.slots))
	if err != nil {
		return fmt.Errorf("holding keyslot shares: %w", err)
	}
	defer shares.Destroy()
	return shares.Use(func(all []byte) error {
		for i, s := range g.slots {
			err := sealers[s.info.Provider].Unseal(ctx, s.info.Ref, s.blob, s.header, func(share []byte) error {
				if copy(all[32*i:32*i+32], share) != 32 || len(share) != 32 {
					return fmt.Errorf("%w: share of %d bytes", ErrTampered, len(share))
				}
				return nil
			})
			if errors.Is(err, seal.ErrTampered) {
				return fmt.Errorf("%w: keyslot %d: %w", ErrTampered, s.info.ID, err)
			}
			if err != nil {
				return fmt.Errorf("opening keyslot %d with %s: %w", s.info.ID, s.info.Provider, err)
			}
		}
		return g.withKey(all, func(key []byte) error {
			gcm, err := newGCM(key)
			if err != nil {
				return err
			}
			defer secmem.Scrub(gcm)
			root, err := gcm.Open(nil, g.nonce, g.wrapped, g.header)
			if err != nil {
				return fmt.Errorf("%w: keyslot group %d doesn't authenticate", ErrTampered, g.id)
			}
			defer clear(root)
			if rootCommit(root, g.store) != g.commit {
				return fmt.Errorf("%w: keyslot group %d holds another root key", ErrTampered, g.id)
			}
			return use(root)
		})
	})
}

// withKey lends HKDF(shares, salt = store id, info = domain ‖ group header).
func (g *slotGroup) withKey(shares []byte, use func(key []byte) error) error {
	key := make([]byte, 32)
	defer clear(key)
	secmem.Derive(key, shares, g.store[:], infoGroup+string(g.header))
	return use(key)
}

// joinSlots gives each group its slots, and refuses what doesn't fit together.
func joinSlots(storeID [16]byte, groups []slotGroup, slots []slot) ([]slotGroup, error) {
	for _, s := range slots {
		at := -1
		for i := range groups {
			if groups[i].id == s.info.Group {
				at = i
			}
		}
		switch {
		case at < 0:
			return nil, fmt.Errorf("%w: keyslot %d has no group", ErrTampered, s.info.ID)
		case s.store != storeID, s.info.Generation != groups[at].generation, s.commit != groups[at].commit:
			return nil, fmt.Errorf("%w: keyslot %d belongs to another store or root key", ErrTampered, s.info.ID)
		}
		groups[at].slots = append(groups[at].slots, s)
	}
	for _, g := range groups {
		if g.store != storeID || len(g.slots) != int(g.members) {
			return nil, fmt.Errorf("%w: keyslot group %d has %d slots, want %d of this store", ErrTampered, g.id, len(g.slots), g.members)
		}
	}
	return groups, nil
}

// hashKeyslots is what the head says of all keyslots, so that one that was
// removed doesn't come back: SHA-256 over each group by id, followed by its slots
// by id, each behind its length as u32.
func hashKeyslots(groups []slotGroup) (sum [32]byte) {
	h := sha256.New()
	h.Write([]byte(domainKeyslots))
	add := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b))))
		h.Write(b)
	}
	for _, g := range groups {
		add(g.encode())
		for _, s := range g.slots {
			add(s.encode())
		}
	}
	h.Sum(sum[:0])
	return sum
}
