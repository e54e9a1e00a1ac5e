package courier

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// The schedule of tries is the outbox's, and tested there; the deliverer posts what it is
// given, once, and reports.

// endpoint is somebody's server, and a deliverer that believes its certificate.
func endpoint(t *testing.T, h http.HandlerFunc, change ...func(*httptest.Server)) (string, *Deliverer) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	for _, c := range change {
		c(s)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s.URL, &Deliverer{Roots: roots, Log: slog.New(slog.DiscardHandler)}
}

func (d *Deliverer) postOnce(t *testing.T, url string) (int, error) {
	t.Helper()
	c := d.client()
	defer c.CloseIdleConnections()
	return d.post(t.Context(), c, &sigilv1.DueEvent{EventId: "evt_1", Url: url, Body: []byte(`{"a":1}`), Signature: "sha256=aa"})
}

func TestDelivererPostsAndReportsTheStatus(t *testing.T) {
	var got atomic.Value
	var code atomic.Int32
	url, d := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got.Store(r.Method + " " + r.URL.Path + " " + r.Header.Get(SignatureHeader) + " " + string(b))
		w.Header().Set("Retry-After", "86400")
		w.WriteHeader(int(code.Load()))
	})
	for _, want := range []int{200, 204, 400, 429, 503} {
		code.Store(int32(want))
		if status, err := d.postOnce(t, url+"/hook"); status != want || err != nil {
			t.Errorf("%d, %v, want %d", status, err, want)
		}
		if got.Load() != `POST /hook sha256=aa {"a":1}` {
			t.Errorf("it posted %v", got.Load())
		}
	}
}

func TestDelivererFollowsNoRedirect(t *testing.T) {
	var followed atomic.Bool
	url, d := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			followed.Store(true)
			return
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	if status, err := d.postOnce(t, url); status != 307 || err != nil || followed.Load() {
		t.Errorf("%d, %v, followed %v; want 307 and no more", status, err, followed.Load())
	}
}

func TestDelivererRefusesWhatIsNotTLS(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("posted in the clear") }))
	defer s.Close()
	d := &Deliverer{Log: slog.New(slog.DiscardHandler)}
	if _, err := d.postOnce(t, s.URL); err == nil || !strings.Contains(err.Error(), "not https") {
		t.Errorf("http: %v", err)
	}
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true} {
		url, d := endpoint(t, func(http.ResponseWriter, *http.Request) {}, func(s *httptest.Server) {
			s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version}
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
		})
		if _, err := d.postOnce(t, url); (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
	// Somebody else's certificate.
	url, _ := endpoint(t, func(http.ResponseWriter, *http.Request) { t.Error("posted to a stranger") }, func(s *httptest.Server) {
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	})
	if _, err := d.postOnce(t, url); err == nil {
		t.Error("a certificate that nobody vouches for is believed")
	}
}

// A body without an end is not read to the end, and what an endpoint says goes nowhere.
func TestDelivererReadsNoLongAnswer(t *testing.T) {
	url, d := endpoint(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<10)); err != nil {
				return
			}
		}
	})
	if status, err := d.postOnce(t, url); status != 200 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
	url, d = endpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-A", strings.Repeat("a", 64<<10)) })
	if _, err := d.postOnce(t, url); err == nil {
		t.Error("64 KiB of headers are read")
	}
}

func TestDelivererUsesNoProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	defer proxy.Close()
	t.Setenv("HTTPS_PROXY", proxy.URL)
	d := &Deliverer{Log: slog.New(slog.DiscardHandler)}
	if d.client().Transport.(*http.Transport).Proxy != nil {
		t.Error("there is a proxy")
	}
	url, d := endpoint(t, func(http.ResponseWriter, *http.Request) {})
	if status, err := d.postOnce(t, url); status != 200 || err != nil {
		t.Errorf("%d, %v", status, err)
	}
}

