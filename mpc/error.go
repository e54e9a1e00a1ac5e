package mpc

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Sentinels inside an [*Error]; callers decide with errors.Is.
var (
	// ErrAborted: BeforeRelease refused; no last share left any party.
	ErrAborted = errors.New("signature aborted before release")
	// ErrShare: a share is malformed, changed, or not of this set.
	ErrShare = errors.New("share refused")
	// ErrInput: what was to be signed is out of range for its scheme.
	ErrInput = errors.New("input refused")
	// ErrSignature: the parties agreed on a signature that does not verify.
	ErrSignature = errors.New("signature does not verify")
	// ErrProtocol: a party broke the protocol, or crashed the engine; see Culprits.
	ErrProtocol = errors.New("protocol failed")
	// ErrSilent: parties did not answer in time; see Culprits.
	ErrSilent = errors.New("no message within the round's deadline")
	// ErrEngine: the engine that is named, or that the scheme needs, is not built in.
	ErrEngine = errors.New("no such engine")
)

// Error is what every failed ceremony returns.
type Error struct {
	// Op is "keygen", "import", "issue", "rotate" or "sign".
	Op string
	// Culprits are the parties that misbehaved or were silent, as far as one
	// honest party can tell; empty when nobody can be named. With more than two
	// parties a crash is laid on the sender of the message that was handled.
	Culprits []Party
	// LastShareSent: BeforeRelease had returned nil, so a last share may have left
	// a party and somebody may hold the signature. The charge must stand. When
	// false, no signature can exist.
	LastShareSent bool
	Err           error
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "running %s: %v", e.Op, e.Err)
	if len(e.Culprits) > 0 {
		fmt.Fprintf(&b, " (culprits %v)", e.Culprits)
	}
	return b.String()
}

func (e *Error) Unwrap() error { return e.Err }

// Broken says that a party broke the protocol or crashed the engine, or that what
// the parties agreed on is no signature: such failures are to be counted. Silence,
// refusals, damaged shares and cancelled calls are not.
func (e *Error) Broken() bool {
	return errors.Is(e.Err, ErrProtocol) || errors.Is(e.Err, ErrSignature)
}

// Blame is what an [Engine] returns when it can name culprits.
type Blame struct {
	Culprits []Member
	Err      error
}

func (b *Blame) Error() string { return b.Err.Error() }

func (b *Blame) Unwrap() error { return b.Err }

// failed makes the public error of a ceremony.
func failed(op string, err error, lastShareSent bool) *Error {
	e := &Error{Op: op, Err: err, LastShareSent: lastShareSent}
	var inner *Error // a test signature of keygen or issue
	if errors.As(err, &inner) {
		e.Culprits = inner.Culprits
	}
	var b *Blame
	if errors.As(err, &b) {
		for _, m := range b.Culprits {
			if !slices.Contains(e.Culprits, m.Party) {
				e.Culprits = append(e.Culprits, m.Party)
			}
		}
		slices.Sort(e.Culprits)
	}
	return e
}
