package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

func webhookFor(id, env string) NewWebhook {
	return NewWebhook{RequestID: id, Organization: testOrg, Environment: env, Secrets: [][]byte{testSecret}, Bits: 2048}
}

func TestWebhookNeedsTheRootQuorum(t *testing.T) {
	h := newHouse(t)
	for what, who := range map[string]person{"nobody": {}, "a member": {member: testOrg}, "another organization's root": {root: otherOrg}} {
		_, err := h.RegisterWebhook(t.Context(), who, webhookFor("r1", testEnv))
		wantReason(t, what, err, refusal.QuorumMissing)
	}
	if len(h.device.made) != 0 {
		t.Error("a key was made for somebody who may not ask")
	}
	out, err := h.RegisterWebhook(t.Context(), treasury, webhookFor("r1", testEnv))
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Keys) != 1 || out.Keys[0].Bits != 2048 || out.Keys[0].Imported || out.Keys[0].Ref != h.device.made[0] {
		t.Errorf("registered %+v", out)
	}
	again, err := h.RegisterWebhook(t.Context(), treasury, webhookFor("r1", testEnv))
	if err != nil || mustJSON(t, again) != mustJSON(t, out) {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	if len(h.device.made) != 1 {
		t.Errorf("%d keys were made for one request", len(h.device.made))
	}
	_, err = h.RegisterWebhook(t.Context(), person{}, webhookFor("r1", testEnv))
	wantReason(t, "a stored answer without stamps", err, refusal.QuorumMissing)
	_, err = h.RegisterWebhook(t.Context(), person{root: testOrg, hash: 9}, webhookFor("r1", testEnv))
	wantReason(t, "the request id with other bytes", err, refusal.RequestIDReused)
	h.reopen(true)
	if again, err = h.RegisterWebhook(t.Context(), treasury, webhookFor("r1", testEnv)); err != nil || mustJSON(t, again) != mustJSON(t, out) {
		t.Errorf("asked again after a crash: %+v, %v", again, err)
	}
}

func TestWebhookRequestsThatAreRefused(t *testing.T) {
	h := newHouse(t)
	rows := map[string]func(n *NewWebhook){
		"no request id":        func(n *NewWebhook) { n.RequestID = "" },
		"no environment":       func(n *NewWebhook) { n.Environment = "" },
		"slash":                func(n *NewWebhook) { n.Environment = "a/b" },
		"space":                func(n *NewWebhook) { n.Environment = "a b" },
		"long environment":     func(n *NewWebhook) { n.Environment = strings.Repeat("a", 129) },
		"no secret":            func(n *NewWebhook) { n.Secrets = nil },
		"five secrets":         func(n *NewWebhook) { n.Secrets = fiveSecrets() },
		"short secret":         func(n *NewWebhook) { n.Secrets = [][]byte{make([]byte, 15)} },
		"long secret":          func(n *NewWebhook) { n.Secrets = [][]byte{make([]byte, 257)} },
		"one secret twice":     func(n *NewWebhook) { n.Secrets = [][]byte{testSecret, testSecret} },
		"1024 bits":            func(n *NewWebhook) { n.Bits = 1024 },
		"negative bits":        func(n *NewWebhook) { n.Bits = -1 },
		"a new and an old key": func(n *NewWebhook) { n.KeyRef = "aa" },
	}
	for what, change := range rows {
		n := webhookFor("r1", testEnv)
		change(&n)
		_, err := h.RegisterWebhook(t.Context(), treasury, n)
		wantReason(t, what, err, refusal.RequestInvalid)
		if err != nil && strings.Contains(err.Error(), string(testSecret)) {
			t.Errorf("%s: the error holds the secret", what)
		}
	}
	for what, ref := range map[string]seal.KeyRef{
		"no such key": "00112233", "no reference": "XYZ", "the sealing key": h.keys.KEK, "the checkpoint key": h.keys.Checkpoint,
	} {
		n := webhookFor("r1", testEnv)
		n.Bits, n.KeyRef = 0, ref
		_, err := h.RegisterWebhook(t.Context(), treasury, n)
		wantReason(t, what, err, refusal.NotFound)
	}
	if len(h.device.made) != 0 || len(h.book.webhooks) != 0 {
		t.Error("a refused request left something")
	}
}

