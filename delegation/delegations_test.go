package delegation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func (h *house) createDelegation(n NewDelegation) (DelegationStarted, error) {
	return h.CreateDelegation(context.Background(), stamped(site.acme, n, site.dana.holder), n)
}

func TestDelegationsAreChecked(t *testing.T) {
	h := newHouse(t, withWallet)
	lamports := policy.Limit{Name: "a day", Asset: cluster + "/slip44:501", Max: *uint256.NewInt(1), Window: time.Hour}
	long := make([]policy.Policy, maxRules+1)
	for i := range long {
		long[i] = allow
		long[i].Name = fmt.Sprint("p", i)
	}
	past := began
	now := h.clock.now()
	limited := func(change func(l *policy.Limit)) func(n *NewDelegation) {
		return func(n *NewDelegation) {
			l := lamports
			change(&l)
			n.Limits = []policy.Limit{l}
		}
	}
	ruled := func(condition string) func(n *NewDelegation) {
		return func(n *NewDelegation) { n.Policies[0].Condition = condition }
	}
	h.unchanged("refused delegations", func() {
		for name, c := range map[string]struct {
			change  func(n *NewDelegation)
			reason  refusal.Reason
			details map[string]string
		}{
			"no recipient":           {func(n *NewDelegation) { n.Recipient = "" }, refusal.RequestInvalid, map[string]string{"field": "api_key_recipient"}},
			"a recipient's secret":   {func(n *NewDelegation) { n.Recipient = site.recipient.String() }, refusal.RequestInvalid, map[string]string{"field": "api_key_recipient"}},
			"no policy":              {func(n *NewDelegation) { n.Policies = nil }, refusal.RequestInvalid, map[string]string{"field": "policies"}},
			"too many policies":      {func(n *NewDelegation) { n.Policies = long }, refusal.RequestInvalid, map[string]string{"field": "policies"}},
			"too many limits":        {func(n *NewDelegation) { n.Limits = make([]policy.Limit, maxRules+1) }, refusal.RequestInvalid, map[string]string{"field": "policies"}},
			"a nameless policy":      {func(n *NewDelegation) { n.Policies[0].Name = "" }, refusal.RequestInvalid, map[string]string{"field": "policy name"}},
			"two of one name":        {func(n *NewDelegation) { n.Policies = append(n.Policies, n.Policies[0]) }, refusal.RequestInvalid, map[string]string{"field": "policy name"}},
			"a limit like a policy":  {limited(func(l *policy.Limit) { l.Name = allow.Name }), refusal.RequestInvalid, map[string]string{"field": "limit name"}},
			"a policy of no grammar": {ruled("solana.tx.transfers.all("), refusal.PolicyInvalid, map[string]string{"policy": "payouts", "clause": "condition"}},
			"a policy of no type":    {ruled("1 + 1"), refusal.PolicyInvalid, map[string]string{"policy": "payouts", "clause": "condition"}},
			"a misspelled field":     {ruled("solana.tx.transfer.count() == 1"), refusal.PolicyInvalid, map[string]string{"policy": "payouts", "clause": "condition", "offset": "0"}},
			"a bad window":           {limited(func(l *policy.Limit) { l.Window = -time.Second }), refusal.PolicyInvalid, map[string]string{"clause": "limit"}},
			"a window of half":       {limited(func(l *policy.Limit) { l.Window = time.Second / 2 }), refusal.PolicyInvalid, map[string]string{"clause": "limit"}},
			"a bad asset":            {limited(func(l *policy.Limit) { l.Asset = "SOL" }), refusal.PolicyInvalid, map[string]string{"clause": "limit"}},
			"ended before it began":  {func(n *NewDelegation) { n.ExpiresAt = &past }, refusal.RequestInvalid, map[string]string{"field": "expires_at"}},
			"ends now":               {func(n *NewDelegation) { n.ExpiresAt = &now }, refusal.RequestInvalid, map[string]string{"field": "expires_at"}},
			"to an end user":         {func(n *NewDelegation) { n.DelegatedUser = site.erin.id }, refusal.RequestInvalid, map[string]string{"field": "delegated_user_id"}},
			"to the owner":           {func(n *NewDelegation) { n.DelegatedUser = site.dana.id }, refusal.RequestInvalid, map[string]string{"field": "delegated_user_id"}},
			"to nobody":              {func(n *NewDelegation) { n.DelegatedUser = "usr_nobody" }, refusal.NotFound, nil},
			"of no wallet":           {func(n *NewDelegation) { n.Wallet = "wal_nothing" }, refusal.NotFound, nil},
		} {
			n := newDelegation("d", solWallet)
			c.change(&n)
			_, err := h.createDelegation(n)
			no := wantRefusal(t, name, err, c.reason)
			for k, v := range c.details {
				if no.Details[k] != v {
					t.Errorf("%s: %s is %q (%s), want %q", name, k, no.Details[k], no.Message, v)
				}
			}
		}
	})
}

