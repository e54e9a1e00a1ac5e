package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// complain prints what happened, each line under our name, then what to do: the
// hints that the rooms wrote into the error, or the one we know.
func complain(w io.Writer, err error) {
	advice := hintFor(err)
	for line := range strings.Lines(err.Error()) {
		what, hint, hinted := strings.Cut(strings.TrimSpace(line), "; hint: ")
		fmt.Fprintln(w, "sigilctl:", what)
		if hinted {
			fmt.Fprintln(w, "hint:", hint)
			advice = ""
		}
	}
	if advice != "" {
		fmt.Fprintln(w, "hint:", advice)
	}
}

// hintFor says what to do about an error, in a line; "" when its text says enough.
func hintFor(err error) string {
	var h hinted
	var broken *journal.VerifyError
	var segment *journal.SegmentError
	switch {
	case errors.As(err, &h):
		return h.hint
	case errors.Is(err, seal.ErrLatched), errors.Is(err, seal.ErrAuth):
		return "correct the PIN file, then run sigilctl pin clear; nothing is tried before that"
	case errors.Is(err, seal.ErrAmbiguous):
		return "set token_serial as well as token_label"
	case errors.Is(err, seal.ErrNotFound):
		return "look at the token with pkcs11-tool --list-token-slots; token_label, token_serial and env must lead to it"
	case errors.Is(err, vault.ErrInUse):
		return "stop the daemon first"
	case errors.As(err, &broken):
		return "copy the state directory aside before anything else: it is evidence; the entries before that one still hold"
	case errors.As(err, &segment):
		return "segments follow one another without a gap and end with the device's signature; compare the file with another copy"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("run it as the user that sigild runs as (this is uid %d), or give that user the right", os.Geteuid())
	}
	return ""
}

// unreachable explains why the daemon didn't answer on its socket, or refused.
func unreachable(socket string, err error) error {
	what := fmt.Errorf("asking sigild: %w", err)
	reason := client.Reason(err)
	if reason != "" {
		what = fmt.Errorf("asking sigild: %s: %s", reason, status.Convert(err).Message())
	}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return hinted{what, "sigild does not run, or serves another socket than " + socket}
	case errors.Is(err, fs.ErrPermission):
		return hinted{what, fmt.Sprintf("the socket's mode and group don't let uid %d in", os.Geteuid())}
	case status.Code(err) == codes.DeadlineExceeded:
		return hinted{what, "sigild took the connection and did not answer; look at its log"}
	case reason == "APPROVALS_NEEDED":
		return hinted{what, "have it approved with sigilctl activity approve " + client.Details(err)["activity"] + ", then ask again with the same request id"}
	case reason == "CALLER_NOT_ALLOWED":
		return hinted{what, fmt.Sprintf("give uid %d a role in sigild's configuration, and restart it", os.Geteuid())}
	}
	return what
}