func fiveSecrets() (out [][]byte) {
	for i := range 5 {
		out = append(out, fmt.Appendf(nil, "whsec_0123456789_%d", i))
	}
	return out
}

func TestSecretsRotate(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret, otherSecret)
	for i, secret := range [][]byte{testSecret, otherSecret} {
		b := body(t, revoked(numbered("ev", i), "w1", "", 1))
		if _, err := h.Ingest(t.Context(), receiver, Received{e.id, b, sign(secret, b)}); err != nil {
			t.Errorf("live secret %d: %v", i, err)
		}
	}
	n := webhookFor("r2", testEnv)
	n.Bits, n.Secrets = 0, [][]byte{otherSecret}
	out, err := h.RegisterWebhook(t.Context(), treasury, n)
	if err != nil {
		t.Fatal(err)
	}
	if out.WebhookID != e.id || len(out.Keys) != 1 || len(h.device.made) != 1 {
		t.Errorf("registered again: %+v; %d keys were made", out, len(h.device.made))
	}
	if got := h.records(vault.TypeWebhookSecret); got != 1 {
		t.Errorf("%d secrets are kept, want 1", got)
	}
	b := body(t, revoked("ev-9", "w1", "", 3))
	h.refusedAs("the old secret", Received{e.id, b, sign(testSecret, b)}, refusal.DeliveryInvalid)
	if _, err := h.Ingest(t.Context(), receiver, Received{e.id, b, sign(otherSecret, b)}); err != nil {
		t.Errorf("the secret that stayed: %v", err)
	}
}

func TestKeysRotate(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	var all []WebhookKey
	for i := range 4 {
		out, err := h.RegisterWebhook(t.Context(), treasury, webhookFor(numbered("rotate", i), testEnv))
		if err != nil {
			t.Fatal(err)
		}
		all = out.Keys
	}
	var refs []seal.KeyRef
	for _, k := range all {
		refs = append(refs, k.Ref)
	}
	newest := slices.Clone(h.device.made[1:])
	slices.Reverse(newest)
	if !slices.Equal(refs, newest) {
		t.Errorf("live keys are %v, want the four newest of %v", refs, h.device.made)
	}
	h.refusedAs("the fifth key", func() Received {
		b := body(t, e.created(t, "ev-0", "w0", "", 1))
		return Received{e.id, b, sign(testSecret, b)}
	}(), refusal.DeliveryInvalid)
	for i, k := range all { // every live key opens
		e.public = publicOf(t, k)
		h.want(e, e.created(t, numbered("ev", i+1), numbered("w", i), "", 1), Stored)
	}
	// A key of the list named again comes first.
	n := webhookFor("r-first", testEnv)
	n.Bits, n.KeyRef = 0, all[3].Ref
	out, err := h.RegisterWebhook(t.Context(), treasury, n)
	if err != nil || len(out.Keys) != 4 || out.Keys[0].Ref != all[3].Ref {
		t.Errorf("naming a key again: %+v, %v", out, err)
	}
}

// With another's key a webhook of one's own would open what was encrypted for them.
func TestKeyOfAnotherOrganizationIsNotThere(t *testing.T) {
	h := newHouse(t)
	h.register(testOrg, testEnv, testSecret)
	n := webhookFor("steal", testEnv)
	n.Organization, n.Bits, n.KeyRef = otherOrg, 0, h.device.made[0]
	_, err := h.RegisterWebhook(t.Context(), person{root: otherOrg}, n)
	wantReason(t, "another organization's key", err, refusal.NotFound)
	missing := n
	missing.KeyRef = "00112233445566778899aabbccddeeff"
	_, other := h.RegisterWebhook(t.Context(), person{root: otherOrg}, missing)
	if err == nil || other == nil || refusalText(err) != refusalText(other) {
		t.Errorf("it says %q, of a missing key %q", err, other)
	}
	// Its own organization may use it for another environment.
	n = webhookFor("share", "22222222-env")
	n.Bits, n.KeyRef = 0, h.device.made[0]
	_, err = h.RegisterWebhook(t.Context(), treasury, n)
	wantReason(t, "a secret of another environment", err, refusal.RequestInvalid)
	n.Secrets = [][]byte{[]byte("whsec_of_the_other_one")}
	if _, err := h.RegisterWebhook(t.Context(), treasury, n); err != nil {
		t.Error(err)
	}
}

