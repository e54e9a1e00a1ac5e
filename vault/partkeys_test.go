package vault

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/tpm"
)

// rotate kek reaches the parts, too: a copy from before opens them with no device.
func TestARollReachesTheParts(t *testing.T) {
	ctx := context.Background()
	v, pin, a, b, devices := parted(t)
	if _, err := v.ResealParts(ctx); err != nil {
		t.Fatal(err)
	}
	keys := func() string {
		out := ""
		for _, d := range []*lineages{a, b} {
			for _, name := range []string{"0", "1"} {
				for ref := range d.keys[name].keys {
					out += name + "." + string(ref) + " "
				}
			}
			out += "| "
		}
		return out
	}
	if got := keys(); got != "0.01 1.01 | 0.01 1.01 | " {
		t.Fatalf("keys: %s", got)
	}
	stolen := map[string]*softSealer{"a": a.keys["0"].keys["01"]} // for the old copy's root key
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	old := copyStore(t, v.cfg.Dir)
	v = reopenWith(t, v, pin, devices)
	roll := func() error { return v.UpdateAlone(ctx, (*Tx).RollKEK) }
	if err := roll(); err != nil {
		t.Fatal(err)
	}
	if pending, err := v.PartsPending(ctx); err != nil || !pending {
		t.Errorf("PartsPending = %v, %v", pending, err)
	}
	wantIs(t, roll(), ErrRotating)
	wantRecord(t, v, TypeShare, "s/a+b", "secret of s/a+b") // meanwhile
	put(t, v, TypeShare, "new/a", "fresh")

	// It dies here, and goes on after a restart.
	v = reopenWith(t, v, pin, devices)
	if err := v.EndPartRolls(ctx); err != nil { // destroys nothing that is needed
		t.Fatal(err)
	}
	wantRecord(t, v, TypeShare, "s/b", "secret of s/b")
	if n, err := v.ResealParts(ctx); err != nil || n != 3 {
		t.Errorf("ResealParts = %d, %v; want 3", n, err)
	}
	if got := keys(); got != "0.02 1.02 | 0.01 1.02 | " { // b has no keyslot
		t.Errorf("keys: %s", got)
	}
	for _, id := range []string{"s/a", "s/b", "s/a+b", "s"} {
		wantRecord(t, v, TypeShare, id, "secret of "+id)
	}
	wantRecord(t, v, TypeShare, "new/a", "fresh")
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}

	// The old copy: even with the sealing key of its keyslot, its parts are gone.
	a.keys["0"].keys["01"] = stolen["a"]
	before, err := openCopy(t, old, pin, devices)
	if err != nil {
		t.Fatal(err)
	}
	wantRecord(t, before, TypeShare, "s", "secret of s")
	for _, id := range []string{"s/a", "s/b", "s/a+b"} {
		_, err := get(before, TypeShare, id)
		wantIs(t, err, seal.ErrNotFound)
	}
}

// The destruction of the old key for parts is made up for after a crash.
func TestAnInterruptedDestructionIsMadeUpFor(t *testing.T) {
	ctx := context.Background()
	v, pin, a, _, devices := parted(t)
	if err := v.UpdateAlone(ctx, (*Tx).RollKEK); err != nil {
		t.Fatal(err)
	}
	a.keys["1"].before = func() error { return seal.ErrUnavailable }
	if _, err := v.ResealParts(ctx); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("ResealParts: %v", err)
	}
	a.keys["1"].before = nil
	v = reopenWith(t, v, pin, devices)
	if len(a.keys["1"].keys) != 2 {
		t.Fatalf("%d keys for parts in a, want both", len(a.keys["1"].keys))
	}
	if err := v.EndPartRolls(ctx); err != nil {
		t.Fatal(err)
	}
	if len(a.keys["1"].keys) != 1 {
		t.Errorf("%d keys for parts in a, want one", len(a.keys["1"].keys))
	}
	wantRecord(t, v, TypeShare, "s/a", "secret of s/a")
}

