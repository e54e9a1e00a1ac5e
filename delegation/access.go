package delegation

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Delegated access for API users, by either of two ways (docs/access.md):
//
//   - the end user's: in their sub-organization, whose whole root they are, they
//     make the delegated user and its policies with their own stamp;
//   - the back end's: the parent's root quorum makes everything in one transaction.
//     The root of the sub-organization is the end user from its first moment, so there
//     is no instant at which the delegated user could be root, nor one to crash in.

// NewEndUser is the end user of a new sub-organization.
type NewEndUser struct {
	Name               string
	Credentials        []NewCredential
	ShareRecipient     string
	RecipientSignature []byte
}

// NewSubOrganization asks for a sub-organization.
type NewSubOrganization struct {
	RequestID, Parent, Name string
	EndUser                 NewEndUser
}

// SubOrganizationCreated answers CreateSubOrganization.
type SubOrganizationCreated struct {
	OrganizationID string `json:"organization_id"`
	UserID         string `json:"user_id"`
}

// CreateSubOrganization makes an organization for an end user, who is the whole root
// of it, under the parent's root quorum. Durable on return.
func (s *Service) CreateSubOrganization(ctx context.Context, a Actor, n NewSubOrganization) (SubOrganizationCreated, error) {
	o, owner, err := s.checkSub(n)
	if err != nil {
		return SubOrganizationCreated{}, err
	}
	return act(ctx, s, a, n.Parent, n.RequestID, func() error { return s.mayParent(a, n.Parent) }, func(tx *vault.Tx, e *journal.Entry) (SubOrganizationCreated, error) {
		e.Facts = map[string]string{}
		if err := s.addSub(tx, e, o, owner); err != nil {
			return SubOrganizationCreated{}, err
		}
		s.book.change(tx, func() { s.book.organizations[o.ID] = o })
		return SubOrganizationCreated{o.ID, owner.ID}, store(tx, vault.TypeOrganization, o.ID, o)
	})
}

// checkSub makes the records of a sub-organization and its end user, without their ids.
func (s *Service) checkSub(n NewSubOrganization) (*organization, *user, error) {
	if err := checkName("name", n.Name); err != nil {
		return nil, nil, err
	}
	owner, err := checkUser(NewUser{
		Name: n.EndUser.Name, Kind: EndUser, Credentials: n.EndUser.Credentials,
		ShareRecipient: n.EndUser.ShareRecipient, RecipientSignature: n.EndUser.RecipientSignature,
	})
	return &organization{V: recordVersion, Parent: n.Parent, Name: n.Name, Quorum: 1, PolicyAuthority: authorityAPI}, owner, err
}

// mayParent demands the root quorum of an organization that may have sub-organizations.
func (s *Service) mayParent(a Actor, org string) error {
	if err := s.root(a, org); err != nil {
		return err
	}
	if o, err := s.book.organization(org); err != nil || o.Parent == "" {
		return err
	}
	return refusal.New(refusal.RequestInvalid, "a sub-organization has none of its own").With("field", "organization_id")
}

// addSub gives a sub-organization its id and its end user; its record is written by
// the caller, who may have more to say in it.
func (s *Service) addSub(tx *vault.Tx, e *journal.Entry, o *organization, owner *user) error {
	o.ID, o.CreatedAt = newID("org"), s.clock()
	owner.Organization = o.ID
	if err := s.enlist(tx, owner); err != nil {
		return err
	}
	o.RootUsers = []string{owner.ID}
	e.Facts["organization"], e.Facts["name"], e.Facts["end_user"] = o.ID, o.Name, owner.ID
	recordKeys(e, "end_user.credential", owner.Credentials)
	return nil
}

// NewDelegatedUser is a delegated user with its credential.
type NewDelegatedUser struct {
	Name       string
	Credential NewCredential
	Tags       []string
}

// check makes the record of the delegated user, without its id.
func (n NewDelegatedUser) check(org string) (*user, error) {
	return checkUser(NewUser{Organization: org, Name: n.Name, Kind: DelegatedUser, Credentials: []NewCredential{n.Credential}, Tags: n.Tags})
}

