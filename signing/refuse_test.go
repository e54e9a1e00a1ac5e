package signing_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// Whoever does not hold the key of this very wallet hears one and the same thing,
// whatever the wallet's state, and leaves nothing in the journal.
func TestWrongKeysAreRefusedAlike(t *testing.T) {
	h, g := newHouse(t, terms{}, terms{end: began}, terms{set: mpctest.ECDSADelegateSet(t)})
	before := len(h.entries(""))
	_, err := h.delegation.RevokeDelegation(context.Background(), actor(site.organization, "Revoke", site.dana), "revoke", site.organization, g[2].id)
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(key []byte) []byte {
		k := append([]byte(nil), key...)
		k[len(k)-1] ^= 1
		return k
	}
	cases := map[string]struct {
		wallet string
		key    []byte
	}{
		"wrong secret":                     {g[0].wallet, wrong(g[0].key)},
		"wrong secret, expired":            {g[1].wallet, wrong(g[1].key)},
		"unknown key":                      {g[0].wallet, []byte(strings.Replace(string(g[0].key), "sgk_0000", "sgk_9999", 1))},
		"another wallet's key":             {g[2].wallet, g[0].key},
		"unknown wallet":                   {"wal_nowhere", g[0].key},
		"unknown wallet and key":           {"wal_nowhere", wrong(g[0].key)},
		"no wallet":                        {"", g[0].key},
		"no key":                           {g[0].wallet, nil},
		"not of the form of a key":         {g[0].wallet, []byte("password")},
		"a key and a byte":                 {g[0].wallet, append(append([]byte(nil), g[0].key...), '=')},
		"the key of what was revoked":      {g[2].wallet, g[2].key},
		"another key for what was revoked": {g[2].wallet, wrong(g[2].key)},
	}
	want := ""
	for name, c := range cases {
		r := g[0].request("id", g[0].pay(1, 1))
		r.WalletID, r.APIKey = c.wallet, c.key
		_, err := h.signing.Sign(context.Background(), r)
		no := wantRefusal(t, err, refusal.APIKeyInvalid)
		if want == "" {
			want = no.Error()
		}
		if no.Error() != want || len(no.Details) != 0 || no.After != 0 {
			t.Errorf("%s: %q %v, others got %q", name, no.Error(), no.Details, want)
		}
	}
	if n := len(h.entries("")); n != before+1 {
		t.Errorf("journal grew by %d entries, want the revocation alone", n-before)
	}
}

func TestExpiredIsRefused(t *testing.T) {
	h, g := newHouse(t, terms{end: began.Add(time.Hour)})
	h.mustSign(g[0], "in-time", g[0].pay(1, 1))
	h.clock.add(time.Hour - time.Minute) // the very end is too late
	for _, id := range []string{"late", "in-time"} {
		_, err := h.sign(g[0], id, g[0].pay(1, 1))
		no := wantRefusal(t, err, refusal.DelegationExpired)
		if !strings.Contains(no.Message, "2026-05-04T13:00:00Z") {
			t.Errorf("message %q does not say when", no.Message)
		}
		h.wantRefused(no, id)
	}
	// A clock put back does not bring it to life: the journal remembers the time.
	h.clock.add(-time.Second)
	_, err := h.sign(g[0], "clock-put-back", g[0].pay(1, 2))
	h.wantRefused(wantRefusal(t, err, refusal.DelegationExpired), "clock-put-back")
	h.wantKinds(1, 1, 0, 0)
}

func TestRevokedIsRefused(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.mustSign(g[0], "before", g[0].pay(1, 1))
	h.revoke(g[0])
	for _, id := range []string{"after", "before"} {
		_, err := h.sign(g[0], id, g[0].pay(1, 1))
		wantRefusal(t, err, refusal.APIKeyInvalid)
	}
	if err := h.vault.With(context.Background(), vault.TypeShare, delegation.ShareID(g[0].set.ID, "server"), func([]byte) error { return nil }); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("the server's share: %v, want ErrNotFound", err)
	}
}

// revoke revokes under the owner's stamp.
func (h *house) revoke(g *grant) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := h.delegation.RevokeDelegation(ctx, actor(site.organization, "Revoke", site.dana), "revoke-"+g.id, site.organization, g.id)
	if err != nil {
		h.t.Fatal(err)
	}
}

