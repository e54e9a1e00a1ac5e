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

// The policy authorities: who sets what judges an organization's requests.
const (
	// authorityAPI: the root quorum's stamps set documents, a wallet owner's the
	// rules of a delegation.
	authorityAPI = "api"
	// authorityBundle: bundles that a quorum of the named keys signed replace all
	// documents. No call of the API sets a policy or a limit; a delegation is judged
	// by the documents alone.
	authorityBundle = "bundle"
)

// checkBundleAuthority checks the keys that sign bundles; nil when there are to be none.
func checkBundleAuthority(n *NewBundleAuthority) ([]registered, error) {
	if n == nil {
		return nil, nil
	}
	keys, err := register(credential.ForPolicyBundle, n.Keys)
	if err != nil {
		return nil, err
	}
	if n.Quorum < 1 || n.Quorum > len(keys) {
		return nil, refusal.New(refusal.RequestInvalid, "the quorum of a bundle must be 1 to %d", len(keys)).With("field", "quorum")
	}
	return keys, nil
}

// byAPI refuses to let a call of the API set policies where only bundles do.
func (s *Service) byAPI(org string) error {
	o, err := s.book.organization(org)
	if err != nil {
		return err
	}
	if o.PolicyAuthority != authorityAPI {
		return refusal.New(refusal.PolicyAuthority, "this organization's policies come from signed bundles alone; that was fixed when it was made").With("authority", o.PolicyAuthority)
	}
	return nil
}

// NewBundle asks to apply a bundle.
type NewBundle struct {
	RequestID string
	// Bundle is the file's bytes.
	Bundle []byte
}

// BundleApplied answers ApplyBundle.
type BundleApplied struct {
	OrganizationID string `json:"organization_id"`
	DocumentsSet
}

// ApplyBundle replaces all documents of an organization whose policy authority is
// bundle by those of the file, which a quorum of the named keys signed for this
// appliance, this organization and a version above the one that stands. Whoever
// carries it needs no stamp. Durable on return; requests under way as in
// [Service.SetDocuments]. A file of signers (signers.go) replaces the keys instead.
func (s *Service) ApplyBundle(ctx context.Context, a Actor, n NewBundle) (BundleApplied, error) {
	if bundle.IsSigners(n.Bundle) {
		return s.applySigners(ctx, a, n)
	}
	b, err := bundle.Parse(n.Bundle)
	if err != nil {
		return BundleApplied{}, refusal.New(refusal.RequestInvalid, "%v", err).With("field", "bundle")
	}
	signers, err := s.bundleSigners(b.ApplianceID, b.OrganizationID, b.Verify)
	if err != nil {
		return BundleApplied{}, err
	}
	a.Credentials = signers // they are whose act it is
	documents, err := documentsOf(b)
	if err != nil {
		return BundleApplied{}, err
	}
	next, bad := s.book.bind(b.OrganizationID, b.Version, documents)
	authorize := func() error { _, err := s.bundleSigners(b.ApplianceID, b.OrganizationID, b.Verify); return err }
	return act(ctx, s, a, b.OrganizationID, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (BundleApplied, error) {
		o, err := s.book.organization(b.OrganizationID)
		if err != nil {
			return BundleApplied{}, err
		}
		if b.Version <= o.PolicyVersion {
			return BundleApplied{}, refusal.New(refusal.PolicyVersionMoved, "the bundle has version %d, and the organization's documents are at version %d", b.Version, o.PolicyVersion).
				With("version", fmt.Sprint(o.PolicyVersion))
		}
		if bad != nil {
			return BundleApplied{}, bad
		}
		set, err := s.setDocuments(tx, e, o, next)
		return BundleApplied{OrganizationID: o.ID, DocumentsSet: set}, err
	})
}

// documentsOf checks the form of what a bundle holds.
func documentsOf(b *bundle.Bundle) ([]*document, error) {
	var out []*document
	for _, d := range b.Documents {
		n := NewDocument{DocumentName{DocumentKind(d.Kind), d.Name}, d.Content}
		if err := n.check(); err != nil {
			return nil, err
		}
		out = append(out, &document{
			V: recordVersion, Organization: b.OrganizationID, Kind: n.Kind, Name: n.Name, Version: b.Version, Content: n.Content,
		})
	}
	return out, nil
}

// CheckBundle reads a bundle's documents as the appliance will, off-line, and
// returns their hash. It verifies no signature, and can't know whether the
// delegations that rules name exist.
func CheckBundle(b *bundle.Bundle) (documentsHash [32]byte, err error) {
	documents, err := documentsOf(b)
	if err != nil {
		return [32]byte{}, err
	}
	made := file(b.Version, documents, func(string) error { return nil })
	_, err = made.laws()
	return made.hash, err
}

// bundleSigners finds whose signatures a file carries, and refuses it without
// a quorum. What it says of an unknown organization is what it says of a wrong signature.
func (s *Service) bundleSigners(appliance, organization string, verify func(keys []credential.PublicKey, quorum int) ([]credential.PublicKey, error)) ([]credential.PublicKey, error) {
	if appliance != s.ApplianceID() {
		return nil, refusal.New(refusal.BundleInvalid, "the bundle is for another appliance")
	}
	invalid := refusal.New(refusal.BundleInvalid, "the bundle is not signed by a quorum of the keys that its organization named")
	o := find(s.book, s.book.organizations, organization)
	if o == nil {
		return nil, invalid
	}
	var keys []credential.PublicKey
	for _, k := range o.BundleKeys {
		keys = append(keys, credential.PublicKey{Algorithm: credential.Algorithm(k.Algorithm), Bytes: k.PublicKey})
	}
	signed, err := verify(keys, o.BundleQuorum) // under authority api there are no keys, so nobody's counts
	if err != nil {
		return nil, invalid.Because(err)
	}
	return signed, nil
}
