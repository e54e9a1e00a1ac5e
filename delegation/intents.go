package delegation

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// An intent is an organization's policy that is called by what it says: its id is a
// hash of all its members, so asking for the same intent again finds the same
// policy, and one that differs in a letter of its notes is another. Each is a
// document of kind rules of its own, named by the id; of an intent that is about one
// wallet the name begins with the wallet's, so that both end together.

// Intent is a policy asked for. Its Policy comes without id and scope.
type Intent struct {
	Policy policy.Policy
	Notes  string
	// Wallet narrows it to requests of one wallet; "" for all.
	Wallet string
}

const maxNotes = 256

// idEncoding is that of every id of the API.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// id names an intent: "pol_" and 26 base32 characters of SHA-256 over its members,
// each after its length.
func (n Intent) id() string {
	text := framed(nil, "sigild/intent/v1")
	end := ""
	if !n.Policy.NotAfter.IsZero() {
		end = n.Policy.NotAfter.UTC().Format(time.RFC3339Nano)
	}
	for _, part := range []string{n.Policy.Name, n.Policy.Effect.String(), n.Policy.Condition, n.Policy.Consensus, n.Policy.Time, n.Policy.Lang, end, fmt.Sprint(n.Policy.OneTime), fmt.Sprint(n.Policy.Replace), n.Notes, n.Wallet} {
		text = framed(text, part)
	}
	if n.Policy.RequesterAbstains { // younger than the ids of those that don't
		text = framed(text, "requester_abstains")
	}
	sum := sha256.Sum256(text)
	return "pol_" + idEncoding.EncodeToString(sum[:])[:26]
}

// documentOf is the intent as a document.
func (n Intent) documentOf() (NewDocument, error) {
	if err := checkName("policy name", n.Policy.Name); err != nil {
		return NewDocument{}, err
	}
	if len(n.Notes) > maxNotes || strings.ContainsFunc(n.Notes, func(r rune) bool { return r < ' ' || r > '~' }) {
		return NewDocument{}, refusal.New(refusal.RequestInvalid, "notes have at most %d printable ASCII characters", maxNotes).With("field", "notes")
	}
	p := n.Policy
	p.ID = n.id()
	if n.Wallet != "" {
		narrow := "wallet.id == '" + n.Wallet + "'"
		if p.Condition != "" {
			narrow += " && (" + p.Condition + ")"
		}
		p.Condition = narrow
	}
	if y := p.NotAfter.Year(); !p.NotAfter.IsZero() && (y < 1970 || y > 9999) {
		return NewDocument{}, refusal.New(refusal.RequestInvalid, "not_after is no time").With("field", "not_after")
	}
	content, err := json.Marshal(struct {
		Policies []policy.Policy `json:"policies"`
	}{[]policy.Policy{p}})
	if err != nil {
		return NewDocument{}, fmt.Errorf("encoding a policy: %w", err)
	}
	return NewDocument{DocumentName{KindRules, n.documentName()}, content}, nil
}

func (n Intent) documentName() string {
	if n.Wallet != "" {
		return n.Wallet + "." + n.id()
	}
	return n.id()
}

// intentDocuments are the documents of a list of intents, all different.
func intentDocuments(list []Intent) ([]NewDocument, error) {
	if len(list) == 0 || len(list) > maxRules {
		return nil, refusal.New(refusal.RequestInvalid, "1 to %d policies are given at a time", maxRules).With("field", "policies")
	}
	var out []NewDocument
	for i, n := range list {
		d, err := n.documentOf()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out, func(x NewDocument) bool { return x.Name == d.Name }) {
			return nil, refusal.New(refusal.RequestInvalid, "policy %d is given twice", i+1).With("field", "policies")
		}
		out = append(out, d)
	}
	return out, nil
}

// NewIntents asks for policies.
type NewIntents struct {
	RequestID, Organization string
	Policies                []Intent
}

// Fetched is a policy that was found or made.
type Fetched struct {
	ID      string `json:"id"`
	Created bool   `json:"created"`
}

// PoliciesFetched answers FetchOrCreatePolicies.
type PoliciesFetched struct {
	Policies []Fetched `json:"policies"`
	Version  uint64    `json:"version"`
}

// FetchOrCreatePolicies finds policies by their full intent, or makes them, under the
// root quorum. All are compiled before any is stored. Durable on return.
func (s *Service) FetchOrCreatePolicies(ctx context.Context, a Actor, n NewIntents) (PoliciesFetched, error) {
	documents, err := intentDocuments(n.Policies)
	if err != nil {
		return PoliciesFetched{}, err
	}
	authorize := func() error {
		if err := s.root(a, n.Organization); err != nil {
			return err
		}
		return s.byAPI(n.Organization)
	}
	if err := authorize(); err != nil { // before the work of compiling
		return PoliciesFetched{}, err
	}
	// As in SetDocuments: compiled before, and again only if somebody was faster.
	from := s.book.rulebook(n.Organization)
	next, missing, bad := s.book.withIntents(n.Organization, from, documents)
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (PoliciesFetched, error) {
		for _, p := range n.Policies {
			if p.Wallet != "" {
				if _, _, err := s.book.wallet(n.Organization, p.Wallet); err != nil {
					return PoliciesFetched{}, err
				}
			}
		}
		if now := s.book.rulebook(n.Organization); now != from {
			next, missing, bad = s.book.withIntents(n.Organization, now, documents)
		}
		if bad != nil {
			return PoliciesFetched{}, bad
		}
		out := PoliciesFetched{Version: next.version}
		for i, p := range n.Policies {
			out.Policies = append(out.Policies, Fetched{p.id(), missing[documents[i].DocumentName]})
		}
		if len(missing) == 0 {
			return out, nil
		}
		o, err := s.book.organization(n.Organization)
		if err != nil {
			return PoliciesFetched{}, err
		}
		_, err = s.setDocuments(tx, e, o, next)
		return out, err
	})
}