func TestKeysForPartsAreNamedOnce(t *testing.T) {
	ctx := context.Background()
	v, _, _, _, _ := parted(t)
	add := func(id string, ref seal.KeyRef) error {
		return v.Update(ctx, func(tx *Tx) error { return tx.AddPartKey(id, ref) })
	}
	wantIs(t, add("a", "9.01"), ErrExists)
	if add(partRuleID, "1") == nil || add("c", "") == nil {
		t.Error("a key without a device or a name was taken")
	}
	for id, want := range map[string]bool{"a": true, "c": false} {
		if got, err := v.HasPartKey(ctx, id); err != nil || got != want {
			t.Errorf("HasPartKey(%s) = %v, %v", id, got, err)
		}
	}
	// A rule for a device without one, or for too many.
	v.UseParts(PartRule{Text: "c", Types: []Type{TypeShare}, Devices: func(Type, string) []string { return []string{"c"} }})
	if err := v.Connect("c", newLineages(t)); err != nil {
		t.Fatal(err)
	}
	wantIs(t, v.Update(ctx, func(tx *Tx) error { return tx.Put(TypeShare, "x", nil) }), seal.ErrNotFound)
	v.UseParts(PartRule{Text: "5", Types: []Type{TypeShare}, Devices: func(Type, string) []string { return make([]string, 5) }})
	if err := v.Update(ctx, func(tx *Tx) error { return tx.Put(TypeShare, "x", nil) }); err == nil {
		t.Error("five parts were taken")
	}
}

// A SoftHSM token and a TPM: server shares need the one, delegate shares the other. The
// token's keys roll, the TPM's stay.
func TestSharesOfATokenAndATPM(t *testing.T) {
	ctx := context.Background()
	a, keys := token(t)
	emulator := testtpm.New(t)
	b, err := tpm.Open(ctx, tpm.Config{Path: emulator.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	v, pin, err := Create(ctx, Config{Dir: filepath.Join(t.TempDir(), "state")}, KeyHolder{Sealer: a, ID: a.ID(), Ref: keys.KEK})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	if err := v.Connect(b.ID(), b); err != nil {
		t.Fatal(err)
	}
	addPartKey(t, v, a.ID(), a)
	addPartKey(t, v, b.ID(), b)
	rule := PartRule{Text: "token and TPM", Types: []Type{TypeShare}, Devices: func(_ Type, id string) []string {
		return map[string][]string{"server": {a.ID()}, "delegate": {b.ID()}, "both": {a.ID(), b.ID()}}[id]
	}}
	v.UseParts(rule)
	all := []string{"server", "delegate", "both"}
	for _, id := range all {
		put(t, v, TypeShare, id, id)
	}
	if err := v.UpdateAlone(ctx, (*Tx).RollKEK); err != nil {
		t.Fatal(err)
	}
	if n, err := v.ResealParts(ctx); err != nil || n != 2 {
		t.Errorf("ResealParts = %d, %v; want the two of the token", n, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if v, err = Open(ctx, v.cfg, pin); err != nil {
		t.Fatal(err)
	}
	if err := v.Unseal(ctx, map[string]seal.Sealer{a.ID(): a}); err != nil {
		t.Fatal(err)
	}
	wantRecord(t, v, TypeShare, "server", "server")
	for _, id := range all[1:] {
		_, err := get(v, TypeShare, id)
		wantIs(t, err, seal.ErrUnavailable)
	}
	if err := v.Connect(b.ID(), b); err != nil {
		t.Fatal(err)
	}
	for _, id := range all {
		wantRecord(t, v, TypeShare, id, id)
	}
	if err := emulator.Kill(); err != nil {
		t.Fatal(err)
	}
	_, err = get(v, TypeShare, "delegate")
	wantIs(t, err, seal.ErrUnavailable)
	wantRecord(t, v, TypeShare, "server", "server")
}

func FuzzParsePartKey(f *testing.F) {
	f.Add(partKey{ref: "01"}.encode())
	f.Add(partKey{ref: "01", previous: "02"}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := parsePartKey(b)
		if err == nil && !bytes.Equal(k.encode(), b) {
			t.Errorf("accepted %x, which is written %x", b, k.encode())
		}
	})
}