// The address counts that the name has come to.
func TestDelivererRefusesAddresses(t *testing.T) {
	for address, want := range map[string]struct{ usual, public bool }{
		"93.184.216.34": {true, true}, "2606:2800:220:1:248:1893:25c8:1946": {true, true},
		"10.0.0.1": {true, false}, "172.16.0.1": {true, false}, "192.168.1.1": {true, false}, "fd00::1": {true, false}, "100.64.0.1": {true, false},
		"127.0.0.1": {true, false}, "::1": {true, false}, "::ffff:127.0.0.1": {true, false}, "::ffff:10.0.0.1": {true, false},
		"169.254.169.254": {}, "::ffff:169.254.169.254": {}, "fe80::1": {}, "fe80::1%lo": {}, "0.0.0.0": {}, "::": {}, "224.0.0.1": {}, "ff02::1": {}, "255.255.255.255": {},
	} {
		to := netip.AddrPortFrom(netip.MustParseAddr(address), 443).String()
		for public, want := range map[bool]bool{false: want.usual, true: want.public} {
			err := (&Deliverer{PublicOnly: public}).control(t.Context(), "tcp", to, nil)
			if (err == nil) != want || err != nil && !errors.Is(err, ErrAddress) {
				t.Errorf("%s, public only %v: %v", address, public, err)
			}
		}
	}
	var posted atomic.Bool
	url, d := endpoint(t, func(http.ResponseWriter, *http.Request) { posted.Store(true) })
	d.PublicOnly = true
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(url, "https://"))
	for _, to := range []string{url, "https://localhost:" + port, "https://[::ffff:127.0.0.1]:" + port} {
		if _, err := d.postOnce(t, to); !errors.Is(err, ErrAddress) || posted.Load() {
			t.Errorf("%s: %v, want ErrAddress", to, err)
		}
	}
}

// outbox is a daemon whose events wait until they are taken.
type outbox struct {
	sigilv1.CourierServiceClient
	waiting  chan *sigilv1.DueEvent
	reported chan *sigilv1.ReportEventRequest
}

func (o *outbox) TakeEvents(context.Context, *sigilv1.TakeEventsRequest, ...grpc.CallOption) (*sigilv1.TakeEventsResponse, error) {
	select {
	case e := <-o.waiting:
		return &sigilv1.TakeEventsResponse{Events: []*sigilv1.DueEvent{e}}, nil
	default:
		return &sigilv1.TakeEventsResponse{}, nil
	}
}

func (o *outbox) ReportEvent(_ context.Context, in *sigilv1.ReportEventRequest, _ ...grpc.CallOption) (*sigilv1.ReportEventResponse, error) {
	o.reported <- in
	return &sigilv1.ReportEventResponse{}, nil
}

// Each event is posted once for each time that it is taken, and reported, whatever came
// of it; when to try again is the outbox's business, not the endpoint's.
func TestDelivererReportsEachTryOnce(t *testing.T) {
	var posts atomic.Int32
	url, d := endpoint(t, func(w http.ResponseWriter, _ *http.Request) {
		posts.Add(1)
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	o := &outbox{waiting: make(chan *sigilv1.DueEvent, 2), reported: make(chan *sigilv1.ReportEventRequest, 2)}
	d.Courier, d.Every = o, time.Millisecond
	o.waiting <- &sigilv1.DueEvent{EventId: "evt_1", Url: url}
	o.waiting <- &sigilv1.DueEvent{EventId: "evt_2", Url: "https://169.254.169.254/"}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	said := map[string]*sigilv1.ReportEventRequest{}
	for range 2 {
		r := <-o.reported
		said[r.GetEventId()] = r
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if r := said["evt_1"]; r.GetHttpStatus() != 503 || r.GetWhy() != "" || posts.Load() != 1 {
		t.Errorf("reported %v after %d posts", r, posts.Load())
	}
	if r := said["evt_2"]; r.GetHttpStatus() != 0 || !strings.Contains(r.GetWhy(), "nothing is posted to this address") {
		t.Errorf("reported %v", r)
	}
}