func TestRefusesPayloads(t *testing.T) {
	h, g := newHouse(t, terms{set: mpctest.ECDSADelegateSet(t)}, terms{})
	eth, sol := g[0], g[1]
	message := sol.pay(1, 1)
	unknown := sol.pay(1, 1)
	copy(unknown[5+64:], strings.Repeat("x", 32)) // a program nobody knows
	stranger := sol.pay(1, 1)
	stranger[5] ^= 1 // the fee payer
	for name, c := range map[string]struct {
		grant   *grant
		kind    chains.Kind
		payload []byte
		reason  refusal.Reason
		details map[string]string
	}{
		"raw digest, evm":          {eth, signing.KindRawDigest, make([]byte, 32), refusal.RawDigestDenied, nil},
		"raw digest, solana":       {sol, signing.KindRawDigest, make([]byte, 32), refusal.RawDigestDenied, nil},
		"solana for an evm wallet": {eth, chains.KindSolanaMessage, message, refusal.PayloadMalformed, nil},
		"evm for a solana wallet":  {sol, chains.KindEVMTransaction, transfer(t, 1, 1), refusal.PayloadMalformed, nil},
		"no kind":                  {sol, "", message, refusal.PayloadMalformed, nil},
		"another wallet's message": {sol, sol.kind, stranger, refusal.PayloadMalformed, map[string]string{"code": "signer"}},
		"empty":                    {sol, sol.kind, nil, refusal.PayloadMalformed, map[string]string{"code": "form", "offset": "-1"}},
		"cut":                      {sol, sol.kind, message[:40], refusal.PayloadMalformed, map[string]string{"code": "encoding"}},
		"a byte more":              {eth, eth.kind, append(transfer(t, 1, 1), 0), refusal.PayloadMalformed, map[string]string{"code": "encoding"}},
		"unknown type":             {eth, eth.kind, []byte{0x7e, 0xc0}, refusal.PayloadMalformed, map[string]string{"code": "encoding", "offset": "0"}},
		"blobs":                    {eth, eth.kind, []byte{3, 0xc2, 0xc0, 0xc0}, refusal.PayloadMalformed, map[string]string{"code": "form", "offset": "2"}},
		"unknown program":          {sol, sol.kind, unknown, refusal.PolicyDenied, nil},
	} {
		r := c.grant.request("id", c.payload)
		r.Kind = c.kind
		_, err := h.signing.Sign(context.Background(), r)
		no := wantRefusal(t, err, c.reason)
		for k, v := range c.details {
			if no.Details[k] != v {
				t.Errorf("%s: detail %s is %q, want %q", name, k, no.Details[k], v)
			}
		}
		h.wantRefused(no, "id")
	}
	h.wantKinds(0, 0, 0, 0)
}

func TestPolicyRefusalsNameTheRule(t *testing.T) {
	deny := policy.Policy{Name: "no ones", Effect: policy.Deny, Lang: policy.LangSigild, Condition: "solana.tx.transfers.any(t, t.amount == 1)"}
	broken := policy.Policy{Name: "third transfer", Effect: policy.Deny, Lang: policy.LangSigild, Condition: "solana.tx.transfers[2].amount == 3"}
	over := solAllow
	over.NotAfter = began
	for name, c := range map[string]struct {
		policies            []policy.Policy
		lamports            uint64
		rule, policy, about string
	}{
		"explicit":                  {[]policy.Policy{solAllow, deny}, 1, "pol_1", "no ones", "a policy denies it"},
		"error in a deny":           {[]policy.Policy{solAllow, broken}, 2, "pol_1", "third transfer", "could not be evaluated"},
		"implicit":                  {[]policy.Policy{solAllow}, 501, "", "payouts", "no policy allows it"},
		"deny alone allows nothing": {[]policy.Policy{deny}, 2, "", "", "no policy allows it"},
		"ended policy":              {[]policy.Policy{over}, 2, "", "payouts", "no policy allows it"},
	} {
		t.Run(name, func(t *testing.T) {
			h, g := newHouse(t, terms{policies: c.policies})
			_, err := h.sign(g[0], "id", g[0].pay(c.lamports, 1))
			no := wantRefusal(t, err, refusal.PolicyDenied)
			if no.Details["rule"] != c.rule || no.Details["policy"] != c.policy || !strings.Contains(no.Message, c.about) {
				t.Errorf("refusal %q with %v, want rule %q, policy %q and %q", no.Message, no.Details, c.rule, c.policy, c.about)
			}
			h.wantRefused(no, "id")
			h.wantKinds(0, 0, 0, 0)
		})
	}
}

