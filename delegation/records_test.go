package delegation

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/sigild/sigild/mpc"
)

func TestRecordsDecodeStrictly(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                 ``,
		"null":                    `null`,
		"a list":                  `[]`,
		"a number":                `1`,
		"no version":              `{"id":"x"}`,
		"version 0":               `{"v":0,"id":"x"}`,
		"a later version":         `{"v":2,"id":"x"}`,
		"version as text":         `{"v":"1","id":"x"}`,
		"an unknown member":       `{"v":1,"id":"x","colour":"red"}`,
		"one deeper down":         `{"v":1,"root":[{"id":"x","admin":true}]}`,
		"a member of other type":  `{"v":1,"id":7}`,
		"a second version":        `{"v":1,"id":"x","v":2}`,
		"a second object":         `{"v":1,"id":"x"}{"v":1}`,
		"a bracket behind":        `{"v":1,"id":"x"}]`,
		"cut":                     `{"v":1,"id":"x`,
		"bytes that aren't UTF-8": "{\"v\":1,\xff:1}",
	} {
		if err := decodeRecord([]byte(text), new(organization)); err == nil {
			t.Errorf("%s: accepted %s", name, text)
		}
	}
	var o organization
	if err := decodeRecord([]byte(` {"v":1,"id":"x"} `), &o); err != nil || o.ID != "x" {
		t.Errorf("members that are absent: %+v, %v", o, err)
	}
}

// records is one of each type.
func records() []any {
	end := time.Date(2027, 1, 2, 3, 4, 5, 6, time.UTC)
	reg := []registered{{ID: "id", Name: "n", Algorithm: "ed25519", PublicKey: []byte{1}}}
	return []any{
		&appliance{V: 1, ID: "app", CreatedAt: end, Operators: reg, Quorum: 1, CheckpointKey: "01"},
		&organization{V: 1, ID: "org", Name: "n", CreatedAt: end, Root: reg, Quorum: 1, PolicyAuthority: "api"},
		&user{V: 1, ID: "usr", Organization: "org", Name: "n", Kind: EndUser, CreatedAt: end, Credentials: reg, ShareRecipient: "age1"},
		&user{V: 1, ID: "usr", Organization: "org", Name: "n", Kind: DelegatedUser, CreatedAt: end},
		&key{V: 1, ID: "key", Scheme: "eddsa-ed25519", CreatedAt: end, Origin: "in_process", Status: statusActive, Here: []mpc.Party{mpc.Server}},
		&wallet{V: 1, ID: "wal", Chain: "eip155", Address: "0x", Status: statusPending, CreatedAt: end},
		&waitingShare{V: 1, Wallet: "wal", Recipient: "age1", Ciphertext: []byte{1, 2}, CreatedAt: end},
		&delegationRecord{V: 1, ID: "dlg", Status: statusActive, CreatedAt: end, ExpiresAt: &end, Policies: newDelegation("d", solWallet).Policies, APIKey: "k", Version: 7},
		&apiKeyRecord{V: 1, ID: "k", Delegation: "dlg", CreatedAt: end, Verifier: []byte{1}, Encrypted: []byte{2}},
		&ceremonyRecord{V: 1, ID: "cer", Kind: kindIssue, Target: "dlg", Status: statusFailed, Error: "no", StartedAt: end},
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	for _, rec := range records() {
		b, err := encodeRecord(rec)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(b, []byte(`{"v":1,`)) {
			t.Errorf("%T begins %.20q, want its version first", rec, b)
		}
		got := reflect.New(reflect.TypeOf(rec).Elem()).Interface()
		if err := decodeRecord(b, got); err != nil || !reflect.DeepEqual(got, rec) {
			t.Errorf("%T came back as %+v, %v; it was %+v", rec, got, err, rec)
		}
	}
}

// What decodes encodes to what decodes to the same, and never panics.
func FuzzDecodeRecord(f *testing.F) {
	all := records()
	for i, rec := range all {
		b, err := encodeRecord(rec)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
	}
	f.Add(uint8(0), []byte(`{"v":1}{`))
	f.Add(uint8(7), []byte(`{"v":1,"policies":[{"effect":"EFFECT_ALLOW"}],"limits":[{"max":"0"}]}`))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		typ := reflect.TypeOf(all[int(kind)%len(all)]).Elem()
		first := reflect.New(typ).Interface()
		if decodeRecord(b, first) != nil {
			return
		}
		again, err := encodeRecord(first)
		if err != nil {
			return // such as a time that JSON can't say
		}
		second := reflect.New(typ).Interface()
		if err := decodeRecord(again, second); err != nil {
			t.Fatalf("%q decodes, its encoding %q does not: %v", b, again, err)
		}
		if third, err := encodeRecord(second); err != nil || !bytes.Equal(third, again) {
			t.Errorf("%q encodes to %q, then to %q", b, again, third)
		}
	})
}
