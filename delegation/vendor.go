package delegation

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// A wallet of another vendor's, or of another sigild's, belongs to somebody whom this
// appliance doesn't know: the vendor's user delegated it to the organization. So its root quorum is who binds
// what was delivered to a delegated user, under rules of the quorum's making, and who
// revokes. There is no ceremony: the delegation is active at once, and its wallet API
// key is ours, made like any other. What signs is the vendor's program, with the
// share that was delivered (package delivery); or, where another sigild delivered it, that
// appliance together with this one.

// originVendor is the origin of a key whose shares another vendor made.
const originVendor = "vendor"

// errVendors refuses to issue a share of a key that has none here.
func errVendors() *refusal.Error {
	return refusal.New(refusal.NotActive, "the wallet is another vendor's: bind what was delivered for it")
}

// Vendors holds what was delivered; package delivery is the one that does. Its
// methods are called inside the transaction of the act.
type Vendors interface {
	// OfferShare shows a pending delivery of the organization.
	OfferShare(tx *vault.Tx, org, delivery string) (signing.VendorOffer, error)
	// Bind has a delegation sign with a pending delivery.
	Bind(tx *vault.Tx, org, delivery, delegation string) error
	// Unbind destroys what a delegation signs with and stops what is under way.
	Unbind(tx *vault.Tx, share signing.VendorShare, delegation string) error
}

// Deliveries gives the service the room that holds deliveries. It is called once,
// before anything is served.
func (s *Service) Deliveries(v Vendors) { s.vendors = v }

// NewBinding binds a delivery. The terms are as in [NewDelegation].
type NewBinding struct {
	NewDelegation
	// Delivery is the id of what was delivered.
	Delivery string
	// Chain is "eip155" or the CAIP-2 id of a Solana cluster; Address is the wallet's,
	// as the organization expects it. Name is for people.
	Chain, Address, Name string
	// Peer is the configured name of the appliance that delivered it and signs together
	// with this one; "" for another vendor's.
	Peer string
}

// DeliveryBound answers BindDelivery.
type DeliveryBound struct {
	DelegationID string `json:"delegation_id"`
	WalletID     string `json:"wallet_id"`
}

// BindDelivery binds a pending delivery to a delegated user, under the root quorum,
// and makes the delegation's wallet API key. Durable on return, active at once.
func (s *Service) BindDelivery(ctx context.Context, a Actor, n NewBinding) (DeliveryBound, error) {
	id := newID("dlg")
	if err := checkRecipient("api_key_recipient", n.Recipient); err != nil {
		return DeliveryBound{}, err
	}
	if err := checkName("name", n.Name); err != nil {
		return DeliveryBound{}, err
	}
	policies, limits, err := checkRules(id, n.NewDelegation)
	if err != nil {
		return DeliveryBound{}, err
	}
	authorize := func() error {
		if err := s.root(a, n.Organization); err != nil || len(policies)+len(limits)+len(n.Templates) == 0 {
			return err
		}
		return s.byAPI(n.Organization)
	}
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DeliveryBound, error) {
		if s.vendors == nil {
			return DeliveryBound{}, fmt.Errorf("binding a delivery: no room holds deliveries")
		}
		offer, err := s.vendors.OfferShare(tx, n.Organization, n.Delivery)
		if err != nil {
			return DeliveryBound{}, err
		}
		w, k, err := s.vendorWallet(tx, n, offer)
		if err != nil {
			return DeliveryBound{}, err
		}
		now := s.now().UTC()
		d, err := s.draft(n.NewDelegation, w, id, policies, limits, now)
		if err != nil {
			return DeliveryBound{}, err
		}
		if err := s.vendors.Bind(tx, n.Organization, n.Delivery, d.ID); err != nil {
			return DeliveryBound{}, err
		}
		d.Status, d.ApprovedAt, d.Vendor = statusActive, &now, &offer.Share
		if offer.Handover != nil {
			d.Set, d.Peer = offer.Handover.Set, n.Peer
		}
		if err := s.putActive(tx, e, d, w, k, nil); err != nil {
			return DeliveryBound{}, err
		}
		e.User = d.DelegatedUser
		for name, fact := range map[string]string{
			"delivery": n.Delivery, "webhook": offer.Share.Webhook, "vendor_wallet": offer.Share.Wallet, "address": w.Address,
			"policies": fmt.Sprint(len(policies)), "limits": fmt.Sprint(len(limits)),
		} {
			e.Facts[name] = fact
		}
		if offer.Share.ShareSet != "" {
			e.Facts["vendor_share_set"] = offer.Share.ShareSet
		}
		if n.Peer != "" {
			e.Facts["peer"], e.ShareSet = n.Peer, d.Set.ID
		}
		return DeliveryBound{DelegationID: d.ID, WalletID: w.ID}, nil
	})
}