// The second transaction with a nonce that was used is not signed; the same one is.
func TestReplayGuard(t *testing.T) {
	h, g := newHouse(t, terms{set: mpctest.ECDSADelegateSet(t)})
	h.mustSign(g[0], "first", transfer(t, 7, 1))
	_, err := h.sign(g[0], "second", transfer(t, 7, 2))
	no := wantRefusal(t, err, refusal.PolicyDenied)
	if no.Details["rule"] != "replay-guard" || !strings.Contains(no.Message, "evm-nonce:1:") {
		t.Errorf("refusal %q with %v, want rule replay-guard and the nonce", no.Message, no.Details)
	}
	h.wantRefused(no, "second")
	h.wantKinds(1, 1, 0, 0)
	if again := h.again(); again.spent(g[0], wei) != 1 {
		t.Error("after a restart the charge is another")
	} else if _, err := again.sign(g[0], "second", transfer(t, 7, 2)); refusalRule(err) != "replay-guard" {
		t.Errorf("after a restart: %v, want the replay guard", err)
	}
}

func refusalRule(err error) string {
	var no *refusal.Error
	if errors.As(err, &no) {
		return no.Details["rule"]
	}
	return ""
}

func TestLimitRefusesWithRetryAfter(t *testing.T) {
	h, g := newHouse(t, terms{limits: limit(1000, day)})
	h.mustSign(g[0], "one", g[0].pay(500, 1))
	h.clock.add(time.Hour)
	h.mustSign(g[0], "two", g[0].pay(400, 2))
	_, err := h.sign(g[0], "three", g[0].pay(500, 3))
	no := wantRefusal(t, err, refusal.LimitExceeded)
	if no.After != day-time.Hour || no.Details["rule"] != "lim_0" || no.Details["limit"] != "pocket money" || no.Details["asset"] != sol {
		t.Errorf("refusal with %v after %v, want the limit and 23 hours", no.Details, no.After)
	}
	h.wantRefused(no, "three")
	h.mustSign(g[0], "fits", g[0].pay(100, 4))
	h.clock.add(no.After)
	h.mustSign(g[0], "three", g[0].pay(500, 3)) // refused once, but not used up
	h.revoke(g[0])                              // waits for nothing that was refused
}

func TestRequestIDIsForOneRequest(t *testing.T) {
	h, g := newHouse(t, terms{set: mpctest.ECDSADelegateSet(t)}, terms{}, terms{})
	message := g[1].pay(1, 1)
	h.mustSign(g[1], "id", message)
	used := func(name string, r signing.Request) {
		t.Helper()
		_, err := h.signing.Sign(context.Background(), r)
		no := wantRefusal(t, err, refusal.RequestIDReused)
		h.wantRefused(no, "id")
	}
	used("other payload", g[1].request("id", g[1].pay(1, 2)))
	used("other wallet", g[0].request("id", transfer(t, 1, 1)))
	used("other delegation of the wallet", g[2].request("id", message))
	method := g[1].request("id", message)
	method.Method = "/sigil.v1.Other/Sign"
	used("other method", method)
	kind := g[1].request("id", message)
	kind.Kind = chains.KindEVMTransaction
	_, err := h.signing.Sign(context.Background(), kind)
	wantRefusal(t, err, refusal.PayloadMalformed) // step 5 comes first

	// The organization's acts use the same ids.
	_, err = h.delegation.CreateUser(context.Background(), actor(site.organization, "CreateUser", site.root),
		delegation.NewUser{RequestID: "id", Organization: site.organization, Name: "bot 2", Kind: delegation.DelegatedUser})
	if !refusal.Is(err, refusal.RequestIDReused) {
		t.Errorf("an act with the id of a signature: %v", err)
	}
	_, err = h.sign(g[1], "dana", message)
	h.wantRefused(wantRefusal(t, err, refusal.RequestIDReused), "dana")
	h.wantKinds(1, 1, 0, 0)
}

// An act takes its request id between our look at step 5 and the transaction.
func TestRequestIDTakenMeanwhileByAnAct(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.signing.BeforeApproval(func() {
		_, err := h.delegation.CreateUser(context.Background(), actor(site.organization, "CreateUser", site.root),
			delegation.NewUser{RequestID: "id", Organization: site.organization, Name: "bot 2", Kind: delegation.DelegatedUser})
		if err != nil {
			t.Error(err)
		}
	})
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	h.wantRefused(wantRefusal(t, err, refusal.RequestIDReused), "id")
	h.wantKinds(0, 0, 0, 0)
}

