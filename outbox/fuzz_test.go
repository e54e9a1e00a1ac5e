package outbox

import (
	"encoding/json"
	"github.com/sigild/sigild/vault"
	"reflect"
	"strings"
	"testing"
)

// again insists that what was decoded says the same once it is encoded anew.
func again[T any](t *testing.T, b []byte) {
	t.Helper()
	rec, err := decoded[T](b)
	if err != nil {
		if rec != nil {
			t.Errorf("refused, and gave %+v", rec)
		}
		return
	}
	text, err := json.Marshal(rec)
	if err != nil {
		t.Fatalf("%q was taken and can't be encoded: %v", b, err)
	}
	same, err := decoded[T](text)
	if err != nil || !reflect.DeepEqual(same, rec) {
		t.Errorf("%q was taken as %+v, and encoded anew as %+v, %v", b, rec, same, err)
	}
}

// FuzzRecords: whatever lies in the vault, an endpoint and an event that wait are
// decoded as one thing or refused.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"end_1","organization":"org_1","name":"n","url":"https://h/","environment":"e","created_at":"2026-05-04T12:00:00Z","secret":"ens_1","keys":[{"id":"k","status":"active","public":"AA==","created_at":"2026-05-04T12:00:00Z"}]}`))
	f.Add([]byte(`{"v":1,"id":"evt_1","endpoint":"end_1","organization":"org_1","name":"ping","created_at":"2026-05-04T12:00:00Z","body":"e30=","tries":1,"due_at":"2026-05-04T12:00:00Z"}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1}{}`))
	f.Add([]byte(`{"v":1,"more":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		again[endpoint](t, b)
		again[outgoing](t, b)
	})
}

// FuzzPublicKey: a receiver's key is RSA of a size that is used, in the one form, or refused.
func FuzzPublicKey(f *testing.F) {
	f.Add("")
	f.Add("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
	f.Add("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n")
	f.Add("-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		der, err := parsePublic(text)
		if err != nil && der != nil || err == nil && !strings.Contains(text, "PUBLIC KEY") {
			t.Errorf("%q gives %x, %v", text, der, err)
		}
	})
}

func decoded[T any](b []byte) (*T, error) {
	rec := new(T)
	if err := vault.DecodeObject(b, recordVersion, rec); err != nil {
		return nil, err
	}
	return rec, nil
}