// The issue makes a set of its own that signs; the root set stays as it was.
func TestIssuedSetSigns(t *testing.T) {
	ctx, h := context.Background(), newHouse(t, withWallet)
	end := h.clock.now().Add(time.Hour)
	n := newDelegation("d", solWallet)
	n.ExpiresAt = &end
	n.Limits = []policy.Limit{{Name: "a day", Asset: cluster + "/slip44:501", Max: *uint256.NewInt(9), Window: time.Hour}}
	made, err := h.createDelegation(n)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	key := h.apiKey(made.DelegationID)
	st, err := h.Authenticate(solWallet, key)
	if err != nil {
		t.Fatal(err)
	}
	root := mpctest.Ed25519RootSet(t)
	set := st.Set
	if st.Delegation != made.DelegationID || st.Owner != site.dana.id || st.DelegatedUser != site.bot || st.DelegatedUserName != "bot" || !st.ExpiresAt.Equal(end) ||
		st.Wallet.ID != solWallet || !slices.Equal(set.Parties, []mpc.Party{mpc.Delegate, mpc.Server}) || set.Threshold != 2 || set.Epoch != 2 || set.ID == root.ID ||
		!bytes.Equal(set.PublicKey, root.PublicKey) || len(st.Rules.Limits()) != 1 || st.Rules.Limits()[0].Delegation != made.DelegationID {
		t.Errorf("standing %+v", st)
	}
	d, err := h.Delegation(look(site.acme, site.root[0]), site.acme, made.DelegationID)
	if err != nil || d.PolicySet != st.PolicySet || st.PolicySet != hashJudging(st.Rules, hashDocuments(nil)) || !slices.Equal(d.Parties, []string{"delegate", "server"}) || len(d.Policies) != 1 || len(d.Limits) != 1 {
		t.Errorf("delegation %+v, %v", d, err)
	}
	if e := h.last(); e.Method != "ceremony/issue" || e.Delegation != made.DelegationID || e.Facts["api_key"] != st.APIKey || e.ShareSet != set.ID || e.PolicySet == "" {
		t.Errorf("last entry %+v, want the ceremony's end", e)
	}

	message := []byte("\x80a message")
	sign := func(s mpc.ShareSet, parties []mpc.Party) error {
		return h.cfg.Vault.WithAll(ctx, vault.TypeShare, shareIDs(s.ID, parties), func(shares [][]byte) error {
			for _, b := range shares {
				h.secrets = append(h.secrets, middle(b))
			}
			sig, err := mpc.Sign(ctx, mpc.SignRequest{Set: s, Shares: shares, Input: chains.SignInput{Scheme: s.Scheme, Message: message}})
			if err == nil && !ed25519.Verify(s.PublicKey, message, sig.Bytes()) {
				err = errors.New("crypto/ed25519 refuses the signature")
			}
			return err
		})
	}
	if err := sign(set, set.Parties); err != nil {
		t.Errorf("the new set: %v", err)
	}
	if err := sign(root.ShareSet, []mpc.Party{mpc.Recovery, mpc.Server}); err != nil {
		t.Errorf("the root set: %v", err)
	}

	// A second delegation has shares of its own; revoking one leaves the other.
	other, otherKey := h.delegate("d2", solWallet)
	if st2, err := h.Authenticate(solWallet, otherKey); err != nil || st2.Set.ID == set.ID || st2.Delegation != other {
		t.Errorf("second delegation %+v, %v", st2, err)
	}
	h.revoke(t, made.DelegationID, site.dana.holder)
	if _, err := h.Authenticate(solWallet, otherKey); err != nil {
		t.Errorf("the other delegation: %v", err)
	}
	wantGone(t, h, set, key)
}

// wantGone insists that a set's shares and its key's verifier are destroyed.
func wantGone(t *testing.T, h *house, set mpc.ShareSet, key []byte) {
	t.Helper()
	for _, p := range set.Parties {
		err := h.cfg.Vault.With(context.Background(), vault.TypeShare, ShareID(set.ID, p), func([]byte) error { return nil })
		if !errors.Is(err, vault.ErrNotFound) {
			t.Errorf("share of %s: %v, want ErrNotFound", p, err)
		}
	}
	if err := h.cfg.Vault.With(context.Background(), vault.TypeAPIKey, apiKeyID(key), func([]byte) error { return nil }); !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("verifier: %v, want ErrNotFound", err)
	}
	_, err := h.Authenticate(solWallet, key)
	wantRefusal(t, "the key", err, refusal.APIKeyInvalid)
}

