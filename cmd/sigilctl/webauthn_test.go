package main_test

import (
	"encoding/base64"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/sigild/sigild/credential/authenticator"
)

// A passkey becomes a credential of an end user: what the page says, the proof, and the
// registration by a credential that she has.
func TestPasskeyIsRegistered(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	startFor(t, p)
	d, err := authenticator.New()
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string) func([]byte, error) {
		return func(text []byte, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p.path(name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("registration")(d.Register([]byte("asked")))
	made := func(verb string, more ...string) []string {
		return append([]string{"credential", "webauthn", verb, "--registration", "registration", "--rp-id", d.ID, "--origin", d.Origins[0], "--name", "phone"}, more...)
	}
	refused := func(text string, args []string) {
		t.Helper()
		if out, err := p.sigilctl(args...); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v %s, want %q", args, err, out, text)
		}
	}
	challenge := base64.RawURLEncoding.EncodeToString([]byte("asked"))
	refused("another challenge", made("challenge", "--registration-challenge", "AAAA"))
	refused("base64url", made("challenge", "--registration-challenge", "?"))
	refused("only users", made("challenge", "--purpose", "operator"))
	refused("is not of this credential", []string{"credential", "webauthn", "challenge", "--registration", "registration", "--rp-id", d.ID, "--origin", "https://other." + d.ID, "--name", "phone"})
	out, err := p.sigilctl(made("challenge", "--registration-challenge", challenge)...)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^challenge +(\S+)$`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("no challenge in\n%s", out)
	}
	proof, err := base64.RawURLEncoding.DecodeString(found[1])
	if err != nil {
		t.Fatal(err)
	}
	write("assertion")(d.AssertResponse([]byte("something else")))
	refused("does not verify", made("accept", "--assertion", "assertion", "--out", "phone.json"))
	write("assertion")(d.AssertResponse(proof))
	refused("does not verify", made("accept", "--purpose", "delegated-user", "--assertion", "assertion", "--out", "phone.json"))
	if _, err := p.sigilctl(made("accept", "--assertion", "assertion", "--out", "phone.json")...); err != nil {
		t.Fatal(err)
	}
	add := []string{"--organization", b.Organization, "--user", b.Owner, "--credential", "phone.json"}
	refused("QUORUM_MISSING", append([]string{"member", "add", "--key", "treasurer.key"}, add...))
	out = p.must(t, b, "member add", "--user", b.Owner, "--credential", "phone.json", "--unused-alarm", "720h", "--key", "owner.key")
	if !strings.HasPrefix(out, "credential  crd_") {
		t.Errorf("member add says %q", out)
	}
	if out := p.must(t, b, "member list", "--key", "owner.key"); !strings.Contains(out, "  phone  webauthn_p256") {
		t.Errorf("member list says\n%s", out)
	}
	refused("registered with this organization already", append([]string{"member", "add", "--key", "owner.key"}, add...))
}