// withIntents is the rulebook with the documents that are missing in from, and which they are.
func (b *book) withIntents(org string, from *rulebook, documents []NewDocument) (*rulebook, map[DocumentName]bool, error) {
	missing := map[DocumentName]bool{}
	n := DocumentChanges{Organization: org}
	for _, d := range documents {
		have := from.document(d.DocumentName)
		switch {
		case have == nil:
			missing[d.DocumentName] = true
			n.Set = append(n.Set, d)
		case string(have.Content) != string(d.Content):
			return nil, nil, refusal.New(refusal.PolicyInvalid, "document %s is named like this policy and says something else", d.DocumentName).With("document", d.String())
		}
	}
	if len(missing) == 0 {
		return from, missing, nil
	}
	next, err := b.changed(from, n, from.version+1)
	return next, missing, err
}

// FilledOrder says that policies are used up.
type FilledOrder struct {
	RequestID, Organization string
	Policies                []string
	// By is what filled the order, for the journal.
	By string
}

// OrderFilled answers ReportOrderFilled.
type OrderFilled struct {
	Version uint64 `json:"version"`
}

// soleConsensus is the consensus of a policy that allows one user something, alone.
func soleConsensus(user string) string { return "approvers.any(user, user.id == '" + user + "')" }

// ReportOrderFilled removes policies that are used up: under the root quorum, or on
// the stamp of a delegated user for ALLOW policies whose consensus is exactly
// [soleConsensus] of it. So a delegated user only ever gives up what is its own.
// Durable on return.
func (s *Service) ReportOrderFilled(ctx context.Context, a Actor, n FilledOrder) (OrderFilled, error) {
	if len(n.Policies) == 0 || len(n.Policies) > maxRules {
		return OrderFilled{}, refusal.New(refusal.RequestInvalid, "1 to %d policies are reported at a time", maxRules).With("field", "policy_ids")
	}
	if len(n.By) > 128 || strings.ContainsFunc(n.By, func(r rune) bool { return r < ' ' || r > '~' }) {
		return OrderFilled{}, refusal.New(refusal.RequestInvalid, "filled_by has at most 128 printable ASCII characters").With("field", "filled_by")
	}
	authorize := func() error {
		if _, err := s.inside(a, n.Organization); err != nil {
			return err
		}
		if s.root(a, n.Organization) == nil || len(s.delegates(n.Organization, a)) > 0 {
			return s.byAPI(n.Organization)
		}
		return quorumMissing("root members, or a delegated user", 0, 1)
	}
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (OrderFilled, error) {
		from := s.book.rulebook(n.Organization)
		gone := DocumentChanges{Organization: n.Organization}
		for _, id := range n.Policies {
			d, p := from.intent(id)
			if d == nil || slices.Contains(gone.Remove, d.name()) {
				return OrderFilled{}, refusal.New(refusal.NotFound, "no such policy").With("policy", id)
			}
			own := func(u *user) bool { return p.Effect == policy.Allow && p.Consensus == soleConsensus(u.ID) }
			if s.root(a, n.Organization) != nil && !slices.ContainsFunc(s.delegates(n.Organization, a), own) {
				return OrderFilled{}, refusal.New(refusal.NotFound, "no such policy").With("policy", id)
			}
			gone.Remove = append(gone.Remove, d.name())
		}
		next, err := s.book.changed(from, gone, from.version+1)
		if err != nil {
			return OrderFilled{}, err
		}
		o, err := s.book.organization(n.Organization)
		if err != nil {
			return OrderFilled{}, err
		}
		set, err := s.setDocuments(tx, e, o, next)
		e.Facts["filled_by"] = n.By
		return OrderFilled{Version: set.Version}, err
	})
}

// delegates are the delegated users who stamped.
func (s *Service) delegates(org string, a Actor) (list []*user) {
	now := s.clock()
	for _, u := range s.book.stampers(org, a) {
		if u.Kind == DelegatedUser && !u.Removed && matching(u.Credentials, a, now) > 0 {
			list = append(list, u)
		}
	}
	return list
}

// intent finds the document of an intent by the policy's id, and its policy.
func (r *rulebook) intent(id string) (*document, policy.Policy) {
	for _, d := range r.documents {
		if d.Kind != KindRules || d.Name != id && !strings.HasSuffix(d.Name, "."+id) {
			continue
		}
		policies, limits, err := policy.ParseRules(d.Content)
		if err == nil && len(policies) == 1 && len(limits) == 0 && policies[0].ID == id {
			return d, policies[0]
		}
	}
	return nil, policy.Policy{}
}
