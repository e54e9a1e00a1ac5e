package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"filippo.io/age"

	"github.com/sigild/sigild/seal"
)

// Identities of three custodians, for tests and golden files; they guard nothing.
var custodianKeys = []string{
	"AGE-SECRET-KEY-1N6R6RC8PQXSL8S75HVEMDCVPAJ8GRKD49SMXMG9V59Q63KQMLHMQRTYZS2",
	"AGE-SECRET-KEY-1CUU677K4RX6CGKDLQSHSAEEMR5LY4F7WDW5UYT04XH74K4Z0SKFSVTU7UP",
	"AGE-SECRET-KEY-17NQAPT8L2MKMT9Y8L7SWW3CYSX8GLWK7SQAUH8J96ZJ8Z9JK0EXSU5XUHU",
}

var custodianNames = []string{
	"age1y3kkdaechexraejr7wknh3s9ezqkhhtfl9xhp5z6vkmh3cmdr3mq6f769s",
	"age14vwvlgelha6q2s98wgxfdhvjpys0ltrwrfvqmpzjf4tnvfmmru7s5r7j8z",
	"age1u3dpfpgqg62jdjpgzanp56478rr7xy57k26jpmqqjje58uuvvqcq25zkxp",
}

// custodianIdentities are those of the custodians by number.
func custodianIdentities(t testing.TB, numbers ...int) []age.Identity {
	t.Helper()
	var out []age.Identity
	for _, n := range numbers {
		id, err := age.ParseX25519Identity(custodianKeys[n])
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, id)
	}
	return out
}

