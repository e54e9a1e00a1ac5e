package delegation

import (
	"context"
	"fmt"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// A wallet that another vendor keeps, and signs with for whoever shows a credential of
// the vendor's, is bound as one whose share was delivered is (vendor.go): by the root
// quorum, to a delegated user, under rules of its making. In place of a share the
// delegation has the name of a sealed credential (package stamping), which may stamp
// for several wallets.

// Stampers holds vendor credentials; package stamping is the one that does.
type Stampers interface {
	// OfferCredential says what a wallet of the chain is to the vendor of an active
	// credential of the organization, if it signs there with signWith.
	OfferCredential(org, credential, chain, signWith string) (vendor string, err error)
}

// VendorCredentials gives the service the room that holds them. It is called once,
// before anything is served.
func (s *Service) VendorCredentials(h Stampers) { s.stampers = h }

// NewCredentialBinding binds a vendor credential. The terms are as in [NewDelegation].
type NewCredentialBinding struct {
	NewDelegation
	// Credential is its id here, SignWith the vendor's name of what signs.
	Credential, SignWith string
	// Chain is "eip155" or the CAIP-2 id of a Solana cluster; Address is the wallet's.
	// Name is for people.
	Chain, Address, Name string
}

// CredentialBound answers BindVendorCredential.
type CredentialBound struct {
	DelegationID string `json:"delegation_id"`
	WalletID     string `json:"wallet_id"`
}

// BindVendorCredential makes a wallet that the vendor keeps, a delegation of it and its
// wallet API key, under the root quorum. Durable on return, active at once.
func (s *Service) BindVendorCredential(ctx context.Context, a Actor, n NewCredentialBinding) (CredentialBound, error) {
	id := newID("dlg")
	if err := checkRecipient("api_key_recipient", n.Recipient); err != nil {
		return CredentialBound{}, err
	}
	if err := checkName("name", n.Name); err != nil {
		return CredentialBound{}, err
	}
	policies, limits, err := checkRules(id, n.NewDelegation)
	if err != nil {
		return CredentialBound{}, err
	}
	authorize := func() error {
		if err := s.root(a, n.Organization); err != nil || len(policies)+len(limits)+len(n.Templates) == 0 {
			return err
		}
		return s.byAPI(n.Organization)
	}
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (CredentialBound, error) {
		if s.stampers == nil {
			return CredentialBound{}, fmt.Errorf("binding a vendor credential: no room holds any")
		}
		scheme, address, public, err := foreignAddress(n.Chain, n.Address)
		if err != nil {
			return CredentialBound{}, err
		}
		vendor, err := s.stampers.OfferCredential(n.Organization, n.Credential, n.Chain, n.SignWith)
		if err != nil {
			return CredentialBound{}, err
		}
		if other := s.book.otherAddress(n.Organization, vendor, n.Chain, address); other != "" {
			return CredentialBound{}, refusal.New(refusal.RequestInvalid, "wallet %s is bound to the same signer with another address", other).With("field", "address")
		}
		w, k, err := s.foreignWalletOf(tx, n.NewDelegation, foreign{vendor: vendor, chain: n.Chain, name: n.Name, address: address, scheme: scheme, public: public, origin: originVendor})
		if err != nil {
			return CredentialBound{}, err
		}
		now := s.now().UTC()
		d, err := s.draft(n.NewDelegation, w, id, policies, limits, now)
		if err != nil {
			return CredentialBound{}, err
		}
		d.Status, d.ApprovedAt, d.Credential = statusActive, &now, &signing.VendorCredential{ID: n.Credential, SignWith: n.SignWith}
		if err := s.putActive(tx, e, d, w, k, nil); err != nil {
			return CredentialBound{}, err
		}
		e.User = d.DelegatedUser
		for name, fact := range map[string]string{
			"vendor_credential": n.Credential, "vendor_wallet": vendor, "address": address, "policies": fmt.Sprint(len(policies)), "limits": fmt.Sprint(len(limits)),
		} {
			e.Facts[name] = fact
		}
		return CredentialBound{DelegationID: d.ID, WalletID: w.ID}, nil
	})
}

// otherAddress finds a wallet that is the same to the vendor under another address: one
// of the two would be judged as what it is not.
func (b *book) otherAddress(org, vendor, chain, address string) string {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for id, w := range b.wallets {
		if w.Organization == org && w.Vendor == vendor && w.Chain == chain && w.Address != address {
			return id
		}
	}
	return ""
}

// MethodCredentialEnded is the method of the entry of a delegation that ended because
// its vendor credential was revoked.
const MethodCredentialEnded = "stamping/ended"

// EndCredential ends every delegation that a vendor credential stamps for, in the
// transaction that destroys it, and returns their ids.
func (s *Service) EndCredential(tx *vault.Tx, credential string) (ended []string, err error) {
	bound := s.delegationsWhere(func(d *delegationRecord) bool {
		return d.Status == statusActive && d.Credential != nil && d.Credential.ID == credential
	})
	for _, d := range bound {
		tx.OnRollback(s.flights.end(d.ID))
		if err := s.putRevoked(tx, d); err != nil {
			return nil, err
		}
		e := journal.Entry{Kind: journal.KindAct, Method: MethodCredentialEnded, Organization: d.Organization, Wallet: d.Wallet, Delegation: d.ID, User: d.DelegatedUser,
			Outcome: statusRevoked, Facts: map[string]string{"vendor_credential": credential}, Urgent: true}
		if _, err := s.journal.Append(tx, e); err != nil {
			return nil, err
		}
		ended = append(ended, d.ID)
	}
	return ended, nil
}
