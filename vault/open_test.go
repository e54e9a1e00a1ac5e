package vault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/seal"
)

func TestCreateRefusesAnExistingStore(t *testing.T) {
	v, pin := create(t, stateDir(t))
	put(t, v, TypeUser, "u", "text")
	ctx := context.Background()
	if _, _, err := Create(ctx, Config{Dir: v.cfg.Dir}, softHolder()); !errors.Is(err, ErrInUse) {
		t.Errorf("Create beside an open vault: %v, want ErrInUse", err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Create(ctx, Config{Dir: v.cfg.Dir}, softHolder()); !errors.Is(err, ErrExists) {
		t.Errorf("Create over a closed vault: %v, want ErrExists", err)
	}
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "u", "text")
}

func TestASecondOpenerIsRefused(t *testing.T) {
	v, pin := create(t, stateDir(t))
	if _, err := Open(context.Background(), Config{Dir: v.cfg.Dir}, pin); !errors.Is(err, ErrInUse) {
		t.Errorf("second Open: %v, want ErrInUse", err)
	}
	put(t, v, TypeUser, "u", "the first goes on")
}

func TestOpenOfNothing(t *testing.T) {
	_, err := Open(context.Background(), Config{Dir: stateDir(t)}, Pin{})
	wantIs(t, err, ErrMissing)
}

func TestADeadCreateLeavesNothingThatOpens(t *testing.T) {
	dir := stateDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, newName), []byte("half a store"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), Config{Dir: dir}, Pin{})
	wantIs(t, err, ErrMissing)
	v, pin := create(t, dir)
	put(t, v, TypeUser, "u", "text")
	v = reopen(t, v, pin)
	wantRecord(t, v, TypeUser, "u", "text")
	if _, err := os.Lstat(filepath.Join(dir, newName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", newName, err)
	}
}

// lyingSealer seals, but opens to something else.
type lyingSealer struct{ *softSealer }

func (lyingSealer) Unseal(_ context.Context, _ seal.KeyRef, _, _ []byte, use func([]byte) error) error {
	return use(make([]byte, 32))
}

func TestCreateKeepsNothingThatCannotBeUnsealed(t *testing.T) {
	for name, s := range map[string]seal.Sealer{
		"a device that fails":   &softSealer{fault: seal.ErrUnavailable},
		"a device that forgets": lyingSealer{newSoftSealer(1)},
	} {
		dir := stateDir(t)
		_, _, err := Create(context.Background(), Config{Dir: dir}, KeyHolder{Sealer: s, ID: "x", Ref: "1"})
		if err == nil {
			t.Errorf("%s: Create succeeded", name)
		}
		for _, f := range []string{FileName, newName} {
			if _, err := os.Lstat(filepath.Join(dir, f)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s left %s", name, f)
			}
		}
	}
	if _, _, err := Create(context.Background(), Config{Dir: stateDir(t)}); err == nil {
		t.Error("Create without a key holder succeeded")
	}
	if _, _, err := Create(context.Background(), Config{Dir: stateDir(t)}, KeyHolder{ID: "x", Ref: "1"}); err == nil {
		t.Error("Create without a sealer succeeded")
	}
}

func TestWrongPinIsRefused(t *testing.T) {
	v, pin := create(t, stateDir(t))
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	id, key := pin, pin
	id.StoreID[0]++
	key.StoreKey[0]++
	for name, p := range map[string]Pin{"store id": id, "store key": key, "zero": {}} {
		if _, err := Open(context.Background(), Config{Dir: v.cfg.Dir}, p); !errors.Is(err, ErrPinMismatch) {
			t.Errorf("another %s: %v, want ErrPinMismatch", name, err)
		}
	}
}

// A whole store made anew by someone who has the device, put in place of the
// old one under its id: only the pinned store key tells them apart.
func TestAReplacedStoreIsNotThePinnedOne(t *testing.T) {
	_, pin := closedStore(t)
	other, _ := closedStore(t)
	if _, err := openUnsealed(other, pin); !errors.Is(err, ErrPinMismatch) {
		t.Errorf("another store: %v, want ErrPinMismatch", err)
	}
}

