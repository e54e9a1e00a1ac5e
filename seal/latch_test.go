package seal

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var someLatch = Latch{Version: 1, Time: time.Unix(1_800_000_000, 5).UTC(), Provider: "pkcs11", TokenLabel: "prod", TokenSerial: "00ff", Error: "CKR_PIN_INCORRECT"}

func TestLatchOnDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "latch")
	if _, ok, err := ReadLatch(path); ok || err != nil {
		t.Errorf("reading no latch: %v, %v", ok, err)
	}
	for range 2 { // also over an older one
		if err := someLatch.Write(path); err != nil {
			t.Fatal(err)
		}
	}
	want := `{"version":1,"time":"2027-01-15T08:00:00Z","provider":"pkcs11","token_label":"prod","token_serial":"00ff","error":"CKR_PIN_INCORRECT"}` + "\n"
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("latch file is %q (%v), want %q", got, err, want)
	}
	l, ok, err := ReadLatch(path)
	if err != nil || !ok || l.Error != someLatch.Error || !l.Time.Equal(someLatch.Time.Truncate(time.Second)) {
		t.Errorf("read %+v, %v, %v", l, ok, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("temporary files were left: %q", left)
	}
	if err := ClearLatch(path); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := ReadLatch(path); ok || err != nil {
		t.Errorf("reading a cleared latch: %v, %v", ok, err)
	}
	if err := someLatch.Write(filepath.Join(dir, "missing", "latch")); err == nil {
		t.Error("writing into a missing directory succeeded")
	}
	if err := ClearLatch(filepath.Join(dir, "missing", "latch")); err == nil {
		t.Error("clearing in a missing directory succeeded")
	}
}

func TestLatchIsStrict(t *testing.T) {
	good, err := encodeLatch(someLatch)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseLatch(good); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"empty":          "",
		"no newline":     string(bytes.TrimSpace(good)),
		"twice":          string(good) + string(good),
		"unknown field":  `{"version":1,"time":"2027-01-15T08:00:00Z","provider":"pkcs11","token_label":"","token_serial":"","error":"E","more":1}` + "\n",
		"missing field":  `{"version":1,"time":"2027-01-15T08:00:00Z","provider":"pkcs11","token_label":"","error":"E"}` + "\n",
		"other case":     `{"Version":1,"time":"2027-01-15T08:00:00Z","provider":"pkcs11","token_label":"","token_serial":"","error":"E"}` + "\n",
		"no error":       `{"version":1,"time":"2027-01-15T08:00:00Z","provider":"pkcs11","token_label":"","token_serial":"","error":""}` + "\n",
		"version 2":      `{"version":2,"time":"2027-01-15T08:00:00Z","provider":"pkcs11","token_label":"","token_serial":"","error":"E"}` + "\n",
		"fractions":      `{"version":1,"time":"2027-01-15T08:00:00.5Z","provider":"pkcs11","token_label":"","token_serial":"","error":"E"}` + "\n",
		"other zone":     `{"version":1,"time":"2027-01-15T08:00:00+01:00","provider":"pkcs11","token_label":"","token_serial":"","error":"E"}` + "\n",
		"more than 4096": string(bytes.Repeat([]byte(" "), maxLatch)) + string(good),
	} {
		if l, err := parseLatch([]byte(bad)); err == nil {
			t.Errorf("%s: parsed as %+v, want an error", name, l)
		}
	}
}

// FuzzLatch: what is accepted is what we would write.
func FuzzLatch(f *testing.F) {
	good, _ := encodeLatch(someLatch)
	f.Add(good)
	f.Add([]byte("{}"))
	f.Add([]byte(`{"version":1,"version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := parseLatch(b)
		if err != nil {
			return
		}
		if again, err := encodeLatch(l); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q is encoded again as %q, %v", b, again, err)
		}
	})
}
