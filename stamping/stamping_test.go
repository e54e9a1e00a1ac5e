package stamping

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/stamping/dfns"
	"github.com/sigild/sigild/vault"
)

var cap20 = []policy.Limit{{Name: "in all", Asset: "eip155:1/slip44:60", Max: *uint256.NewInt(20)}}

// A stamp is journaled as the outcome, verifies, and is the same when it is asked for
// again: from the journal, and after its body has grown old.
func TestStampIsJournaled(t *testing.T) {
	h := newHouse(t)
	made := h.turnkey()
	w := h.bind(h.binding("bind", made.CredentialID, address, cap20, small))
	body := h.body(pay(t, 1, 5))
	out, err := h.stamp(w, "one", body)
	if err != nil {
		t.Fatal(err)
	}
	h.wantVerified(made.PublicKey, body, out)
	h.now = h.now.Add(time.Hour)
	again, err := h.stamp(w, "one", body)
	if err != nil || again.Stamp.Value != out.Stamp.Value || again.Sequence != out.Sequence {
		t.Errorf("asked again: %v, %v", again, err)
	}
	var approved, signed *journal.Entry
	for _, e := range h.entries() {
		switch e.Kind {
		case journal.KindApproved:
			approved = &e
		case journal.KindSigned:
			signed = &e
		}
	}
	if approved == nil || signed == nil || signed.Outcome != "stamped" || signed.ApprovedSeq != approved.Seq {
		t.Fatalf("journaled %+v and %+v", approved, signed)
	}
	for _, e := range []*journal.Entry{approved, signed} {
		if e.Facts["vendor_credential"] != made.CredentialID || len(e.Facts["vendor_request"]) != 64 {
			t.Errorf("the %s entry has facts %v", e.Kind, e.Facts)
		}
	}
	if len(approved.Charges) == 0 || approved.Asked == nil || approved.Asked.Kind != "evm.transaction" {
		t.Errorf("approved with charges %v of %v", approved.Charges, approved.Asked)
	}
}

func (h *house) wantVerified(public, message []byte, out *signing.Result) {
	h.t.Helper()
	text, err := base64.RawURLEncoding.DecodeString(out.Stamp.Value)
	if err != nil {
		h.t.Fatal(err)
	}
	var stamp struct{ PublicKey, Signature string }
	if err := json.Unmarshal(text, &stamp); err != nil || out.Stamp.Header != "X-Stamp" || stamp.PublicKey != hex.EncodeToString(public) {
		h.t.Fatalf("%s: %s (%v)", out.Stamp.Header, text, err)
	}
	signature, err := hex.DecodeString(stamp.Signature)
	if err != nil {
		h.t.Fatal(err)
	}
	h.wantSignature(public, message, signature)
}

