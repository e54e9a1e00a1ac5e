package delegation

import (
	"encoding/json"
	"fmt"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/outbox"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A delegation may be made for somebody elsewhere: the delegate's share and the wallet
// API key go to a registered endpoint, encrypted to its key, in the transaction that
// makes the delegation, and are not kept here. The server's half stays. So neither
// side signs alone, and destroying the half here ends it, whoever is off-line.

// checkReceiver wants one place for the wallet API key to go to.
func (n NewDelegation) checkReceiver() error {
	if n.Endpoint == "" {
		return checkRecipient("api_key_recipient", n.Recipient)
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

// delivered is what an endpoint gets as a share: JSON in the vendor's form, and what
// another sigild needs besides.
type delivered struct {
	Pubkey      []byte       `json:"pubkey"`
	SecretShare []byte       `json:"secretShare"`
	Party       mpc.Party    `json:"party"`
	ShareSet    mpc.ShareSet `json:"shareSet"`
	Delegation  string       `json:"delegation"`
	Appliance   string       `json:"appliance"`
}

// deliver puts share and key of an active delegation in the outbox.
func (s *Service) deliver(tx *vault.Tx, e *journal.Entry, d *delegationRecord, w *wallet, share *mpc.Share, apiKey []byte) error {
	if share == nil {
		return fmt.Errorf("delivering delegation %s: its set has no delegate", d.ID)
	}
	return share.Lend(func(encoded []byte) error {
		text, err := json.Marshal(delivered{d.Set.PublicKey, encoded, share.Party(), d.Set, d.ID, s.book.appliance().ID})
		if err != nil {
			return fmt.Errorf("encoding a share: %w", err)
		}
		defer clear(text)
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
