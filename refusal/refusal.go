// Package refusal is the closed list of reasons why sigild says no, and the one
// error type that carries a reason from the room that decided to the socket. It
// knows no gRPC: server/errors.go maps reasons to status codes, docs/errors.md
// explains them, a test holds the three together.
package refusal

import (
	"errors"
	"fmt"
	"time"
)

// Reason is a stable code. Programs decide on it; people read the message.
type Reason string

// The closed list.
const (
	PolicyDenied         Reason = "POLICY_DENIED"
	RawDigestDenied      Reason = "RAW_DIGEST_DENIED"
	VendorActivityDenied Reason = "VENDOR_ACTIVITY_DENIED"
	CallerNotAllowed     Reason = "CALLER_NOT_ALLOWED"
	APIKeyInvalid        Reason = "API_KEY_INVALID"
	StampInvalid         Reason = "STAMP_INVALID"
	StampExpired         Reason = "STAMP_EXPIRED"
	DeliveryInvalid      Reason = "DELIVERY_INVALID"
	QuorumMissing        Reason = "QUORUM_MISSING"
	PolicyAuthority      Reason = "POLICY_AUTHORITY"
	BundleInvalid        Reason = "BUNDLE_INVALID"
	DelegationExpired    Reason = "DELEGATION_EXPIRED"
	DelegationRevoked    Reason = "DELEGATION_REVOKED"
	NotActive            Reason = "NOT_ACTIVE"
	NotDelegatable       Reason = "NOT_DELEGATABLE"
	Paused               Reason = "PAUSED"
	Quarantined          Reason = "QUARANTINED"
	Sealed               Reason = "SEALED"
	ClockUnconfirmed     Reason = "CLOCK_UNCONFIRMED"
	PayloadMalformed     Reason = "PAYLOAD_MALFORMED"
	PayloadNotUnderstood Reason = "PAYLOAD_NOT_UNDERSTOOD"
	BodyExpired          Reason = "BODY_EXPIRED"
	PolicyInvalid        Reason = "POLICY_INVALID"
	PolicyVersionMoved   Reason = "POLICY_VERSION_MOVED"
	RequestInvalid       Reason = "REQUEST_INVALID"
	ApprovalsNeeded      Reason = "APPROVALS_NEEDED"
	ActivityEnded        Reason = "ACTIVITY_ENDED"
	VoteInvalid          Reason = "VOTE_INVALID"
	RequestIDReused      Reason = "REQUEST_ID_REUSED"
	LimitExceeded        Reason = "LIMIT_EXCEEDED"
	RateLimited          Reason = "RATE_LIMITED"
	ProviderUnavailable  Reason = "PROVIDER_UNAVAILABLE"
	JournalUnwritable    Reason = "JOURNAL_UNWRITABLE"
	StoreFull            Reason = "STORE_FULL"
	CeremonyFailed       Reason = "CEREMONY_FAILED"
	OutcomeUnknown       Reason = "OUTCOME_UNKNOWN"
	NotFound             Reason = "NOT_FOUND"
)

// Reasons lists them all.
func Reasons() []Reason {
	return []Reason{
		PolicyDenied, RawDigestDenied, VendorActivityDenied, CallerNotAllowed,
		APIKeyInvalid, StampInvalid, StampExpired, DeliveryInvalid, BundleInvalid, QuorumMissing, PolicyAuthority,
		DelegationExpired, DelegationRevoked, NotActive, NotDelegatable, Paused, Quarantined, Sealed, ClockUnconfirmed,
		PayloadMalformed, PayloadNotUnderstood, BodyExpired, PolicyInvalid, PolicyVersionMoved, RequestInvalid,
		ApprovalsNeeded, ActivityEnded, VoteInvalid,
		RequestIDReused, LimitExceeded, RateLimited,
		ProviderUnavailable, JournalUnwritable, StoreFull,
		CeremonyFailed, OutcomeUnknown, NotFound,
	}
}

// Error is a refusal that may be shown to the caller as it is: no secrets,
// nothing about other tenants.
type Error struct {
	Reason  Reason
	Message string
	// Details are shown to programs: "rule", "limit", "field", "offset".
	Details map[string]string
	// After says when asking again may help; zero when it won't.
	After time.Duration
	// cause is for the log, never for the caller.
	cause error
}

// New makes a refusal; the format must not contain secrets.
func New(r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Message: fmt.Sprintf(format, args...)}
}

// With adds one detail and returns e.
func (e *Error) With(key, value string) *Error {
	if e.Details == nil {
		e.Details = make(map[string]string, 2)
	}
	e.Details[key] = value
	return e
}

// Because keeps the cause for the log; it is not shown to the caller.
func (e *Error) Because(err error) *Error {
	e.cause = err
	return e
}

func (e *Error) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Reason, e.Message, e.cause)
	}
	return fmt.Sprintf("%s: %s", e.Reason, e.Message)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.cause }

// Is reports whether err is a refusal for reason r.
func Is(err error, r Reason) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == r
}
