package server

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

func TestDocumentsOverTheSocket(t *testing.T) {
	a := newAppliance(t)
	a.Unsealed(a.parts)
	org, root := a.organization(t, "acme")
	otherOrg, otherRoot := a.organization(t, "other")
	asRoot, asOther := a.app.WithStamps(org, root).Policies(), a.app.WithStamps(otherOrg, otherRoot).Policies()
	rules := sigilv1.DocumentKind_DOCUMENT_KIND_RULES
	text := []byte(`{"policies":[{"id":"p","effect":"EFFECT_DENY"}]}`)

	set := &sigilv1.SetDocumentsRequest{RequestId: "r1", OrganizationId: org, Set: []*sigilv1.Document{{Kind: rules, Name: "main", Content: text}}}
	_, err := a.app.Policies().SetDocuments(t.Context(), set)
	wantReason(t, "setting without stamps", err, "STAMP_INVALID")
	_, err = asOther.SetDocuments(t.Context(), set)
	wantReason(t, "setting for another organization", err, "STAMP_INVALID")
	for what, change := range map[string]func(d *sigilv1.Document){
		"no kind":      func(d *sigilv1.Document) { d.Kind = 0 },
		"no content":   func(d *sigilv1.Document) { d.Content = nil },
		"a hash":       func(d *sigilv1.Document) { d.Sha256 = make([]byte, 32) },
		"a version":    func(d *sigilv1.Document) { d.Version = proto.Uint64(0) },
		"too long":     func(d *sigilv1.Document) { d.Content = make([]byte, 513<<10) },
		"far too long": func(d *sigilv1.Document) { d.Content = make([]byte, 1023<<10) },
	} {
		bad := proto.CloneOf(set)
		change(bad.Set[0])
		_, err := asRoot.SetDocuments(t.Context(), bad)
		wantReason(t, what, err, "REQUEST_INVALID")
	}
	made, err := asRoot.SetDocuments(t.Context(), set)
	if err != nil || made.GetVersion() != 1 || len(made.GetDocumentsHash()) != 32 {
		t.Fatalf("set %v, %v", made, err)
	}
	if again, err := asRoot.SetDocuments(t.Context(), set); err != nil || !proto.Equal(made, again) {
		t.Errorf("asked again: %v, %v", again, err)
	}
	late := proto.CloneOf(set)
	late.RequestId = "r2"
	_, err = asRoot.SetDocuments(t.Context(), late)
	wantReason(t, "an older version", err, "POLICY_VERSION_MOVED")
	if got := client.Details(err)["version"]; got != "1" {
		t.Errorf("told version %q, want 1", got)
	}

	list, err := asRoot.GetDocuments(t.Context(), &sigilv1.GetDocumentsRequest{OrganizationId: org})
	if err != nil || list.GetVersion() != 1 || list.GetPolicyAuthority() != "api" || !bytes.Equal(list.GetDocumentsHash(), made.GetDocumentsHash()) || len(list.GetDocuments()) != 1 {
		t.Fatalf("listed %v, %v", list, err)
	}
	sum := sha256.Sum256(text)
	if d := list.GetDocuments()[0]; d.GetKind() != rules || d.GetName() != "main" || d.Content != nil || !bytes.Equal(d.GetSha256(), sum[:]) || d.GetVersion() != 1 {
		t.Errorf("listed %v", d)
	}
	one, err := asRoot.GetDocuments(t.Context(), &sigilv1.GetDocumentsRequest{OrganizationId: org, Document: &sigilv1.DocumentName{Kind: rules, Name: "main"}})
	if err != nil || len(one.GetDocuments()) != 1 || !bytes.Equal(one.GetDocuments()[0].GetContent(), text) {
		t.Errorf("shown %v, %v", one, err)
	}
	_, err = asRoot.GetDocuments(t.Context(), &sigilv1.GetDocumentsRequest{OrganizationId: org, Document: &sigilv1.DocumentName{Kind: rules, Name: "other"}})
	wantReason(t, "no such document", err, "NOT_FOUND")
	_, err = asOther.GetDocuments(t.Context(), &sigilv1.GetDocumentsRequest{OrganizationId: org})
	wantReason(t, "looking at another organization", err, "STAMP_INVALID")
	if list, err = asOther.GetDocuments(t.Context(), &sigilv1.GetDocumentsRequest{OrganizationId: otherOrg}); err != nil || list.GetVersion() != 0 || len(list.GetDocuments()) != 0 {
		t.Errorf("another organization sees %v, %v", list, err)
	}

	remove := &sigilv1.SetDocumentsRequest{RequestId: "r3", OrganizationId: org, ExpectedVersion: 1, Remove: []*sigilv1.DocumentName{{Kind: rules, Name: "main"}}}
	if made, err = asRoot.SetDocuments(t.Context(), remove); err != nil || made.GetVersion() != 2 {
		t.Errorf("removed: %v, %v", made, err)
	}
}
