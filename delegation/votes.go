package delegation

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// People approve or reject an activity with stamps over a message that holds all of
// it, byte for byte. The journal keeps message and stamps, so that everybody who has
// the public keys can check later who said what to what (sigilctl activity verify).
//
// Who is concerned by an activity, and may see it: the wallet's owner, the root
// members, and the users whose approval the consensus of a waiting policy would heed.
// To others it does not exist. Approvals are taken of the last; each of them, and each
// of the others, can reject.

// Statuses of an activity, beside those of package signing.
const (
	statusPendingApproval = "pending"
	statusExecuted        = "executed"
)

// Vote is a call of Approve or Reject.
type Vote struct {
	Actor
	RequestID    string
	Organization string
	// Activity are the bytes that were shown.
	Activity []byte
	// Reason is for people; of a rejection.
	Reason string
	// Message is the call's as it was received, Stamps those over it, as they came.
	Message []byte
	Stamps  [][]byte
}

// Voted answers a vote.
type Voted struct {
	ActivityID string `json:"activity_id"`
	Status     string `json:"status"`
	// Approvals is how many users have approved, the requester not counted.
	Approvals int `json:"approvals"`
}

// ActivityView is what those whom an activity concerns may see of it.
type ActivityView struct {
	*signing.Activity
	Bytes, Payload []byte
	Status         string
	Waiting        []string
	Approvals      []ActivityVote
	Rejection      *ActivityVote
}

// ActivityVote is who said yes or no.
type ActivityVote struct {
	User, Credential, Reason string
	At                       time.Time
}

// Approve counts the approval of each user whose stamp the call carries; several
// stamps of one user count once. Durable on return. Nothing is signed by it: the
// requester asks again.
func (s *Service) Approve(ctx context.Context, v Vote) (Voted, error) {
	return s.vote(ctx, v, func(tx *vault.Tx, a *activity, e *journal.Entry, at time.Time) (*activity, error) {
		next := *a
		next.Approvals = slices.Clone(a.Approvals)
		for _, k := range v.Credentials {
			u := s.holder(a.Organization, k)
			if u == nil || !s.heeds(a, u, k) {
				continue
			}
			one := vote{User: u.ID, Algorithm: string(k.Algorithm), PublicKey: k.Bytes, At: at}
			if i := slices.IndexFunc(next.Approvals, func(have vote) bool { return have.User == u.ID }); i < 0 {
				next.Approvals = append(next.Approvals, one)
			} else if have := next.Approvals[i]; i < len(a.Approvals) && s.alive(a.Organization, have) {
				return nil, refusal.New(refusal.VoteInvalid, "user %s has approved this activity already", u.ID).With("user", u.ID)
			} else if i < len(a.Approvals) {
				next.Approvals[i] = one // the credential of the earlier one is gone
			}
		}
		if slices.EqualFunc(next.Approvals, a.Approvals, func(x, y vote) bool { return x.User == y.User && x.key().Equal(y.key()) }) {
			return nil, quorumMissing("users whose approval a policy asks for", 0, 1)
		}
		var who []string
		for _, one := range next.Approvals {
			who = append(who, one.User)
		}
		e.Facts["approvers"] = strings.Join(who, " ")
		return &next, nil
	})
}

// Reject ends the activity on one stamp of anybody whom it concerns. Durable on return.
func (s *Service) Reject(ctx context.Context, v Vote) (Voted, error) {
	if v.Reason != "" {
		if err := checkName("reason", v.Reason); err != nil {
			return Voted{}, err
		}
	}
	return s.vote(ctx, v, func(tx *vault.Tx, a *activity, e *journal.Entry, at time.Time) (*activity, error) {
		next := *a
		for _, k := range v.Credentials {
			if !s.seen(Actor{Organization: a.Organization, Credentials: []credential.PublicKey{k}}, a) {
				continue
			}
			next.Rejection = &vote{Algorithm: string(k.Algorithm), PublicKey: k.Bytes, At: at, Reason: v.Reason}
			if u := s.holder(a.Organization, k); u != nil {
				next.Rejection.User = u.ID
			}
			break
		}
		if next.Rejection == nil {
			return nil, quorumMissing("users whom the activity concerns", 0, 1)
		}
		e.Outcome, e.Reason = signing.StatusRejected, v.Reason
		tx.Advance() // no older copy of the store may forget it
		return &next, nil
	})
}

