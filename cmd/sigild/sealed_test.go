package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Each reason to stay sealed is a line that says what to do, in the words of
// docs/operating.md, and still says what the device said.
func TestReasonsToStaySealed(t *testing.T) {
	manual, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		err          error
		words, doing string
	}{
		{seal.ErrLatched, "a wrong PIN is latched", "sigilctl pin clear"},
		{seal.ErrAuth, "sealing device refused the PIN", "sigilctl pin clear"},
		{seal.ErrLocked, "sealing device has locked the PIN", "its security officer"},
		{seal.ErrNotFound, "no such token or key", "connect it"},
		{seal.ErrUnavailable, "sealing device unavailable", "look at the device"},
		{seal.ErrAmbiguous, "more than one token or key matches", ""},
		{seal.ErrPolicy, "violates the sealing policy", ""},
		{vault.ErrNoKeyslot, "no keyslot for the providers at hand", ""},
		{vault.ErrTampered, "vault was changed from outside", "copy the state directory aside"},
	} {
		got := reason(errors.Join(fmt.Errorf("opening the HSM: CKR_X: %w", test.err), errors.New("and then")))
		if !strings.Contains(got, test.words) || !strings.Contains(got, test.doing) {
			t.Errorf("%v: %q, want %q and %q in it", test.err, got, test.words, test.doing)
		}
		if strings.ContainsAny(got, "\r\n") {
			t.Errorf("%v: %q has more than a line", test.err, got)
		}
		if !strings.Contains(string(manual), "`"+test.words+"`") {
			t.Errorf("docs/operating.md has no row for %q", test.words)
		}
	}
}

func TestComplaints(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("opening x: no"), "sigild: opening x: no\n"},
		{errors.New("a; hint: do b"), "sigild: a\nhint: do b\n"},
		{errors.Join(errors.New("a; hint: do b"), errors.New("c")), "sigild: a\nhint: do b\nsigild: c\n"},
		{fmt.Errorf("opening: %w", vault.ErrTampered), "sigild: opening: vault was changed from outside\nhint: " + evidence + "\n"},
		{fmt.Errorf("a: %w; hint: do b", vault.ErrTampered), "sigild: a: vault was changed from outside\nhint: do b\n"},
		{fmt.Errorf("reading: %w", fs.ErrPermission), fmt.Sprintf("sigild: reading: permission denied\nhint: this is uid %d; start sigild as the user that owns its state\n", os.Geteuid())},
	} {
		var got strings.Builder
		complain(&got, test.err)
		if got.String() != test.want {
			t.Errorf("got %q, want %q", got.String(), test.want)
		}
	}
}
