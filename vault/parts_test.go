package vault

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

// partsByName is the rule of these tests: shares whose id ends in the name of a device
// need it; "a+b" needs both.
func partsByName(text string) PartRule {
	return PartRule{Text: text, Types: []Type{TypeShare}, Devices: func(_ Type, id string) []string {
		_, names, _ := strings.Cut(id, "/")
		if names == "" || text == "" {
			return nil
		}
		return strings.Split(names, "+")
	}}
}

// lineages is a device with several sealing keys, each of which rolls by itself; a ref
// is "lineage.number".
type lineages struct {
	keys  map[string]*rollingToken
	calls int
	gone  bool
}

func (l *lineages) of(ref seal.KeyRef) (*rollingToken, seal.KeyRef, error) {
	name, number, _ := strings.Cut(string(ref), ".")
	if l.gone {
		return nil, "", seal.ErrUnavailable
	}
	if l.keys[name] == nil {
		return nil, "", seal.ErrNotFound
	}
	return l.keys[name], seal.KeyRef(number), nil
}

func (l *lineages) MakeKEK(context.Context) (seal.KeyRef, error) {
	name := fmt.Sprint(len(l.keys))
	l.keys[name] = &rollingToken{keys: map[seal.KeyRef]*softSealer{"01": newSoftSealer(byte(100 + len(l.keys)))}, made: 1}
	return seal.KeyRef(name + ".01"), nil
}

func (l *lineages) Seal(ctx context.Context, ref seal.KeyRef, pt, aad []byte) ([]byte, error) {
	l.calls++
	r, ref, err := l.of(ref)
	if err != nil {
		return nil, err
	}
	return r.Seal(ctx, ref, pt, aad)
}

func (l *lineages) Unseal(ctx context.Context, ref seal.KeyRef, blob, aad []byte, use func([]byte) error) error {
	l.calls++
	r, ref, err := l.of(ref)
	if err != nil {
		return err
	}
	return r.Unseal(ctx, ref, blob, aad, use)
}

func (l *lineages) BeginRoll(ctx context.Context, ref seal.KeyRef) (seal.KeyRef, error) {
	name, _, _ := strings.Cut(string(ref), ".")
	r, ref, err := l.of(ref)
	if err != nil {
		return "", err
	}
	next, err := r.BeginRoll(ctx, ref)
	return seal.KeyRef(name) + "." + next, err
}

func (l *lineages) EndRoll(ctx context.Context, keep seal.KeyRef) (int, error) {
	r, keep, err := l.of(keep)
	if err != nil {
		return 0, err
	}
	return r.EndRoll(ctx, keep)
}

func newLineages(t testing.TB) *lineages {
	t.Helper()
	l := &lineages{keys: map[string]*rollingToken{}}
	if _, err := l.MakeKEK(context.Background()); err != nil {
		t.Fatal(err)
	}
	return l
}