// vote is what approving and rejecting share: an act of somebody whom the activity
// concerns, over exactly its bytes, while it is pending.
func (s *Service) vote(ctx context.Context, v Vote, change func(*vault.Tx, *activity, *journal.Entry, time.Time) (*activity, error)) (Voted, error) {
	shown, err := signing.ParseActivity(v.Activity)
	if err != nil {
		return Voted{}, refusal.New(refusal.VoteInvalid, "the message holds no activity: %v", err).With("field", "activity")
	}
	look := func() (*activity, error) { return s.activity(v.Actor, v.Organization, shown.ID) }
	authorize := func() error { _, err := look(); return err }
	return act(ctx, s, v.Actor, v.Organization, v.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (Voted, error) {
		a, err := look()
		if err != nil {
			return Voted{}, err
		}
		if !bytes.Equal(a.Bytes, v.Activity) {
			return Voted{}, refusal.New(refusal.VoteInvalid, "the stamped bytes are not those of activity %s", a.ID).With("activity", a.ID)
		}
		known := s.journal.At(tx)
		now := known.Now()
		if clock := s.now(); clock.After(now) {
			now = clock
		}
		state, ok, err := known.Request(a.Organization, a.RequestID)
		if err != nil {
			return Voted{}, err
		}
		status, err := s.activityStatus(a, ok && state.ApprovedSeq != 0 && !state.Refunded, now)
		if err != nil {
			return Voted{}, err
		}
		if status != statusPendingApproval {
			return Voted{}, refusal.New(refusal.ActivityEnded, "the activity is over: %s", status).With("activity", a.ID).With("status", status)
		}
		e.Wallet, e.Delegation, e.Facts = a.shown.Wallet, a.Delegation, s.evidence(v, a)
		next, err := change(tx, a, e, now.UTC())
		if err != nil {
			return Voted{}, err
		}
		if err := store(tx, vault.TypeActivity, next.ID, next); err != nil {
			return Voted{}, err
		}
		s.book.change(tx, func() { s.book.activities[next.ID], s.book.waiting[next.ref()] = next, next })
		if next.Rejection != nil {
			status = signing.StatusRejected
		}
		return Voted{ActivityID: a.ID, Status: status, Approvals: len(next.Approvals)}, nil
	})
}

// Facts of a vote's entry: the message as it was received, in base64, and behind a
// number from 1 each stamp over it, as it came, its user, and of an authenticator's the
// relying party as JSON.
const (
	FactVoteMessage = "vote.message"
	FactVoteStamp   = "vote.stamp."
	FactVoteUser    = "vote.user."
	FactVoteParty   = "vote.party."
)

// evidence is what proves the vote to everybody who has the public keys.
func (s *Service) evidence(v Vote, a *activity) map[string]string {
	out := map[string]string{signing.FactActivity: a.ID, FactVoteMessage: base64.StdEncoding.EncodeToString(v.Message)}
	for i, text := range v.Stamps {
		n := fmt.Sprint(i + 1)
		out[FactVoteStamp+n] = string(text)
		stamp, err := credential.ParseStamp(text)
		if err != nil {
			continue // whoever verifies it will say so
		}
		if u := s.holder(a.Organization, stamp.PublicKey); u != nil {
			out[FactVoteUser+n] = u.ID
		}
		if r, _ := s.credentialOf(a.Organization, stamp.PublicKey); r != nil && r.Party != nil {
			if party, err := json.Marshal(r.Party); err == nil {
				out[FactVoteParty+n] = string(party)
			}
		}
	}
	return out
}

// alive reports whether the vote's credential still is its user's.
func (s *Service) alive(org string, v vote) bool {
	u := s.holder(org, v.key())
	return u != nil && u.ID == v.User
}

// heeds reports whether a policy that waits would heed the user's approval.
func (s *Service) heeds(a *activity, u *user, k credential.PublicKey) bool {
	st, err := s.judging(a)
	if err != nil || st == nil || u.ID == st.DelegatedUser {
		return false
	}
	asks := policy.Request{Requester: st.DelegatedUser, Approvers: []policy.User{{ID: st.DelegatedUser, Alias: st.DelegatedUserName}}}
	return st.Rules.Heeds(a.Waiting, asks, approver(u), stampedWith(u, k))
}

