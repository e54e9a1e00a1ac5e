package device

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

func newFile(t *testing.T) (*File, string, *age.X25519Identity) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "phone.age")
	f, err := Create(path, id)
	if err != nil {
		t.Fatal(err)
	}
	return f, path, id
}

func userShare(t testing.TB) Share {
	set := mpctest.Ed25519RootSet(t)
	return Share{Set: set.ID, Key: "key_1", Wallet: "wal_1", State: Pending, MadeAt: time.Unix(1000, 0).UTC(), Encoded: set.Shares(t, mpc.User)[0]}
}

func TestWhatIsAddedIsThereAfterwards(t *testing.T) {
	f, path, id := newFile(t)
	own, err := f.Identity()
	if err != nil {
		t.Fatal(err)
	}
	want := userShare(t)
	if err := f.add(want); err != nil {
		t.Fatal(err)
	}
	// As after kill -9: nothing is closed but the lock.
	f.lock.Close()
	// A write that a crash cut short lies beside the file and changes nothing.
	if err := os.WriteFile(path+".new", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path, id)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	got := again.share(func(s Share) bool { return s.Set == want.Set })
	if same, err := again.Identity(); err != nil || same.Pin() != own.Pin() || got == nil || !bytes.Equal(got.Encoded, want.Encoded) {
		t.Errorf("read %+v, error %v, want the share and the key", got, err)
	}
	if shown := again.Shares(); len(shown) != 1 || shown[0].Encoded != nil {
		t.Errorf("shown %+v, want one without its bytes", shown)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
	}
	if raw, err := os.ReadFile(path); err != nil || bytes.Contains(raw, want.Encoded[len(want.Encoded)/2:][:16]) {
		t.Errorf("the file has the share in the clear, or %v", err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	f, path, id := newFile(t)
	if _, err := Open(path, id); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second one opened it: %v", err)
	}
	f.Close()
	again, err := Open(path, id)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if _, err := Create(path, id); err == nil {
		t.Error("a new device took the place of an old one")
	}
}

func TestOtherIdentitiesOpenNothing(t *testing.T) {
	f, path, _ := newFile(t)
	f.Close()
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, other); err == nil {
		t.Error("opened")
	}
}

func TestSharesSettle(t *testing.T) {
	f, _, _ := newFile(t)
	defer f.Close()
	s := userShare(t)
	if err := f.add(s); err != nil {
		t.Fatal(err)
	}
	for i, step := range []struct {
		live []string
		at   time.Time
		want State
	}{
		{nil, s.MadeAt.Add(time.Minute), Pending}, // it may be about to be committed
		{[]string{s.Set}, s.MadeAt.Add(time.Minute), Live},
		{nil, s.MadeAt.Add(time.Minute), Ended},
		{[]string{s.Set}, s.MadeAt.Add(time.Minute), Live},
	} {
		if err := f.settle(step.live, step.at); err != nil || f.contents.Shares[0].State != step.want || len(f.contents.Shares[0].Encoded) == 0 {
			t.Errorf("step %d: %s, error %v, want %s with its bytes", i, f.contents.Shares[0].State, err, step.want)
		}
	}
	f.contents.Shares[0].State = Pending
	if err := f.settle(nil, s.MadeAt.Add(2*time.Hour)); err != nil || f.contents.Shares[0].State != Ended {
		t.Errorf("a set that never counted: %s, error %v", f.contents.Shares[0].State, err)
	}
}

// FuzzContents: what is read is written back the same, and nothing crashes.
func FuzzContents(f *testing.F) {
	one := contents{V: 1, Seed: make([]byte, 32), Shares: []Share{userShare(f)}}
	text, err := json.Marshal(one)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := parse(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(again); err != nil {
			t.Errorf("%s was read, and not what was written of it: %v", text, err)
		}
	})
}
