package delegation

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/outbox"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

const peerPin = "sha256:0000000000000000000000000000000000000000000000000000000000000002"

func withPeers(h *house) {
	h.cfg.Peers = map[string]string{"developer": peerPin, "other": phonePin}
}

// delivered makes of a delegation one whose share went to an endpoint, of a peer or of
// nobody's.
func (h *house) delivered(id, peer string) {
	h.t.Helper()
	var err error
	if h.Service.cfg.Outbox == nil {
		if h.Service.cfg.Outbox, err = outbox.Open(context.Background(), outbox.Config{Vault: h.cfg.Vault, Journal: h.cfg.Journal}); err != nil {
			h.t.Fatal(err)
		}
	}
	n := outbox.NewEndpoint{RequestID: "endpoint-" + id, Organization: site.acme, Name: "developer", URL: "https://example.org/h", Environment: "e", Peer: peer,
		Secret: []byte("whsec_0123456789abcdef"), PublicKeyPEM: endpointKey}
	made, err := h.Service.cfg.Outbox.RegisterEndpoint(h.t.Context(), h.Acting(stamped(site.acme, n.RequestID, site.root...)), n)
	if err != nil {
		h.t.Fatal(err)
	}
	d := *find(h.book, h.book.delegations, id)
	d.Endpoint = made.EndpointID
	h.put(func(tx *vault.Tx) error {
		h.book.change(tx, func() { h.book.delegations[id] = &d })
		return errors.Join(store(tx, vault.TypeDelegation, id, &d), tx.Delete(vault.TypeShare, ShareID(d.Set.ID, mpc.Delegate)))
	})
}

// Who a share was delivered to signs with the wallet API key and the pinned key, and
// nobody with one of them.
func TestWhoAShareWasDeliveredTo(t *testing.T) {
	h := newHouse(t, withWallet, withPeers)
	id, key := h.delegate("a", solWallet)
	h.delivered(id, "developer")
	st, err := h.Authenticate(solWallet, key)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "asked by a program here", st.Ended, refusal.NotActive)
	st, err = h.AuthenticateParty(solWallet, "peer/developer", key)
	if err != nil || st.Ended != nil || st.Delegation != id || st.Peer != "" || !slices.Equal(st.Here, []mpc.Party{mpc.Server}) || !slices.Equal(st.Elsewhere, []mpc.Party{mpc.Delegate}) ||
		!slices.Equal(st.ShareIDs, []string{ShareID(st.Set.ID, mpc.Server)}) || !slices.ContainsFunc(st.Credentials, func(c policy.Credential) bool { return c.Type == credentialPeer && c.ID == "peer/developer" }) {
		t.Errorf("for the developer's appliance: %+v, %v", st, err)
	}
	other, otherKey := h.delegate("b", solWallet)
	h.delivered(other, "")
	local, localKey := h.delegate("c", solWallet)
	for _, c := range []struct {
		what, wallet, party string
		key                 []byte
	}{
		{"another peer", solWallet, "peer/other", key},
		{"a device", solWallet, "dev_1", key},
		{"another wallet", "wal_none", "peer/developer", key},
		{"a wrong key", solWallet, "peer/developer", append(slices.Clone(key[:len(key)-1]), key[len(key)-1]^1)},
		{"an endpoint of nobody's", solWallet, "peer/developer", otherKey},
		{"a delegation whose share is here", solWallet, "peer/developer", localKey},
	} {
		_, err := h.AuthenticateParty(c.wallet, c.party, c.key)
		if no := wantRefusal(t, c.what, err, refusal.APIKeyInvalid); no != nil && no.Message != errNotOpened().(*refusal.Error).Message {
			t.Errorf("%s: %q tells more", c.what, no.Message)
		}
	}
	_, err = h.AuthenticateParty(solWallet, "peer/developer", nil)
	wantRefusal(t, "without a key", err, refusal.NotFound)

	// Its proposals are found for it alone.
	offer := &mpc.Offer{Proposal: mpc.Proposal{From: &st.Set, Decision: "d", Nonce: []byte{1}}}
	if w, _, err := h.CosignedWallet("peer/developer", offer); err != nil || w != solWallet {
		t.Errorf("a proposal is for %q, %v", w, err)
	}
	_, _, err = h.CosignedWallet("peer/other", offer)
	wantRefusal(t, "another peer's proposal", err, refusal.NotFound)
	for _, set := range []string{other, local} {
		d := find(h.book, h.book.delegations, set)
		_, _, err = h.CosignedWallet("peer/developer", &mpc.Offer{Proposal: mpc.Proposal{From: &d.Set}})
		wantRefusal(t, "a proposal for a set of somebody else's", err, refusal.NotFound)
	}

	// Held and ended as any other.
	h.put(func(tx *vault.Tx) error {
		return h.setPause(tx, Scope{Organization: site.acme, Delegation: id}, &Pause{Level: LevelRoot, Since: began, Reason: "a look"})
	})
	if st, err = h.AuthenticateParty(solWallet, "peer/developer", key); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "paused", st.Ended, refusal.Paused)
	h.Service.cfg.Outbox = nil // it would want a key of the endpoint for the event
	d := *find(h.book, h.book.delegations, id)
	d.Endpoint = ""
	h.put(func(tx *vault.Tx) error { h.book.change(tx, func() { h.book.delegations[id] = &d }); return nil })
	if _, err := h.RevokeDelegation(t.Context(), stamped(site.acme, "end", site.dana.holder), "end", site.acme, id); err != nil {
		t.Fatal(err)
	}
	_, err = h.AuthenticateParty(solWallet, "peer/developer", key)
	wantRefusal(t, "revoked", err, refusal.APIKeyInvalid)
}

