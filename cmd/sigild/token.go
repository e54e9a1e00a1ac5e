package main

import (
	"context"

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

// checkKeys asks a PKCS#11 token what its keys lack. A TPM's keys are exactly what it
// makes itself, or refused.
func (k *keeper) checkKeys(ctx context.Context, d config.Device, checkpoint seal.KeyRef) (lacks []string, err error) {
	token, ok := d.(*hsm.Provider)
	if !ok {
		return nil, nil
	}
	for _, s := range k.vault.Slots() {
		if s.Provider != d.ID() {
			continue
		}
		found, err := token.Check(ctx, hsm.Keys{KEK: s.Ref, Checkpoint: checkpoint})
		if err != nil {
			return nil, err
		}
		lacks = append(lacks, found...)
	}
	if len(lacks) > 0 {
		k.log.Warn("the token's keys lack protections", "missing", lacks)
	}
	return lacks, nil
}
