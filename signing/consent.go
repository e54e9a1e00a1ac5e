package signing

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// A request that a policy would allow but for its consensus becomes a pending
// activity (step 6). People approve it elsewhere; the caller asks again with the same
// request id, and all ten steps run again, with those who approved among the approvers.
//
// Approvals are used once because they serve one request id, and the journal lets a
// request id be approved once: there is no second record that could disagree. What
// failed before its last share left frees the id, and the approvals count again while
// they last. Everything else is looked at when it is used: the policy set must be the
// one that was shown, the activity not over, the credentials alive.

// Why an activity can't be approved any more; ErrorInfo's "status" says so.
const (
	StatusRejected      = "rejected"
	StatusExpired       = "expired"
	StatusPolicyChanged = "policy_changed"
)

// Void says why the approvals of an activity don't count at now under a policy set,
// "" when they do.
func (a *Activity) Void(policySet [32]byte, now time.Time) string {
	switch {
	case a.PolicySet != policySet:
		return StatusPolicyChanged
	case !now.Before(a.ExpiresAt):
		return StatusExpired
	}
	return ""
}

// ended is the refusal of a request whose activity is over.
func ended(a *Activity, status string) error {
	what := map[string]string{
		StatusRejected: "was rejected", StatusExpired: "was not approved in time", StatusPolicyChanged: "is void: the policies changed since it was made",
	}[status]
	return refusal.New(refusal.ActivityEnded, "the activity %s; ask with a new request_id", what).With("activity", a.ID).With("status", status)
}

// consent finds what people made of this request; nil when nobody was asked.
func (s *Service) consent(r Request, st *Standing, d *chains.Decoded) (*Consent, error) {
	c := s.authority.Consent(st.Organization, r.ID)
	if c == nil {
		return nil, nil
	}
	if a := c.Activity; a.Delegation != st.Delegation || a.Requester != st.DelegatedUser || a.Wallet != st.Wallet.ID || a.Kind != r.Kind || a.PayloadDigest != covers(d) {
		return nil, refusal.New(refusal.RequestIDReused, "people were asked about something else under this request_id").With("activity", a.ID)
	}
	if c.Rejected {
		return nil, ended(c.Activity, StatusRejected)
	}
	return c, nil
}

// approvers are the users whose consent the policies see: the requester, and those who
// approved while that counts.
func (st *Standing) approvers(c *Consent) (users []policy.User, with []policy.Credential) {
	if c == nil {
		return st.Approvers, st.Credentials
	}
	users, with = slices.Clone(st.Approvers), slices.Clone(st.Credentials)
	for _, u := range c.Approvers {
		if !slices.ContainsFunc(users, func(have policy.User) bool { return have.ID == u.ID }) {
			users = append(users, u)
		}
	}
	return users, append(with, c.Credentials...)
}

// counting is c when its approvals count at now, and why not otherwise. What was begun
// in time may be ended after it.
func (c *Consent) counting(st *Standing, prior earlier, now time.Time) (counts *Consent, void string) {
	if c == nil {
		return nil, ""
	}
	void = c.Activity.Void(st.Fixed, now)
	if void == "" || void == StatusExpired && prior.sequence != 0 {
		return c, ""
	}
	return nil, void
}

// await is where a request goes that needs more approvals than it has: the refusal
// that says which activity waits for them. The first time it makes that activity.
func (s *Service) await(ctx context.Context, r Request, st *Standing, d *chains.Decoded, decision policy.Decision, c *Consent, void string) error {
	if void != "" {
		return ended(c.Activity, void)
	}
	if c != nil {
		return approvalsNeeded(c.Activity)
	}
	p := NewActivity{
		Activity: Activity{
			Organization: st.Organization, Delegation: st.Delegation, Wallet: st.Wallet.ID, Requester: st.DelegatedUser, RequestID: r.ID,
			Kind: r.Kind, Chain: st.Wallet.Chain, Address: st.Wallet.Address, PayloadDigest: covers(d), PolicySet: st.Fixed, Summary: d.Summary,
		},
		Life: r.ApprovalTime, Payload: r.Payload, Entry: s.entry(journal.KindActivity, r, st),
	}
	if p.Life == 0 {
		p.Life = DefaultApprovalTime
	}
	if p.Life < minApprovalTime || p.Life > MaxApprovalTime {
		return refusal.New(refusal.RequestInvalid, "approvals may be awaited for 1 second to %d hours", int(MaxApprovalTime.Hours())).With("field", "approval_seconds")
	}
	for _, one := range decision.Policies {
		if one.Outcome == policy.NeedsConsensus {
			p.Waiting = append(p.Waiting, one.ID)
		}
		p.Entry.Trace = append(p.Entry.Trace, one.ID+" "+one.Outcome.String())
	}
	p.Entry.Digest, p.Entry.PolicySet = digestOf(d), hexOf(st.PolicySet)
	p.Entry.Outcome, p.Entry.Rule, p.Entry.Reason, p.Entry.Asked = decision.Outcome.String(), decision.Rule, d.Summary, asked(r, st.Wallet)
	a, err := s.authority.OpenActivity(ctx, p)
	if err != nil {
		return err
	}
	s.log.InfoContext(ctx, "approvals needed", "wallet", st.Wallet.ID, "delegation", st.Delegation, "request", r.ID, "activity", a.ID, "rule", decision.Rule)
	return approvalsNeeded(a)
}

// pollAfter is how soon it makes sense to ask whether people have made up their minds.
const pollAfter = 5 * time.Second

func approvalsNeeded(a *Activity) error {
	e := refusal.New(refusal.ApprovalsNeeded, "a policy wants more approvals; ask again with the same request_id when activity %s has them", a.ID).
		With("activity", a.ID).With("expires_at", a.ExpiresAt.UTC().Format(time.RFC3339))
	e.After = pollAfter
	return e
}

// stillConsented is step 7's look at what people say: errMoved when it is not what
// step 6 judged by. now is the later of both clocks.
func (s *Service) stillConsented(then *Consent, st *Standing, r Request, prior earlier, now time.Time) error {
	if then == nil {
		return nil
	}
	if err := s.cfg.TimeUnconfirmed(); err != nil {
		return refusal.New(refusal.ClockUnconfirmed, "approvals end at some time, and %v", err)
	}
	c := s.authority.Consent(st.Organization, r.ID)
	if c != nil && c.Rejected {
		return ended(c.Activity, StatusRejected)
	}
	if counts, _ := c.counting(st, prior, now); counts == nil || !counts.same(then) {
		return errMoved
	}
	return nil
}

// consented writes into an approval's entry who approved.
func (c *Consent) consented(e *journal.Entry) {
	if c == nil {
		return
	}
	var who []string
	for _, u := range c.Approvers {
		who = append(who, u.ID)
	}
	e.Note(FactActivity, c.Activity.ID)
	e.Note("approvers", strings.Join(who, " "))
}

// FactActivity is the fact of a journal entry that names an activity; of the entry that
// opened it FactActivityBytes holds it whole, in base64.
const (
	FactActivity      = "activity"
	FactActivityBytes = "activity_bytes"
)

// errWaits says that a decision wants more approvals.
var errWaits = errors.New("the request waits for approvals")
