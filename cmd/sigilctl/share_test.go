package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/internal/testvendor"
)

// side is one of two appliances on this machine: provider or developer.
type side struct {
	place
	t      *testing.T
	bot    bot
	root   *client.Client
	owner  *client.Client
	daemon *daemon
}

func newSide(t *testing.T) *side { return sideAt(t, newPlace(t)) }

// sideAt starts an initialised appliance as one of the two.
func sideAt(t *testing.T, p place) *side {
	t.Helper()
	s := &side{place: p, t: t}
	var err error
	if s.bot, err = readBot(s.path("bot.json")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.path("sigild.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("sigild.yaml", strings.Replace(string(text), "roles:\n", fmt.Sprintf("roles:\n  courier: {uids: [%d]}\n", os.Geteuid()), 1))
	s.daemon = startFor(t, s.place)
	c, err := client.Dial(s.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for name, to := range map[string]**client.Client{"treasurer.key": &s.root, "owner.key": &s.owner} {
		k, err := credential.LoadKey(s.path(name))
		if err != nil {
			t.Fatal(err)
		}
		*to = c.WithStamps(s.bot.Organization, k)
	}
	return s
}

func (s *side) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *side) ctl(args ...string) string {
	s.t.Helper()
	out, err := s.sigilctl(append(args, "--organization", s.bot.Organization, "--key", "treasurer.key")...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// unit is `sigild receive` or `sigild deliver`, which may be killed and started again.
type unit struct {
	s    *side
	verb string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func (s *side) unit(verb string) *unit {
	s.t.Helper()
	u := &unit{s: s, verb: verb}
	u.start()
	s.t.Cleanup(func() { u.kill() })
	return u
}

func (u *unit) start() {
	u.s.t.Helper()
	u.cmd = command(u.s.dir, "sigild", u.verb, "--config", u.verb+".yaml")
	u.cmd.Stderr = &u.log
	if err := startMortal(u.cmd); err != nil {
		u.s.t.Fatal(err)
	}
}

func (u *unit) kill() {
	_ = u.cmd.Process.Kill()
	_ = u.cmd.Wait()
}

// restart kills the daemon and starts it again.
func (s *side) restart() {
	s.t.Helper()
	_ = s.daemon.cmd.Process.Kill()
	_ = s.daemon.cmd.Wait()
	s.daemon = startFor(s.t, s.place)
}

// certificate writes a certificate for localhost and its key.
func (s *side) certificate() {
	s.t.Helper()
	certificate, key, err := testvendor.Localhost()
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("tls.pem", string(certificate))
	s.write("tls.key", string(key))
}

// connect makes developer a receiver of provider's delegations, over HTTPS, and
// returns the endpoint and the two units. more goes into the endpoint's registration.
func connect(t *testing.T, provider, developer *side, more ...string) (endpoint string, receive, deliver *unit) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	developer.certificate()
	developer.write("receive.yaml", fmt.Sprintf("daemon: %s\nlisten: %s\ncertificate: %s\nkey: %s\n", developer.path("app.sock"), address, developer.path("tls.pem"), developer.path("tls.key")))
	developer.write("hook.secret", "whsec_of_two_appliances\n")
	out := developer.ctl("webhook", "register", "--environment", "env-1", "--secret-file", "hook.secret")
	hook := strings.Fields(out)[1]
	receive = developer.unit("receive")

	provider.write("deliver.yaml", fmt.Sprintf("daemon: %s\nroots: %s\n", provider.path("app.sock"), developer.path("tls.pem")))
	provider.write("developer.pem", out[strings.Index(out, "-----BEGIN"):])
	provider.write("hook.secret", "whsec_of_two_appliances\n")
	_, port, _ := net.SplitHostPort(address)
	out = provider.ctl(append([]string{"endpoint", "register", "--name", "developer", "--url", "https://localhost:" + port + "/webhooks/" + hook, "--environment", "env-1",
		"--secret-file", "hook.secret", "--public-key", "developer.pem"}, more...)...)
	fields := strings.Fields(out)
	endpoint, key := fields[1], strings.TrimSuffix(fields[3], ",")
	if _, err := provider.sigilctl("endpoint", "key", endpoint, "--activate", key, "--organization", provider.bot.Organization, "--key", "treasurer.key"); err == nil {
		t.Error("a key was activated before a ping arrived")
	}
	deliver = provider.unit("deliver")
	provider.ctl("endpoint", "ping", endpoint)
	err = poll(30*time.Second, func(context.Context) error {
		_, err := provider.sigilctl("endpoint", "key", endpoint, "--activate", key, "--organization", provider.bot.Organization, "--key", "treasurer.key")
		return err
	})
	if err != nil {
		t.Fatalf("%v\ndeliver:\n%s\nreceive:\n%s", err, &deliver.log, &receive.log)
	}
	return endpoint, receive, deliver
}

// delegate has the provider's owner delegate their wallet to whoever is behind the endpoint.
func (s *side) delegate(id, endpoint string) string {
	s.t.Helper()
	condition := "solana.tx.transfers.count() == 1"
	var made *sigilv1.CreateDelegationResponse
	err := poll(30*time.Second, func(ctx context.Context) (err error) {
		made, err = s.owner.Delegations().CreateDelegation(ctx, &sigilv1.CreateDelegationRequest{
			RequestId: id, OrganizationId: s.bot.Organization, WalletId: s.bot.Wallet, DelegatedUserId: s.bot.User, EndpointId: &endpoint,
			Policies: []*sigilv1.Policy{{Name: "payouts", Effect: sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW, Condition: &condition}},
		})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return made.GetDelegationId()
}

// received maps the delegations that were delivered to what became of them.
func (s *side) received() map[string]string {
	s.t.Helper()
	out := map[string]string{}
	var list *sigilv1.ListDeliveriesResponse
	err := poll(30*time.Second, func(ctx context.Context) (err error) {
		list, err = s.root.Deliveries().ListDeliveries(ctx, &sigilv1.ListDeliveriesRequest{OrganizationId: s.bot.Organization})
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, d := range list.GetDeliveries() {
		if have, twice := out[d.GetVendorShareSetId()]; twice {
			s.t.Errorf("%s is there twice, %s and %s", d.GetVendorShareSetId(), have, d.GetStatus())
		}
		out[d.GetVendorShareSetId()] = strings.ToLower(strings.TrimPrefix(d.GetStatus().String(), "DELIVERY_STATUS_"))
	}
	return out
}

// A delegation is made at a provider, delivered to a developer's appliance over
// HTTPS, and ended there; every process is killed meanwhile. Nothing is lost or doubled.
func TestDelegationsAreDeliveredOverHTTPS(t *testing.T) {
	becomeScratch(t)
	provider, developer := newSide(t), newSide(t)
	endpoint, receive, deliver := connect(t, provider, developer)
	want := map[string]string{}
	var ids []string
	for i := range 8 {
		switch i {
		case 1:
			deliver.kill()
		case 2:
			deliver.start()
			receive.kill()
		case 3:
			receive.start()
			developer.restart()
		case 4:
			provider.restart()
		case 5:
			deliver.kill()
			deliver.start()
		}
		id := provider.delegate(fmt.Sprint("delegation-", i), endpoint)
		ids = append(ids, id)
		want[id] = "pending"
	}
	settle := func(what string) {
		t.Helper()
		err := poll(60*time.Second, func(context.Context) error {
			provider.ctl("endpoint", "redeliver", endpoint) // no test waits for a quarter of a minute
			got := developer.received()
			status, err := provider.owner.DelegatedAccess().ListDelegations(t.Context(), &sigilv1.ListDelegationsRequest{OrganizationId: provider.bot.Organization})
			if err != nil {
				return err
			}
			failed := map[string]bool{}
			for _, d := range status.GetDelegations() {
				failed[d.GetDelegationId()] = d.GetStatus() == sigilv1.DelegationStatus_DELEGATION_STATUS_FAILED
			}
			for id, status := range want {
				if failed[id] { // its ceremony was killed with the daemon
					status = ""
				}
				if got[id] != status {
					return fmt.Errorf("%s: %s is %q at the developer's, want %q", what, id, got[id], status)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%v\ndeliver:\n%s\nreceive:\n%s", err, &deliver.log, &receive.log)
		}
	}
	settle("made")
	// What is delivered signs at neither side alone.
	if out := provider.ctl("delegation", "show", ids[7]); !strings.Contains(out, "active") {
		t.Errorf("shown as\n%s", out)
	}
	for i, id := range ids[5:] {
		if i == 1 {
			deliver.kill()
		}
		provider.ctl("delegation", "revoke", id)
		want[id] = "revoked"
	}
	deliver.start()
	settle("revoked")
	for _, s := range []*side{provider, developer} {
		if err := s.daemon.stop(); err != nil {
			t.Error(err)
		}
		if out, err := s.sigilctl("audit", "verify"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// What isn't the vendor's is refused in the same words, and what is too long or slow
// isn't read to the end.
func TestReceiverRefuses(t *testing.T) {
	becomeScratch(t)
	developer, provider := newSide(t), newSide(t)
	_, receive, _ := connect(t, provider, developer)
	text, err := os.ReadFile(developer.path("receive.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var address string
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "listen: ") {
			address = strings.TrimSpace(strings.TrimPrefix(line, "listen: "))
		}
	}
	_, port, _ := net.SplitHostPort(address)
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(developer.path("tls.pem"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatal(err)
	}
	c := httpsClient(roots)
	defer c.CloseIdleConnections()
	out, err := provider.sigilctl("endpoint", "list", "--organization", provider.bot.Organization, "--key", "treasurer.key")
	if err != nil {
		t.Fatal(err)
	}
	hook := out[strings.Index(out, "/webhooks/whk_"):][:40]
	hook = strings.Fields(hook)[0]
	said := map[string]bool{}
	for name, r := range map[string]struct {
		method, path, body string
		signatures         []string
		want               int
	}{
		"no signature":       {"POST", hook, `{"eventName":"ping"}`, nil, 403},
		"a wrong one":        {"POST", hook, `{"eventName":"ping"}`, []string{"sha256=" + strings.Repeat("0", 64)}, 403},
		"two":                {"POST", hook, `{"eventName":"ping"}`, []string{"a", "b"}, 403},
		"an unknown webhook": {"POST", "/webhooks/whk_none", `{"eventName":"ping"}`, []string{"sha256=" + strings.Repeat("0", 64)}, 403},
		"no JSON":            {"POST", hook, `}`, []string{"sha256=" + strings.Repeat("0", 64)}, 403},
		"another path":       {"POST", "/", `{}`, nil, 404},
		"a longer path":      {"POST", hook + "/x", `{}`, nil, 404},
		"a GET":              {"GET", hook, "", nil, 405},
		"too long":           {"POST", hook, strings.Repeat("a", 65<<10), nil, 413},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, "https://localhost:"+port+r.path, strings.NewReader(r.body))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range r.signatures {
			req.Header.Add("x-dynamic-signature-256", s)
		}
		answer, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, &receive.log)
		}
		var body bytes.Buffer
		_, _ = body.ReadFrom(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != r.want {
			t.Errorf("%s: %d %s, want %d", name, answer.StatusCode, &body, r.want)
		}
		if r.want == 403 {
			said[body.String()] = true
		}
	}
	if len(said) != 1 {
		t.Errorf("refusals say %d different things: %v", len(said), said)
	}
}

func httpsClient(roots *x509.CertPool) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
}
