package signing_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// calls are what the token was asked so far.
func calls() map[string]uint64 { return site.device.(seal.Counting).Calls() }

// A signature costs no call of a device, unless its shares need a part of one.
func TestResidentSignaturesCallNoDevice(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(1<<40, day)}, terms{set: mpctest.ECDSADelegateSet(t)})
	before := calls()
	if before["unwrap"] == 0 {
		t.Fatalf("the token opened the store without a call: %v", before)
	}
	for i := range 20 {
		h.mustSign(g[0], fmt.Sprint("lamports-", i), g[0].pay(400, byte(i)))
	}
	h.mustSign(g[1], "ether", transfer(t, 7, 400))
	if after := calls(); !maps.Equal(before, after) {
		t.Errorf("21 signatures called the token: %v, then %v", before, after)
	}
}

// switched is the token behind a switch.
type switched struct {
	seal.Sealer
	off bool
}

func (s *switched) Unseal(ctx context.Context, ref seal.KeyRef, blob, aad []byte, use func([]byte) error) error {
	if s.off {
		return fmt.Errorf("%w: switched off", seal.ErrUnavailable)
	}
	return s.Sealer.Unseal(ctx, ref, blob, aad, use)
}

// needing has the shares of one party need a part of the device, which is called id.
func (h *house) needing(id string, d seal.Sealer, party mpc.Party) {
	h.t.Helper()
	ctx := context.Background()
	ref, err := site.device.(seal.KEKMaker).MakeKEK(ctx)
	if err == nil {
		err = h.vault.Connect(id, d)
	}
	if err == nil {
		err = h.vault.Update(ctx, func(tx *vault.Tx) error { return tx.AddPartKey(id, ref) })
	}
	if err == nil {
		h.vault.UseParts(vault.PartRule{Text: id, Types: []vault.Type{vault.TypeShare}, Devices: func(_ vault.Type, share string) []string {
			if delegation.PartyOfShare(share) != party {
				return nil
			}
			return []string{id}
		}})
		_, err = h.vault.ResealParts(ctx)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// Shares that need the token ask it once each, every time; switched off, it ends signing
// and nothing is charged.
func TestPerUseSignaturesAskTheDevice(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(1<<40, day)})
	d := &switched{Sealer: site.device}
	h.needing("the token", d, mpc.Server)
	before := calls()
	for i := range 3 {
		h.mustSign(g[0], fmt.Sprint("on-", i), g[0].pay(400, byte(i)))
	}
	after := calls()
	if asked := after["unwrap"] - before["unwrap"]; asked != 3 {
		t.Errorf("3 signatures unwrapped %d parts, want one each", asked)
	}
	s, err := h.delegation.KeySealing("key_" + g[0].set.ID)
	for _, share := range s.Shares {
		if want := share.Party == mpc.Server; want != slices.Equal(share.Devices, []string{"the token"}) {
			t.Errorf("the share of %s needs %v", share.Party, share.Devices)
		}
	}
	if err != nil || len(s.Shares) == 0 {
		t.Errorf("KeySealing = %+v, %v", s, err)
	}
	spent := h.spent(g[0], sol)
	d.off = true
	if _, err := h.sign(g[0], "off", g[0].pay(400, 9)); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("with the device off: %v, want seal.ErrUnavailable", err)
	}
	if now := h.spent(g[0], sol); now != spent {
		t.Errorf("%d charged, want %d as before", now, spent)
	}
	d.off = false
	h.mustSign(g[0], "on-again", g[0].pay(400, 10))
}
