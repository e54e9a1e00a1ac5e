package journal

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

// testdata/v1 is kept for ever: every later build must verify what this one
// wrote. The flag makes it where it's missing and never overwrites.
var makeGolden = flag.Bool("make-golden", false, "write missing golden files")

func TestGoldenJournal(t *testing.T) {
	path := filepath.Join("testdata", "v1", "vault.db")
	if _, err := os.Stat(path); os.IsNotExist(err) && *makeGolden {
		b, err := os.ReadFile(written(t).path())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// Verified from a copy: opening the file itself would leave a log beside it.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "golden.db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(context.Background(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := Report{
		StoreID: r.StoreID, ApplianceID: "appliance-1", From: 1, Entries: 9, First: testStart, Last: testStart, Checkpoints: 1,
		Head: [32]byte{
			19, 241, 117, 152, 10, 111, 60, 243, 244, 74, 50, 64, 56, 173, 211, 18,
			38, 107, 74, 74, 181, 187, 65, 227, 134, 45, 146, 193, 66, 237, 192, 215,
		},
		Covered: 6, FirstUnsigned: 8, Unsigned: 2, CheckpointKey: r.CheckpointKey, KeyFromGenesis: true,
	}
	if r != want {
		t.Errorf("report = %+v, want %+v", r, want)
	}
}

// The golden journal gives the golden segment, byte for byte, and it still verifies.
func TestGoldenSegment(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	golden := filepath.Join(dir, segmentName(1, 6))
	copied := filepath.Join(t.TempDir(), "golden.db")
	if err := os.WriteFile(copied, read(t, filepath.Join(dir, "vault.db")), 0o600); err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	made, _, err := Export(context.Background(), copied, nil, out, 1)
	if err != nil || len(made) != 1 {
		t.Fatalf("exporting the golden journal: %v, %v", made, err)
	}
	if _, err := os.Stat(golden); os.IsNotExist(err) && *makeGolden {
		if err := os.WriteFile(golden, read(t, made[0]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(read(t, made[0]), read(t, golden)) {
		t.Errorf("the export differs from %s", golden)
	}
	if r, err := VerifySegments(context.Background(), []string{golden}, nil, nil); err != nil || r.Entries != 6 {
		t.Errorf("the golden segment: %+v, %v", r, err)
	}
}
