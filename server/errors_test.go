package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// parts of a status.
func parts(t testing.TB, err error) (codes.Code, *errdetails.ErrorInfo, time.Duration) {
	t.Helper()
	st, ok := status.FromError(err)
	if !ok {
		t.Fatalf("%v is not a status", err)
	}
	var info *errdetails.ErrorInfo
	var after time.Duration
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			after = d.GetRetryDelay().AsDuration()
		}
	}
	if info == nil {
		info = &errdetails.ErrorInfo{}
	}
	return st.Code(), info, after
}

func TestErrorsDocumentSaysTheSame(t *testing.T) {
	listed := tableOf(t, "../docs/errors.md", "reason")
	var got, want [][]string
	for _, cells := range listed {
		got = append(got, cells[:3])
		if len(cells) != 5 || cells[3] == "" || cells[4] == "" {
			t.Errorf("%s: meaning or what to do is missing", cells[0])
		}
	}
	for _, row := range reasons {
		again := "no"
		if row.after > 0 {
			again = "later"
		}
		want = append(want, []string{string(row.reason), code.Code(row.code).String(), again})
	}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("docs/errors.md\n got %v\nwant %v", got, want)
	}
}

func TestEveryReasonHasOneRow(t *testing.T) {
	seen := map[refusal.Reason]int{}
	for _, row := range reasons {
		seen[row.reason]++
		if row.code == codes.OK || row.code == codes.Unknown {
			t.Errorf("%s has code %s", row.reason, row.code)
		}
	}
	for _, r := range append(refusal.Reasons(), reasonInternal, reasonDeadline, reasonCanceled) {
		if seen[r] != 1 {
			t.Errorf("%s has %d rows, want 1", r, seen[r])
		}
		delete(seen, r)
	}
	for r := range seen {
		t.Errorf("%s has a row and is not in the closed list", r)
	}
	for _, s := range sentinels {
		if rowOf(s.reason) == nil {
			t.Errorf("%v maps to %s, which has no row", s.is, s.reason)
		}
	}
}

func TestStatusOf(t *testing.T) {
	secret := errors.New("disk 7 at /var/lib/sigild said no")
	rows := []struct {
		name   string
		err    error
		code   codes.Code
		reason string
		after  time.Duration
	}{
		{"refusal", fmt.Errorf("step 6: %w", refusal.New(refusal.PolicyDenied, "no policy allows it")), codes.PermissionDenied, "POLICY_DENIED", 0},
		{"refusal with a cause", refusal.New(refusal.CeremonyFailed, "no signature").Because(secret), codes.Aborted, "CEREMONY_FAILED", time.Second},
		{"refusal with its own time", &refusal.Error{Reason: refusal.LimitExceeded, Message: "daily", After: time.Hour}, codes.ResourceExhausted, "LIMIT_EXCEEDED", time.Hour},
		{"refusal that gives no time", refusal.New(refusal.RateLimited, "busy"), codes.ResourceExhausted, "RATE_LIMITED", time.Second},
		{"refusal before what caused it", refusal.New(refusal.NotFound, "no such wallet").Because(vault.ErrSealed), codes.NotFound, "NOT_FOUND", 0},
		{"reason outside the list", refusal.New("MADE_UP", "secret %v", secret), codes.Internal, "INTERNAL", 0},
		{"sealed", fmt.Errorf("lending: %w", vault.ErrSealed), codes.FailedPrecondition, "SEALED", 0},
		{"store full", fmt.Errorf("%w: %w", vault.ErrStoreFull, secret), codes.Unavailable, "STORE_FULL", 30 * time.Second},
		{"unwritable", fmt.Errorf("%w: %w", vault.ErrUnwritable, secret), codes.Unavailable, "JOURNAL_UNWRITABLE", 30 * time.Second},
		{"device", fmt.Errorf("%w: %w", seal.ErrUnavailable, secret), codes.Unavailable, "PROVIDER_UNAVAILABLE", 5 * time.Second},
		{"decode", fmt.Errorf("step 5: %w", &chains.DecodeError{Code: chains.CodeEncoding, Message: "trailing bytes", Offset: 9}), codes.InvalidArgument, "PAYLOAD_MALFORMED", 0},
		{"deadline", fmt.Errorf("%w: %w", secret, context.DeadlineExceeded), codes.DeadlineExceeded, "DEADLINE_EXCEEDED", 0},
		{"cancelled", context.Canceled, codes.Canceled, "CANCELLED", 0},
		{"anything else", secret, codes.Internal, "INTERNAL", 0},
		{"a status of somebody else", status.Error(codes.NotFound, secret.Error()), codes.Internal, "INTERNAL", 0},
	}
	for _, row := range rows {
		err := Status(row.err)
		code, info, after := parts(t, err)
		if code != row.code || info.GetReason() != row.reason || info.GetDomain() != Domain || after != row.after {
			t.Errorf("%s: got %s %s %q after %s; want %s %s after %s", row.name, code, info.GetReason(), info.GetDomain(), after, row.code, row.reason, row.after)
		}
		if strings.Contains(err.Error(), "disk 7") {
			t.Errorf("%s: the caller sees the cause: %v", row.name, err)
		}
	}
	if Status(nil) != nil {
		t.Error("no error became one")
	}
	_, info, _ := parts(t, Status(&chains.DecodeError{Code: chains.CodeForm, Message: "m", Offset: 3}))
	if got := info.GetMetadata(); got["code"] != "form" || got["offset"] != "3" {
		t.Errorf("decode error: metadata %v", got)
	}
}

func TestStatusIsBounded(t *testing.T) {
	r := refusal.New(refusal.PolicyDenied, "%s", "line\x1b[31m\n\xff"+strings.Repeat("m", 5000))
	r.With("rule", strings.Repeat("r", 5000)).With("Bad", "x").With("b", "x").With("has space", "x").With("good-Key_1", "a\nb")
	for i := range 40 {
		r.With(fmt.Sprintf("z%d", i), "v")
	}
	err := Status(r)
	if msg := status.Convert(err).Message(); len(msg) > maxMessage || strings.ContainsAny(msg, "\x1b\n") {
		t.Errorf("message of %d bytes: %.40q", len(msg), msg)
	}
	_, info, _ := parts(t, err)
	md := info.GetMetadata()
	if len(md) != maxDetails || len(md["rule"]) > maxDetail || md["good-Key_1"] != "a b" {
		t.Errorf("%d details: %.100v", len(md), md)
	}
	for _, bad := range []string{"Bad", "b", "has space"} {
		if _, ok := md[bad]; ok {
			t.Errorf("key %q was sent", bad)
		}
	}
}