func TestUnsealTellsWhatTheDeviceSays(t *testing.T) {
	dir, pin := closedStore(t)
	v, err := Open(context.Background(), Config{Dir: dir}, pin)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	ctx := context.Background()
	wantIs(t, v.Unseal(ctx, nil), ErrNoKeyslot)
	wantIs(t, v.Unseal(ctx, map[string]seal.Sealer{"soft:2": newSoftSealer(7)}), ErrNoKeyslot)
	for _, fault := range []error{seal.ErrAuth, seal.ErrLatched, seal.ErrUnavailable, seal.ErrNotFound} {
		wantIs(t, v.Unseal(ctx, map[string]seal.Sealer{softID: &softSealer{fault: fault}}), fault)
	}
	wrong := map[string]seal.Sealer{softID: newSoftSealer(8)}
	wantIs(t, v.Unseal(ctx, wrong), ErrTampered)
	wantIs(t, v.Unseal(ctx, wrong), seal.ErrTampered)
	if !v.Sealed() {
		t.Error("unsealed by the wrong key")
	}
	if err := v.Unseal(ctx, softSealers); err != nil {
		t.Fatal(err)
	}
	device := newSoftSealer(7)
	if err := v.Unseal(ctx, map[string]seal.Sealer{softID: device}); err != nil || device.calls != 0 {
		t.Errorf("unsealing an unsealed vault: %v, %d device calls", err, device.calls)
	}
}

func TestGroupsAreOrAndMembersAreAnd(t *testing.T) {
	ctx := context.Background()
	a, b, c := newSoftSealer(1), newSoftSealer(2), newSoftSealer(3)
	dir := stateDir(t)
	v, pin, err := Create(ctx, Config{Dir: dir},
		KeyHolder{Sealer: a, ID: "a", Ref: "1", Group: 0},
		KeyHolder{Sealer: b, ID: "b", Ref: "2", Group: 1},
		KeyHolder{Sealer: c, ID: "c", Ref: "3", Group: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = v.Close() }()
	put(t, v, TypeUser, "u", "text")
	slots := v.Slots()
	if len(slots) != 3 || slots[0].Provider != "a" || slots[0].Ref != "1" || slots[1].Group != 1 || slots[2].Provider != "c" || slots[0].Generation != 1 {
		t.Errorf("slots = %+v", slots)
	}
	for _, try := range []struct {
		name    string
		sealers map[string]seal.Sealer
		want    error
	}{
		{"a alone", map[string]seal.Sealer{"a": a}, nil},
		{"b and c", map[string]seal.Sealer{"b": b, "c": c}, nil},
		{"b alone", map[string]seal.Sealer{"b": b}, ErrNoKeyslot},
		{"c alone", map[string]seal.Sealer{"c": c}, ErrNoKeyslot},
		{"b and c exchanged", map[string]seal.Sealer{"b": c, "c": b}, ErrTampered},
		{"a broken, b and c well", map[string]seal.Sealer{"a": &softSealer{fault: seal.ErrUnavailable}, "b": b, "c": c}, nil},
	} {
		v.Seal()
		err := v.Unseal(ctx, try.sealers)
		if try.want == nil {
			if err != nil {
				t.Errorf("%s: %v", try.name, err)
				continue
			}
			wantRecord(t, v, TypeUser, "u", "text")
		} else if !errors.Is(err, try.want) {
			t.Errorf("%s: %v, want %v", try.name, err, try.want)
		}
	}
	_ = pin
}

func TestOpenModesAreRefused(t *testing.T) {
	dir, pin := closedStore(t)
	try := func(name string, want error) {
		t.Helper()
		v, err := Open(context.Background(), Config{Dir: dir}, pin)
		if err == nil {
			_ = v.Close()
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	file, wal := filepath.Join(dir, FileName), filepath.Join(dir, FileName+"-wal")
	chmod := func(path string, m os.FileMode) {
		t.Helper()
		if err := os.Chmod(path, m); err != nil {
			t.Fatal(err)
		}
	}
	chmod(dir, 0o750)
	try("directory open to the group", ErrModes)
	chmod(dir, 0o700)
	chmod(file, 0o604)
	try("file open to the world", ErrModes)
	chmod(file, 0o600)
	if err := os.WriteFile(wal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	chmod(wal, 0o660)
	try("log open to the group", ErrModes)
	if err := os.Remove(wal); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), wal); err != nil {
		t.Fatal(err)
	}
	try("log is a link", ErrModes)
	if err := os.Remove(wal); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 12345, -1); err != nil { // tests run as root
		t.Fatal(err)
	}
	try("file of another user", ErrModes)
	if err := os.Chown(file, 0, -1); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	chmod(open, 0o755)
	_, _, err := Create(context.Background(), Config{Dir: open}, softHolder())
	wantIs(t, err, ErrModes)
	try("everything put back", nil)
}

func TestFilesAreOurs(t *testing.T) {
	v, _ := create(t, stateDir(t))
	put(t, v, TypeUser, "u", "text")
	for name, want := range map[string]os.FileMode{
		".": 0o700, FileName: 0o600, FileName + "-wal": 0o600, FileName + "-shm": 0o600, LockName: 0o600,
	} {
		st, err := os.Stat(filepath.Join(v.cfg.Dir, name))
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s has mode %v, %v; want %v", name, st.Mode().Perm(), err, want)
		}
	}
}
