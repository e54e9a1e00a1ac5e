package delegation

import (
	"context"
	"strings"
	"testing"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/refusal"
)

func TestOrganizationsAreChecked(t *testing.T) {
	h := newHouse(t)
	one, two := newHolder(credential.ForOrganizationRoot, "one").NewCredential, newHolder(credential.ForOrganizationRoot, "two").NewCredential
	for name, c := range map[string]struct {
		change func(n *NewOrganization)
		field  string
	}{
		"no name":             {func(n *NewOrganization) { n.Name = "" }, "name"},
		"a long name":         {func(n *NewOrganization) { n.Name = strings.Repeat("n", 65) }, "name"},
		"a name beyond ASCII": {func(n *NewOrganization) { n.Name = "åcme" }, "name"},
		"no root":             {func(n *NewOrganization) { n.Root = nil }, "credentials"},
		"quorum 0":            {func(n *NewOrganization) { n.Quorum = 0 }, "root_quorum"},
		"quorum 3 of 2":       {func(n *NewOrganization) { n.Quorum = 3 }, "root_quorum"},
		"one twice":           {func(n *NewOrganization) { n.Root = []NewCredential{one, one} }, "credentials"},
		"an operator's proof": {func(n *NewOrganization) { n.Root = []NewCredential{site.operators[0].NewCredential} }, "proof"},
	} {
		n := NewOrganization{RequestID: "o", Name: "o", Root: []NewCredential{one, two}, Quorum: 2}
		c.change(&n)
		_, err := h.CreateOrganization(context.Background(), stamped("", n, site.operators...), n)
		if no := wantRefusal(t, name, err, refusal.RequestInvalid); no.Details["field"] != c.field {
			t.Errorf("%s: field %q, want %q", name, no.Details["field"], c.field)
		}
	}
}

func TestUsersAreChecked(t *testing.T) {
	h := newHouse(t)
	other := newHolder(credential.ForUser, "other")
	for name, c := range map[string]struct {
		change func(n *NewUser)
		field  string
	}{
		"no name":                        {func(n *NewUser) { n.Name = "" }, "name"},
		"no kind":                        {func(n *NewUser) { n.Kind = "" }, "kind"},
		"unknown kind":                   {func(n *NewUser) { n.Kind = "root" }, "kind"},
		"no credential":                  {func(n *NewUser) { n.Credentials = nil }, "credentials"},
		"bad proof":                      {func(n *NewUser) { n.Credentials[0].Proof = make([]byte, 64) }, "proof"},
		"a root member's proof":          {func(n *NewUser) { n.Credentials[0] = site.root[0].NewCredential }, "proof"},
		"no recipient":                   {func(n *NewUser) { n.ShareRecipient = "" }, "share_recipient"},
		"an ssh recipient":               {func(n *NewUser) { n.ShareRecipient = "ssh-ed25519 AAAA" }, "share_recipient"},
		"recipient not signed":           {func(n *NewUser) { n.RecipientSignature = nil }, "share_recipient_signature"},
		"another recipient":              {func(n *NewUser) { n.ShareRecipient = site.recipient.Recipient().String() }, "share_recipient_signature"},
		"signed by another":              {func(n *NewUser) { n.Credentials[0] = other.NewCredential }, "share_recipient_signature"},
		"signed by the second only":      {func(n *NewUser) { n.Credentials = []NewCredential{other.NewCredential, n.Credentials[0]} }, "share_recipient_signature"},
		"delegated, an end user's proof": {func(n *NewUser) { n.Kind, n.ShareRecipient, n.RecipientSignature = DelegatedUser, "", nil }, "proof"},
		"delegated, with a recipient":    {func(n *NewUser) { n.Kind, n.Credentials, n.RecipientSignature = DelegatedUser, nil, nil }, "share_recipient"},
		"delegated, with a signature":    {func(n *NewUser) { n.Kind, n.Credentials, n.ShareRecipient = DelegatedUser, nil, "" }, "share_recipient"},
	} {
		_, n := newMember(site.acme, "new")
		c.change(&n)
		_, err := h.CreateUser(context.Background(), stamped(site.acme, n, site.root...), n)
		if no := wantRefusal(t, name, err, refusal.RequestInvalid); no.Details["field"] != c.field {
			t.Errorf("%s: field %q, want %q", name, no.Details["field"], c.field)
		}
	}
	_, n := newMember(site.acme, "new")
	n.Credentials = append(n.Credentials, other.NewCredential)
	if _, err := h.CreateUser(context.Background(), stamped(site.acme, n, site.root...), n); err != nil {
		t.Error(err)
	}
	if known := h.KnownCredential(site.acme, other.key.Public()); !known {
		t.Error("a second credential is not known")
	}
}
