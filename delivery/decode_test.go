package delivery

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/refusal"
)

// good is a created event whose envelopes have the right form.
func good() string {
	e := `{"alg":"HYBRID-RSA-AES-256","iv":"` + strings.Repeat("A", 22) + `","ct":"AAAA","tag":"` + strings.Repeat("A", 22) + `","ek":"` + strings.Repeat("A", 342) + `"}`
	return `{"messageId":"m","eventId":"e","eventName":"wallet.delegation.created","timestamp":"2025-10-01T15:13:26.348Z","environmentId":"env",` +
		`"userId":null,"data":{"chain":"EVM","encryptedDelegatedShare":` + e + `,"encryptedWalletApiKey":` + e + `,"publicKey":"0xd7","userId":"u","walletId":"w"}}`
}

const goodRevoked = `{"eventName":"wallet.delegation.revoked","eventId":"e","timestamp":"2025-10-01T16:00:00.000Z","userId":"u","data":{"walletId":"w","chain":"EVM"}}`

func TestReadEvent(t *testing.T) {
	e, err := readEvent([]byte(good()))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 10, 1, 15, 13, 26, 348e6, time.UTC)
	if e.name != eventCreated || e.id != "e" || e.message != "m" || e.environment != "env" || !e.at.Equal(at) || e.wallet != "w" || e.set != "" ||
		e.chain != "EVM" || e.address != "0xd7" || e.user != "u" || len(e.share.ek) != 256 || len(e.apiKey.sealed) != 3+16 {
		t.Errorf("read %+v", e)
	}
	if e, err = readEvent([]byte(goodRevoked)); err != nil || e.wallet != "w" || e.environment != "" || e.message != "" {
		t.Errorf("the documentation's revoked event: %+v, %v", e, err)
	}
	accepted := map[string]func(string) string{
		"unknown members": func(s string) string {
			return strings.Replace(s, `"userId":null`, `"userId":null,"x":{"y":[1,{"z":2}]}`, 1)
		},
		"redelivery": func(s string) string { return strings.Replace(s, `"userId":null`, `"redelivery":true`, 1) },
		"share set": func(s string) string {
			return strings.Replace(s, `"walletId":"w"`, `"walletId":"w","shareSetId":"s"`, 1)
		},
		"share set null": func(s string) string {
			return strings.Replace(s, `"walletId":"w"`, `"walletId":"w","shareSetId":null`, 1)
		},
		"CAIP-2 chain": func(s string) string { return strings.Replace(s, `"EVM"`, `"eip155:1"`, 1) },
		"kid":          func(s string) string { return strings.Replace(s, `"alg":`, `"kid":"dynamic_rsa_x","alg":`, 2) },
		"KeyShare alias": func(s string) string {
			return strings.Replace(s, "encryptedDelegatedShare", "encryptedDelegatedKeyShare", 1)
		},
		"Share alias":        func(s string) string { return strings.Replace(s, "encryptedDelegatedShare", "encryptedShare", 1) },
		"short share alias":  func(s string) string { return strings.Replace(s, "encryptedDelegatedShare", "encryptedKeyShare", 1) },
		"short key alias":    func(s string) string { return strings.Replace(s, "encryptedWalletApiKey", "encryptedApiKey", 1) },
		"white space around": func(s string) string { return "\n " + s + " \n" },
		"a zone":             func(s string) string { return strings.Replace(s, "26.348Z", "26.348+02:00", 1) },
		"escapes":            func(s string) string { return strings.Replace(s, `"eventId":"e"`, `"event\u0049d":"\u0065"`, 1) },
	}
	for what, change := range accepted {
		s := change(good())
		if s == good() {
			t.Errorf("%s: nothing was changed", what)
		}
		if e, err := readEvent([]byte(s)); err != nil || e.id != "e" {
			t.Errorf("%s: %+v, %v", what, e, err)
		}
	}
}