// revoke revokes under stamps of by.
func (h *house) revoke(t *testing.T, id string, by ...holder) Delegation {
	t.Helper()
	d, err := h.RevokeDelegation(context.Background(), stamped(site.acme, revocation{"revoke", id}, by...), "revoke-"+id, site.acme, id)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestRevocation(t *testing.T) {
	for name, by := range map[string][]holder{"by the owner": {site.dana.holder}, "by the root quorum": site.root[1:]} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, withWallet)
			id, key := h.delegate("d", solWallet)
			st, err := h.Authenticate(solWallet, key)
			if err != nil {
				t.Fatal(err)
			}
			if d := h.revoke(t, id, by...); d.Status != statusRevoked || d.EncryptedAPIKey != nil {
				t.Errorf("delegation %+v, want it revoked and without a key", d)
			}
			check := func() {
				t.Helper()
				wantGone(t, h, st.Set, key)
				_, err := h.Current(id)
				wantRefusal(t, "Current", err, refusal.DelegationRevoked)
				_, leave, err := h.Enter(id)
				wantRefusal(t, "Enter", err, refusal.DelegationRevoked)
				if leave != nil {
					t.Error("Enter counted a refused signature")
				}
			}
			check()
			before := len(h.entries())
			d, err := h.RevokeDelegation(context.Background(), stamped(site.acme, revocation{"again", id}, by...), "again", site.acme, id)
			if err != nil || d.Status != statusRevoked || len(h.entries()) != before+1 {
				t.Errorf("revoked twice: %+v, %v", d, err)
			}
			h.restart()
			check()
			_, err = h.RevokeDelegation(context.Background(), stamped(site.acme, revocation{"r", "dlg_none"}, by...), "r", site.acme, "dlg_none")
			wantRefusal(t, "an unknown delegation", err, refusal.NotFound)
		})
	}
}

// A delegation is revoked while its ceremony runs: what the ceremony makes is
// dropped, and the revocation stands.
func TestRevocationWhileItsCeremonyRuns(t *testing.T) {
	gate, h := held(t, withEther)
	made, err := h.createDelegation(newDelegation("d", ethWallet))
	if err != nil {
		t.Fatal(err)
	}
	<-gate.reached
	if d := h.revoke(t, made.DelegationID, site.dana.holder); d.Status != statusRevoked {
		t.Errorf("delegation %+v, want it revoked at once", d)
	}
	// The ceremony comes to its end all the same.
	set := mpctest.ECDSADelegateSet(t)
	err = h.cfg.Vault.UpdateAlone(context.Background(), func(tx *vault.Tx) error {
		return h.activate(tx, nil, made.DelegationID, set.ShareSet, nil)
	})
	wantRefusal(t, "activating what was revoked", err, refusal.NotActive)
	close(gate.opened)
	h.wantCeremony(made.CeremonyID, statusFailed)
	for range 2 {
		d, err := h.Delegation(look(site.acme, site.dana.holder), site.acme, made.DelegationID)
		if err != nil || d.Status != statusRevoked {
			t.Errorf("delegation %+v, %v, want it revoked for ever", d, err)
		}
		h.restart()
	}
}

// Signatures stop from the first moment of a revocation, before it is on disk: the
// journal looks at the clock in its transaction, and so do we.
func TestRevocationIsSeenBeforeItIsCommitted(t *testing.T) {
	h := newHouse(t, withWallet, withDelegations)
	var during error
	h.clock.look(func() { _, during = h.Current("dlg_1") })
	h.revoke(t, "dlg_1", site.dana.holder)
	h.clock.look(nil)
	if no := wantRefusal(t, "while it is committed", during, refusal.DelegationRevoked); !strings.Contains(no.Message, "is being revoked") {
		t.Errorf("%q was only seen after the commit", no.Message)
	}
}

func TestExpiryIsShown(t *testing.T) {
	h := newHouse(t, withWallet)
	end := h.clock.now().Add(time.Hour).In(time.FixedZone("somewhere", 3600))
	n := newDelegation("d", solWallet)
	n.ExpiresAt = &end
	made, err := h.createDelegation(n)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	for _, want := range []string{statusActive, "expired"} {
		d, err := h.Delegation(look(site.acme, site.dana.holder), site.acme, made.DelegationID)
		if err != nil || d.Status != want || d.ExpiresAt == nil || !d.ExpiresAt.Equal(end) {
			t.Errorf("delegation %+v, %v, want %s", d, err, want)
		}
		h.clock.add(time.Hour)
	}
}