func rotate(t testing.TB, v *Vault) int {
	t.Helper()
	n, err := v.PrepareRoot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Discard()
	if err := v.UpdateAlone(context.Background(), func(tx *Tx) error { return tx.RotateRoot(n) }); err != nil {
		t.Fatal(err)
	}
	done, err := v.Rewrap(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func addGroup(t testing.TB, v *Vault, holders ...KeyHolder) uint32 {
	t.Helper()
	n, err := v.PrepareGroup(context.Background(), holders...)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.UpdateAlone(context.Background(), func(tx *Tx) error { return tx.AddGroup(n) }); err != nil {
		t.Fatal(err)
	}
	return n.ID()
}

func TestKeyslotsAreAddedAndRemovedWhileOpen(t *testing.T) {
	ctx := context.Background()
	v, pin := create(t, stateDir(t))
	put(t, v, TypeWallet, "w", "text")
	a, b := newSoftSealer(1), newSoftSealer(2)
	and := addGroup(t, v, KeyHolder{Sealer: a, ID: "a", Ref: "1"}, KeyHolder{Sealer: b, ID: "b", Ref: "2"})
	people, err := NewCustodians(2, custodianNames)
	if err != nil {
		t.Fatal(err)
	}
	recovery := addGroup(t, v, people.Holder())
	if and == recovery {
		t.Fatalf("both groups are number %d", and)
	}
	verify := func(devices map[string]seal.Sealer, want error) {
		t.Helper()
		devices[softID] = softSealers[softID]
		v.Seal()
		if err := v.Unseal(ctx, devices); err != nil {
			t.Fatal(err)
		}
		if err := v.VerifyGroup(ctx, and); !errors.Is(err, want) {
			t.Errorf("verifying with %d devices: %v, want %v", len(devices), err, want)
		}
	}
	verify(map[string]seal.Sealer{"a": a}, ErrNoKeyslot)
	verify(map[string]seal.Sealer{"a": b, "b": a}, ErrTampered)
	verify(map[string]seal.Sealer{"a": a, "b": b}, nil)
	wantIs(t, v.VerifyGroup(ctx, 77), ErrNotFound)
	wantIs(t, v.VerifyGroup(ctx, recovery), ErrNoKeyslot)

	// Each opens it, after a restart, too.
	for name, devices := range map[string]map[string]seal.Sealer{
		"the first": softSealers, "a and b": {"a": a, "b": b},
		"custodians 1 and 3": {RecoveryProvider: PresentCustodians(custodianIdentities(t, 0, 2)...)},
		"custodians 2 and 3": {RecoveryProvider: PresentCustodians(custodianIdentities(t, 2, 1)...)},
		"all custodians":     {RecoveryProvider: PresentCustodians(custodianIdentities(t, 2, 1, 0)...)},
	} {
		v = reopen(t, v, pin)
		v.Seal()
		if err := v.Unseal(ctx, devices); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		wantRecord(t, v, TypeWallet, "w", "text")
	}
	v.Seal()
	for name, ids := range map[string][]age.Identity{
		"nobody": nil, "one": custodianIdentities(t, 1), "one twice": custodianIdentities(t, 1, 1),
	} {
		err := v.Unseal(ctx, map[string]seal.Sealer{RecoveryProvider: PresentCustodians(ids...)})
		if !errors.Is(err, ErrCustodians) {
			t.Errorf("%s: %v, want ErrCustodians", name, err)
		}
	}
	if err := v.Unseal(ctx, softSealers); err != nil {
		t.Fatal(err)
	}

	remove := func(id uint32) error {
		return v.UpdateAlone(ctx, func(tx *Tx) error { return tx.RemoveGroup(id) })
	}
	if err := remove(and); err != nil {
		t.Errorf("removing: %v", err)
	}
	wantIs(t, remove(and), ErrNotFound)
	wantIs(t, remove(0), ErrLastKeyslot) // only people would be left
	if err := remove(recovery); err != nil {
		t.Errorf("removing: %v", err)
	}
	wantIs(t, remove(0), ErrLastKeyslot)
	v.Seal()
	wantIs(t, v.Unseal(ctx, map[string]seal.Sealer{"a": a, "b": b}), ErrNoKeyslot)
}

// A group that was made while another change went through is not added: it may
// hold another root key.
func TestKeyslotsMovedMeanwhile(t *testing.T) {
	ctx := context.Background()
	v, _ := create(t, stateDir(t))
	a := newSoftSealer(1)
	early, err := v.PrepareGroup(ctx, KeyHolder{Sealer: a, ID: "a", Ref: "1"})
	if err != nil {
		t.Fatal(err)
	}
	root, err := v.PrepareRoot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Discard()
	addGroup(t, v, KeyHolder{Sealer: a, ID: "a", Ref: "1"})
	wantIs(t, v.UpdateAlone(ctx, func(tx *Tx) error { return tx.AddGroup(early) }), ErrKeyslotsMoved)
	wantIs(t, v.UpdateAlone(ctx, func(tx *Tx) error { return tx.RotateRoot(root) }), ErrKeyslotsMoved)
	_, err = v.PrepareRoot(ctx)
	wantIs(t, err, ErrNoKeyslot) // a is not among the devices
	if len(v.Slots()) != 2 {
		t.Errorf("slots = %+v", v.Slots())
	}
}

func TestCustodiansAreNamedOnceAndRight(t *testing.T) {
	for name, try := range map[string]func() (*Custodians, error){
		"none":          func() (*Custodians, error) { return NewCustodians(0, nil) },
		"none needed":   func() (*Custodians, error) { return NewCustodians(0, custodianNames) },
		"more than all": func() (*Custodians, error) { return NewCustodians(4, custodianNames) },
		"one twice":     func() (*Custodians, error) { return NewCustodians(2, []string{custodianNames[0], custodianNames[0]}) },
		"no recipient":  func() (*Custodians, error) { return NewCustodians(1, []string{"age1nobody"}) },
		"too many": func() (*Custodians, error) {
			return NewCustodians(1, slices.Repeat(custodianNames, MaxCustodians))
		},
	} {
		if _, err := try(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestSharesCombineInEveryWay(t *testing.T) {
	secret := bytes.Repeat([]byte{0, 1, 0xfe, 0x80}, 8)
	for count := 1; count <= 6; count++ {
		for need := 1; need <= count; need++ {
			shares, err := splitSecret(secret, need, count)
			if err != nil {
				t.Fatal(err)
			}
			for set := range 1 << count {
				var chosen [][]byte
				for i, s := range shares {
					if set>>i&1 == 1 {
						chosen = append(chosen, s)
					}
				}
				out := make([]byte, len(secret))
				if err := combineShares(out, chosen); err != nil {
					t.Fatal(err)
				}
				if got, want := bytes.Equal(out, secret), len(chosen) >= need; got != want {
					t.Errorf("%d of %d-of-%d shares give the secret: %v, want %v", len(chosen), need, count, got, want)
				}
			}
		}
	}
	shares, err := splitSecret(secret, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, len(secret))
	for name, bad := range map[string][][]byte{
		"one twice": {shares[0], shares[0]}, "a short one": {shares[0], shares[1][:5]}, "x of 0": {shares[0], make([]byte, 33)},
	} {
		if err := combineShares(out, bad); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: %v, want ErrTampered", name, err)
		}
	}
	for _, n := range [][2]int{{0, 1}, {2, 1}, {1, 256}} {
		if _, err := splitSecret(secret, n[0], n[1]); err == nil {
			t.Errorf("%d of %d was split", n[0], n[1])
		}
	}
}

// The field against its definition: FIPS 197 §4.2 gives {57}·{83} = {c1}.
func TestFieldIsThatOfAES(t *testing.T) {
	if got := gfMul(0x57, 0x83); got != 0xc1 {
		t.Errorf("57·83 = %02x, want c1", got)
	}
	for a := 1; a < 256; a++ {
		if got := gfMul(byte(a), gfInvert(byte(a))); got != 1 {
			t.Errorf("%02x · its inverse = %02x", a, got)
		}
	}
}

func TestRootKeyRotatesWhileOpen(t *testing.T) {
	ctx := context.Background()
	v, pin := create(t, stateDir(t))
	for i := range 300 {
		put(t, v, TypeWallet, fmt.Sprint("w", i), fmt.Sprint("text ", i))
	}
	var before []byte
	if err := v.Derive("x", func(k []byte) error { before = bytes.Clone(k); return nil }); err != nil {
		t.Fatal(err)
	}
	n, err := v.PrepareRoot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Discard()
	if err := v.UpdateAlone(ctx, func(tx *Tx) error { return tx.RotateRoot(n) }); err != nil {
		t.Fatal(err)
	}
	all := func(when string) {
		t.Helper()
		for i := range 300 {
			wantRecord(t, v, TypeWallet, fmt.Sprint("w", i), fmt.Sprint("text ", i))
		}
		err := v.Derive("x", func(k []byte) error {
			if !bytes.Equal(k, before) {
				t.Errorf("%s: a derived key has changed", when)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	all("half-way")
	if !v.Info().Rotating || v.Info().Generation != 2 {
		t.Errorf("Info = %+v", v.Info())
	}
	_, err = v.PrepareRoot(ctx)
	wantIs(t, err, ErrRotating)

	// Interrupted after its first step, and taken up after a restart.
	stop, cancel := context.WithCancel(ctx)
	put(t, v, TypeWallet, "w7", "text 7")
	steps := 0
	v.hooks.beforeCommit = func() error {
		if steps++; steps == 1 {
			cancel()
		}
		return nil
	}
	if _, err := v.Rewrap(stop); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	v = reopen(t, v, pin)
	all("after a restart")
	if !v.Info().Rotating {
		t.Error("the rotation was forgotten")
	}
	done, err := v.Rewrap(ctx)
	if err != nil || done == 0 || done >= 302 {
		t.Errorf("Rewrap = %d, %v; want less than all", done, err)
	}
	if v.Info().Rotating {
		t.Error("still rotating")
	}
	all("at the end")
	v = reopen(t, v, pin)
	all("opened again")
	if rotate(t, v) != 302 || v.Info().Generation != 3 {
		t.Errorf("second rotation: %+v", v.Info())
	}
	v = reopen(t, v, pin)
	all("after the second")

	// A pin that knows of generation 3 doesn't believe 2.
	pin.OldestRoot = 3
	v = reopen(t, v, pin)
	pin.OldestRoot = 4
	_ = v.Close()
	_, err = Open(ctx, Config{Dir: v.cfg.Dir}, pin)
	wantIs(t, err, ErrRollback)
}

// A removed keyslot put back into the file is noticed by the head.
func TestAKeyslotPutBackIsFound(t *testing.T) {
	dir := stateDir(t)
	v, pin := create(t, dir)
	a := newSoftSealer(1)
	id := addGroup(t, v, KeyHolder{Sealer: a, ID: "a", Ref: "1"})
	g := (*v.groups.Load())[1]
	if err := v.UpdateAlone(context.Background(), func(tx *Tx) error { return tx.RemoveGroup(id) }); err != nil {
		t.Fatal(err)
	}
	if err := v.write.writeKeyslots(append(slices.Clone(*v.groups.Load()), g)); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v, err := Open(context.Background(), Config{Dir: dir}, pin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	wantIs(t, v.Unseal(context.Background(), map[string]seal.Sealer{"a": a}), ErrTampered)
	wantIs(t, v.Unseal(context.Background(), softSealers), ErrTampered)
}

func FuzzParseCustodians(f *testing.F) {
	people, err := NewCustodians(2, custodianNames)
	if err != nil {
		f.Fatal(err)
	}
	blob, err := people.Seal(context.Background(), "", make([]byte, 32), []byte("aad"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blob)
	f.Add([]byte(custodiansMagic + "\x01\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := parseCustodians(b)
		if err != nil {
			if !errors.Is(err, ErrTampered) {
				t.Errorf("error is not ErrTampered: %v", err)
			}
			return
		}
		if g.need < 1 || g.need > len(g.custodians) || len(g.custodians) > MaxCustodians {
			t.Errorf("accepted %d of %d custodians", g.need, len(g.custodians))
		}
	})
}

func TestRecoveryKeyslotRefusesEveryChange(t *testing.T) {
	ctx := context.Background()
	people, err := NewCustodians(2, custodianNames)
	if err != nil {
		t.Fatal(err)
	}
	secret := bytes.Repeat([]byte{5}, 32)
	blob, err := people.Seal(ctx, "", secret, []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	present := PresentCustodians(custodianIdentities(t, 0, 1)...)
	open := func(b, aad []byte) error {
		return present.Unseal(ctx, "", b, aad, func(got []byte) error {
			if !bytes.Equal(got, secret) {
				return fmt.Errorf("another secret: %x", got)
			}
			return nil
		})
	}
	if err := open(blob, []byte("aad")); err != nil {
		t.Fatal(err)
	}
	wantIs(t, open(blob, []byte("another slot")), seal.ErrTampered)
	for n := range blob {
		if err := open(blob[:n], []byte("aad")); !errors.Is(err, ErrTampered) {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
	// What the third custodian's part says doesn't matter to the first two, and a
	// recipient's name is for people; the group's wrap holds the slot's header and
	// the secret. So a flip is refused, or gives the very same secret.
	eachFlip(blob, func(bit int, b []byte) {
		err := open(b, []byte("aad"))
		if err != nil && !errors.Is(err, ErrTampered) && !errors.Is(err, seal.ErrTampered) && !errors.Is(err, ErrCustodians) {
			t.Errorf("bit %d of byte %d: %v", bit%8, bit/8, err)
		}
	})
}
