package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// This file is the one place where an error becomes a gRPC status. Rooms that
// decide return a *refusal.Error, or one of the sentinels in sentinels; whatever
// else arrives here is INTERNAL: its text stays in the log.

// Domain of every ErrorInfo we send.
const Domain = "sigild"

// Three reasons belong to the call rather than to a decision.
const (
	reasonInternal refusal.Reason = "INTERNAL"
	reasonDeadline refusal.Reason = "DEADLINE_EXCEEDED"
	reasonCanceled refusal.Reason = "CANCELLED"
)

// reasonRow says how a reason travels.
type reasonRow struct {
	reason refusal.Reason
	code   codes.Code
	// after is when asking again may help, unless the refusal itself says; 0: no RetryInfo.
	after time.Duration
	// level is how loud the log is.
	level slog.Level
}

// reasons is the closed list, in the order of docs/errors.md.
var reasons = []reasonRow{
	{refusal.PolicyDenied, codes.PermissionDenied, 0, slog.LevelInfo},
	{refusal.RawDigestDenied, codes.PermissionDenied, 0, slog.LevelInfo},
	{refusal.VendorActivityDenied, codes.PermissionDenied, 0, slog.LevelWarn},
	{refusal.CallerNotAllowed, codes.PermissionDenied, 0, slog.LevelWarn},
	{refusal.QuorumMissing, codes.PermissionDenied, 0, slog.LevelInfo},
	{refusal.PolicyAuthority, codes.PermissionDenied, 0, slog.LevelInfo},
	{refusal.APIKeyInvalid, codes.Unauthenticated, 0, slog.LevelWarn},
	{refusal.StampInvalid, codes.Unauthenticated, 0, slog.LevelWarn},
	{refusal.StampExpired, codes.Unauthenticated, 0, slog.LevelInfo},
	{refusal.DeliveryInvalid, codes.Unauthenticated, 0, slog.LevelWarn},
	{refusal.BundleInvalid, codes.Unauthenticated, 0, slog.LevelWarn},
	{refusal.DelegationExpired, codes.FailedPrecondition, 0, slog.LevelInfo},
	{refusal.DelegationRevoked, codes.FailedPrecondition, 0, slog.LevelInfo},
	{refusal.NotActive, codes.FailedPrecondition, 0, slog.LevelInfo},
	{refusal.NotDelegatable, codes.FailedPrecondition, 0, slog.LevelInfo},
	{refusal.Paused, codes.FailedPrecondition, 0, slog.LevelInfo},
	{refusal.Quarantined, codes.FailedPrecondition, 0, slog.LevelWarn},
	{refusal.Sealed, codes.FailedPrecondition, 0, slog.LevelWarn},
	{refusal.ClockUnconfirmed, codes.FailedPrecondition, 0, slog.LevelWarn},
	{refusal.PolicyVersionMoved, codes.FailedPrecondition, 0, slog.LevelInfo},
	{refusal.ApprovalsNeeded, codes.FailedPrecondition, 5 * time.Second, slog.LevelInfo},
	{refusal.ActivityEnded, codes.FailedPrecondition, 0, slog.LevelInfo},
	{refusal.PayloadMalformed, codes.InvalidArgument, 0, slog.LevelInfo},
	{refusal.PayloadNotUnderstood, codes.InvalidArgument, 0, slog.LevelInfo},
	{refusal.BodyExpired, codes.InvalidArgument, 0, slog.LevelInfo},
	{refusal.PolicyInvalid, codes.InvalidArgument, 0, slog.LevelInfo},
	{refusal.VoteInvalid, codes.InvalidArgument, 0, slog.LevelInfo},
	{refusal.RequestInvalid, codes.InvalidArgument, 0, slog.LevelInfo},
	{refusal.RequestIDReused, codes.AlreadyExists, 0, slog.LevelInfo},
	{refusal.LimitExceeded, codes.ResourceExhausted, time.Minute, slog.LevelInfo},
	{refusal.RateLimited, codes.ResourceExhausted, time.Second, slog.LevelInfo},
	{refusal.ProviderUnavailable, codes.Unavailable, 5 * time.Second, slog.LevelError},
	{refusal.JournalUnwritable, codes.Unavailable, 30 * time.Second, slog.LevelError},
	{refusal.StoreFull, codes.Unavailable, 30 * time.Second, slog.LevelError},
	{refusal.CeremonyFailed, codes.Aborted, time.Second, slog.LevelError},
	{refusal.OutcomeUnknown, codes.Aborted, time.Second, slog.LevelError},
	{refusal.NotFound, codes.NotFound, 0, slog.LevelInfo},
	{reasonDeadline, codes.DeadlineExceeded, 0, slog.LevelWarn},
	{reasonCanceled, codes.Canceled, 0, slog.LevelInfo},
	{reasonInternal, codes.Internal, 0, slog.LevelError},
}