func TestFullQueueIsRefused(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.serve(signing.Config{MaxConcurrent: 1})
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "running", g[0].pay(1, 1))
	<-gate.reached
	waiting := []<-chan answer{h.signLater(g[0], "w1", g[0].pay(1, 2)), h.signLater(g[0], "w2", g[0].pay(1, 3))}
	until(t, "two wait", func() bool { return h.signing.InQueue() == 3 })

	before := len(h.entries(""))
	_, err := h.sign(g[0], "too-many", g[0].pay(1, 4))
	if no := wantRefusal(t, err, refusal.RateLimited); no.After != time.Second {
		t.Errorf("retry after %v, want a second", no.After)
	}
	if n := len(h.entries("")); n != before {
		t.Errorf("shed load wrote %d entries", n-before)
	}
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := h.signing.Sign(gone, g[0].request("gone", g[0].pay(1, 5))); err == nil {
		t.Error("signed for a caller who went away")
	}
	gate.open()
	for _, c := range append(waiting, running) {
		if a := <-c; a.err != nil {
			t.Error(a.err)
		}
	}
	h.mustSign(g[0], "too-many", g[0].pay(1, 4))
	h.wantKinds(4, 4, 0, 0)
}

// Whoever waits for a slot is judged after the wait, by the time it is then.
func TestPolicyIsJudgedAfterTheQueue(t *testing.T) {
	brief := solAllow
	brief.NotAfter = began.Add(time.Hour)
	h, g := newHouse(t, terms{policies: []policy.Policy{brief}})
	h.serve(signing.Config{MaxConcurrent: 1})
	gate := newGate(t)
	h.signing.BeforeRelease(gate.pass)
	running := h.signLater(g[0], "running", g[0].pay(1, 1))
	<-gate.reached
	waiting := h.signLater(g[0], "waiting", g[0].pay(1, 2))
	until(t, "it waits", func() bool { return h.signing.InQueue() == 2 })
	h.clock.add(2 * time.Hour)
	gate.open()
	if a := <-running; a.err != nil {
		t.Error(a.err)
	}
	a := <-waiting
	h.wantRefused(wantRefusal(t, a.err, refusal.PolicyDenied), "waiting")
}

func TestSealedVaultSignsNothing(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.signing.BeforeRelease(func() { t.Error("a share was lent") })
	h.vault.Seal()
	if _, err := h.sign(g[0], "id", g[0].pay(1, 1)); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("error %v, want ErrSealed", err)
	}
}

// The vault is sealed while a signature waits at its last look: it does not leave.
func TestSealStopsWhatIsUnderWay(t *testing.T) {
	h, g := newHouse(t, terms{})
	h.signing.BeforeRelease(h.vault.Seal)
	_, err := h.sign(g[0], "id", g[0].pay(1, 1))
	var no *refusal.Error
	if !errors.Is(err, vault.ErrSealed) || errors.As(err, &no) {
		t.Errorf("error %v, want ErrSealed and nothing else", err)
	}
	if !strings.Contains(h.log.String(), "last_share_sent=false") {
		t.Error("the last share left")
	}
	if after := h.again(); len(after.entries(journal.KindSigned)) != 0 {
		t.Error("it was signed")
	} else {
		after.wantKinds(1, 0, 0, 1)
	}
}

// Whoever holds a key and asks for what is denied, again and again, fills the log
// and not the journal; what has no entry is counted in one.
func TestADeniedKeyCantFillTheJournal(t *testing.T) {
	h, g := newHouse(t, terms{})
	r := journal.NewRefusals(h.clock.now)
	h.serve(signing.Config{Refusals: r})
	const asked = 200
	for i := range asked {
		req := g[0].request("id", []byte{0xc0})
		_, err := h.signing.Sign(context.Background(), req)
		wantRefusal(t, err, refusal.PayloadMalformed)
		if i == 0 && len(h.entries(journal.KindRefused)) != 1 {
			t.Error("the first refusal has no entry")
		}
	}
	have := len(h.entries(journal.KindRefused))
	if have >= asked/2 || have == 0 {
		t.Errorf("%d entries for %d refusals", have, asked)
	}
	if n := strings.Count(h.log.String(), "PAYLOAD_MALFORMED"); n < asked {
		t.Errorf("%d of %d refusals are in the log", n, asked)
	}
	if r.Spend(g[0].id, "OTHER") == false {
		t.Error("another credential pays for it")
	}
}
