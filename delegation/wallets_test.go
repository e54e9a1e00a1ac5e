package delegation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func newWallet(id string) NewWallet {
	return NewWallet{RequestID: id, Organization: site.acme, Owner: site.dana.id, Chain: cluster, Name: "main"}
}

func (h *house) createWallet(n NewWallet) (WalletStarted, error) {
	return h.CreateWallet(context.Background(), stamped(site.acme, n, site.root...), n)
}

func TestWalletsAreChecked(t *testing.T) {
	h := newHouse(t)
	h.unchanged("refused wallets", func() {
		for name, c := range map[string]struct {
			change func(n *NewWallet)
			reason refusal.Reason
			field  string
		}{
			"no name":             {func(n *NewWallet) { n.Name = "" }, refusal.RequestInvalid, "name"},
			"no chain":            {func(n *NewWallet) { n.Chain = "" }, refusal.RequestInvalid, "chain"},
			"one EVM chain":       {func(n *NewWallet) { n.Chain = "eip155:1" }, refusal.RequestInvalid, "chain"},
			"an unknown family":   {func(n *NewWallet) { n.Chain = "cosmos:hub" }, refusal.RequestInvalid, "chain"},
			"a short cluster":     {func(n *NewWallet) { n.Chain = "solana:mainnet" }, refusal.RequestInvalid, "chain"},
			"a strange cluster":   {func(n *NewWallet) { n.Chain = "solana:" + strings.Repeat("/", 32) }, refusal.RequestInvalid, "chain"},
			"no owner":            {func(n *NewWallet) { n.Owner = "" }, refusal.NotFound, ""},
			"a delegated owner":   {func(n *NewWallet) { n.Owner = site.bot }, refusal.RequestInvalid, "owner_user_id"},
			"a foreign owner":     {func(n *NewWallet) { n.Owner = site.gina.id }, refusal.NotFound, ""},
			"owner is root":       {func(n *NewWallet) { n.Owner = site.root[0].PublicKey.ID() }, refusal.NotFound, ""},
			"owner is the wallet": {func(n *NewWallet) { n.Owner = solWallet }, refusal.NotFound, ""},
		} {
			n := newWallet("w")
			c.change(&n)
			_, err := h.createWallet(n)
			if no := wantRefusal(t, name, err, c.reason); no.Details["field"] != c.field {
				t.Errorf("%s: field %q, want %q", name, no.Details["field"], c.field)
			}
		}
	})
}

// The whole way of a wallet: ceremony, the owner's share out, the receipt.
func TestWalletFromCeremonyToReceipt(t *testing.T) {
	ctx, h := context.Background(), newHouse(t)
	made, err := h.createWallet(newWallet("w"))
	if err != nil {
		t.Fatal(err)
	}
	c := h.wantCeremony(made.CeremonyID, statusDone)
	if c.Kind != kindKeygen || c.Error != "" || c.Stage != "" || !c.StartedAt.Equal(h.clock.now()) {
		t.Errorf("ceremony %+v", c)
	}
	if e := h.last(); e.Method != "ceremony/keygen" || e.Outcome != statusDone || e.Wallet != made.WalletID || e.ShareSet != made.KeyID+"/root/1" || e.Facts["address"] == "" {
		t.Errorf("last entry %+v, want the ceremony's end", e)
	}
	w, err := h.Wallet(look(site.acme, site.root[0]), site.acme, made.WalletID)
	if err != nil || w.Status != statusPending || w.Origin != "in_process" || w.Custody != "host" || w.Epoch != 1 || w.Scheme != chains.EdDSAEd25519 ||
		w.Owner != site.dana.id || w.Key != made.KeyID || !slices.Equal(w.SharesHere, []string{"recovery", "server"}) {
		t.Errorf("wallet %+v, %v", w, err)
	}
	if key, err := solana.ParseAddress(w.Address); err != nil || !bytes.Equal(key[:], w.PublicKey) {
		t.Errorf("address %q is not that of key %x", w.Address, w.PublicKey)
	}
	for _, p := range []mpc.Party{mpc.Server, mpc.Recovery} {
		err := h.cfg.Vault.With(ctx, vault.TypeShare, ShareID(made.KeyID+"/root/1", p), func(b []byte) error {
			h.secrets = append(h.secrets, middle(b))
			return nil
		})
		if err != nil {
			t.Errorf("share of %s: %v", p, err)
		}
	}
	err = h.cfg.Vault.With(ctx, vault.TypeShare, ShareID(made.KeyID+"/root/1", mpc.User), func([]byte) error { return nil })
	if !errors.Is(err, vault.ErrNotFound) {
		t.Errorf("the user's share was sealed here: %v", err)
	}

	// The share, to nobody but the owner, as often as wanted.
	for name, by := range map[string][]holder{"root": site.root, "another user": {site.erin.holder}} {
		_, err := h.FetchShare(ctx, look(site.acme, by...), site.acme, made.WalletID)
		wantRefusal(t, name, err, refusal.QuorumMissing)
	}
	out, err := h.FetchShare(ctx, look(site.acme, site.dana.holder), site.acme, made.WalletID)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := h.FetchShare(ctx, look(site.acme, site.dana.holder), site.acme, made.WalletID); err != nil || !bytes.Equal(again.Ciphertext, out.Ciphertext) {
		t.Errorf("fetched again: %v, other bytes", err)
	}
	share := openAge(t, out.Ciphertext, site.dana.age)
	h.secrets = append(h.secrets, middle(share))
	if set, party, err := mpc.DescribeShare(share); err != nil || party != mpc.User || !bytes.Equal(set.PublicKey, w.PublicKey) || set.Threshold != 2 {
		t.Errorf("share of %s in %+v, %v", party, set, err)
	}

	// Pending until the receipt.
	n := newDelegation("d", made.WalletID)
	_, err = h.CreateDelegation(ctx, stamped(site.acme, n, site.dana.holder), n)
	if no := wantRefusal(t, "delegating a pending wallet", err, refusal.NotActive); !strings.Contains(no.Message, "confirm the share") {
		t.Errorf("message %q does not say what to do", no.Message)
	}
	sum := sha256.Sum256(out.Ciphertext)
	confirm := func(id string, sum []byte) (Wallet, error) {
		r := NewReceipt{RequestID: id, Organization: site.acme, Wallet: made.WalletID, SHA256: sum}
		return h.ConfirmShare(ctx, stamped(site.acme, r, site.dana.holder), r)
	}
	_, err = confirm("short", sum[:31])
	wantRefusal(t, "a short hash", err, refusal.RequestInvalid)
	of := sha256.Sum256(share)
	_, err = confirm("wrong", of[:])
	wantRefusal(t, "the hash of the plaintext", err, refusal.RequestInvalid)
	if w, err = confirm("right", sum[:]); err != nil || w.Status != statusActive {
		t.Fatalf("confirmed: %+v, %v", w, err)
	}
	_, err = h.FetchShare(ctx, look(site.acme, site.dana.holder), site.acme, made.WalletID)
	wantRefusal(t, "fetching after the receipt", err, refusal.NotActive)
	_, err = confirm("second", sum[:])
	wantRefusal(t, "a second receipt", err, refusal.NotActive)
	if w, err = confirm("right", sum[:]); err != nil || w.Status != statusActive {
		t.Errorf("the same receipt again: %+v, %v", w, err)
	}

	// The key works: its root set issues a set that signs.
	if _, key := h.delegate("d", made.WalletID); apiKeyID(key) == "" {
		t.Error("no API key")
	}
}

