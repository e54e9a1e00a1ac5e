package metrics

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const want = `# HELP sigild_sealed Whether the store is sealed.
# TYPE sigild_sealed gauge
sigild_sealed 1
# HELP sigild_calls_total Calls.
# TYPE sigild_calls_total counter
sigild_calls_total{method="a\"b\\c\nd",reason="OK"} 3
sigild_calls_total{method="e",reason="PAUSED"} 18014398509481984
# HELP sigild_load A number.
# TYPE sigild_load gauge
sigild_load 0.25
`

func fill(p *Page) {
	p.Flag("sigild_sealed", "Whether the store is sealed.", true)
	p.Counter("sigild_calls_total", "Calls.", 3, "method", "a\"b\\c\nd", "reason", "OK")
	p.Gauge("sigild_load", "A number.", 0.25)
	p.Counter("sigild_calls_total", "Calls.", 1<<54, "method", "e", "reason", "PAUSED")
}

func TestPage(t *testing.T) {
	var got strings.Builder
	if _, err := page(fill).WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	if text := strings.ReplaceAll(got.String(), "1.8014398509481984e+16", "18014398509481984"); text != want {
		t.Errorf("the page is\n%s\nwant\n%s", text, want)
	}
}

func TestHistogram(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{0, Bounds[0], Bounds[0] + 1, time.Second, time.Hour} {
		h.Observe(d)
	}
	var p Page
	p.Histogram("sigild_call_seconds", "How long.", &h, "method", "m")
	var got strings.Builder
	if _, err := p.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`sigild_call_seconds_bucket{method="m",le="0.0005"} 2`, `sigild_call_seconds_bucket{method="m",le="0.001"} 3`,
		`sigild_call_seconds_bucket{method="m",le="1"} 4`, `sigild_call_seconds_bucket{method="m",le="20"} 4`,
		`sigild_call_seconds_bucket{method="m",le="+Inf"} 5`, `sigild_call_seconds_count{method="m"} 5`, "# TYPE sigild_call_seconds histogram",
	} {
		if !strings.Contains(got.String(), line+"\n") {
			t.Errorf("%q is missing in\n%s", line, got.String())
		}
	}
}

// A tenant can't become a label, by no mistake.
func TestWhatIsRefused(t *testing.T) {
	for what, f := range map[string]func(*Page){
		"a wallet as a label":   func(p *Page) { p.Gauge("sigild_x", "X.", 1, "wallet", "wal_1") },
		"another prefix":        func(p *Page) { p.Gauge("go_goroutines", "X.", 1) },
		"no help":               func(p *Page) { p.Gauge("sigild_x", "", 1) },
		"half a label":          func(p *Page) { p.Gauge("sigild_x", "X.", 1, strings.Fields("kind")...) },
		"a counter's name":      func(p *Page) { p.Counter("sigild_x", "X.", 1) },
		"a histogram's name":    func(p *Page) { p.Histogram("sigild_x", "X.", new(Histogram)) },
		"a bucket of one's own": func(p *Page) { p.Gauge("sigild_x", "X.", 1, "le", "1") },
		"two kinds":             func(p *Page) { p.Gauge("sigild_x_total", "X.", 1); p.Counter("sigild_x_total", "X.", 1) },
	} {
		t.Run(what, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("was taken")
				}
			}()
			f(new(Page))
		})
	}
}

func TestServe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Serve(ctx, l, fill) }()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	ask := func(method, target string) (int, string, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, "http://sigild"+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, answer.Header.Get("Content-Type"), string(b)
	}
	for range 3 * maxConnections { // places are given back
		if code, kind, text := ask("GET", "/metrics"); code != 200 || kind != ContentType || !strings.Contains(text, "sigild_sealed 1") {
			t.Fatalf("%d %s\n%s", code, kind, text)
		}
	}
	if code, _, _ := ask("GET", "/debug/pprof"); code != 404 {
		t.Errorf("another path: %d", code)
	}
	if code, _, _ := ask("POST", "/metrics"); code != 405 {
		t.Errorf("another method: %d", code)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	// A socket that fails is an error.
	l, err = net.Listen("unix", path+"2")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := Serve(t.Context(), l, fill); err == nil {
		t.Error("a closed socket was served")
	}
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sigild.prom")
	for range 2 {
		if err := WriteFile(path, fill); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(b), "# HELP sigild_sealed") {
		t.Errorf("%q, %v", b, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
	if err := WriteFile(filepath.Join(dir, "none", "x.prom"), fill); err == nil {
		t.Error("wrote into a folder that is not there")
	}
}