func (h *house) wantSignature(public, message, signature []byte) {
	h.t.Helper()
	key, err := credential.ParsePublicKey(credential.P256, public)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := key.Verify(message, signature); err != nil {
		h.t.Error(err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &sig); err != nil || sig.S.Cmp(new(big.Int).Rsh(elliptic.P256().Params().N, 1)) > 0 {
		h.t.Errorf("s is in the upper half (%v)", err)
	}
}

// The process dies when the request is approved and the key is about to sign. The
// charge stands, another request can't spend it, and the same one gets the same stamp
// under it.
func TestKilledBetweenReservationAndAnswer(t *testing.T) {
	h := newHouse(t)
	w := h.bind(h.binding("bind", h.turnkey().CredentialID, address, cap20, small))
	var dead *house
	h.before = func() { dead = h.killed() }
	body := h.body(pay(t, 1, 15))
	out, err := h.stamp(w, "one", body)
	if err != nil {
		t.Fatal(err)
	}
	_, err = dead.stamp(w, "two", dead.body(pay(t, 2, 15)))
	dead.wantReason("another request after the kill", err, refusal.LimitExceeded)
	again, err := dead.stamp(w, "one", body)
	if err != nil || again.Stamp.Value != out.Stamp.Value {
		t.Errorf("the same request after the kill: %v, %v", again, err)
	}
	_, err = dead.stamp(w, "one", dead.body(pay(t, 1, 14)))
	dead.wantReason("another body under its id", err, refusal.RequestIDReused)
}

// What is revoked or paused between the approval and the signature signs no more.
func TestEndsBeforeTheKeySigns(t *testing.T) {
	h := newHouse(t)
	made := h.turnkey()
	w := h.bind(h.binding("bind", made.CredentialID, address, nil, small))
	done := make(chan error, 1)
	h.before = func() {
		h.before = nil
		go func() {
			_, err := h.Revoke(context.Background(), h.delegation.Acting(h.actor(h.acme, h.acmeRoot, "revoke")), "revoke", h.acme, made.CredentialID)
			done <- err
		}()
		deadline := time.Now().Add(time.Minute)
		for time.Now().Before(deadline) { // its first moment
			if _, err := h.delegation.Authenticate(w.id, w.key); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	_, err := h.stamp(w, "one", h.body(pay(t, 1, 5)))
	h.wantReason("revoked while it was about to sign", err, refusal.DelegationRevoked)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	_, err = h.stamp(w, "two", h.body(pay(t, 2, 5)))
	h.wantReason("after the revocation", err, refusal.APIKeyInvalid)
	err = h.vault.Each(t.Context(), vault.TypeVendorKey, func(id string, _ []byte) error { return fmt.Errorf("the key %s is there", id) })
	if err != nil {
		t.Error(err)
	}
	after := h.killed()
	if list, err := after.Credentials(after.delegation.Acting(after.actor(h.acme, h.acmeRoot, "look")), h.acme); err != nil || len(list) != 1 || list[0].Status != Revoked || list[0].RevokedAt.IsZero() {
		t.Errorf("after a restart: %v, %v", list, err)
	}
}

// A thousand calls with one request id have one effect.
func TestOneRequestIDOneStamp(t *testing.T) {
	h := newHouse(t)
	w := h.bind(h.binding("bind", h.turnkey().CredentialID, address, cap20, small))
	body := h.body(pay(t, 1, 15))
	var all sync.WaitGroup
	var mu sync.Mutex
	values := map[string]int{}
	for range 8 {
		all.Go(func() {
			for range 125 {
				out, err := h.stamp(w, "one", body)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				values[out.Stamp.Value]++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	approved := 0
	for _, e := range h.entries() {
		if e.Kind == journal.KindApproved {
			approved++
		}
	}
	if len(values) != 1 || approved != 1 {
		t.Errorf("%d stamps, %d approvals; want 1 and 1", len(values), approved)
	}
}

func TestTimeOfTheBody(t *testing.T) {
	h := newHouse(t)
	w := h.bind(h.binding("bind", h.turnkey().CredentialID, address, nil, small))
	body := h.body(pay(t, 1, 5))
	for id, test := range map[string]struct {
		at   time.Duration
		want refusal.Reason
	}{"old": {121 * time.Second, refusal.BodyExpired}, "just": {120 * time.Second, ""}, "ahead": {-31 * time.Second, refusal.BodyExpired}, "little": {-30 * time.Second, ""}} {
		h.now = began.Add(test.at)
		_, err := h.stamp(w, id, body)
		if test.want == "" && err != nil {
			t.Errorf("%s: %v", id, err)
		}
		if test.want != "" {
			h.wantReason(id, err, test.want)
		}
	}
	h.now, h.unconfirmed = began, errors.New("nobody confirmed the clock")
	_, err := h.stamp(w, "unconfirmed", body)
	h.wantReason("without a clock", err, refusal.ClockUnconfirmed)
}

// Requests to Dfns are stamped under a witness' word, or the caller's where the root
// quorum said so.
func TestDfnsNeedsAWitness(t *testing.T) {
	h := newHouse(t)
	key, err := credential.GenerateKey(credential.P256)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public()
	made := h.create(NewCredential{RequestID: "dfns", Name: "dfns", Vendor: Dfns, Account: "cr-1", Witness: &public})
	trusting := h.create(NewCredential{RequestID: "trusting", Name: "trusting", Vendor: Dfns, Account: "cr-2", TrustCaller: true})
	w := h.bind(h.binding("bind", made.CredentialID, "wa-1", nil, small))
	request := dfns.Request{Method: "POST", Path: "/wallets/wa-1/transactions", Body: fmt.Appendf(nil, `{"kind":"Transaction","transaction":"0x%x"}`, pay(t, 1, 5)), Challenge: challenge}
	body := func(r dfns.Request, signature []byte) signing.VendorBody {
		return signing.VendorBody{Vendor: string(Dfns), Body: r.Body, Method: r.Method, Path: r.Path, Challenge: r.Challenge, Witness: signature}
	}
	witnessed := func(id string, r dfns.Request) []byte {
		signature, err := key.Sign(dfns.Statement(id, r))
		if err != nil {
			t.Fatal(err)
		}
		return signature
	}
	_, err = h.ask(w, "none", body(request, nil))
	h.wantReason("without a witness", err, refusal.VendorActivityDenied)
	other := request
	other.Challenge = strings.Repeat("x", 86)
	_, err = h.ask(w, "other", body(other, witnessed(made.CredentialID, request)))
	h.wantReason("another challenge", err, refusal.VendorActivityDenied)
	_, err = h.ask(w, "elsewhere", body(request, witnessed(trusting.CredentialID, request)))
	h.wantReason("the word for another credential", err, refusal.VendorActivityDenied)
	bad := request
	bad.Challenge = `x","y":"` + challenge
	_, err = h.ask(w, "bad", body(bad, witnessed(made.CredentialID, bad)))
	h.wantReason("a challenge that is no text", err, refusal.PayloadMalformed)
	_, err = h.stamp(w, "turnkey", h.body(pay(t, 1, 5)))
	h.wantReason("another vendor's body", err, refusal.VendorActivityDenied)
	out, err := h.ask(w, "one", body(request, witnessed(made.CredentialID, request)))
	if err != nil {
		t.Fatal(err)
	}
	h.wantAssertion(made.PublicKey, "cr-1", out)

	tw := h.bind(h.binding("bind-trusting", trusting.CredentialID, "wa-1", nil, small))
	if tw.id != w.id {
		t.Errorf("the same wallet at Dfns is %s and %s here", w.id, tw.id)
	}
	_, err = h.ask(tw, "useless", body(request, witnessed(trusting.CredentialID, request)))
	h.wantReason("a witness that was not named", err, refusal.RequestInvalid)
	if out, err = h.ask(tw, "trusted", body(request, nil)); err != nil {
		t.Fatal(err)
	}
	h.wantAssertion(trusting.PublicKey, "cr-2", out)
}

func (h *house) wantAssertion(public []byte, id string, out *signing.Result) {
	h.t.Helper()
	var factor struct {
		CredentialAssertion struct{ CredID, ClientData, Signature string }
	}
	if err := json.Unmarshal([]byte(out.Stamp.Value), &factor); err != nil || out.Stamp.Header != "" || factor.CredentialAssertion.CredID != id {
		h.t.Fatalf("%+v (%v)", out.Stamp, err)
	}
	data, err := base64.RawURLEncoding.DecodeString(factor.CredentialAssertion.ClientData)
	if err != nil {
		h.t.Fatal(err)
	}
	signature, err := base64.RawURLEncoding.DecodeString(factor.CredentialAssertion.Signature)
	if err != nil {
		h.t.Fatal(err)
	}
	h.wantSignature(public, data, signature)
}

// Whoever is not the root, or of another organization, gets nothing.
func TestOthersAreRefused(t *testing.T) {
	h := newHouse(t)
	made := h.turnkey()
	globex := h.delegation.Acting(h.actor(h.globex, h.globexRoot, "look"))
	if list, err := h.Credentials(globex, h.globex); err != nil || len(list) != 0 {
		t.Errorf("globex sees %v, %v", list, err)
	}
	_, err := h.Credentials(globex, h.acme)
	if err == nil {
		t.Error("globex lists acme's credentials")
	}
	_, err = h.Revoke(t.Context(), globex, "r", h.globex, made.CredentialID)
	h.wantReason("globex revokes acme's", err, refusal.NotFound)
	n := NewCredential{RequestID: "theirs", Organization: h.acme, Name: "x", Vendor: Turnkey, Account: turnkeyOrg}
	if _, err = h.Create(t.Context(), globex, n); err == nil {
		t.Error("globex makes a credential of acme's")
	}
	b := h.binding("bind", made.CredentialID, address, nil, small)
	b.Organization = h.globex
	_, err = h.delegation.BindVendorCredential(t.Context(), h.actor(h.globex, h.globexRoot, b), b)
	h.wantReason("globex binds acme's", err, refusal.NotFound)
	for field, change := range map[string]func(*delegation.NewCredentialBinding){
		"sign_with": func(b *delegation.NewCredentialBinding) { b.SignWith = "0x00/../x" },
		"address":   func(b *delegation.NewCredentialBinding) { b.Address = "0x12" },
		"name":      func(b *delegation.NewCredentialBinding) { b.Name = "" },
	} {
		b := h.binding("bad-"+strings.ReplaceAll(field, "_", ""), made.CredentialID, address, nil, small)
		change(&b)
		_, err := h.delegation.BindVendorCredential(t.Context(), h.actor(h.acme, h.acmeRoot, b), b)
		var no *refusal.Error
		if !errors.As(err, &no) || no.Reason != refusal.RequestInvalid || no.Details["field"] != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	h.bind(h.binding("good", made.CredentialID, address, nil, small))
	other := h.binding("other", made.CredentialID, address, nil, small)
	other.Address = "0x00000000000000000000000000000000000000bb"
	_, err = h.delegation.BindVendorCredential(t.Context(), h.actor(h.acme, h.acmeRoot, other), other)
	h.wantReason("the same signer under another address", err, refusal.RequestInvalid)
}

func TestCreateRefuses(t *testing.T) {
	h := newHouse(t)
	key, err := credential.GenerateKey(credential.Ed25519)
	if err != nil {
		t.Fatal(err)
	}
	public := key.Public()
	authn := credential.PublicKey{Algorithm: credential.WebAuthnP256, Bytes: public.Bytes}
	for name, n := range map[string]NewCredential{
		"no id":                  {Name: "x", Vendor: Turnkey, Account: turnkeyOrg},
		"no name":                {RequestID: "r", Vendor: Turnkey, Account: turnkeyOrg},
		"no vendor":              {RequestID: "r", Name: "x"},
		"a vendor of tomorrow":   {RequestID: "r", Name: "x", Vendor: "other", Account: "x"},
		"no account":             {RequestID: "r", Name: "x", Vendor: Turnkey},
		"a strange account":      {RequestID: "r", Name: "x", Vendor: Turnkey, Account: `x"y`},
		"Turnkey with a witness": {RequestID: "r", Name: "x", Vendor: Turnkey, Account: turnkeyOrg, Witness: &public},
		"Dfns without a witness": {RequestID: "r", Name: "x", Vendor: Dfns, Account: "cr-1"},
		"Dfns with both":         {RequestID: "r", Name: "x", Vendor: Dfns, Account: "cr-1", Witness: &public, TrustCaller: true},
		"Dfns with another id":   {RequestID: "r", Name: "x", Vendor: Dfns, Account: "wa-1", TrustCaller: true},
		"an authenticator":       {RequestID: "r", Name: "x", Vendor: Dfns, Account: "cr-1", Witness: &authn},
		"a short key":            {RequestID: "r", Name: "x", Vendor: Turnkey, Account: turnkeyOrg, Private: []byte{1}},
		"a key of zero":          {RequestID: "r", Name: "x", Vendor: Turnkey, Account: turnkeyOrg, Private: make([]byte, 32)},
		"a key above the order":  {RequestID: "r", Name: "x", Vendor: Turnkey, Account: turnkeyOrg, Private: bytes.Repeat([]byte{0xff}, 32)},
	} {
		n.Organization = h.acme
		_, err := h.Create(t.Context(), h.delegation.Acting(h.actor(h.acme, h.acmeRoot, name)), n)
		h.wantReason(name, err, refusal.RequestInvalid)
	}
}

// A private key is sealed as what it is for, and is in no log, journal or answer.
func TestKeysStayInside(t *testing.T) {
	h := newHouse(t)
	raw := sha256.Sum256([]byte("a key for a test"))
	n := NewCredential{RequestID: "import", Name: "imported", Vendor: Turnkey, Account: turnkeyOrg, Private: raw[:]}
	made := h.create(n)
	if again := h.create(n); again.CredentialID != made.CredentialID {
		t.Errorf("the same request made %s and %s", made.CredentialID, again.CredentialID)
	}
	w := h.bind(h.binding("bind", made.CredentialID, address, nil, small))
	if _, err := h.stamp(w, "one", h.body(pay(t, 1, 5))); err != nil {
		t.Fatal(err)
	}
	h.keeps(raw[:])
	for _, text := range []string{fmt.Sprint(n), fmt.Sprintf("%+v %#v %s", n, n, &n), slog.AnyValue(n).Resolve().String()} {
		if strings.Contains(text, hex.EncodeToString(raw[:4])) || !strings.Contains(text, secmem.Redacted) {
			t.Errorf("it prints as %s", text)
		}
	}
	if _, err := json.Marshal(n); err == nil {
		t.Error("it is encoded")
	}
	r := h.book.credential(made.CredentialID)
	for what, change := range map[string]func(*record){
		"another organization": func(r *record) { r.Organization = h.globex }, "another account": func(r *record) { r.Account = "x" },
		"another vendor": func(r *record) { r.Vendor = Dfns }, "another key": func(r *record) { r.Public = bytes.Repeat([]byte{2}, 33) },
	} {
		c := *r
		change(&c)
		if c.key() == r.key() {
			t.Errorf("%s has the same record", what)
		}
		if err := h.vault.With(t.Context(), vault.TypeVendorKey, c.key(), func([]byte) error { return nil }); !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("%s opens: %v", what, err)
		}
	}
}

func TestRecordsAreReadStrictly(t *testing.T) {
	good := `{"v":1,"id":"vcr_1","organization":"o","name":"n","vendor":"turnkey","created_at":"2026-05-04T12:00:00Z","status":"active","public":"Ag==","account":"a"}`
	if _, err := decodeRecord([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"version 2": strings.Replace(good, `"v":1`, `"v":2`, 1), "unknown member": strings.Replace(good, `"v":1`, `"v":1,"x":1`, 1), "more": good + "{}", "nothing": "",
	} {
		if _, err := decodeRecord([]byte(text)); err == nil {
			t.Errorf("%s is read", name)
		}
	}
}

// The stamp of one body again and again is one stamp (RFC 6979).
func TestSigningIsDeterministic(t *testing.T) {
	raw := sha256.Sum256([]byte("a key for a test"))
	first, err := sign(raw[:], []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		if again, err := sign(raw[:], []byte("body")); err != nil || !bytes.Equal(again, first) {
			t.Fatalf("%x, %v; first %x", again, err, first)
		}
	}
	if _, err := sign(make([]byte, 32), []byte("body")); !errors.Is(err, errScalar) {
		t.Errorf("a key of zero: %v", err)
	}
}
