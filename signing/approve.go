package signing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// approved says that a request passed steps 3 to 7: its entry, its charges and
// its request id are on disk. Steps 8 to 10 take nothing else. It is redeemed at
// most once, and only the service that made it can make one.
type approved struct {
	request  Request
	standing *Standing
	decoded  *chains.Decoded
	rule     string
	sequence uint64
	// retried: an earlier try under the same reservation may have sent its last
	// share, so this one can't give the charge back.
	retried  bool
	leave    func()
	redeemed atomic.Bool
	// released: the last look of step 9 said yes, so a last share may have left.
	released atomic.Bool
	// presignature, if not nil, is this request's alone; its entry names it.
	presignature *mpc.Presignature
}

// errRedeemed says that somebody tried to sign twice on one approval.
var errRedeemed = errors.New("the approval was redeemed already")

func (a *approved) redeem() error {
	if a.redeemed.Swap(true) {
		return errRedeemed
	}
	return nil
}

// takePresignature takes one for the approval, if one fits, and names it in the entry.
func (a *approved) takePresignature(tx *vault.Tx, from *Presignatures, now *Standing, e *journal.Entry) {
	one := from.take(now, a.decoded)
	if one == nil {
		return
	}
	tx.OnRollback(one.Destroy)
	a.presignature = one
	e.Note("presignature", one.ID())
}

// errMoved sends a request back to step 3, to be judged by what is true now.
var errMoved = errors.New("the delegation or what judges it changed meanwhile")

// verdict is what policies said, what they were asked, and of whose consent they knew.
type verdict struct {
	policy.Decision
	asked   policy.Request
	consent *Consent
}

// judge is step 6: by the policies and those who consented. The error is errWaits when
// more have to.
func (s *Service) judge(r Request, st *Standing, d *chains.Decoded, prior earlier, consent *Consent) (verdict, error) {
	account, err := accountOf(st.Wallet)
	if err != nil {
		return verdict{}, err
	}
	now := s.now()
	if s.cfg.TimeUnconfirmed() != nil {
		now = time.Time{} // rules about time are errors then
	}
	approvers, credentials := st.approvers(consent)
	v := verdict{consent: consent, asked: policy.Request{
		Decoded: d, Kind: r.Kind,
		Activity:      policy.SigningActivity(d.Kind),
		Wallet:        &policy.Wallet{ID: st.Wallet.ID, Label: st.Wallet.Name},
		WalletAccount: &policy.WalletAccount{Address: account},
		Requester:     st.DelegatedUser, Approvers: approvers, Credentials: credentials,
		Now: now, DelegationID: st.Delegation, DelegatedUser: st.DelegatedUser, DelegationEnds: st.ExpiresAt, RequestID: r.ID,
		Caller:   &policy.Caller{UID: r.Caller.UID, GID: r.Caller.GID, Unit: r.Unit},
		Spending: spending(s.journal, s.journal.Now(), st, d, prior),
	}}
	v.Decision = st.Rules.Evaluate(v.asked)
	return v, settled(v.Decision)
}

// judgeAgain is step 6 once more for policies that read controls, within the
// transaction that reserves: what they read can't move any more. errMoved when it
// wants more approvals now: they are asked for at step 6.
func (v *verdict) judgeAgain(known journal.View, st *Standing, d *chains.Decoded, prior earlier) error {
	v.asked.Spending = spending(known, known.Now(), st, d, prior)
	v.Decision = st.Rules.Again(v.Decision, v.asked)
	if err := settled(v.Decision); !errors.Is(err, errWaits) {
		return err
	}
	return errMoved
}

// settled is nil for what is allowed, errWaits for what wants more approvals, else the refusal.
func settled(decision policy.Decision) error {
	switch decision.Outcome {
	case policy.Allowed:
		return nil
	case policy.RequiresConsensus:
		return errWaits
	case policy.DenyExplicit:
		return denied(decision, "a policy denies it")
	case policy.DenyError:
		return denied(decision, "a policy could not be evaluated")
	}
	return denied(decision, "no policy allows it")
}

func denied(d policy.Decision, what string) error {
	if strings.HasPrefix(d.Rule, AppliancePrefix) {
		what = "a rule of this appliance denies it" // its text may be about others
	} else if d.Reason != "" {
		what += ": " + d.Reason
	}
	e := refusal.New(refusal.PolicyDenied, "%s", what)
	if d.Rule != "" {
		e.With("rule", d.Rule)
	}
	if d.PolicyName != "" && !strings.HasPrefix(d.Rule, AppliancePrefix) {
		e.With("policy", d.PolicyName)
	}
	return e
}