func TestMalformedBodies(t *testing.T) {
	replace := func(old, new string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Errorf("%q is not there to replace", old)
			}
			return strings.Replace(s, old, new, 1)
		}
	}
	rows := map[string]func(string) string{
		"empty":                func(string) string { return "" },
		"null":                 func(string) string { return "null" },
		"array":                func(s string) string { return "[" + s + "]" },
		"string":               func(string) string { return `"x"` },
		"cut":                  func(s string) string { return s[:len(s)-1] },
		"two values":           func(s string) string { return s + s },
		"trailing":             func(s string) string { return s + "x" },
		"not UTF-8":            replace(`"0xd7"`, "\"\xff\""),
		"trailing comma":       replace(`"userId":null,`, `"userId":null,,`),
		"too large":            func(s string) string { return s + strings.Repeat(" ", MaxBody) },
		"too deep":             replace(`"userId":null`, `"userId":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)),
		"far too deep":         replace(`"userId":null`, `"userId":`+strings.Repeat("[", 9000)+strings.Repeat("]", 9000)),
		"doubled known":        replace(`"eventId":"e"`, `"eventId":"e","eventId":"e"`),
		"doubled by escape":    replace(`"eventId":"e"`, `"eventId":"e","event\u0049d":"f"`),
		"doubled wallet":       replace(`"walletId":"w"`, `"walletId":"w","walletId":"v"`),
		"doubled unknown":      replace(`"userId":null`, `"x":1,"x":2`),
		"doubled in envelope":  replace(`"alg":`, `"alg":"none","alg":`),
		"name in another case": replace(`"walletId"`, `"walletid"`),
		"two share aliases":    replace(`"walletId":"w"`, `"walletId":"w","encryptedShare":{}`),
		"two key aliases":      replace(`"walletId":"w"`, `"walletId":"w","encryptedApiKey":null`),
		"no share":             replace("encryptedDelegatedShare", "share"),
		"no key":               replace("encryptedWalletApiKey", "key"),
		"share as text":        replace(`"encryptedDelegatedShare":{`, `"encryptedDelegatedShare":"x","y":{`),
		"no event name":        replace(`"eventName":"wallet.delegation.created",`, ``),
		"event name no text":   replace(`"wallet.delegation.created"`, `1`),
		"no event id":          replace(`"eventId":"e",`, ``),
		"empty event id":       replace(`"eventId":"e"`, `"eventId":""`),
		"event id null":        replace(`"eventId":"e"`, `"eventId":null`),
		"event id with slash":  replace(`"eventId":"e"`, `"eventId":"a/b"`),
		"event id with line":   replace(`"eventId":"e"`, `"eventId":"a\nb"`),
		"long event id":        replace(`"eventId":"e"`, `"eventId":"`+strings.Repeat("e", 129)+`"`),
		"very long event id":   replace(`"eventId":"e"`, `"eventId":"`+strings.Repeat("e", 300)+`"`),
		"no message id":        replace(`"messageId":"m",`, ``),
		"no environment":       replace(`"environmentId":"env",`, ``),
		"no timestamp":         replace(`"timestamp":"2025-10-01T15:13:26.348Z",`, ``),
		"timestamp as number":  replace(`"2025-10-01T15:13:26.348Z"`, `1759331606348`),
		"timestamp, no zone":   replace(`26.348Z`, `26.348`),
		"timestamp, day 32":    replace(`2025-10-01`, `2025-10-32`),
		"no data":              replace(`"data":`, `"date":`),
		"data null":            replace(`"data":{`, `"data":null,"x":{`),
		"no wallet":            replace(`"walletId":"w"`, `"wallet":"w"`),
		"wallet no text":       replace(`"walletId":"w"`, `"walletId":7`),
		"wallet with slash":    replace(`"walletId":"w"`, `"walletId":"w/x"`),
		"empty share set":      replace(`"walletId":"w"`, `"walletId":"w","shareSetId":""`),
		"no chain":             replace(`"chain":"EVM",`, ``),
		"chain no text":        replace(`"EVM"`, `[]`),
		"user no text":         replace(`"userId":"u"`, `"userId":{}`),
		"publicKey with space": replace(`"0xd7"`, `"0x d7"`),
	}
	for what, change := range rows {
		e, err := readEvent([]byte(change(good())))
		wantReason(t, what, err, refusal.RequestInvalid)
		if err == nil {
			t.Errorf("%s: %+v", what, e)
		}
	}
	for what, s := range map[string]string{
		"revoked without wallet": strings.Replace(goodRevoked, `"walletId":"w",`, ``, 1),
		"revoked without id":     strings.Replace(goodRevoked, `"eventId":"e",`, ``, 1),
		"revoked without time":   strings.Replace(goodRevoked, `"timestamp":"2025-10-01T16:00:00.000Z",`, ``, 1),
		"revoked, empty set":     strings.Replace(goodRevoked, `"walletId":"w"`, `"walletId":"w","shareSetId":""`, 1),
	} {
		_, err := readEvent([]byte(s))
		wantReason(t, what, err, refusal.RequestInvalid)
	}
}

func TestBodyTooLargeOrFromTheFuture(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	for _, n := range []int{MaxBody + 1, 1 << 20} {
		b := append(body(t, e.created(t, "ev-1", "w1", "", 1)), bytes.Repeat([]byte{' '}, n)...)[:n]
		h.refusedAs("oversized", Received{e.id, b, sign(e.secret, b)}, refusal.RequestInvalid)
	}
	b := append(body(t, e.created(t, "ev-1", "w1", "", 1)), bytes.Repeat([]byte{' '}, MaxBody)...)[:MaxBody]
	if got, err := h.Ingest(t.Context(), receiver, Received{e.id, b, sign(e.secret, b)}); err != nil || got != Stored {
		t.Errorf("the largest: %s, %v", got, err)
	}
	// One from the future could not be revoked; a revocation from there holds.
	future := body(t, e.created(t, "ev-2", "w2", "", 60+24*60+1))
	h.refusedAs("from the future", Received{e.id, future, sign(e.secret, future)}, refusal.RequestInvalid)
	h.want(e, e.created(t, "ev-3", "w2", "", 60+24*60), Stored)
	h.want(e, revoked("ev-4", "w2", "", 60+48*60), Stored)
	h.want(e, e.created(t, "ev-5", "w2", "", 2), Tombstoned)
}

// FuzzReadEvent: no body makes the decoder panic, and what it takes keeps the
// bounds that ids, logs and the device rely on.
func FuzzReadEvent(f *testing.F) {
	f.Add([]byte(good()))
	f.Add([]byte(goodRevoked))
	f.Add([]byte(`{"eventName":"ping","eventId":"e","data":{"webhookId":"w","message":"m","events":["a"],"url":"u","isEnabled":true}}`))
	f.Add([]byte(`{"eventName":"wallet.delegation.created","data":[{"a":1e9},null,"\ud800"]}`))
	f.Add([]byte(strings.Repeat(`{"a":`, 30)))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := readEvent(b)
		if err != nil {
			var r *refusal.Error
			if !errors.As(err, &r) || r.Reason != refusal.RequestInvalid || len(r.Message) > 300 {
				t.Errorf("refused as %v", err)
			}
			return
		}
		if e.name != eventCreated && e.name != eventRevoked {
			if !goodVendorID(e.name) || e.id != "" && !goodVendorID(e.id) {
				t.Errorf("ignored %+v", e)
			}
			return
		}
		for _, id := range []string{e.id, e.wallet} {
			if !goodVendorID(id) {
				t.Errorf("took id %q", id)
			}
		}
		for _, id := range []string{e.message, e.environment, e.set, e.chain, e.user, e.address} {
			if id != "" && !goodVendorID(id) {
				t.Errorf("took text %q", id)
			}
		}
		if e.name == eventCreated {
			for _, env := range []envelope{e.share, e.apiKey} {
				if len(env.ek) < minModulus || len(env.ek) > maxModulus || len(env.sealed) <= tagSize || len(env.sealed) > maxPlaintext+tagSize {
					t.Errorf("took an envelope of %d and %d bytes", len(env.ek), len(env.sealed))
				}
			}
		}
	})
}

// FuzzParseSignature: only one spelling of a signature is taken.
func FuzzParseSignature(f *testing.F) {
	f.Add(sign(testSecret, nil))
	f.Add("sha256=")
	f.Add("sha256=" + strings.Repeat("F", 64))
	f.Fuzz(func(t *testing.T, s string) {
		sum, ok := parseSignature(s)
		if want := "sha256=" + hex.EncodeToString(sum[:]); ok && s != want {
			t.Errorf("%q was taken for %q", s, want)
		}
	})
}
