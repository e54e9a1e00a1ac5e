package delegation

import (
	"context"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
)

// Events are what the journal tells of delegations, for who waits for them: an
// application, a user's device. The token that a reader goes on from is the number of
// the last entry that was looked at, so nothing is kept for readers, none is missed
// over restarts, and none comes twice. Each call is stamped and asked anew whether its
// caller may see them: a credential that has ended sees no more.

// Event is one thing that happened to a delegation, or to a credential of an organization:
// that tells root members and the end user whose it is.
type Event struct {
	Sequence   uint64
	At         time.Time
	Name       string
	Delegation string
	Wallet     string
	// RequestID is the caller's, of what was asked for; Reason of a refusal or failure.
	RequestID, Reason string
	// Credential, and User, "" for the root's, are what an event about one names; it names
	// no delegation.
	Credential, User string
}

// Events is an answer: Next is where to go on from. Lost says that entries before
// it are in the archive alone.
type Events struct {
	List []Event
	Next uint64
	Lost bool
}

// Bounds of one answer.
const (
	maxEvents   = 128
	lookAtOnce  = 512
	lookEvery   = 200 * time.Millisecond
	longestWait = 25 * time.Second
)

// NextEvents returns what happened after the token to delegations that the actor may
// see, waiting for at most so long until something does. 0 is the beginning.
func (s *Service) NextEvents(ctx context.Context, a Actor, org string, after uint64, wait time.Duration) (Events, error) {
	if wait < 0 || wait > longestWait {
		return Events{}, refusal.New(refusal.RequestInvalid, "wait_seconds must be 0 to %d", int(longestWait/time.Second)).With("field", "wait_seconds")
	}
	ctx, cancel := context.WithTimeout(ctx, wait+time.Second)
	defer cancel()
	end := time.NewTimer(wait)
	defer end.Stop()
	out := Events{Next: after}
	for {
		if err := s.member(a, org); err != nil {
			return Events{}, err
		}
		more, err := s.look(ctx, a, org, &out)
		if err != nil {
			return Events{}, err
		}
		if len(out.List) > 0 {
			return out, nil
		}
		if more {
			continue
		}
		select {
		case <-end.C:
			return out, nil
		case <-ctx.Done():
			return out, nil
		case <-time.After(lookEvery):
		}
	}
}

// look reads on in the journal; more says that there may be more right now.
func (s *Service) look(ctx context.Context, a Actor, org string, out *Events) (more bool, err error) {
	entries, err := s.journal.Entries(ctx, out.Next+1, lookAtOnce)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if out.Next > 0 && e.Seq > out.Next+1 {
			out.Lost = true
		}
		if len(out.List) == maxEvents {
			return true, nil
		}
		out.Next = e.Seq
		if e.Method == methodUnused && e.Organization == org && s.concerns(a, org, s.holderOf(e.User)) {
			out.List = append(out.List, Event{Sequence: e.Seq, At: time.UnixMilli(e.TimeMS).UTC(), Name: "credential.unused", User: e.User, Credential: e.Facts["credential"]})
			continue
		}
		name := eventName(e)
		if name == "" || e.Organization != org || e.Delegation == "" {
			continue
		}
		d := find(s.book, s.book.delegations, e.Delegation)
		if d == nil || !s.concerns(a, org, d.Owner) {
			continue
		}
		one := Event{Sequence: e.Seq, At: time.UnixMilli(e.TimeMS).UTC(), Name: name, Delegation: e.Delegation, Wallet: d.Wallet}
		if e.Kind != journal.KindAct {
			one.RequestID = e.RequestID
		}
		if e.Kind == journal.KindRefused || e.Kind == journal.KindFailed {
			one.Reason = e.Outcome
		}
		out.List = append(out.List, one)
	}
	return len(entries) == lookAtOnce, nil
}

// holderOf is the user whose credentials are nobody else's: the end user of that id; "" for others.
func (s *Service) holderOf(user string) string {
	if u := find(s.book, s.book.users, user); u != nil && u.Kind == EndUser {
		return user
	}
	return ""
}

// eventName names what an entry tells of a delegation; "" for nothing.
func eventName(e journal.Entry) string {
	switch e.Kind {
	case journal.KindSigned, journal.KindRefused, journal.KindFailed, journal.KindOutcomeUnknown:
		return "request." + string(e.Kind)
	case journal.KindAct:
	default:
		return ""
	}
	switch e.Method {
	case "/sigil.v1.DelegatedAccessService/RequestDelegation":
		return "delegation.requested"
	case "/sigil.v1.DelegatedAccessService/ApproveDelegation":
		return "delegation.approved"
	case "/sigil.v1.VendorService/BindDelivery", "/sigil.v1.VendorCredentialService/BindVendorCredential":
		return "delegation.active"
	case "/sigil.v1.DelegationService/RevokeDelegation", "/sigil.v1.DeliveryService/IngestDelivery", MethodCredentialEnded:
		return "delegation.revoked"
	case "/sigil.v1.ControlService/Pause":
		return "delegation.paused"
	case "/sigil.v1.ControlService/Resume":
		return "delegation.resumed"
	case "/sigil.v1.CourierService/ReportEvent":
		return "delegation." + e.Outcome // delivered, given_up
	case "ceremony/" + kindIssue:
		if e.Outcome == statusDone {
			return "delegation.active"
		}
		return "delegation.failed"
	case "delegation/expire":
		return "delegation.expired"
	case "delivery/proved", "delivery/frozen":
		return "delegation." + e.Outcome
	}
	return ""
}
