package delivery

import (
	"reflect"
	"testing"

	"github.com/sigild/sigild/vault"
)

// again insists that what was decoded says the same once it is encoded anew.
func again[T any](t *testing.T, b []byte) *T {
	t.Helper()
	rec, err := decoded[T](b)
	if err != nil {
		if rec != nil {
			t.Errorf("refused, and gave %+v", rec)
		}
		return nil
	}
	text, err := vault.EncodeObject(rec)
	if err != nil {
		t.Fatalf("%q was taken and can't be encoded: %v", b, err)
	}
	same, err := decoded[T](text)
	if err != nil || !reflect.DeepEqual(same, rec) {
		t.Errorf("%q was taken as %+v, and encoded anew as %+v, %v", b, rec, same, err)
	}
	return rec
}

// FuzzRecords: whatever lies in the vault, webhooks, vendors' wallets and events are
// decoded as one thing or refused; and a wallet's rules have an answer for what is in it.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"v":1,"id":"whk_1","organization":"org_1","environment":"e","created_at":"2026-05-04T12:00:00Z","secrets":["whs_1"],"keys":[{"provider":"p","ref":"r","public":"AA==","imported":true}],"token":"wht_1"}`))
	f.Add([]byte(`{"v":1,"webhook":"whk_1","wallet":"w","revoked":{"":"2026-05-04T12:00:00Z"},"sets":{"s":{"id":"vdl_1","status":"bound","chain":"EVM","event":"e","at":"2026-05-04T12:00:00Z","taken_at":"2026-05-04T12:00:00Z","whole":true,"delegation":"dlg_1"}},"beside":{"s":{"id":"vdl_2","status":"pending","chain":"EVM","event":"f","at":"2026-05-04T12:00:01Z","taken_at":"2026-05-04T12:00:00Z"}}}`))
	f.Add([]byte(`{"v":1,"taken_at":"2026-05-04T12:00:00Z","outcomes":["STORED"]}`))
	f.Add([]byte(`{"v":2}`))
	f.Add([]byte(`{"v":1}x`))
	f.Fuzz(func(t *testing.T, b []byte) {
		again[webhook](t, b)
		again[vendorEvent](t, b)
		w := again[vendorWallet](t, b)
		if w == nil {
			return
		}
		for set, m := range w.Sets {
			e := &event{name: eventRevoked, id: "r", set: set, at: m.At}
			c := w.clone()
			c.bury(e)
			if at, dead := c.buried(set); !dead || at.Before(m.At) || c.Sets[set].Status != Revoked && !c.Sets[set].At.After(m.At) {
				t.Errorf("a revocation at the time of %+v leaves %+v", m, c.Sets[set])
			}
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
