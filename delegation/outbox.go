package delegation

import (
	"fmt"
	"slices"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/outbox"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// A delegation may be made for somebody elsewhere: the delegate's share and the wallet
// API key go to a registered endpoint, encrypted to its key, in the transaction that
// makes the delegation, and are not kept here. The server's half stays. So neither
// side signs alone, and destroying the half here ends it, whoever is off-line.
//
// Where the endpoint names a peer, that appliance proposes signatures: it shows its
// pinned key and the wallet API key, and the delegation's policies and limits judge each.

// checkReceiver wants one place for the wallet API key to go to.
func (n NewDelegation) checkReceiver() error {
	if n.Endpoint == "" {
		return checkRecipient("api_key_recipient", n.Recipient)
	}
	if n.Peer != "" {
		return refusal.New(refusal.RequestInvalid, "cosigner_peer and endpoint_id exclude each other: the share goes to one of them").With("field", "endpoint_id")
	}
	if n.Recipient != "" {
		return refusal.New(refusal.RequestInvalid, "api_key_recipient and endpoint_id exclude each other").With("field", "endpoint_id")
	}
	return nil
}

// endpointReady refuses an endpoint to which nothing can be delivered.
func (s *Service) endpointReady(org, id string) error {
	if s.cfg.Outbox == nil {
		return refusal.New(refusal.NotFound, "no such endpoint")
	}
	return s.cfg.Outbox.Ready(org, id)
}

// deliver puts share and key of an active delegation in the outbox.
func (s *Service) deliver(tx *vault.Tx, e *journal.Entry, d *delegationRecord, w *wallet, share *mpc.Share, apiKey []byte) error {
	if share == nil {
		return fmt.Errorf("delivering delegation %s: its set has no delegate", d.ID)
	}
	return mpc.HandOver(share, w.Path, d.ID, s.book.appliance().ID, func(text []byte) error {
		event, err := s.cfg.Outbox.Created(tx, s.delegated(d, w), text, apiKey)
		if err != nil {
			return err
		}
		e.Facts["event"], e.Facts["endpoint"] = event, d.Endpoint
		return nil
	})
}

func (s *Service) delegated(d *delegationRecord, w *wallet) outbox.Delegated {
	return outbox.Delegated{
		Organization: d.Organization, Endpoint: d.Endpoint, Delegation: d.ID, Wallet: w.ID, Owner: d.Owner, Chain: w.Chain, Address: w.Address,
	}
}

// deliveredTo is the party that signs with what was delivered; "" for none.
func (s *Service) deliveredTo(d *delegationRecord) string {
	if s.cfg.Outbox == nil || d.Endpoint == "" {
		return ""
	}
	peer := s.cfg.Outbox.PeerAt(d.Organization, d.Endpoint)
	if peer == "" {
		return ""
	}
	return peerPrefix + peer
}

// authenticateDelegate opens a delegation for the appliance that its share was delivered
// to: it has the wallet API key and the pinned key. Who lacks one of them hears the same.
func (s *Service) authenticateDelegate(walletID, party string, apiKey []byte) (*signing.Standing, error) {
	st, err := s.opened(walletID, apiKey)
	if err != nil {
		return nil, err
	}
	d := find(s.book, s.book.delegations, st.Delegation)
	if d == nil || s.deliveredTo(d) != party {
		return nil, errNotOpened()
	}
	if st.Wallet.Scheme == chains.ECDSASecp256k1 && !s.cfg.SemiTrusted {
		return nil, errNotTrusted()
	}
	if err := s.book.held(st.Organization, st.Wallet.ID, st.Delegation); err != nil {
		return endedBy(st, err), nil
	}
	by := *st
	by.Credentials = append(slices.Clone(st.Credentials), policy.Credential{ID: party, UserID: st.DelegatedUser, Type: credentialPeer})
	return &by, nil
}

// tellEnded puts the event of a delegation's end in the outbox, if there is anybody to tell.
func (s *Service) tellEnded(tx *vault.Tx, d *delegationRecord) error {
	if d.Endpoint == "" || d.Set.ID == "" {
		return nil
	}
	w, _, err := s.book.wallet(d.Organization, d.Wallet)
	if err != nil {
		return err
	}
	_, err = s.cfg.Outbox.Revoked(tx, s.delegated(d, w))
	return err
}
