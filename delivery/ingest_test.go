package delivery

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// vector is testdata/dynamic_created_vector.json: a delivery made by other code,
// in the form of the vendor's documentation, with all its keys.
type vector struct {
	Secret string            `json:"webhook_secret"`
	Header map[string]string `json:"header"`
	Body   string            `json:"raw_body"`
	PEM    string            `json:"rsa_private_key_pem"`
	Expect struct {
		Share  string `json:"share"`
		APIKey string `json:"wallet_api_key"`
	} `json:"expect"`
}

func readVector(t testing.TB) vector {
	t.Helper()
	b, err := os.ReadFile("testdata/dynamic_created_vector.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVectorIsOpenedInTheTokenAndKeptByteForByte(t *testing.T) {
	v := readVector(t)
	h := newHouse(t)
	block, _ := pem.Decode([]byte(v.PEM))
	ref, err := h.device.ImportRSA(t.Context(), block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	reg, err := h.RegisterWebhook(t.Context(), treasury, NewWebhook{
		RequestID: "r1", Organization: testOrg, Environment: testEnv, Secrets: [][]byte{[]byte(v.Secret)}, KeyRef: ref,
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(reg.Keys) != 1 || reg.Keys[0].Ref != ref || !reg.Keys[0].Imported || reg.Keys[0].Bits != 3072 {
		t.Errorf("registered %+v", reg)
	}
	in := Received{Webhook: reg.WebhookID, Body: []byte(v.Body), Signature: v.Header["x-dynamic-signature-256"]}
	outcome, err := h.Ingest(t.Context(), receiver, in)
	if err != nil || outcome != Stored {
		t.Fatalf("got %s, %v", outcome, err)
	}
	list, err := h.Deliveries(treasury, testOrg, "")
	if err != nil || len(list) != 1 {
		t.Fatalf("listed %+v, %v", list, err)
	}
	d := list[0]
	if d.Status != Pending || d.Wallet != "25193936-3ecd-4c1b-84e6-9eabc82e53c2" || d.Chain != "EVM" || d.ShareSet != "" ||
		d.Address != "0xd74ff800a3c6f66ecd217118aaa6fb1c916fa4e2" || d.User != "7eb7843b-2a4d-4f69-b95e-d219f0662fda" || d.Environment != testEnv {
		t.Errorf("listed %+v", d)
	}
	if got, err := h.read(vault.TypeVendorShare, h.recordOf(d.ID)); err != nil || string(got) != v.Expect.Share {
		t.Errorf("the share is %q, %v", got, err)
	}
	if got, err := h.read(vault.TypeVendorAPIKey, h.recordOf(d.ID)); err != nil || string(got) != v.Expect.APIKey {
		t.Errorf("the API key is %q, %v", got, err)
	}
	if outcome, err = h.Ingest(t.Context(), receiver, in); err != nil || outcome != Duplicate {
		t.Errorf("again: %s, %v", outcome, err)
	}
}

func TestStory(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	created := e.created(t, "ev-1", "w1", "", 1)
	h.want(e, created, Stored)
	h.want(e, created, Duplicate)
	opens := h.device.opens
	redelivered := e.created(t, "ev-1", "w1", "", 1, func(o object) { o["redelivery"] = true })
	h.want(e, redelivered, Duplicate) // other bytes, the same event
	sameMessage := e.created(t, "ev-1b", "w1", "", 9, func(o object) { o["messageId"] = "msg-ev-1" })
	h.want(e, sameMessage, Duplicate)
	if got := h.alive(e, "w1"); got[""] != "ev-1" {
		t.Errorf("alive: %v", got)
	}
	h.want(e, revoked("ev-2", "w1", "", 2), Stored)
	if got := h.alive(e, "w1"); len(got) != 0 {
		t.Errorf("alive after revocation: %v", got)
	}
	h.want(e, revoked("ev-2", "w1", "", 2), Duplicate)
	h.want(e, created, Tombstoned)
	h.want(e, e.created(t, "ev-3", "w1", "", 2), Tombstoned) // the same time: the revocation wins
	if h.device.opens != opens {
		t.Error("a delivery that comes to nothing was opened")
	}
	h.want(e, e.created(t, "ev-4", "w1", "", 3), Stored) // delegated anew
	if got := h.alive(e, "w1"); got[""] != "ev-4" {
		t.Errorf("alive after delegating anew: %v", got)
	}
	h.want(e, object{"eventName": "ping", "eventId": "ev-5", "data": object{"message": "hi", "events": []any{1, true, nil}}}, Ignored)
	h.want(e, object{"eventName": "ping", "eventId": "ev-5", "data": object{"message": "hi", "events": []any{1, true, nil}}}, Duplicate)
	h.want(e, object{"eventName": "wallet.delegation.signature", "eventId": 7, "data": 3}, Ignored)
	h.want(e, object{"eventName": "käse & \"wein\""}, Ignored)

	// Twice ignored, a repetition leaves no trace; each outcome of an event was journaled once.
	var outcomes []string
	for _, entry := range h.entries() {
		if entry.Kind == journal.KindAct && entry.RequestID == "" {
			outcomes = append(outcomes, entry.Facts["event_name"]+" "+entry.Facts["event"]+" "+entry.Outcome)
			if entry.Method != method || entry.Organization != testOrg || entry.Caller == nil {
				t.Errorf("entry %+v", entry)
			}
		}
	}
	for _, want := range []string{
		"wallet.delegation.created ev-1 STORED", "wallet.delegation.created ev-1 DUPLICATE", "wallet.delegation.created ev-1 TOMBSTONED",
		"wallet.delegation.created ev-1b DUPLICATE", "wallet.delegation.revoked ev-2 STORED", "wallet.delegation.revoked ev-2 DUPLICATE",
		"wallet.delegation.created ev-3 TOMBSTONED", "wallet.delegation.created ev-4 STORED", "ping ev-5 IGNORED", "ping ev-5 DUPLICATE",
	} {
		n := 0
		for _, got := range outcomes {
			if got == want {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q is %d times in the journal, want once", want, n)
		}
	}
	if len(outcomes) != 12 {
		t.Errorf("%d entries:\n%s", len(outcomes), strings.Join(outcomes, "\n"))
	}
	before := len(h.entries())
	for range 20 {
		h.want(e, created, Tombstoned)
		h.want(e, revoked("ev-2", "w1", "", 2), Duplicate)
	}
	if after := len(h.entries()); after != before {
		t.Errorf("repetitions made %d journal entries", after-before)
	}
}

func TestStateOutlivesTheProcess(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	first, second := e.created(t, "ev-1", "w1", "", 1), e.created(t, "ev-2", "w2", "set-7", 1)
	h.want(e, first, Stored)
	h.want(e, second, Stored)
	h.want(e, revoked("ev-3", "w1", "", 2), Stored)
	for _, crashed := range []bool{true, false} {
		h.reopen(crashed)
		h.want(e, first, Tombstoned)
		h.want(e, second, Duplicate)
		h.want(e, revoked("ev-3", "w1", "", 2), Duplicate)
		if got := h.alive(e, "w2"); got["set-7"] != "ev-2" {
			t.Errorf("alive: %v", got)
		}
		if got := h.alive(e, "w1"); len(got) != 0 {
			t.Errorf("alive: %v", got)
		}
	}
}

// refusedAs delivers and wants one reason and nothing kept.
func (h *house) refusedAs(what string, in Received, reason refusal.Reason) error {
	h.t.Helper()
	entries, records := len(h.entries()), h.records(allTypes...)
	outcome, err := h.Ingest(h.t.Context(), receiver, in)
	wantReason(h.t, what, err, reason)
	if outcome != "" {
		h.t.Errorf("%s: outcome %s beside an error", what, outcome)
	}
	if len(h.entries()) != entries || h.records(allTypes...) != records {
		h.t.Errorf("%s: something was kept", what)
	}
	return err
}

func TestWrongSignatures(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	b := body(t, e.created(t, "ev-1", "w1", "", 1))
	good := sign(testSecret, b)
	flip := func(s string, i int) string {
		c := []byte(s)
		c[i] = "0123456789abcdef"[(strings.IndexByte("0123456789abcdef", c[i])+1)%16]
		return string(c)
	}
	rows := map[string]string{
		"none": "", "no digits": "sha256=", "short": good[:len(good)-1], "half": good[:len(good)/2], "long": good + "0",
		"longer": good + strings.Repeat("a", 1000), "upper case": "sha256=" + strings.ToUpper(good[7:]), "upper case name": "SHA256=" + good[7:],
		"no name": good[7:], "another name": "sha512=" + good[7:], "space before": " " + good, "space after": good + " ", "line after": good + "\n",
		"several": good + "," + good, "several in two": good + ", sha256=" + strings.Repeat("0", 64), "no hex": "sha256=" + strings.Repeat("g", 64),
		"first digit": flip(good, 7), "last digit": flip(good, len(good)-1), "zeros": "sha256=" + strings.Repeat("0", 64),
		"another secret": sign(otherSecret, b), "empty secret": sign(nil, b), "the dummy": sign(dummySecret, b), "another body": sign(testSecret, b[1:]),
		"NUL inside": good[:20] + "\x00" + good[21:],
	}
	text := ""
	for what, signature := range rows {
		err := h.refusedAs(what, Received{Webhook: e.id, Body: b, Signature: signature}, refusal.DeliveryInvalid)
		if text == "" && err != nil {
			text = err.Error()
		}
		if err != nil && err.Error() != text {
			t.Errorf("%s: the text is %q, for another row it was %q", what, err, text)
		}
	}
	for what, hook := range map[string]string{"unknown webhook": "whk_nobody", "no webhook": ""} {
		if err := h.refusedAs(what, Received{Webhook: hook, Body: b, Signature: good}, refusal.DeliveryInvalid); err != nil && err.Error() != text {
			t.Errorf("%s: the text is %q", what, err)
		}
	}
	// A byte changed anywhere is another body.
	for _, i := range []int{0, 1, len(b) / 3, len(b) / 2, len(b) - 1} {
		c := bytes.Clone(b)
		c[i] ^= 1
		h.refusedAs("changed byte", Received{Webhook: e.id, Body: c, Signature: good}, refusal.DeliveryInvalid)
	}
	h.refusedAs("space added", Received{Webhook: e.id, Body: append(bytes.Clone(b), ' '), Signature: good}, refusal.DeliveryInvalid)
	h.want(e, json.RawMessage(b), Stored)
}

func TestEnvelopesThatDoNotOpen(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	flip := func(field string, at int) func(object) {
		return func(o object) {
			b, err := base64.RawURLEncoding.DecodeString(o[field].(string))
			if err != nil {
				t.Fatal(err)
			}
			b[(at+len(b))%len(b)] ^= 1
			o[field] = base64.RawURLEncoding.EncodeToString(b)
		}
	}
	set := func(field string, value any) func(object) { return func(o object) { o[field] = value } }
	cut := func(field string, n int) func(object) {
		return func(o object) {
			b, _ := base64.RawURLEncoding.DecodeString(o[field].(string))
			o[field] = base64.RawURLEncoding.EncodeToString(b[:n])
		}
	}
	other := sealed(t, e.public, []byte("something else"))
	type row struct {
		what   string
		change func(object)
		reason refusal.Reason
	}
	rows := []row{
		{"iv flipped", flip("iv", 0), refusal.DeliveryInvalid},
		{"iv's last byte flipped", flip("iv", -1), refusal.DeliveryInvalid},
		{"ct flipped", flip("ct", 3), refusal.DeliveryInvalid},
		{"tag flipped", flip("tag", -1), refusal.DeliveryInvalid},
		{"ek flipped", flip("ek", 9), refusal.DeliveryInvalid},
		{"ek's first byte flipped", flip("ek", 0), refusal.DeliveryInvalid},
		{"ct cut", cut("ct", 5), refusal.DeliveryInvalid},
		{"ek of another envelope", set("ek", other["ek"]), refusal.DeliveryInvalid},
		{"ct of another envelope", set("ct", other["ct"]), refusal.DeliveryInvalid},
		{"ek for another key", func(o object) {
			for k, v := range sealed(t, &stranger.PublicKey, []byte("x")) {
				o[k] = v
			}
		}, refusal.DeliveryInvalid},
		{"ek of zeros", set("ek", base64.RawURLEncoding.EncodeToString(make([]byte, 256))), refusal.DeliveryInvalid},
		{"ek of ones", set("ek", base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 256))), refusal.DeliveryInvalid},
		{"ek of 3072 bits", set("ek", base64.RawURLEncoding.EncodeToString(make([]byte, 384))), refusal.DeliveryInvalid},
		{"content key of 16 bytes", func(o object) {
			ek, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, e.public, make([]byte, 16), nil)
			if err != nil {
				t.Fatal(err)
			}
			o["ek"] = base64.RawURLEncoding.EncodeToString(ek)
		}, refusal.DeliveryInvalid},

		{"iv of 12 bytes", cut("iv", 12), refusal.RequestInvalid},
		{"no iv", func(o object) { delete(o, "iv") }, refusal.RequestInvalid},
		{"tag of 12 bytes", cut("tag", 12), refusal.RequestInvalid},
		{"tag of 0 bytes", set("tag", ""), refusal.RequestInvalid},
		{"no ct", set("ct", ""), refusal.RequestInvalid},
		{"ek cut", cut("ek", 255), refusal.RequestInvalid},
		{"ek of 4097 characters", set("ek", strings.Repeat("A", 4097)), refusal.RequestInvalid},
		{"ct of 32772 characters", set("ct", strings.Repeat("A", 32772)), refusal.RequestInvalid},
		{"padded", func(o object) { o["iv"] = o["iv"].(string) + "==" }, refusal.RequestInvalid},
		{"standard alphabet", set("iv", "++++++++++++++++++++Ag"), refusal.RequestInvalid},
		{"a spare bit", set("iv", "AAAAAAAAAAAAAAAAAAAAAB"), refusal.RequestInvalid},
		{"a line inside", func(o object) { o["iv"] = o["iv"].(string)[:4] + "\n" + o["iv"].(string)[4:] }, refusal.RequestInvalid},
		{"no string", set("ct", 7), refusal.RequestInvalid},
		{"another alg", set("alg", "RSA-OAEP-256"), refusal.RequestInvalid},
		{"alg in lower case", set("alg", "hybrid-rsa-aes-256"), refusal.RequestInvalid},
		{"alg none", set("alg", "none"), refusal.RequestInvalid},
		{"no alg", func(o object) { delete(o, "alg") }, refusal.RequestInvalid},
	}
	text := ""
	for _, row := range rows {
		for _, field := range []string{"encryptedDelegatedShare", "encryptedWalletApiKey"} {
			o := e.created(t, "ev-bad", "w1", "", 1, func(o object) { row.change(o["data"].(object)[field].(object)) })
			b := body(t, o)
			before := h.device.opens
			err := h.refusedAs(row.what+" of "+field, Received{Webhook: e.id, Body: b, Signature: sign(e.secret, b)}, row.reason)
			if row.reason != refusal.DeliveryInvalid || err == nil {
				continue
			}
			// The device is asked as often, whatever is wrong with an envelope.
			want := map[string]int{"encryptedDelegatedShare": 1, "encryptedWalletApiKey": 2}[field]
			if got := h.device.opens - before; got != want {
				t.Errorf("%s of %s: the device was asked %d times, want %d", row.what, field, got, want)
			}
			if text == "" {
				text = err.Error()
			}
			if err.Error() != text {
				t.Errorf("%s: the text is %q, for another row it was %q", row.what, err, text)
			}
		}
	}
	if want := unauthentic().Error(); text != want {
		t.Errorf("an envelope that doesn't open says %q, a wrong MAC %q", text, want)
	}
	h.want(e, e.created(t, "ev-bad", "w1", "", 1), Stored) // a refused delivery leaves its id free
}

func TestDeviceThatIsAwayIsNoInvalidDelivery(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	o := e.created(t, "ev-1", "w1", "", 1)
	h.device.fail(seal.ErrUnavailable)
	b := body(t, o)
	_, err := h.Ingest(t.Context(), receiver, Received{Webhook: e.id, Body: b, Signature: sign(e.secret, b)})
	if !errors.Is(err, seal.ErrUnavailable) || refusal.Is(err, refusal.DeliveryInvalid) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if n := h.records(allTypes...); n != 0 {
		t.Errorf("%d records were kept", n)
	}
	h.want(e, revoked("ev-r", "w9", "", 1), Stored) // a revocation needs no device
	h.device.fail(nil)
	h.want(e, o, Stored)
}

func TestSecretsAreSeenNowhere(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret, otherSecret)
	h.want(e, e.created(t, "ev-1", "w1", "", 1), Stored)
	h.want(e, e.created(t, "ev-2", "w2", "set-1", 1), Stored)
	h.want(e, e.created(t, "ev-1", "w1", "", 1), Duplicate)
	h.want(e, revoked("ev-3", "w1", "", 2), Stored)
	var said []string
	for _, change := range []func(object){
		func(o object) {
			o["data"].(object)["encryptedDelegatedShare"].(object)["tag"] = strings.Repeat("A", 22)
		},
		func(o object) { o["timestamp"] = "5ecre7" },
		func(o object) { o["data"].(object)["walletId"] = "5ecre7 and more" },
	} {
		b := body(t, e.created(t, "ev-4", "w3", "", 1, change))
		_, err := h.Ingest(t.Context(), receiver, Received{Webhook: e.id, Body: b, Signature: sign(e.secret, b)})
		said = append(said, err.Error())
	}
	h.close()
	h.close = func() {}
	places := map[string]string{"the log": h.log.String(), "errors": strings.Join(said, "\n")}
	files, err := filepath.Glob(filepath.Join(h.dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		places[filepath.Base(f)] = string(b)
	}
	if !strings.Contains(places["vault.db"], "wallet.delegation.created") {
		t.Error("the journal is not where this test looks for it")
	}
	for where, text := range places {
		for _, marker := range []string{"5ecre7", string(testSecret), string(otherSecret), base64.StdEncoding.EncodeToString(testSecret)[:20]} {
			if strings.Contains(text, marker) {
				t.Errorf("%s holds %q", where, marker)
			}
		}
	}
}
