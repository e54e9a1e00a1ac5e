// Package model says once more what must come of the life of a delegation: who may
// propose, approve, pause, bind and end one, which signature comes out of it, and what
// webhooks in any order do to a vendor's share. It is written from the specification
// and from docs/access.md and docs/authority.md, not from the code, and is for tests,
// which play the same acts to it and to the real parts and compare (delegation/model_test.go
// within one process, cmd/sigilctl with daemons that are killed).
//
// It knows no store, no crash and no concurrency: an act is a list of changes in the
// order in which they become durable, and a process that dies before the n-th has done
// the n-1 before it.
package model

import (
	"fmt"
	"time"

	"github.com/sigild/sigild/refusal"
)

// Verb is what an act does.
type Verb string

// The verbs.
const (
	Enable        Verb = "enable"         // the organization offers delegated access, or no longer does (On)
	Propose       Verb = "propose"        // a delegation of Wallet to User until Ends
	Approve       Verb = "approve"        // Delegation; Wrong: over other terms
	Create        Verb = "create"         // propose and approve in one, by the owner
	Revoke        Verb = "revoke"         // Delegation; of a proposal it declines
	Pause         Verb = "pause"          // Scope
	Resume        Verb = "resume"         // Scope
	Deliver       Verb = "deliver"        // Event
	Bind          Verb = "bind"           // Event's share to User until Ends; Wrong: for another address
	Sign          Verb = "sign"           // by Delegation's key for Wallet; Wrong: with another key
	SignStamped   Verb = "sign by stamp"  // by who stamps, for Wallet
	SetClock      Verb = "clock"          // At
	Sweep         Verb = "sweep"          // what is over is written down as ended
	Deny          Verb = "deny"           // the organization's policy denies everything (On), or no longer does
	RemoveUser    Verb = "remove user"    // User
	EndCredential Verb = "end credential" // the owner's second one
	DropRoot      Verb = "drop root"      // the third root member
	Meddle        Verb = "meddle"         // an administrative act that makes whoever does it more than they are
	Restart       Verb = "restart"        // in order, or (On) by a kill
)

// Level is who paused, from the lowest.
type Level int

// The levels.
const (
	Running Level = iota
	ByOwner
	ByRoot
	ByOperator
	ByAppliance
)

// Scope is what a pause is about.
type Scope string

// The scopes.
const (
	OfAppliance    Scope = "appliance"
	OfOrganization Scope = "organization"
	OfWallet       Scope = "wallet"
	OfDelegation   Scope = "delegation"
)

// Mood is what a vendor's share is worth: what the vendor's program makes of it.
type Mood string

// The moods.
const (
	Good    Mood = "good"    // it signs for the wallet
	Foreign Mood = "foreign" // it signs for another address
	Dead    Mood = "dead"    // the program fails
)

// Damage is what is wrong with a delivery.
type Damage string

// The damages.
const (
	Whole       Damage = ""
	BadMAC      Damage = "another MAC"
	ChangedByte Damage = "a byte changed"
	OtherKey    Damage = "encrypted to another key"
	Oversized   Damage = "oversized"
	Twice       Damage = "a member twice"
	Elsewhere   Damage = "another environment"
	FarAhead    Damage = "far in the future"
)

// Event is one that the vendor sends, any number of times.
type Event struct {
	ID      int // in the order in which they were first sent
	Revoked bool
	// Vendor is the vendor's wallet, Set its share set, "" for none named.
	Vendor int
	Set    string
	At     time.Time
	Mood   Mood
}

// Name is the event's id, ordered as ID.
func (e Event) Name() string { return fmt.Sprintf("event-%03d", e.ID) }

// Request is a signature that somebody asks for.
type Request struct {
	ID int
	// Lamports to pay; policies allow up to 500, a delegation's limit 1000 in all.
	Lamports uint64
}

// Own wallets of the owner come first, then those of the vendor that were bound.
const (
	OwnWallets    = 2
	VendorWallets = 2
	Users         = 2
)

// Act is one act with all that it names. What it does not name is zero.
type Act struct {
	Verb Verb
	By   Who
	// Foreign: the stamps name another organization.
	Foreign bool
	On      bool
	Wrong   bool
	// Delegation counts those that were made, from 0; Wallet and User likewise.
	Delegation, Wallet, User int
	// Ends is zero for never.
	Ends  time.Time
	At    time.Time
	Scope Scope
	Event Event
	// Damage is done to this copy of the event.
	Damage  Damage
	Request Request
	// Away: the vendor's unit can't be reached.
	Away bool
	// Cut, if not 0, kills the process before the act's Cut-th durable write.
	Cut int
}

// String tells what is not zero.
func (a Act) String() string {
	b := fmt.Sprintf("%s by %s", a.Verb, a.By)
	tell := func(is bool, format string, args ...any) {
		if is {
			b += fmt.Sprintf(format, args...)
		}
	}
	tell(a.Foreign, " for another organization")
	tell(a.On, ", on")
	tell(a.Wrong, ", wrong")
	tell(a.Delegation >= 0, ", delegation %d", a.Delegation)
	tell(true, ", wallet %d, user %d", a.Wallet, a.User)
	tell(!a.Ends.IsZero(), ", until %s", a.Ends.Format(time.DateTime))
	tell(!a.At.IsZero(), ", at %s", a.At.Format(time.DateTime))
	tell(a.Scope != "", ", of the %s", a.Scope)
	if a.Verb == Deliver || a.Verb == Bind {
		e := a.Event
		tell(true, ", %s%s of vendor %d set %q at %s, %s", kindOf(e), e.Name(), e.Vendor, e.Set, e.At.Format(time.TimeOnly), e.Mood)
	}
	tell(a.Damage != Whole, ", %s", a.Damage)
	tell(a.Verb == Sign, ", request %d of %d lamports", a.Request.ID, a.Request.Lamports)
	tell(a.Away, ", the unit away")
	tell(a.Cut > 0, ", killed before write %d", a.Cut)
	return b
}

// Answer is what came of an act.
type Answer struct {
	// Refused is why not; "" for what was done.
	Refused refusal.Reason
	// Outcome is a delivery's.
	Outcome string
	// Cut: the process died before it had answered.
	Cut bool
	// Repeated: it died, nobody knows before which write, and the answer is that of the
	// same act once more, under the same request id.
	Repeated bool
	// Reached is the time that the journal has reached, which never goes back; zero when
	// the world can't tell.
	Reached time.Time
}

// Outcomes of deliveries.
const (
	Stored     = "STORED"
	Duplicate  = "DUPLICATE"
	Tombstoned = "TOMBSTONED"
	Ignored    = "IGNORED"
)

// World is what is held against the model. An error is a failure of the test itself.
type World interface {
	// Do performs an act, and the crash that it names.
	Do(Act) (Answer, error)
	// Look tells everything that there is, in the words of [Model.Picture].
	Look() (string, error)
}