// NewAccess asks for a whole delegated access.
type NewAccess struct {
	NewSubOrganization
	DelegatedUser NewDelegatedUser
	// Policies are the sub-organization's; ${delegated_user_id} in a consensus is
	// the id that the delegated user gets.
	Policies []Intent
	// Wallets are the end user's.
	Wallets []NewWallet
	// Limits are the sub-organization's, without their ids.
	Limits []policy.Limit
}

const maxAccessWallets = 8

// delegatedUserHole stands in a consensus for an id that is not known yet, walletHole in
// an intent's wallet for that of the n-th wallet, from 1.
const delegatedUserHole = "${delegated_user_id}"

func walletHole(n int) string { return fmt.Sprintf("${wallet_%d}", n) }

// limitsDocument is the document of rules that an access's limits are in, the one that
// sigilctl limit create adds to.
const limitsDocument = "limits"

// AccessCreated answers CreateDelegatedAccess.
type AccessCreated struct {
	OrganizationID  string          `json:"organization_id"`
	EndUserID       string          `json:"end_user_id"`
	DelegatedUserID string          `json:"delegated_user_id"`
	PolicyIDs       []string        `json:"policy_ids"`
	Wallets         []WalletStarted `json:"wallets"`
	LimitIDs        []string        `json:"limit_ids,omitempty"`
}

// CreateDelegatedAccess makes sub-organization, end user, delegated user, policies,
// limits, wallets and the final root quorum in one transaction, under the parent's root
// quorum. Durable on return: all of it or nothing.
func (s *Service) CreateDelegatedAccess(ctx context.Context, a Actor, n NewAccess) (AccessCreated, error) {
	o, owner, err := s.checkSub(n.NewSubOrganization)
	if err != nil {
		return AccessCreated{}, err
	}
	delegate, err := n.DelegatedUser.check("")
	if err != nil {
		return AccessCreated{}, err
	}
	if len(n.Wallets) > maxAccessWallets {
		return AccessCreated{}, refusal.New(refusal.RequestInvalid, "at most %d wallets are made at a time", maxAccessWallets).With("field", "wallets")
	}
	kinds := make([]pendingKey, len(n.Wallets))
	for i, w := range n.Wallets {
		if err := checkName("wallet name", w.Name); err != nil {
			return AccessCreated{}, err
		}
		scheme, err := schemeOf(w.Chain)
		if err != nil {
			return AccessCreated{}, err
		}
		kinds[i] = pendingKey{scheme: scheme, origin: originInProcess, kind: kindKeygen}
	}
	if len(n.Limits) > maxRules {
		return AccessCreated{}, refusal.New(refusal.RequestInvalid, "at most %d limits are given at a time", maxRules).With("field", "limits")
	}
	if _, err := intentDocuments(n.Policies); err != nil { // form only; who is named in them is not known yet
		return AccessCreated{}, err
	}
	return act(ctx, s, a, n.Parent, n.RequestID, func() error { return s.mayParent(a, n.Parent) }, func(tx *vault.Tx, e *journal.Entry) (AccessCreated, error) {
		e.Facts = map[string]string{}
		if err := s.addSub(tx, e, o, owner); err != nil {
			return AccessCreated{}, err
		}
		out := AccessCreated{OrganizationID: o.ID, EndUserID: owner.ID}
		delegate.Organization = o.ID
		if delegate.Credentials[0].ID != "" && owner.has(delegate.Credentials[0].ID) {
			return AccessCreated{}, refusal.New(refusal.RequestInvalid, "the delegated user's credential is the end user's").With("field", "delegated_user")
		}
		if err := s.enlist(tx, delegate); err != nil {
			return AccessCreated{}, err
		}
		out.DelegatedUserID = delegate.ID
		e.Facts["delegated_user"] = delegate.ID
		recordKeys(e, "delegated_user.credential", delegate.Credentials)
		for i, w := range n.Wallets {
			w.Organization, w.Owner = o.ID, owner.ID
			made, err := s.addWallet(tx, owner, w, kinds[i], mpc.Keygen, nil)
			if err != nil {
				return AccessCreated{}, err
			}
			out.Wallets = append(out.Wallets, made)
			e.Facts[fmt.Sprint("wallet.", i+1)] = made.WalletID
		}
		if err := s.addRules(tx, e, o, n, &out); err != nil {
			return AccessCreated{}, err
		}
		s.book.change(tx, func() { s.book.organizations[o.ID] = o })
		return out, store(tx, vault.TypeOrganization, o.ID, o)
	})
}