// vendorWallet finds or makes the wallet that a delivery is for.
func (s *Service) vendorWallet(tx *vault.Tx, n NewBinding, offer signing.VendorOffer) (*wallet, *key, error) {
	scheme, address, public, err := foreignAddress(n.Chain, n.Address)
	if err != nil {
		return nil, nil, err
	}
	if !sameFamily(offer.Chain, n.Chain) {
		return nil, nil, refusal.New(refusal.RequestInvalid, "the vendor delivered a share for %q, not for %s", offer.Chain, n.Chain).With("field", "chain")
	}
	if offer.Address != "" {
		if _, said, _, err := foreignAddress(n.Chain, offer.Address); err != nil || said != address {
			return nil, nil, refusal.New(refusal.RequestInvalid, "the vendor delivered a share for another address").With("field", "address")
		}
	}
	f := foreign{
		vendor: offer.Share.Webhook + "/" + offer.Share.Wallet, chain: n.Chain, name: n.Name, address: address, scheme: scheme, public: public, origin: originVendor,
	}
	if err := s.checkHandover(n, offer, scheme, address); err != nil {
		return nil, nil, err
	}
	if h := offer.Handover; h != nil {
		f.origin, f.path, f.public = originElsewhere, h.Path, offer.PublicKey
	}
	return s.foreignWalletOf(tx, n.NewDelegation, f)
}

// foreign is a wallet whose key was made elsewhere.
type foreign struct {
	// vendor is what it is to the vendor, chain, name and address what it is here.
	vendor, chain, name, address string
	scheme                       chains.Scheme
	public                       []byte
	// origin is the key's; path is the wallet's below it.
	origin string
	path   []uint32
}

// foreignWalletOf finds or makes the organization's wallet.
func (s *Service) foreignWalletOf(tx *vault.Tx, n NewDelegation, f foreign) (*wallet, *key, error) {
	if w := s.book.foreignWallet(n.Organization, f.vendor, f.chain, f.address); w != nil {
		k := find(s.book, s.book.keys, w.Key)
		if k == nil {
			return nil, nil, fmt.Errorf("reading wallet %s: its key is missing", w.ID)
		}
		if k.Origin != f.origin || !slices.Equal(w.Path, f.path) {
			return nil, nil, refusal.New(refusal.RequestInvalid, "wallet %s was bound as another vendor's, or at another path", w.ID).With("field", "delivery_id")
		}
		return w, k, nil
	}
	now := s.now().UTC()
	k := &key{V: recordVersion, ID: newID("key"), Organization: n.Organization, Scheme: f.scheme, CreatedAt: now, Origin: f.origin, Status: statusActive}
	w := &wallet{
		V: recordVersion, ID: newID("wal"), Organization: n.Organization, Key: k.ID, Chain: f.chain, Name: f.name, Address: f.address,
		Status: statusActive, CreatedAt: now, Vendor: f.vendor, PublicKey: f.public, Path: f.path,
	}
	if err := store(tx, vault.TypeKey, k.ID, k); err != nil {
		return nil, nil, err
	}
	if err := store(tx, vault.TypeWallet, w.ID, w); err != nil {
		return nil, nil, err
	}
	s.book.change(tx, func() { s.book.fileKey(k); s.book.fileWallet(w) })
	return w, k, nil
}

