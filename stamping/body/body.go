// Package body reads the bodies of requests to other vendors' APIs, for the
// packages that know one vendor each. What a body asks to sign comes out as a
// payload of one of our kinds; chains then says what that does.
//
// It refuses everything that two readers could take for two things: a member that
// comes twice or that nobody knows, a number where text belongs, bytes after the
// end. Pure: no clock, no network, no state.
package body

import (
	"fmt"
	"time"

	"github.com/sigild/sigild/chains"
)

// MaxBytes bounds a body: a transaction of 128 KiB, the most that nodes take, in hex and its frame.
const MaxBytes = 300 << 10

// Asked is what a body asks the vendor to sign.
type Asked struct {
	// Activity is the vendor's word for it, for people.
	Activity string
	Kind     chains.Kind
	// Payload is of that kind. It has not been decoded.
	Payload []byte
	// At is the time that the body says; zero where bodies say none.
	At time.Time
}

// Code says what is wrong with a body.
type Code string

// The codes, stable.
const (
	// Malformed: not the one form that is read.
	Malformed Code = "malformed"
	// NotSigning: well formed, and no signing activity that is stamped.
	NotSigning Code = "not_signing"
	// NotBound: a signing activity of another organization, key or wallet of the vendor's.
	NotBound Code = "not_bound"
	// NotUnderstood: a signing activity of which it can't be said what would be signed.
	NotUnderstood Code = "not_understood"
	// RawDigest: it asks to sign a bare digest.
	RawDigest Code = "raw_digest"
)

// Error says why a body is refused. It quotes no more of the body than names.
type Error struct {
	Code    Code
	Message string
	// Field is the member it is about; "" for the whole.
	Field string
}

func (e *Error) Error() string {
	if e.Field == "" {
		return fmt.Sprintf("%s: %s", e.Code, e.Message)
	}
	return fmt.Sprintf("%s: %s: %s", e.Code, e.Field, e.Message)
}

// Refuse makes an error about a member.
func Refuse(code Code, field, format string, args ...any) *Error {
	return &Error{Code: code, Field: field, Message: fmt.Sprintf(format, args...)}
}