// has reports whether a credential is the user's.
func (u *user) has(id string) bool {
	for _, c := range u.Credentials {
		if c.ID == id {
			return true
		}
	}
	return false
}

// addRules gives a new organization its first policies and limits.
func (s *Service) addRules(tx *vault.Tx, e *journal.Entry, o *organization, n NewAccess, out *AccessCreated) error {
	list := slices.Clone(n.Policies)
	holes := make([]string, len(out.Wallets))
	for i := range holes {
		holes[i] = walletHole(i + 1)
	}
	for i := range list {
		list[i].Policy.Consensus = strings.ReplaceAll(list[i].Policy.Consensus, delegatedUserHole, out.DelegatedUserID)
		if list[i].Wallet != "" {
			at := slices.Index(holes, list[i].Wallet)
			if at < 0 {
				return refusal.New(refusal.RequestInvalid, "the wallet of a policy is ${wallet_1} for the first of this request, and so on").With("field", "policies")
			}
			list[i].Wallet = out.Wallets[at].WalletID
		}
		out.PolicyIDs = append(out.PolicyIDs, list[i].id())
	}
	documents, err := intentDocuments(list)
	if err != nil {
		return err
	}
	if len(n.Limits) > 0 {
		limits := slices.Clone(n.Limits)
		for i := range limits {
			limits[i].ID = newID("lim")
			out.LimitIDs = append(out.LimitIDs, limits[i].ID)
		}
		content, err := json.Marshal(struct {
			Limits []policy.Limit `json:"limits"`
		}{limits})
		if err != nil {
			return fmt.Errorf("encoding limits: %w", err)
		}
		documents = append(documents, NewDocument{DocumentName{KindRules, limitsDocument}, content})
	}
	next, _, err := s.book.withIntents(o.ID, unbound, documents)
	if err != nil {
		return err
	}
	o.PolicyVersion = next.version
	for _, d := range next.documents {
		if err := store(tx, vault.TypeDocument, d.id(), d); err != nil {
			return err
		}
		e.Facts["policy."+d.Name] = string(d.Content)
	}
	s.book.change(tx, func() { s.book.rulebooks[o.ID] = next })
	return nil
}

// NewAccessUser asks for a delegated user by its public key.
type NewAccessUser struct {
	RequestID, Organization string
	User                    NewDelegatedUser
}

// AccessUser answers FetchOrCreateDelegatedUser.
type AccessUser struct {
	UserID  string `json:"user_id"`
	Created bool   `json:"created"`
}

// FetchOrCreateDelegatedUser finds the delegated user that has the public key, or
// makes it, under the root quorum: in a sub-organization the end user's stamp.
// Durable on return. A key of the root or of an end user is refused.
func (s *Service) FetchOrCreateDelegatedUser(ctx context.Context, a Actor, n NewAccessUser) (AccessUser, error) {
	made, err := n.User.check(n.Organization)
	if err != nil {
		return AccessUser{}, err
	}
	return act(ctx, s, a, n.Organization, n.RequestID, func() error { return s.root(a, n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (AccessUser, error) {
		if u := s.book.holder(n.Organization, n.User.Credential.PublicKey.ID()); u != nil && u.Kind == DelegatedUser {
			if r, _ := s.credentialOf(n.Organization, n.User.Credential.PublicKey); r == nil || r.ended(s.clock()) {
				return AccessUser{}, refusal.New(refusal.NotActive, "the delegated user's credential has ended")
			}
			e.User = u.ID
			return AccessUser{UserID: u.ID}, nil
		}
		if err := s.enlist(tx, made); err != nil {
			return AccessUser{}, err
		}
		e.User = made.ID
		e.Facts = map[string]string{"kind": string(made.Kind), "name": made.Name}
		recordKeys(e, "credential", made.Credentials)
		return AccessUser{made.ID, true}, nil
	})
}