func refusalText(err error) string {
	var r *refusal.Error
	if errors.As(err, &r) {
		return r.Message
	}
	return err.Error()
}

// Two organizations may register the same environment; what one is sent is not the other's.
func TestOrganizationsAreApart(t *testing.T) {
	h := newHouse(t)
	a, b := h.register(testOrg, testEnv, testSecret), h.register(otherOrg, testEnv, otherSecret)
	created := body(t, a.created(t, "ev-1", "w1", "", 1))
	h.refusedAs("their webhook, our signature", Received{b.id, created, sign(testSecret, created)}, refusal.DeliveryInvalid)
	h.refusedAs("their webhook, their signature, our envelope", Received{b.id, created, sign(otherSecret, created)}, refusal.DeliveryInvalid)
	h.want(a, json.RawMessage(created), Stored)
	h.want(b, revoked("ev-2", "w1", "", 5), Stored) // ends nothing of ours
	if got := h.alive(a, "w1"); got[""] != "ev-1" {
		t.Errorf("alive: %v", got)
	}
	if list, err := h.Deliveries(person{member: otherOrg}, otherOrg, ""); err != nil || len(list) != 0 {
		t.Errorf("they see %+v, %v", list, err)
	}
	_, err := h.Deliveries(person{member: otherOrg}, testOrg, "")
	wantReason(t, "looking at another organization", err, refusal.NotFound)
	wrongEnv := body(t, a.created(t, "ev-3", "w1", "", 6, func(o object) { o["environmentId"] = "another" }))
	h.refusedAs("another environment", Received{a.id, wrongEnv, sign(testSecret, wrongEnv)}, refusal.RequestInvalid)
}

func TestListGoesOn(t *testing.T) {
	h := newHouse(t)
	e := h.register(testOrg, testEnv, testSecret)
	for i := range 5 {
		h.want(e, e.created(t, numbered("ev", i), numbered("w", i), "", 1), Stored)
	}
	h.want(e, revoked("ev-r", "w-3", "", 2), Stored)
	var seen []string
	for after := ""; ; {
		list, err := h.Deliveries(treasury, testOrg, after)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		seen = append(seen, list[0].Wallet)
		after = list[0].ID
		if d := list[0]; (d.Status == Revoked) != (d.Wallet == "w-3") || d.RevokedAt.IsZero() == (d.Wallet == "w-3") || d.TakenAt != testTime {
			t.Errorf("listed %+v", d)
		}
	}
	slices.Sort(seen)
	if want := []string{"w-0", "w-1", "w-2", "w-3", "w-4"}; !slices.Equal(seen, want) {
		t.Errorf("listed %v one by one, want %v", seen, want)
	}
}

func TestWebhooksOfAnOrganizationAreBounded(t *testing.T) {
	h := newHouse(t)
	h.register(testOrg, "env-00000", testSecret)
	for i := 1; i < maxWebhooks; i++ {
		n := webhookFor(numbered("r", i), numbered("env", i))
		n.Bits, n.KeyRef, n.Secrets = 0, h.device.made[0], [][]byte{[]byte("whsec_of_number_" + numbered("env", i))}
		if _, err := h.RegisterWebhook(t.Context(), treasury, n); err != nil {
			t.Fatal(err)
		}
	}
	_, err := h.RegisterWebhook(t.Context(), treasury, webhookFor("one-more", "env-one-more"))
	wantReason(t, "one webhook more", err, refusal.RequestInvalid)
	if len(h.device.made) != 1 {
		t.Error("a key was made for a webhook that is not taken")
	}
}

func TestCarriersOfSecretsAreRedacted(t *testing.T) {
	n := webhookFor("r", testEnv)
	o := opened{share: testSecret, apiKey: testSecret}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "n", n, "o", o)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s %x %q", n, n, n, n, n, n), fmt.Sprintf("%v %#v %s %x", o, &o, o, o), log.String()} {
		if strings.Contains(text, string(testSecret)) || strings.Contains(text, fmt.Sprintf("%x", testSecret[:8])) || !strings.Contains(text, secmem.Redacted) {
			t.Errorf("printed as %s", text)
		}
	}
	for _, v := range []any{n, &n, o, &o} {
		if b, err := json.Marshal(v); err == nil {
			t.Errorf("%T was encoded as %s", v, b)
		}
	}
}
