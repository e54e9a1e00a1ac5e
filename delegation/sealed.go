package delegation

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/vault"
)

// This file says how a key's shares are sealed, and what that means for whoever steals
// a device.

// KeySealing says how the shares of one key that are here are sealed.
type KeySealing struct {
	Shares []ShareSealing
	// TheftOf are the devices of which each, stolen alone with the disk and its PIN,
	// yields a quorum of one of the key's sets.
	TheftOf []string
}

// ShareSealing is one share that is here.
type ShareSealing struct {
	Set     string
	Party   mpc.Party
	Devices []string // called at each use; empty: the root key is enough
}

// KeySealing looks at the shares of a key, as they are now; the caller has judged who
// may ask. Nothing is opened and no device called.
func (s *Service) KeySealing(keyID string) (KeySealing, error) {
	var out KeySealing
	slots := s.vault.Slots()
	for _, set := range s.book.setsOf(keyID) {
		var needs [][]string
		for _, p := range set.Parties {
			devices, err := s.vault.Parts(vault.TypeShare, ShareID(set.ID, p))
			if errors.Is(err, vault.ErrNotFound) {
				continue // it is elsewhere
			}
			if err != nil {
				return out, fmt.Errorf("looking how key %s is sealed: %w", keyID, err)
			}
			out.Shares = append(out.Shares, ShareSealing{Set: set.ID, Party: p, Devices: devices})
			needs = append(needs, devices)
		}
		for _, d := range TheftOf(slots, needs, set.Threshold) {
			if !slices.Contains(out.TheftOf, d) {
				out.TheftOf = append(out.TheftOf, d)
			}
		}
	}
	slices.Sort(out.TheftOf)
	return out, nil
}

// TheftOf names the devices of which each, stolen alone with the disk and its PIN, opens
// the store and threshold of the shares. needs has, for each share, the devices that it
// needs beside the root key.
func TheftOf(slots []vault.SlotInfo, needs [][]string, threshold int) (devices []string) {
	groups := map[uint32][]string{}
	for _, s := range slots {
		if len(s.Custodians) == 0 && !slices.Contains(groups[s.Group], s.Provider) {
			groups[s.Group] = append(groups[s.Group], s.Provider)
		}
	}
	for _, members := range groups {
		if len(members) != 1 || slices.Contains(devices, members[0]) {
			continue // needs two devices, or was looked at
		}
		shares := 0
		for _, need := range needs {
			if !slices.ContainsFunc(need, func(d string) bool { return d != members[0] }) {
				shares++
			}
		}
		if threshold > 0 && shares >= threshold {
			devices = append(devices, members[0])
		}
	}
	slices.Sort(devices)
	return devices
}

// setsOf are the share sets of a key: its root set, and those of its delegations that
// are not ended.
func (b *book) setsOf(keyID string) (sets []mpc.ShareSet) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if k := b.keys[keyID]; k != nil && k.Root.Threshold > 0 {
		sets = append(sets, k.Root)
	}
	for _, d := range b.delegations {
		if w := b.wallets[d.Wallet]; w != nil && w.Key == keyID && d.Status == statusActive {
			sets = append(sets, d.Set)
		}
	}
	slices.SortFunc(sets, func(a, b mpc.ShareSet) int { return strings.Compare(a.ID, b.ID) })
	return sets
}
