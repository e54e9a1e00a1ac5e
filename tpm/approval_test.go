package tpm

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

func repeated(b byte) (v [32]byte) { return [32]byte(bytes.Repeat([]byte{b}, 32)) }

func namedBy(b byte) []byte { return append([]byte{0, 0x0b}, bytes.Repeat([]byte{b}, 32)...) }

// example is an approval with made-up names.
func example() Approval {
	return Approval{
		SRKName: namedBy(1), Counter: makeRef(namedBy(2)), Sequence: 5,
		PCRs: PCRs{7: repeated(7), 11: repeated(11)}, Signature: []byte{0x30, 1, 2},
	}
}

// What the approver signs and how it lies in a file are kept for ever.
func TestApprovalFormat(t *testing.T) {
	a := example()
	message, err := a.Message()
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(message); got != goldenMessage {
		t.Errorf("the message is\n%s, want\n%s", got, goldenMessage)
	}
	file, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "version": 1,
  "srk_name": "000b` + strings.Repeat("01", 32) + `",
  "counter": "000b` + strings.Repeat("02", 32) + `",
  "sequence": 5,
  "pcrs": {
    "11": "` + strings.Repeat("0b", 32) + `",
    "7": "` + strings.Repeat("07", 32) + `"
  },
  "signature": "300102"
}
`
	if string(file) != want {
		t.Errorf("the file is\n%s, want\n%s", file, want)
	}
	if _, err := ParseApproval(file); err != nil {
		t.Error(err)
	}
}

// goldenMessage is the policy digest of TPM 2.0 Library Part 3 §23.7 and §23.9 and the
// policyRef, computed with Python's hashlib, not this package.
const goldenMessage = "2a7f7ada996a3ff408d229a1e68e5f4a1af7d4e13c5f04230754b0ad50467b0dddbcf48ee4a1467f24253486ce0d877b8425e76b9e4109593d5fc51d879575b8"

func TestMalformedApprovals(t *testing.T) {
	good, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	replaced := func(old, new string) string { return strings.Replace(string(good), old, new, 1) }
	for name, text := range map[string]string{
		"empty": "", "no JSON": "x", "null": "null", "a list": "[]", "huge": strings.Repeat(" ", maxApproval) + string(good),
		"another version":    replaced(`"version": 1`, `"version": 2`),
		"an unknown key":     replaced(`"version": 1`, `"version": 1, "more": 1`),
		"a key twice":        replaced(`"version": 1`, `"version": 1, "version": 1`),
		"more behind":        string(good) + "{}",
		"no newline":         strings.TrimSpace(string(good)),
		"upper case":         replaced("000b01", "000B01"),
		"no PCR":             replaced(string(good[bytes.Index(good, []byte(`"pcrs"`)):bytes.Index(good, []byte(`  "signature"`))]), `"pcrs": {},`+"\n"),
		"a PCR too many":     replaced(`"11"`, `"24"`),
		"a negative PCR":     replaced(`"11"`, `"-1"`),
		"a PCR written long": replaced(`"7"`, `"07"`),
		"a short value":      replaced(strings.Repeat("07", 32), strings.Repeat("07", 31)),
		"a short name":       replaced("000b01", "000b"),
		"another algorithm":  replaced("000b01", "000c01"),
		"negative":           replaced(`: 5`, `: -5`),
		"too large":          replaced(`: 5`, `: 18446744073709551616`),
	} {
		if a, err := ParseApproval([]byte(text)); err == nil {
			t.Errorf("%s: read as %+v", name, a)
		}
	}
	for name, change := range map[string]func(*Approval){
		"no SRK": func(a *Approval) { a.SRKName = nil }, "no counter": func(a *Approval) { a.Counter = "" },
		"no PCR": func(a *Approval) { a.PCRs = nil }, "PCR 24": func(a *Approval) { a.PCRs[24] = repeated(1) },
	} {
		a := example()
		change(&a)
		if _, err := a.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
		if _, err := a.Message(); err == nil {
			t.Errorf("%s: has a message to sign", name)
		}
	}
}

func TestApprovalFolder(t *testing.T) {
	dir := t.TempDir()
	good, err := example().Encode()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("README", []byte("not ours"))
	write("a.json", good)
	write("b.json", good)
	all, err := ReadApprovals(dir)
	if err != nil || len(all) != 2 || all[0].Name != "a.json" || all[1].Name != "b.json" {
		t.Errorf("the folder holds %+v, %v, want two", all, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "c.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadApprovals(dir); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "c.json") {
		t.Errorf("a folder in the folder: %v, want ErrPolicy that names it", err)
	}
	if err := os.Remove(filepath.Join(dir, "c.json")); err != nil {
		t.Fatal(err)
	}
	for i := range maxApprovals {
		write(string(rune('a'+i/8))+string(rune('a'+i%8))+".json", good)
	}
	if _, err := ReadApprovals(dir); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too many approvals: %v, want ErrPolicy", err)
	}
	if _, err := ReadApprovals(filepath.Join(dir, "none")); !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("no folder: %v, want ErrPolicy", err)
	}
}

// FuzzParseApproval: one approval has one form, and what is read can be signed.
func FuzzParseApproval(f *testing.F) {
	good, err := example().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Add([]byte(`{"version":1,"pcrs":{"7":""}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseApproval(b)
		if err != nil {
			return
		}
		again, err := a.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s is encoded again as %s, %v", b, again, err)
		}
		if message, err := a.Message(); err != nil || len(message) != 64 {
			t.Errorf("its message is %x, %v", message, err)
		}
		if _, _, err := a.halves(); err != nil && !errors.Is(err, seal.ErrPolicy) {
			t.Errorf("reading the signature: %v, want ErrPolicy", err)
		}
	})
}
