package main_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sigild/sigild/client"
)

// scrape reads the metrics socket as Prometheus would.
func scrape(ctx context.Context, socket string) (string, error) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sigild/metrics", nil)
	if err != nil {
		return "", err
	}
	answer, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, b)
	}
	return string(b), err
}

// value is a sample's.
func value(page, sample string) string {
	for line := range strings.Lines(page) {
		if v, ok := strings.CutPrefix(line, sample+" "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// A running daemon's page: what it counts is right, names nobody, and is in the manual;
// the file has the same.
func TestMetrics(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	more := fmt.Sprintf("metrics: {socket: {path: %s, mode: \"0600\"}, textfile: %s}\n", p.path("metrics.sock"), p.path("sigild.prom"))
	config, err := os.ReadFile(p.path("sigild.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.path("sigild.yaml"), append(config, more...), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startFor(t, p)
	c, err := client.Dial(p.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for i := range 3 {
		if _, err := b.ask(c.WithAPIKey(b.APIKey), acknowledged{ID: fmt.Sprint("m", i), Lamports: uint64(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	wrong := append([]byte{}, b.APIKey...)
	wrong[len(wrong)-2] ^= 1
	if _, err := b.ask(c.WithAPIKey(wrong), acknowledged{ID: "wrong", Lamports: 1}); err == nil {
		t.Fatal("a wrong API key signed")
	}
	page, err := scrape(t.Context(), p.path("metrics.sock"))
	if err != nil {
		t.Fatal(err)
	}
	const sign = `{method="/sigil.v1.SigningService/Sign"`
	for sample, want := range map[string]string{
		`sigild_sealed`: "0", `sigild_unwritable`: "0", `sigild_keys`: "1", `sigild_anchor{kind="none"}`: "1", `sigild_theft_devices`: "1",
		`sigild_calls_total` + sign + `,reason="OK"}`:              "3",
		`sigild_calls_total` + sign + `,reason="API_KEY_INVALID"}`: "1",
		`sigild_call_seconds_count` + sign + `}`:                   "4",
		`sigild_device_up{device="provider"}`:                      "1",
	} {
		if got := value(page, sample); got != want {
			t.Errorf("%s is %q, want %s", sample, got, want)
		}
	}
	for _, secret := range []string{b.Wallet, b.Organization, b.Owner, "wal_", "org_", "sgk_"} {
		if strings.Contains(page, secret) {
			t.Errorf("the page names %s", secret)
		}
	}
	file, err := os.ReadFile(p.path("sigild.prom"))
	if err != nil || value(string(file), "sigild_sealed") == "" {
		t.Errorf("the file: %q, %v", file, err)
	}
	inTheManual(t, page)
	underPromtool(t, page)

	// Sealed, the page is there all the same.
	if _, err := p.sigilctl("seal", "--reason", "test", "--key", "alice.key"); err != nil {
		t.Fatal(err)
	}
	if page, err = scrape(t.Context(), p.path("metrics.sock")); err != nil || value(page, "sigild_sealed") != "1" || value(page, "sigild_records") != "" {
		t.Errorf("sealed: %v\n%s", err, page)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(p.path("metrics.sock")); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

// underPromtool has Prometheus' own tool judge the page and the example alerts.
func underPromtool(t *testing.T, page string) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		if program, err = filepath.Abs("../../bin/promtool"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		in   string
		args []string
	}{
		{in: page, args: []string{"check", "metrics"}},
		{args: []string{"check", "rules", "--lint=all", "--lint-fatal", "../../packaging/prometheus-rules.yml"}},
	} {
		cmd := exec.Command(program, c.args...)
		cmd.Stdin = strings.NewReader(c.in)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s\nhint: scripts/prelude.sh test puts promtool into bin/", c.args, err, out)
		}
	}
}

// inTheManual holds the page, the manual and the example alerts together.
func inTheManual(t *testing.T, page string) {
	t.Helper()
	manual, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, f := range []string{"../sigild/gauges.go", "../../server/counts.go"} {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(b)
	}
	listed := map[string]bool{}
	for line := range strings.Lines(string(manual)) {
		if strings.HasPrefix(line, "| `sigild_") {
			for _, m := range regexp.MustCompile("`(sigild_[a-z_]+)`").FindAllStringSubmatch(line, -1) {
				listed[m[1]] = true
				if !strings.Contains(source.String(), `"`+m[1]+`"`) {
					t.Errorf("the manual lists %s, which nothing counts", m[1])
				}
			}
		}
	}
	for _, m := range regexp.MustCompile(`"(sigild_[a-z_]+)"`).FindAllStringSubmatch(source.String(), -1) {
		if !listed[m[1]] {
			t.Errorf("%s is not in the manual", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(page, -1) {
		if !listed[m[1]] {
			t.Errorf("%s is on the page and not in the manual", m[1])
		}
	}
	text, err := os.ReadFile("../../packaging/prometheus-rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil || len(rules.Groups) != 1 || len(rules.Groups[0].Rules) < 12 {
		t.Fatalf("alerts %+v, %v", rules, err)
	}
	for _, r := range rules.Groups[0].Rules {
		if !strings.Contains(string(manual), "`"+r.Alert+"`") {
			t.Errorf("alert %s is not in the manual", r.Alert)
		}
		for _, name := range regexp.MustCompile(`sigild_[a-z_]+`).FindAllString(r.Expr, -1) {
			if !listed[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("alert %s asks for %s, which there is not", r.Alert, name)
			}
		}
	}
}