// checkHandover refuses a share of another sigild's that is bound without the peer, a
// vendor's with one, and what was not handed over for this address.
func (s *Service) checkHandover(n NewBinding, offer signing.VendorOffer, scheme chains.Scheme, address string) error {
	h := offer.Handover
	switch {
	case h == nil && n.Peer == "":
		return nil
	case h == nil:
		return refusal.New(refusal.RequestInvalid, "what was delivered is no share of another sigild's: no peer signs with it").With("field", "cosigner_peer")
	case n.Peer == "":
		return refusal.New(refusal.RequestInvalid, "another sigild delivered this share: name the peer that holds the other one").With("field", "cosigner_peer")
	}
	if err := s.KnownPeer(n.Peer, "cosigner_peer"); err != nil {
		return err
	}
	if scheme == chains.ECDSASecp256k1 && !s.cfg.SemiTrusted {
		return errNotTrusted()
	}
	theirs, err := addressOf(n.Chain, offer.PublicKey)
	if err != nil || h.Set.Scheme != scheme || theirs != address || h.Party != mpc.Delegate || !slices.Equal(h.Others(), []mpc.Party{mpc.Server}) {
		return refusal.New(refusal.RequestInvalid, "another sigild delivered a share of another wallet, or of no set of server and delegate").With("field", "address")
	}
	return nil
}

// foreignWallet finds the wallet of an earlier binding; nil for none.
func (b *book) foreignWallet(org, vendor, chain, address string) *wallet {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, w := range b.wallets {
		if w.Organization == org && w.Vendor == vendor && w.Chain == chain && w.Address == address {
			return w
		}
	}
	return nil
}

// foreignAddress reads the address of a wallet whose public key may not be known: an
// EVM address tells none, a Solana address is one.
func foreignAddress(chain, text string) (scheme chains.Scheme, address string, public []byte, err error) {
	if scheme, err = schemeOf(chain); err != nil {
		return "", "", nil, err
	}
	if scheme == chains.ECDSASecp256k1 {
		a, err := evm.ParseAddress(text)
		if err != nil {
			return "", "", nil, refusal.New(refusal.RequestInvalid, "%v", err).With("field", "address")
		}
		return scheme, evm.Checksum(a), nil, nil
	}
	k, err := solana.ParseAddress(text)
	if err != nil {
		return "", "", nil, refusal.New(refusal.RequestInvalid, "%v", err).With("field", "address")
	}
	return scheme, text, k[:], nil
}

// sameFamily compares the vendor's word for a chain with ours: "EVM", "eip155:1";
// "SVM", "SOL", "solana:…".
func sameFamily(theirs, chain string) bool {
	theirs = strings.ToLower(theirs)
	if chain == "eip155" {
		return theirs == "evm" || theirs == "eth" || strings.HasPrefix(theirs, "eip155")
	}
	return theirs == "svm" || theirs == "sol" || strings.HasPrefix(theirs, "solana")
}

// EndVendor ends a delegation whose share its vendor revoked, in the transaction in
// which the share is destroyed.
func (s *Service) EndVendor(tx *vault.Tx, id string) error {
	d := find(s.book, s.book.delegations, id)
	if d == nil {
		return fmt.Errorf("ending delegation %s: it is missing", id)
	}
	if d.Status != statusActive {
		return nil
	}
	tx.OnRollback(s.flights.end(id))
	return s.putRevoked(tx, d)
}

// HoldVendor pauses a delegation by the appliance, in the transaction that freezes its share.
func (s *Service) HoldVendor(tx *vault.Tx, id, reason string) error {
	d := find(s.book, s.book.delegations, id)
	if d == nil {
		return fmt.Errorf("holding delegation %s: it is missing", id)
	}
	p := &Pause{Level: LevelAppliance, Since: s.now().UTC(), Reason: reason}
	return s.setPause(tx, Scope{Organization: d.Organization, Delegation: id}, p)
}

// Await returns when no signature of the delegation is under way.
func (s *Service) Await(ctx context.Context, id string) error { return s.flights.wait(ctx, id) }