func TestFetchShareBeforeTheCeremonyEnds(t *testing.T) {
	release, h := held(t)
	n := newWallet("w")
	n.Chain = "eip155"
	made, err := h.createWallet(n)
	if err != nil {
		t.Fatal(err)
	}
	<-release.reached
	_, err = h.FetchShare(context.Background(), look(site.acme, site.dana.holder), site.acme, made.WalletID)
	wantRefusal(t, "fetching while the ceremony runs", err, refusal.NotActive)
	c, err := h.Ceremony(look(site.acme, site.dana.holder), site.acme, made.CeremonyID)
	if err != nil || c.Status != statusRunning || c.Stage != "pre-parameters" || c.Total != 3 {
		t.Errorf("ceremony %+v, %v, want it at its pre-parameters", c, err)
	}
}

// gate stops the first who passes until it is opened.
type gate struct{ reached, opened chan struct{} }

// held is a house whose ECDSA ceremonies wait for their pre-parameters at the
// gate, and then get none.
func held(t *testing.T, change ...func(*house)) (*gate, *house) {
	g := &gate{make(chan struct{}), make(chan struct{})}
	first := true
	h := newHouse(t, append(change, func(h *house) {
		h.cfg.PreParameters = func(ctx context.Context) (*mpc.PreParams, error) {
			if first { // ceremonies run one at a time
				first = false
				close(g.reached)
			}
			select {
			case <-g.opened:
				return nil, errNoPrimes
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	})...)
	return g, h
}

func TestFailedCeremonyFailsItsTarget(t *testing.T) {
	h := newHouse(t, withEther, idle)
	n := newWallet("w")
	n.Chain = "eip155"
	made, err := h.createWallet(n)
	if err != nil {
		t.Fatal(err)
	}
	c := h.wantCeremony(made.CeremonyID, statusFailed)
	if strings.Contains(c.Error, errNoPrimes.Error()) || !strings.Contains(h.log.String(), errNoPrimes.Error()) {
		t.Errorf("a member reads %q; the cause belongs to the log", c.Error)
	}
	if w, err := h.Wallet(look(site.acme, site.dana.holder), site.acme, made.WalletID); err != nil || w.Status != statusFailed {
		t.Errorf("wallet %+v, %v, want it failed", w, err)
	}
	if e := h.last(); e.Method != "ceremony/keygen" || e.Outcome != statusFailed || e.Reason != c.Error {
		t.Errorf("last entry %+v, want the ceremony's failure", e)
	}
	d := newDelegation("d", made.WalletID)
	_, err = h.CreateDelegation(context.Background(), stamped(site.acme, d, site.dana.holder), d)
	wantRefusal(t, "delegating a failed wallet", err, refusal.NotActive)

	d = newDelegation("d2", ethWallet)
	started, err := h.CreateDelegation(context.Background(), stamped(site.acme, d, site.dana.holder), d)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(started.CeremonyID, statusFailed)
	shown, err := h.Delegation(look(site.acme, site.root[0]), site.acme, started.DelegationID)
	if err != nil || shown.Status != statusFailed || shown.EncryptedAPIKey != nil || shown.Parties != nil {
		t.Errorf("delegation %+v, %v, want it failed and empty", shown, err)
	}
	_, err = h.RevokeDelegation(context.Background(), stamped(site.acme, revocation{"r", started.DelegationID}, site.dana.holder), "r", site.acme, started.DelegationID)
	wantRefusal(t, "revoking what failed", err, refusal.NotActive)
	if st, err := h.book.now(started.DelegationID); st != nil || err != nil {
		t.Errorf("it has a standing: %+v, %v", st, err)
	}
}

func TestCeremonyThatHangsIsEnded(t *testing.T) {
	_, h := held(t, func(h *house) { h.cfg.CeremonyTimeout = time.Millisecond })
	n := newWallet("w")
	n.Chain = "eip155"
	made, err := h.createWallet(n)
	if err != nil {
		t.Fatal(err)
	}
	if c := h.wantCeremony(made.CeremonyID, statusFailed); !strings.Contains(c.Error, "in time") {
		t.Errorf("a member reads %q, want that it took too long", c.Error)
	}
}

// Ceremonies take turns; one that waits says so.
func TestCeremoniesTakeTurns(t *testing.T) {
	gate, h := held(t)
	n := newWallet("w")
	n.Chain = "eip155"
	first, err := h.createWallet(n)
	if err != nil {
		t.Fatal(err)
	}
	<-gate.reached
	second, err := h.createWallet(newWallet("w2"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := h.Ceremony(look(site.acme, site.dana.holder), site.acme, second.CeremonyID); err != nil || c.Stage != "waiting for another ceremony" {
		t.Errorf("the second is %+v, %v, want it to wait", c, err)
	}
	close(gate.opened)
	h.wantCeremony(first.CeremonyID, statusFailed)
	h.wantCeremony(second.CeremonyID, statusDone)
}

func TestCustody(t *testing.T) {
	root := mpctest.Ed25519RootSet(t).ShareSet
	for _, c := range []struct {
		key  key
		want string
	}{
		{key{}, "host"}, // nothing is claimed of a key that isn't made yet
		{key{Root: root, Here: []mpc.Party{mpc.Recovery, mpc.Server, mpc.User}}, "host"},
		{key{Root: root, Here: []mpc.Party{mpc.Recovery, mpc.Server}}, "host"},
		{key{Root: root, Here: []mpc.Party{mpc.Server}}, "user"},
	} {
		if got := c.key.custody(); got != c.want {
			t.Errorf("custody with %v of %d here is %q, want %q", c.key.Here, c.key.Root.Threshold, got, c.want)
		}
	}
	if _, err := (&key{Status: statusActive, Root: root, Here: []mpc.Party{mpc.Server}}).quorumHere(); err == nil {
		t.Error("a quorum of one share")
	}
	if _, err := (&key{Status: statusFailed, Root: root, Here: root.Parties}).quorumHere(); err == nil {
		t.Error("a quorum of a failed key")
	}
}

func TestAddressOf(t *testing.T) {
	if a, err := addressOf("eip155", mpctest.ECDSARootSet(t).PublicKey); err != nil || !strings.HasPrefix(a, "0x") || strings.ToLower(a) == a {
		t.Errorf("address %q, %v, want a checksummed one", a, err)
	}
	for _, chain := range []string{"eip155", cluster} {
		if a, err := addressOf(chain, make([]byte, 31)); err == nil {
			t.Errorf("%s: 31 bytes gave %q", chain, a)
		}
	}
}

// A wallet is paused while its ceremony runs: it stays paused when it is done.
func TestPauseOfAPendingWalletStays(t *testing.T) {
	h := newHouse(t)
	h.ceremonySlot <- struct{}{} // as if another ceremony ran
	made, err := h.createWallet(newWallet("w"))
	if err != nil {
		t.Fatal(err)
	}
	n := NewPause{RequestID: "p", Scope: Scope{Organization: site.acme, Wallet: made.WalletID}, Reason: "drill"}
	if _, err := h.Pause(context.Background(), stamped(site.acme, n, site.dana.holder), n); err != nil {
		t.Fatal(err)
	}
	<-h.ceremonySlot
	h.wantCeremony(made.CeremonyID, statusDone)
	for range 2 {
		if p := h.Paused(n.Scope); p == nil || p.Level != LevelOwner {
			t.Errorf("pause %+v, want the owner's", p)
		}
		h.restart()
	}
}