func accountOf(w WalletInfo) (chains.Value, error) {
	if w.Scheme == chains.EdDSAEd25519 {
		return chains.PubkeyValue([32]byte(w.PublicKey)), nil
	}
	a, err := evm.ParseAddress(w.Address)
	if err != nil {
		return chains.Value{}, fmt.Errorf("reading the wallet's address: %w", err)
	}
	return chains.AddressValue(a), nil
}

// approve is step 7. Everything in the closure runs alone on the vault's writer:
// no other request can spend, revoke or change between its looks and its entry.
func (s *Service) approve(ctx context.Context, r Request, st *Standing, d *chains.Decoded, v verdict, prior earlier) (*approved, error) {
	a := &approved{request: r, standing: st, decoded: d, rule: v.Rule}
	err := s.vault.Update(ctx, func(tx *vault.Tx) error {
		now, leave, err := s.authority.Enter(st)
		if err != nil {
			return err
		}
		tx.OnRollback(leave)
		if now.moved(st) {
			return errMoved
		}
		known := s.journal.At(tx)
		// The later of two clocks: the journal's never goes back, so neither does an end.
		if err := s.mayServe(now, later(s.now(), known.Now())); err != nil {
			return err
		}
		if err := s.stillConsented(v.consent, now, r, prior, later(s.now(), known.Now())); err != nil {
			return err
		}
		if err := known.MayApprove(); err != nil {
			return err
		}
		if err := v.judgeAgain(known, st, d, prior); err != nil {
			return err
		}
		a.leave = leave
		if prior.sequence != 0 {
			// An earlier try was approved and left no answer: its charge stands, and
			// the same digest is signed under the same reservation.
			if err := s.stillCounts(known.Now(), now, prior); err != nil {
				return err
			}
			a.sequence, a.rule, a.retried = prior.sequence, prior.rule, true
			return nil
		}
		guards := guardKeys(st, d)
		at, name := taken(known, guards, d), ""
		if at >= 0 {
			name = d.ReplayKeys[at]
		}
		by, err := allowedBy(known, st, v.Decision, d, name)
		if err != nil {
			return err
		}
		var replaces *journal.Replaced
		if at < 0 {
			err = checkLimits(*spending(known, known.Now(), st, d, earlier{}), st)
		} else {
			replaces, err = replacement(known, st, guards[at], name, d)
		}
		if err != nil {
			return err
		}
		a.rule = by.ID
		if by.place != "" {
			guards = append(guards, by.place)
			tx.Advance() // no older copy of the store may use it once more
		}
		if err := s.journal.Lease(tx, func() []journal.Bound { return bounds(known, st, d) }); err != nil {
			return err
		}
		e := s.entry(journal.KindApproved, r, st)
		e.Digest, e.PolicySet = digestOf(d), hexOf(st.PolicySet)
		e.Outcome, e.Rule, e.Reason = string(journal.KindApproved), a.rule, d.Summary
		for _, p := range v.Policies {
			e.Trace = append(e.Trace, p.ID+" "+p.Outcome.String())
		}
		e.Charges = chargesOf(d)
		e.ReplayKeys, e.Replaces, e.Asked = guards, replaces, asked(r, st.Wallet)
		v.consent.consented(&e)
		noteBid(&e, d)
		a.takePresignature(tx, s.cfg.Presignatures, now, &e)
		if st.Orders[by.ID].Totals != nil {
			e.SumByRule()
		}
		if a.sequence, err = s.journal.Append(tx, e); err != nil || replaces == nil {
			return err
		}
		// What it takes the place of is charged no more, which only the journal's new
		// sums show: limits are held against these, and if one fails they are taken back.
		// A charge that moves may not stand in an older copy of the store, so the anchor moves, too.
		tx.Advance()
		return checkLimits(afterReplacing(known, st, d, replaces), st)
	})
	var reused *journal.RequestReusedError
	if errors.As(err, &reused) { // by an act, which takes no turn here
		return nil, refusal.New(refusal.RequestIDReused, "this request_id was used for something else")
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// stillCounts refuses to sign under a reservation whose charge would leave the
// window of a limit before the signature is done: until it is, nothing else would
// count it, and the limit could be spent twice. A charge in flight counts in every window.
func (s *Service) stillCounts(now time.Time, st *Standing, prior earlier) error {
	if prior.chargedAt.IsZero() {
		return nil
	}
	for _, l := range st.Rules.Limits() {
		if l.Window > 0 && !now.Add(s.cfg.Timeout).Before(prior.chargedAt.Add(l.Window)) {
			return refusal.New(refusal.OutcomeUnknown, "the outcome of this request is unknown and the window of its charge is over; decide by the chain, then use a new request_id").With("limit", l.Name)
		}
	}
	return nil
}
