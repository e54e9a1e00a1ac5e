package main

import (
	"context"
	"slices"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/seal"
)

// This file is what the keeper does about the keys in a PKCS#11 token when it has
// opened the store with one of them.

// endRolls finishes, or undoes, a replacement of the sealing key that died half way:
// the key that the store was just opened with stays, others of its lineage go.
func (k *keeper) endRolls(ctx context.Context, d config.Device) error {
	roller, ok := d.(seal.Roller)
	if !ok {
		return nil
	}
	for _, s := range k.vault.Slots() {
		if s.Provider != d.ID() {
			continue
		}
		n, err := roller.EndRoll(ctx, s.Ref)
		if err != nil {
			return err
		}
		if n > 0 {
			k.log.Warn("a replacement of the sealing key that was interrupted is ended", "keyslot", s.ID, "destroyed", n)
		}
	}
	return nil
}

// checkKeys asks PKCS#11 tokens what their keys lack. A TPM's keys are exactly what it
// makes itself, or refused. The checkpoint key is the main device's.
func (k *keeper) checkKeys(ctx context.Context, all *devices, checkpoint seal.KeyRef) (lacks []string, err error) {
	for name, d := range all.here() {
		token, ok := d.(*hsm.Provider)
		if !ok {
			continue
		}
		seen := map[seal.KeyRef]bool{}
		for _, s := range k.vault.Slots() {
			if s.Provider != d.ID() || seen[s.Ref] {
				continue
			}
			seen[s.Ref] = true
			found, err := token.CheckKEK(ctx, s.Ref)
			if err != nil {
				return nil, err
			}
			lacks = append(lacks, found...)
		}
		if name != config.MainDevice {
			continue
		}
		found, err := token.CheckCheckpoint(ctx, checkpoint)
		if err != nil {
			return nil, err
		}
		lacks = append(lacks, found...)
	}
	slices.Sort(lacks)
	if len(lacks) > 0 {
		k.log.Warn("the token's keys lack protections", "missing", lacks)
	}
	return lacks, nil
}