// The key of a delegation opens its own wallet only, every other text nothing,
// and all refusals are the same.
func TestAuthenticate(t *testing.T) {
	h := newHouse(t, withWallet, withEther)
	id, key := h.delegate("d", solWallet)
	st, err := h.Authenticate(solWallet, key)
	if err != nil || st.Delegation != id || st.APIKey != apiKeyID(key) || !bytes.HasPrefix(key, []byte("sgk_"+st.APIKey+"_")) || len(key) != apiKeyLen {
		t.Fatalf("standing %+v, %v", st, err)
	}
	want := ""
	refused := func(name, wallet string, key []byte) {
		t.Helper()
		st, err := h.Authenticate(wallet, key)
		no := wantRefusal(t, name, err, refusal.APIKeyInvalid)
		if want == "" {
			want = no.Error()
		}
		if st != nil || no.Error() != want {
			t.Errorf("%s: %q, want %q", name, no, want)
		}
	}
	refused("another wallet", ethWallet, key)
	refused("an unknown wallet", "wal_nothing", key)
	refused("no wallet", "", key)
	refused("no key", solWallet, nil)
	rec, err := h.Service.apiKey(st.APIKey)
	if err != nil {
		t.Fatal(err)
	}
	refused("the verifier", solWallet, rec.Verifier)
	refused("the dummy's text", solWallet, []byte("sigild: no such wallet API key"))
	refused("upper case", solWallet, bytes.ToUpper(key))
	refused("a space", solWallet, append([]byte(" "), key...))
	for i := range key { // every byte of it counts
		wrong := bytes.Clone(key)
		wrong[i] ^= 1
		refused(fmt.Sprint("byte ", i), solWallet, wrong)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		wrong := bytes.Clone(key[:r.IntN(len(key))])
		refused("cut", solWallet, wrong)
	}
	h.cfg.Vault.Seal()
	if _, err := h.Authenticate(solWallet, key); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("while sealed: %v, want ErrSealed", err)
	}
}

// Nobody can mistake the dummy for a verifier: it is no HMAC under our key.
func TestDummyVerifierOpensNothing(t *testing.T) {
	h := newHouse(t)
	for _, key := range [][]byte{nil, []byte("sigild: no such wallet API key"), bytes.Repeat([]byte{'a'}, apiKeyLen)} {
		got, err := h.verifier(key)
		if err != nil || len(got) != len(dummyVerifier) || bytes.Equal(got, dummyVerifier[:]) {
			t.Errorf("verifier of %q is %x, %v", key, got, err)
		}
	}
}

func TestAPIKeyID(t *testing.T) {
	id := strings.Repeat("a", apiKeyIDLen)
	good := "sgk_" + id + "_" + strings.Repeat("A", 43)
	for text, want := range map[string]string{
		good: id, "": "", good[1:]: "", good + "A": "", "sgx" + good[3:]: "", strings.Replace(good, id+"_", id+"-", 1): "",
	} {
		if got := apiKeyID([]byte(text)); got != want {
			t.Errorf("id of %q is %q, want %q", text, got, want)
		}
	}
	seen := map[string]bool{}
	for range 50 {
		err := newAPIKey(func(id string, key []byte) error {
			if apiKeyID(key) != id || seen[string(key)] {
				t.Errorf("key of %s is not of the form, or not new", id)
			}
			seen[string(key)] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	var kept []byte
	if err := newAPIKey(func(_ string, key []byte) error { kept = key; return errNoPrimes }); !errors.Is(err, errNoPrimes) {
		t.Errorf("error %v, want that of use", err)
	}
	if !bytes.Equal(kept, make([]byte, len(kept))) {
		t.Error("the key was not wiped")
	}
}

// The record of an API key is read when it is used: one that says it is another's opens
// nothing, and takes nothing from anybody else.
func TestAPIKeyOfAnotherRecordOpensNothing(t *testing.T) {
	h := newHouse(t, withWallet)
	first, key := h.delegate("first", solWallet)
	_, other := h.delegate("second", solWallet)
	st, err := h.Authenticate(solWallet, other)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := h.Service.apiKey(st.APIKey)
	if err != nil {
		t.Fatal(err)
	}
	h.put(func(tx *vault.Tx) error { return store(tx, vault.TypeAPIKey, apiKeyID(key), rec) })
	h.restart()
	if _, err := h.Authenticate(solWallet, key); err == nil || refusal.Is(err, refusal.APIKeyInvalid) || !strings.Contains(err.Error(), first) {
		t.Errorf("a swapped record: %v, want an error that names delegation %s", err, first)
	}
	if _, err := h.Authenticate(solWallet, other); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
}
