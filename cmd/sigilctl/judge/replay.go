package judge

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Replay judges the journal's recorded decisions again by another set of policies:
// what would have become of the same requests. Limits take no part, nor do ABIs,
// IDLs and pinned tables, and a wallet's label is not recorded: a policy that reads
// those, how a limit stands, or when a delegation ends, decides here as if they were
// not there.
type Replay struct {
	// Set judges.
	Set *policy.Set
	// Organization narrows to one; empty: all.
	Organization string
	// Changed is called for each decision that would change, in order.
	Changed func(Change) error

	// Same and Differ count decisions; Unrecorded those whose payload was not kept.
	Same, Differ, Unrecorded int
}

// Change is one decision that would change.
type Change struct {
	Seq          uint64         `json:"seq"`
	Time         time.Time      `json:"time"`
	Organization string         `json:"organization"`
	RequestID    string         `json:"request_id"`
	Wallet       string         `json:"wallet"`
	Delegation   string         `json:"delegation,omitempty"`
	Summary      string         `json:"summary"`
	Allowed      bool           `json:"allowed"` // as it was
	Was          string         `json:"was"`     // the rule that allowed, or the reason of the refusal
	Outcome      policy.Outcome `json:"outcome"` // as it would be
	Rule         string         `json:"rule,omitempty"`
	Why          string         `json:"why"`
}

// Entry takes the next entry of the journal.
func (r *Replay) Entry(e journal.Entry) error {
	var allowed bool
	was := e.Rule
	switch {
	case r.Organization != "" && e.Organization != r.Organization:
		return nil
	case e.Kind == journal.KindApproved:
		allowed = true
	case e.Kind == journal.KindRefused && e.Outcome == string(refusal.LimitExceeded):
		allowed = true // by the policies; the limit came after them
	case e.Kind == journal.KindRefused && e.Outcome == string(refusal.PolicyDenied):
		was = e.Reason
	default:
		return nil
	}
	if e.Asked == nil {
		r.Unrecorded++
		return nil
	}
	d, err := decodeAsked(e.Asked)
	if err != nil { // an older build understood it otherwise
		return fmt.Errorf("entry %d: decoding what was asked: %w", e.Seq, err)
	}
	req := policy.Request{
		Decoded: d, Kind: d.Kind, Activity: policy.SigningActivity(d.Kind),
		Wallet: &policy.Wallet{ID: e.Wallet}, Approvers: []policy.User{{ID: e.User}},
		Requester: e.User, Now: time.UnixMilli(e.TimeMS), DelegationID: e.Delegation, DelegatedUser: e.User, RequestID: e.RequestID,
	}
	if req.WalletAccount, err = asker(e.Asked.Address); err != nil {
		return fmt.Errorf("entry %d: %w", e.Seq, err)
	}
	for _, c := range e.Credentials {
		req.Credentials = append(req.Credentials, policy.Credential{ID: c, UserID: e.User, Type: "CREDENTIAL_TYPE_WALLET_API_KEY"})
	}
	for _, id := range strings.Fields(e.Facts["approvers"]) { // tags and credentials are not in the journal
		req.Approvers = append(req.Approvers, policy.User{ID: id})
	}
	if e.Caller != nil {
		req.Caller = &policy.Caller{UID: e.Caller.UID, GID: e.Caller.GID}
	}
	dec := r.Set.Evaluate(req)
	if (dec.Outcome == policy.Allowed) == allowed {
		r.Same++
		return nil
	}
	r.Differ++
	return r.Changed(Change{Seq: e.Seq, Time: req.Now.UTC(), Organization: e.Organization, RequestID: e.RequestID, Wallet: e.Wallet, Delegation: e.Delegation,
		Summary: d.Summary, Allowed: allowed, Was: was, Outcome: dec.Outcome, Rule: dec.Rule, Why: dec.Reason})
}

func asker(address string) (*policy.WalletAccount, error) {
	a, err := account(address)
	if err != nil {
		return nil, err
	}
	return &policy.WalletAccount{Address: a}, nil
}

func decodeAsked(a *journal.Asked) (*chains.Decoded, error) {
	return signable.Decode(chains.Kind(a.Kind), a.Payload, signable.Signer{Chain: a.Chain, Address: a.Address}, signable.Interfaces{})
}

// Tell writes a change for people.
func (c Change) Tell(w io.Writer) error {
	was, now := "was refused", "would be allowed"
	if c.Allowed {
		was, now = "was allowed", "would be refused"
	}
	_, err := fmt.Fprintf(w, "entry %d, %s, request %s of %s: %s\n  %s (%s), %s: %s: %s\n", c.Seq, c.Time.Format("2006-01-02T15:04:05Z"), c.RequestID, c.Wallet, c.Summary,
		was, c.Was, now, c.Outcome, c.Why)
	return err
}