// addPartKey makes a key for parts in a device.
func addPartKey(t testing.TB, v *Vault, id string, d seal.KEKMaker) {
	t.Helper()
	ref, err := d.MakeKEK(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Update(context.Background(), func(tx *Tx) error { return tx.AddPartKey(id, ref) }); err != nil {
		t.Fatal(err)
	}
}

// parted is a store that device a opens, with records that need a, b, both or none.
func parted(t testing.TB) (v *Vault, pin Pin, a, b *lineages, devices map[string]seal.Sealer) {
	t.Helper()
	a, b = newLineages(t), newLineages(t)
	v, pin, err := Create(context.Background(), Config{Dir: stateDir(t)}, KeyHolder{Sealer: a, ID: "a", Ref: "0.01"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	if err := v.Connect("b", b); err != nil {
		t.Fatal(err)
	}
	addPartKey(t, v, "a", a)
	addPartKey(t, v, "b", b)
	v.UseParts(partsByName("first"))
	for _, id := range []string{"s/a", "s/b", "s/a+b", "s"} {
		put(t, v, TypeShare, id, "secret of "+id)
	}
	put(t, v, TypeWallet, "w/a", "a wallet")
	return v, pin, a, b, map[string]seal.Sealer{"a": a, "b": b}
}

func TestARecordNeedsItsDevices(t *testing.T) {
	ctx := context.Background()
	v, pin, a, b, devices := parted(t)
	for id, want := range map[string]string{"s/a": "[a]", "s/b": "[b]", "s/a+b": "[a b]", "s": "[]"} {
		wantRecord(t, v, TypeShare, id, "secret of "+id)
		if got, err := v.Parts(TypeShare, id); err != nil || fmt.Sprint(got) != want {
			t.Errorf("Parts(%s) = %v, %v; want %s", id, got, err, want)
		}
	}
	_, err := v.Parts(TypeShare, "none")
	wantIs(t, err, ErrNotFound)

	// One call of each device named, each time; none for others.
	for id, want := range map[string][2]int{"s/a": {1, 0}, "s/b": {0, 1}, "s/a+b": {1, 1}, "s": {0, 0}} {
		for range 2 {
			a.calls, b.calls = 0, 0
			wantRecord(t, v, TypeShare, id, "secret of "+id)
			if a.calls != want[0] || b.calls != want[1] {
				t.Errorf("%s: %d calls of a, %d of b, want %v", id, a.calls, b.calls, want)
			}
		}
	}

	// A device that is switched off ends the use of its records, and no other's.
	b.gone = true
	_, err = get(v, TypeShare, "s/b")
	wantIs(t, err, seal.ErrUnavailable)
	_, err = get(v, TypeShare, "s/a+b")
	wantIs(t, err, seal.ErrUnavailable)
	wantRecord(t, v, TypeShare, "s/a", "secret of s/a")
	err = v.Update(ctx, func(tx *Tx) error { return tx.Put(TypeShare, "new/b", nil) })
	wantIs(t, err, seal.ErrUnavailable)
	b.gone = false

	// After a restart without b, and when it comes later.
	v = reopenWith(t, v, pin, map[string]seal.Sealer{"a": a})
	_, err = get(v, TypeShare, "s/b")
	wantIs(t, err, seal.ErrUnavailable)
	if err := v.Connect("b", b); err != nil {
		t.Fatal(err)
	}
	wantRecord(t, v, TypeShare, "s/b", "secret of s/b")

	// A new root key leaves the parts alone: no device is asked but for its keyslot.
	v = reopenWith(t, v, pin, devices)
	b.calls = 0
	rotate(t, v)
	if b.calls != 0 {
		t.Errorf("the rotation of the root key asked b %d times", b.calls)
	}
	for _, id := range []string{"s/a", "s/b", "s/a+b", "s"} {
		wantRecord(t, v, TypeShare, id, "secret of "+id)
	}
	v.Seal()
	_, err = v.Parts(TypeShare, "s/a")
	wantIs(t, err, ErrSealed)
	wantIs(t, v.Connect("b", b), ErrSealed)
}

func reopenWith(t testing.TB, v *Vault, pin Pin, devices map[string]seal.Sealer) *Vault {
	t.Helper()
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	v2, err := Open(context.Background(), Config{Dir: v.cfg.Dir}, pin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v2.Close() })
	if err := v2.Unseal(context.Background(), devices); err != nil {
		t.Fatal(err)
	}
	v2.UseParts(partsByName("first"))
	return v2
}

// Whoever has the root key and one device has the records of that device alone.
func TestTheRootKeyAndOneDeviceAreNotEnough(t *testing.T) {
	v, pin, a, _, _ := parted(t)
	v = reopenWith(t, v, pin, map[string]seal.Sealer{"a": a, "b": newLineages(t)})
	wantRecord(t, v, TypeShare, "s/a", "secret of s/a")
	for _, id := range []string{"s/b", "s/a+b"} {
		if got, err := get(v, TypeShare, id); err == nil {
			t.Errorf("%s opened without b: %q", id, got)
		}
	}
}

func TestEveryChangeOfPartsIsRefused(t *testing.T) {
	ctx := context.Background()
	v, _, _, _, _ := parted(t)
	u := v.open.Load()
	k, err := u.keys.recordKey(TypeShare, "s/a+b")
	if err != nil {
		t.Fatal(err)
	}
	l, env, err := v.fetch(u, k)
	if err != nil {
		t.Fatal(err)
	}
	open := func(b []byte) error {
		return openRecord(ctx, u, l, bytes.Clone(b), "s/a+b", func(string, []byte) error { return nil })
	}
	if err := open(env); err != nil {
		t.Fatal(err)
	}
	eachFlip(env, func(bit int, changed []byte) {
		if open(changed) == nil {
			t.Errorf("bit %d of byte %d flipped: opened", bit%8, bit/8)
		}
	})
	for n := range env {
		if open(env[:n]) == nil {
			t.Errorf("cut to %d bytes: opened", n)
		}
	}
	if open(append(bytes.Clone(env), 0)) == nil {
		t.Error("extended: opened")
	}
	// The parts of another record of the same devices.
	put(t, v, TypeShare, "t/a+b", "another")
	k2, err := u.keys.recordKey(TypeShare, "t/a+b")
	if err != nil {
		t.Fatal(err)
	}
	_, other, err := v.fetch(u, k2)
	if err != nil {
		t.Fatal(err)
	}
	mixed := bytes.Clone(env)
	e, err := parseEnvelope(env)
	if err != nil {
		t.Fatal(err)
	}
	n := len(encodeParts(e.parts))
	copy(mixed[coreLen+wrapLen:], other[coreLen+wrapLen:coreLen+wrapLen+n])
	if open(mixed) == nil {
		t.Error("opened with another record's parts")
	}
}

// A changed rule is brought about for what is there, and says when it is.
func TestRecordsAreSealedAnewForAnotherRule(t *testing.T) {
	ctx := context.Background()
	v, pin, a, b, devices := parted(t)
	pending := func(want bool) {
		t.Helper()
		if got, err := v.PartsPending(ctx); err != nil || got != want {
			t.Errorf("PartsPending = %v, %v; want %v", got, err, want)
		}
	}
	reseal := func(want int) {
		t.Helper()
		if n, err := v.ResealParts(ctx); err != nil || n != want {
			t.Errorf("ResealParts = %d, %v; want %d", n, err, want)
		}
		pending(false)
	}
	pending(true)
	reseal(0)
	v.UseParts(PartRule{Text: "all b", Types: []Type{TypeShare}, Devices: func(Type, string) []string { return []string{"b"} }})
	pending(true)
	b.gone = true
	if _, err := v.ResealParts(ctx); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("without b: %v", err)
	}
	pending(true)
	b.gone = false
	reseal(3)
	for _, id := range []string{"s/a", "s/b", "s/a+b", "s"} {
		wantRecord(t, v, TypeShare, id, "secret of "+id)
		if got, _ := v.Parts(TypeShare, id); fmt.Sprint(got) != "[b]" {
			t.Errorf("%s needs %v", id, got)
		}
	}
	// And back to none, after a restart.
	v = reopenWith(t, v, pin, devices)
	v.UseParts(PartRule{})
	pending(true)
	reseal(4)
	a.calls, b.calls = 0, 0
	wantRecord(t, v, TypeShare, "s/a+b", "secret of s/a+b")
	if a.calls+b.calls != 0 {
		t.Errorf("%d calls of devices that nothing needs", a.calls+b.calls)
	}
}

// What was written once opens in every later build. The device is softSealer 7 under
// the key "0304".
func TestGoldenEnvelopeWithParts(t *testing.T) {
	k := fixedKeyring(t)
	m := fixedMeta(t, k)
	u := &unsealed{keys: k}
	u.here.Store(&softSealers)
	env := goldenHex(t, "envelope_parts.hex", func() (env []byte) {
		err := u.makeParts(context.Background(), m, []string{softID}, map[string]seal.KeyRef{softID: "0304"}, func(p *newParts) (err error) {
			env, err = k.seal(m, p, "wallet-1", []byte("golden plaintext"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return env
	})
	e, err := parseEnvelope(env)
	if err != nil || len(e.parts) != 1 || e.parts[0].provider != softID || e.parts[0].ref != "0304" {
		t.Fatalf("parts %+v, %v", e.parts, err)
	}
	text := ""
	err = u.withParts(context.Background(), env, func(parts []byte) error {
		return k.open(m, parts, bytes.Clone(env), func(id string, p []byte) error { text = id + "=" + string(p); return nil })
	})
	if err != nil || text != "wallet-1=golden plaintext" {
		t.Errorf("golden envelope = %q, %v", text, err)
	}
	if _, err := openText(k, m, env); !errors.Is(err, ErrTampered) {
		t.Errorf("without the device's part: %v", err)
	}
	key := golden(t, "v1", "part_key.hex", func() []byte {
		return []byte(hex.EncodeToString(partKey{ref: "0304", previous: "0102"}.encode()) + "\n")
	})
	b, err := hex.DecodeString(strings.TrimSpace(string(key)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parsePartKey(b); err != nil || got.ref != "0304" || got.previous != "0102" {
		t.Errorf("part key %+v, %v", got, err)
	}
}

func FuzzParseParts(f *testing.F) {
	f.Add(encodeParts([]devicePart{{"a", "01", []byte("blob")}, {"b", "02", []byte("more")}}))
	f.Add([]byte{0, 1, 0})
	f.Add(bytes.Repeat([]byte{255}, 12))
	f.Fuzz(func(t *testing.T, b []byte) {
		parts, rest, err := parseParts(b)
		if err != nil {
			if !errors.Is(err, ErrTampered) {
				t.Errorf("error is not ErrTampered: %v", err)
			}
			return
		}
		if again := append(encodeParts(parts), rest...); !bytes.Equal(again, b) {
			t.Errorf("accepted %x, which is written %x", b, again)
		}
	})
}

// A backup is opened by custodians, with none of the devices here.
func TestABackupWithPartsIsRestored(t *testing.T) {
	ctx := context.Background()
	v, pin, _, _, devices := parted(t)
	people, err := NewCustodians(2, custodianNames)
	if err != nil {
		t.Fatal(err)
	}
	addGroup(t, v, people.Holder())
	want := v.Info().Records
	backup := filepath.Join(t.TempDir(), "backup")
	if _, err := BackUp(ctx, filepath.Join(v.cfg.Dir, FileName), backup, pin); err != nil {
		t.Fatal(err)
	}
	dir := stateDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r, err := BeginRestore(ctx, Config{Dir: dir}, backup, pin, PresentCustodians(custodianIdentities(t, 0, 2)...))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Abandon() }()
	if n, err := r.ReadAll(ctx); err != nil || uint64(n) != want {
		t.Errorf("ReadAll = %d, %v; want %d", n, err, want)
	}
	_, err = get(r.Vault(), TypeShare, "s/a")
	wantIs(t, err, seal.ErrUnavailable)
	for id, d := range devices {
		if err := r.Vault().Connect(id, d); err != nil {
			t.Fatal(err)
		}
	}
	wantRecord(t, r.Vault(), TypeShare, "s/a", "secret of s/a")
}
