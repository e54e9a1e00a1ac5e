package delegation

import (
	"context"
	"fmt"

	"github.com/sigild/sigild/bundle"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// applySigners puts the keys of the file in the place of those that sign an
// organization's bundles, of which a quorum signed it. It takes a version above the one
// that stands, as a bundle does, and leaves the documents as they are: what the old
// keys signed before counts no more, were its version ever so high. Durable on return.
func (s *Service) applySigners(ctx context.Context, a Actor, n NewBundle) (BundleApplied, error) {
	f, err := bundle.ParseSigners(n.Bundle)
	if err != nil {
		return BundleApplied{}, refusal.New(refusal.RequestInvalid, "%v", err).With("field", "bundle")
	}
	signed := func() ([]credential.PublicKey, error) {
		return s.bundleSigners(f.ApplianceID, f.OrganizationID, f.Verify)
	}
	signers, err := signed()
	if err != nil {
		return BundleApplied{}, err
	}
	a.Credentials = signers
	next := &NewBundleAuthority{Quorum: f.Quorum}
	for _, k := range f.Keys {
		next.Keys = append(next.Keys, NewCredential{Name: k.Name, PublicKey: k.Key, Proof: k.Proof})
	}
	keys, err := checkBundleAuthority(next)
	if err != nil {
		return BundleApplied{}, err
	}
	authorize := func() error { _, err := signed(); return err }
	return act(ctx, s, a, f.OrganizationID, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (BundleApplied, error) {
		o, err := s.book.organization(f.OrganizationID)
		if err != nil {
			return BundleApplied{}, err
		}
		if f.Version <= o.PolicyVersion {
			return BundleApplied{}, refusal.New(refusal.PolicyVersionMoved, "the file has version %d, and the organization's documents are at version %d", f.Version, o.PolicyVersion).
				With("version", fmt.Sprint(o.PolicyVersion))
		}
		changed := *o
		changed.BundleKeys, changed.BundleQuorum, changed.PolicyVersion = keys, f.Quorum, f.Version
		tx.Advance() // no older copy of the store may have the old keys count again
		if err := store(tx, vault.TypeOrganization, o.ID, &changed); err != nil {
			return BundleApplied{}, err
		}
		book := s.book.rulebook(o.ID)
		e.Facts = map[string]string{"policy_version": fmt.Sprint(f.Version), "bundle_quorum": fmt.Sprint(f.Quorum)}
		recordKeys(e, "bundle_key", keys)
		e.PolicySet = fmt.Sprintf("%x", book.hash)
		s.book.change(tx, func() { s.book.organizations[o.ID] = &changed })
		return BundleApplied{OrganizationID: o.ID, DocumentsSet: DocumentsSet{Version: f.Version, Hash: book.hash}}, nil
	})
}
