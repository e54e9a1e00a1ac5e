package delegation

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// Whose share is elsewhere signs with the root set itself: the owner with a device, or
// the appliance for which this one co-signs. No delegation stands behind that and no
// wallet API key, but the same steps and policies: the organization's documents must
// allow it, the appliance's files and all limits hold. For journal, limits and flights
// it goes by "own_" and the wallet's id.

const ownPrefix = "own_"

// ownID is the id under which a wallet's own signatures are known.
func ownID(wallet string) string { return ownPrefix + wallet }

// AuthenticateParty opens a wallet for whom the server knows by a pinned key, or with a
// wallet API key a delegation whose share was delivered to that party (outbox.go).
func (s *Service) AuthenticateParty(walletID, party string, apiKey []byte) (*signing.Standing, error) {
	if len(apiKey) > 0 {
		return s.authenticateDelegate(walletID, party, apiKey)
	}
	st, err := s.own(walletID)
	if err != nil {
		return nil, err
	}
	if st == nil || st.APIKey != party {
		return nil, refusal.New(refusal.NotFound, "no such wallet")
	}
	if st.Wallet.Scheme == chains.ECDSASecp256k1 && !s.cfg.SemiTrusted {
		return nil, errNotTrusted()
	}
	if err := s.book.held(st.Organization, st.Wallet.ID, st.Delegation); err != nil {
		return endedBy(st, err), nil
	}
	return st, nil
}

// errNotTrusted refuses ECDSA with a party outside this host: the protocol does not
// bind one of its proofs to a session, so a party that cheats may learn of our share.
func errNotTrusted() error {
	return refusal.New(refusal.NotActive, "ECDSA with a party outside this host needs peer.semi_trusted: true in the appliance's configuration")
}

// nowOrOwn finds the standing of a delegation or of a wallet's own signatures; nil for none.
func (s *Service) nowOrOwn(id string) (*signing.Standing, error) {
	if wallet, ok := strings.CutPrefix(id, ownPrefix); ok {
		return s.own(wallet)
	}
	return s.book.now(id)
}

// own makes the standing of a wallet whose other share is elsewhere; nil when there is
// none, or its device was removed.
func (s *Service) own(walletID string) (*signing.Standing, error) {
	b := s.book
	w := find(b, b.wallets, walletID)
	if w == nil || w.Status != statusActive {
		return nil, nil
	}
	k := find(b, b.keys, w.Key)
	u := find(b, b.users, w.Owner)
	if k == nil || k.Status != statusActive || k.party() == "" || u == nil {
		return nil, nil
	}
	if _, err := b.liveDevice(k.Device); k.Device != "" && err != nil {
		return nil, nil
	}
	here, elsewhere := k.sides()
	rules, problems := policy.Compile(nil, nil, nil)
	if rules == nil {
		return nil, fmt.Errorf("compiling no policies: %v", problems)
	}
	return b.join(&standing{organizationAllows: true, own: rules, base: signing.Standing{
		Delegation: ownID(w.ID), Organization: w.Organization, Owner: w.Owner, DelegatedUser: u.ID, DelegatedUserName: u.Name,
		Approvers:   []policy.User{approver(u)},
		Credentials: []policy.Credential{{ID: k.party(), UserID: u.ID, Type: k.partyType()}},
		APIKey:      k.party(), Version: k.Root.Epoch, Wallet: walletInfo(w, k),
		Set: k.Root, ShareIDs: shareIDs(k.Root.ID, here), Here: here, Elsewhere: elsewhere,
	}})
}

// party is who plays the parties of the key's root set that are elsewhere, as
// PartyOf names it; "" for a key whose shares were all made here.
func (k *key) party() string {
	if k.Peer != "" {
		return peerPrefix + k.Peer
	}
	return k.Device
}

// credentialPeer is what policies read of an appliance.
const credentialPeer = "CREDENTIAL_TYPE_PEER"

// partyType is what policies read of who the party is.
func (k *key) partyType() string {
	if k.Peer != "" {
		return credentialPeer
	}
	return "CREDENTIAL_TYPE_DEVICE"
}

// sides are the parties that take part here, and those elsewhere, whenever the set is
// used: all that are elsewhere, and as many here as are still needed, the server first.
func (k *key) sides() (here, elsewhere []mpc.Party) {
	for _, p := range k.Root.Parties {
		if !slices.Contains(k.Here, p) {
			elsewhere = append(elsewhere, p)
		}
	}
	if slices.Contains(k.Here, mpc.Server) {
		here = append(here, mpc.Server)
	}
	for _, p := range k.Here {
		if p != mpc.Server && len(here)+len(elsewhere) < k.Root.Threshold {
			here = append(here, p)
		}
	}
	slices.Sort(here)
	return here, elsewhere
}
