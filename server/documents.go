package server

import (
	"context"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/refusal"
)

// Handlers of policy.proto.

type policyService struct {
	sigilv1.UnimplementedPolicyServiceServer
	a *Appliance
}

// documentKinds pairs the wire's kinds with delegation's; what has no pair is of
// no kind, and refused by delegation.
var documentKinds = map[sigilv1.DocumentKind]delegation.DocumentKind{
	sigilv1.DocumentKind_DOCUMENT_KIND_RULES:        delegation.KindRules,
	sigilv1.DocumentKind_DOCUMENT_KIND_ABI:          delegation.KindABI,
	sigilv1.DocumentKind_DOCUMENT_KIND_IDL:          delegation.KindIDL,
	sigilv1.DocumentKind_DOCUMENT_KIND_LOOKUP_TABLE: delegation.KindLookupTable,
}

func (s policyService) SetDocuments(ctx context.Context, r *sigilv1.SetDocumentsRequest) (*sigilv1.SetDocumentsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	n := delegation.DocumentChanges{RequestID: r.GetRequestId(), Organization: r.GetOrganizationId(), Expected: r.GetExpectedVersion()}
	for _, d := range r.GetSet() {
		if d.Sha256 != nil || d.Version != nil {
			return nil, refusal.New(refusal.RequestInvalid, "document %.64q: sha256 and version are not set by callers", d.GetName()).With("field", "sha256")
		}
		n.Set = append(n.Set, delegation.NewDocument{DocumentName: documentName(d), Content: d.GetContent()})
	}
	for _, name := range r.GetRemove() {
		n.Remove = append(n.Remove, documentName(name))
	}
	made, err := p.Delegation.SetDocuments(ctx, actor, n)
	if err != nil {
		return nil, err
	}
	return &sigilv1.SetDocumentsResponse{Version: made.Version, DocumentsHash: made.Hash[:]}, nil
}

func (s policyService) ApplyBundle(ctx context.Context, r *sigilv1.ApplyBundleRequest) (*sigilv1.ApplyBundleResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	made, err := p.Delegation.ApplyBundle(ctx, actor, delegation.NewBundle{RequestID: r.GetRequestId(), Bundle: r.GetBundle()})
	if err != nil {
		return nil, err
	}
	return &sigilv1.ApplyBundleResponse{OrganizationId: made.OrganizationID, Version: made.Version, DocumentsHash: made.Hash[:]}, nil
}

func (s policyService) GetDocuments(ctx context.Context, r *sigilv1.GetDocumentsRequest) (*sigilv1.GetDocumentsResponse, error) {
	p, actor, err := s.a.enter(ctx)
	if err != nil {
		return nil, err
	}
	var one *delegation.DocumentName
	if r.Document != nil {
		name := documentName(r.GetDocument())
		one = &name
	}
	all, err := p.Delegation.Documents(actor, r.GetOrganizationId(), one)
	if err != nil {
		return nil, err
	}
	out := &sigilv1.GetDocumentsResponse{Version: all.Version, DocumentsHash: all.Hash[:], PolicyAuthority: all.Authority}
	for _, d := range all.List {
		m := &sigilv1.Document{Name: d.Name, Content: d.Content, Sha256: d.SHA256[:], Version: &d.Version}
		for wire, kind := range documentKinds {
			if kind == d.Kind {
				m.Kind = wire
			}
		}
		out.Documents = append(out.Documents, m)
	}
	return out, nil
}

// documentName reads the name of a document or of what names one.
func documentName(m interface {
	GetKind() sigilv1.DocumentKind
	GetName() string
}) delegation.DocumentName {
	return delegation.DocumentName{Kind: documentKinds[m.GetKind()], Name: m.GetName()}
}