func rowOf(r refusal.Reason) *reasonRow {
	for i := range reasons {
		if reasons[i].reason == r {
			return &reasons[i]
		}
	}
	return nil
}

// sentinel maps an error that is no refusal; the text is all the caller sees.
type sentinel struct {
	is     error
	reason refusal.Reason
	text   string
}

// sentinels are tried in order, after refusals.
var sentinels = []sentinel{
	{vault.ErrSealed, refusal.Sealed, "the store is sealed; status says why"},
	{vault.ErrStoreFull, refusal.StoreFull, "no space left for the store; nothing was kept of this call"},
	{vault.ErrUnwritable, refusal.JournalUnwritable, "the journal can't be written, so nothing is signed; restart sigild when the disk is well"},
	{journal.ErrUnsigned, refusal.ProviderUnavailable, "the sealing device has not signed the journal for too long, so nothing is signed until it does"},
	{seal.ErrUnsupported, refusal.RequestInvalid, "this appliance's sealing device can't do that"},
	{seal.ErrUnavailable, refusal.ProviderUnavailable, "the sealing device doesn't answer"},
	{context.DeadlineExceeded, reasonDeadline, "the call's time was over; ask again with the same request id"},
	{context.Canceled, reasonCanceled, "the caller went away"},
}

// What a status may carry: trailers have to fit into a header list.
const (
	maxMessage = 1024
	maxDetails = 16
	maxDetail  = 256
)

// Status turns the error of any room into a gRPC status error with
// google.rpc.ErrorInfo (reason, domain "sigild", metadata from the refusal's
// details) and, where asking again may help, google.rpc.RetryInfo. nil stays nil.
func Status(err error) error {
	if err == nil {
		return nil
	}
	st, _ := statusOf(err)
	return st.Err()
}

func statusOf(err error) (*status.Status, *reasonRow) {
	r := refusalOf(err)
	row := rowOf(r.Reason)
	if row == nil { // a reason outside the closed list
		row = rowOf(reasonInternal)
		r = internalRefusal()
	}
	st := status.New(row.code, clip(printable(r.Message), maxMessage))
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: string(row.reason), Domain: Domain, Metadata: metadataOf(r.Details),
	}}
	after := row.after
	if r.After > 0 {
		after = r.After
	}
	if after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	with, err := st.WithDetails(details...)
	if err != nil {
		return st, row // only for codes.OK, which no row has
	}
	return with, row
}

// refusalOf finds what may be said about err.
func refusalOf(err error) *refusal.Error {
	var r *refusal.Error
	if errors.As(err, &r) {
		return r
	}
	var d *chains.DecodeError
	if errors.As(err, &d) {
		out := refusal.New(refusal.PayloadMalformed, "%s", d.Error()).With("code", d.Code)
		if d.Offset >= 0 {
			out = out.With("offset", strconv.Itoa(d.Offset))
		}
		return out
	}
	for _, s := range sentinels {
		if errors.Is(err, s.is) {
			return refusal.New(s.reason, "%s", s.text)
		}
	}
	return internalRefusal()
}

func internalRefusal() *refusal.Error {
	return refusal.New(reasonInternal, "internal error; sigild's log has the details")
}

// metadataOf keeps what google.rpc.ErrorInfo allows: keys of [a-z][a-zA-Z0-9-_]+, 64 at most.
func metadataOf(details map[string]string) map[string]string {
	if len(details) == 0 {
		return nil
	}
	out := make(map[string]string, len(details))
	for _, key := range slices.Sorted(maps.Keys(details)) {
		if len(out) < maxDetails && goodKey(key) {
			out[key] = clip(printable(details[key]), maxDetail)
		}
	}
	return out
}

func goodKey(key string) bool {
	if len(key) < 2 || len(key) > 64 || key[0] < 'a' || key[0] > 'z' {
		return false
	}
	return strings.IndexFunc(key, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_'
	}) < 0
}

// printable keeps a text safe for terminals and logs.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 0x20 || c == 0x7f {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
}

func clip(s string, max int) string {
	if len(s) <= max {
		return s
	}
	return strings.ToValidUTF8(s[:max-3], "") + "..."
}