// judging is the standing of an activity's delegation now, nil for none. Of a stamped
// request it is what judges it: the organization's documents, whose ALLOW policies
// counted, or none would wait.
func (s *Service) judging(a *activity) (*signing.Standing, error) {
	if a.Delegation != "" {
		return s.book.now(a.Delegation)
	}
	u := find(s.book, s.book.users, a.shown.Requester)
	if u == nil || u.Removed {
		return nil, nil
	}
	st := &signing.Standing{Organization: a.Organization, DelegatedUser: u.ID, DelegatedUserName: u.Name}
	return st, s.judgedBy(st, true)
}

// seen reports whether the activity concerns the actor.
func (s *Service) seen(act Actor, a *activity) bool {
	w, _, err := s.book.wallet(a.Organization, a.shown.Wallet)
	if err == nil && s.concerns(act, a.Organization, w.Owner) {
		return true
	}
	return slices.ContainsFunc(act.Credentials, func(k credential.PublicKey) bool {
		u := s.holder(a.Organization, k)
		return u != nil && s.heeds(a, u, k)
	})
}

// activity finds one for somebody whom it concerns.
func (s *Service) activity(act Actor, org, id string) (*activity, error) {
	if _, err := s.inside(act, org); err != nil {
		return nil, err
	}
	a := find(s.book, s.book.activities, id)
	if a == nil || a.Organization != org || !s.seen(act, a) {
		return nil, refusal.New(refusal.NotFound, "no such activity")
	}
	return a, nil
}

// activityStatus says where an activity stands.
func (s *Service) activityStatus(a *activity, executed bool, now time.Time) (string, error) {
	if a.Rejection != nil {
		return signing.StatusRejected, nil
	}
	if executed {
		return statusExecuted, nil
	}
	st, err := s.judging(a)
	if err != nil {
		return "", err
	}
	if st == nil {
		return signing.StatusPolicyChanged, nil
	}
	if void := a.shown.Void(st.Fixed, now); void != "" {
		return void, nil
	}
	return statusPendingApproval, nil
}

// Activity shows an activity with its payload to somebody whom it concerns.
func (s *Service) Activity(act Actor, org, id string) (ActivityView, error) {
	a, err := s.activity(act, org, id)
	if err != nil {
		return ActivityView{}, err
	}
	return s.viewOf(a)
}

// Activities lists the activities that concern the actor, the newest first, pending
// ones only unless all are wanted. They are kept for a day after their end.
func (s *Service) Activities(act Actor, org string, all bool) ([]ActivityView, error) {
	if _, err := s.inside(act, org); err != nil {
		return nil, err
	}
	s.book.mu.RLock()
	var list []*activity
	for _, a := range s.book.activities {
		if a.Organization == org {
			list = append(list, a)
		}
	}
	s.book.mu.RUnlock()
	slices.SortFunc(list, func(x, y *activity) int {
		if c := y.shown.CreatedAt.Compare(x.shown.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	var out []ActivityView
	for _, a := range list {
		if !s.seen(act, a) {
			continue
		}
		v, err := s.viewOf(a)
		if err != nil {
			return nil, err
		}
		if v.Payload = nil; all || v.Status == statusPendingApproval {
			out = append(out, v)
		}
	}
	return out, nil
}

func (s *Service) viewOf(a *activity) (ActivityView, error) {
	state, ok, err := s.journal.Request(a.Organization, a.RequestID)
	if err != nil {
		return ActivityView{}, err
	}
	status, err := s.activityStatus(a, ok && state.ApprovedSeq != 0 && !state.Refunded, s.now())
	if err != nil {
		return ActivityView{}, err
	}
	show := func(v vote) ActivityVote {
		return ActivityVote{User: v.User, Credential: v.key().ID(), Reason: v.Reason, At: v.At}
	}
	out := ActivityView{Activity: a.shown, Bytes: a.Bytes, Payload: a.Payload, Status: status, Waiting: a.Waiting}
	for _, v := range a.Approvals {
		out.Approvals = append(out.Approvals, show(v))
	}
	if a.Rejection != nil {
		r := show(*a.Rejection)
		out.Rejection = &r
	}
	return out, nil
}
