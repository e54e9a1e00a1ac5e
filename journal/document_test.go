package journal

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/vault"
)

type note struct {
	Text string `json:"text"`
}

func TestDocumentsRefuseEveryChange(t *testing.T) {
	d := newDevice(t)
	b, err := SignDocument(context.Background(), d, "02", &d.key.PublicKey, "note", note{"so it is"})
	if err != nil {
		t.Fatal(err)
	}
	var n note
	if err := OpenDocument(b, &d.key.PublicKey, "note", &n); err != nil || n.Text != "so it is" {
		t.Fatalf("%+v, %v", n, err)
	}
	for i := range len(b) * 8 {
		c := bytes.Clone(b)
		c[i/8] ^= 1 << (i % 8)
		if err := OpenDocument(c, &d.key.PublicKey, "note", &n); !errors.Is(err, ErrDocument) {
			t.Fatalf("bit %d flipped: %v, want ErrDocument", i, err)
		}
	}
	for i := range b {
		if err := OpenDocument(b[:i], &d.key.PublicKey, "note", &n); !errors.Is(err, ErrDocument) {
			t.Fatalf("cut to %d bytes: %v, want ErrDocument", i, err)
		}
	}
	other := newDevice(t)
	for name, err := range map[string]error{
		"another key":  OpenDocument(b, &other.key.PublicKey, "note", &n),
		"another kind": OpenDocument(b, &d.key.PublicKey, "letter", &n),
		"no key":       OpenDocument(b, nil, "note", &n),
		"more behind":  OpenDocument(append(bytes.Clone(b), ' '), &d.key.PublicKey, "note", &n),
	} {
		if !errors.Is(err, ErrDocument) {
			t.Errorf("%s: %v, want ErrDocument", name, err)
		}
	}
	d.bad = true
	if _, err := SignDocument(context.Background(), d, "02", &d.key.PublicKey, "note", note{}); err == nil {
		t.Error("a device that signs wrongly was believed")
	}
}

func FuzzOpenDocument(f *testing.F) {
	d := newDevice(f)
	b, err := SignDocument(context.Background(), d, "02", &d.key.PublicKey, "note", note{"so it is"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":1,"kind":"note","body":{},"signature":""}` + "\n"))
	f.Fuzz(func(t *testing.T, c []byte) {
		var n note
		if err := OpenDocument(c, &d.key.PublicKey, "note", &n); err == nil && !bytes.Equal(b, c) {
			t.Errorf("accepted %q", c)
		}
	})
}

// A receipt is verified with the key alone, names what was destroyed, and every changed
// bit is found.
func TestReceipts(t *testing.T) {
	f := newFixture(t)
	ctx := context.Background()
	put := func(tx *vault.Tx) error { return tx.Put(vault.TypeShare, "set/server", []byte("secret")) }
	if err := f.v.Update(ctx, put); err != nil {
		t.Fatal(err)
	}
	var seq uint64
	err := f.v.UpdateAlone(ctx, func(tx *vault.Tx) (err error) {
		if err = tx.Delete(vault.TypeShare, "set/server"); err == nil {
			seq, err = f.j.Append(tx, Entry{Kind: KindAct, Method: "revoke", Delegation: "dlg", Outcome: "revoked"})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.dir, vault.FileName)
	var b bytes.Buffer
	if err := MakeReceipt(ctx, &b, path, nil, seq); !errors.Is(err, ErrNotCovered) {
		t.Errorf("before a checkpoint: %v, want ErrNotCovered", err)
	}
	if err := f.j.Checkpoint(ctx); err != nil {
		t.Fatal(err)
	}
	f.must(Entry{Kind: KindStarted})
	if err := MakeReceipt(ctx, &b, path, nil, seq); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyReceipt(b.Bytes(), &f.device.key.PublicKey)
	if err != nil || r.Act.Delegation != "dlg" || len(r.Act.Destroyed) != 1 || r.Act.Destroyed[0] != "share set/server" || r.StoreID != f.v.StoreID() {
		t.Fatalf("receipt %+v, %v", r, err)
	}
	for i := range b.Len() * 8 {
		c := bytes.Clone(b.Bytes())
		c[i/8] ^= 1 << (i % 8)
		if _, err := VerifyReceipt(c, &f.device.key.PublicKey); err == nil {
			t.Fatalf("bit %d flipped was accepted", i)
		}
	}
	for i := range b.Len() {
		if _, err := VerifyReceipt(b.Bytes()[:i], &f.device.key.PublicKey); err == nil {
			t.Fatalf("cut to %d bytes was accepted", i)
		}
	}
	if _, err := VerifyReceipt(b.Bytes(), &newDevice(t).key.PublicKey); err == nil {
		t.Error("verified with another key")
	}
	if _, err := VerifyReceipt(b.Bytes(), nil); err == nil {
		t.Error("verified without a key")
	}
	for name, n := range map[string]uint64{"no act": 1, "not there": 999} {
		if err := MakeReceipt(ctx, new(bytes.Buffer), path, nil, n); err == nil {
			t.Errorf("%s: a receipt was made", name)
		}
	}
}