// ECDSA with a party outside needs the operator's word.
func TestDeliveredECDSAShareNeedsTrust(t *testing.T) {
	h := newHouse(t, withEther, withPeers)
	id, key := h.delegate("a", ethWallet)
	h.delivered(id, "developer")
	_, err := h.AuthenticateParty(ethWallet, "peer/developer", key)
	wantRefusal(t, "without semi_trusted", err, refusal.NotActive)
	h.Service.cfg.SemiTrusted = true
	if _, err := h.AuthenticateParty(ethWallet, "peer/developer", key); err != nil {
		t.Error(err)
	}
}

// A share goes to one place.
func TestDelegationGoesToOnePlace(t *testing.T) {
	h := newHouse(t, withWallet, withPeers)
	n := newDelegation("both", solWallet)
	n.Recipient, n.Endpoint, n.Peer = "", "edp_1", "developer"
	_, err := h.CreateDelegation(t.Context(), stamped(site.acme, n, site.dana.holder), n)
	wantRefusal(t, "an endpoint and a co-signer", err, refusal.RequestInvalid)
}

// A co-signer takes no set under the name of another one: its shares would be gone.
func TestCosignerKeepsWhatItHas(t *testing.T) {
	h := newHouse(t, withWallet, withPeers)
	own, _ := h.delegate("own", solWallet)
	set := find(h.book, h.book.delegations, own).Set
	root := mpctest.Ed25519RootSet(t)
	address, err := addressOf(cluster, root.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	n := NewCosigned{NewWallet: NewWallet{RequestID: "take-on", Organization: site.acme, Owner: site.dana.id, Chain: cluster, Name: "theirs"}, Peer: "developer", Address: address}
	made, err := h.AcceptCosigning(t.Context(), stamped(site.acme, n, site.root...), n)
	if err != nil {
		t.Fatal(err)
	}
	to := root.ShareSet
	to.ID, to.Parties, to.Epoch = set.ID, []mpc.Party{mpc.Delegate, mpc.Server}, root.Epoch+1
	a, b := mpc.Pipe()
	defer a.Close()
	go func() {
		_, _ = mpc.Propose(context.Background(), a, mpc.Proposal{Op: mpc.OpIssue, Engine: to.Engine, Key: "key_1", From: &root.ShareSet, To: &to, FromProposer: []mpc.Party{mpc.Recovery, mpc.Server},
			ToProposer: []mpc.Party{mpc.Server}, ToAcceptor: []mpc.Party{mpc.Delegate}, Invitation: made.CeremonyID, Decision: "cer_1"})
	}()
	o, err := mpc.ReadOffer(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "the name of a set that is here", h.Cosign(t.Context(), "peer/developer", o), refusal.RequestInvalid)
	if got := h.sharesHere(set.ID); !slices.Equal(got, []mpc.Party{mpc.Delegate, mpc.Server}) {
		t.Errorf("shares of %v are left", got)
	}
}

// endpointKey is the public half of a key that nobody has.
const endpointKey = `-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAzSxjsr3gKrI8dJd7cL/G
/Gn7iwyAaF7kxjuZlB2YHPPUuqGGc2gV5m+tv3Aoux4xAPqC9tIJx6XiQ3JYaTud
KVO26fL8lVIdk4IUqe5B5shhMdob3YhJVY2BgWkPrSgCCTmGr/gWLT4/KbVO+qbf
ER0EI8o9Jdcu0OW6GxsmOnGCKzIFoPClGcPwFPSzThgXiiQ1xJLZpZI2NITRYOlj
3ko69fRl9sEx2BFTHW7/4v/RfIzxsoLWrcrnDJcJS2apd6b9d2GBayFhZzOIqqpp
2xBUFNWo9URQjPlpj9WgSZLRCN7n8g5XQ2pompWIGCjYxIFaR/iANw6fVcOeYdq5
5wIDAQAB
-----END PUBLIC KEY-----
`
