package courier

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// Bounds of the deliverer.
const (
	postWithin = 15 * time.Second
	atOnce     = 8
)

// Deliverer posts what waits in the daemon's outbox.
type Deliverer struct {
	// Courier is the daemon.
	Courier sigilv1.CourierServiceClient
	// Roots vouch for endpoints besides the system's; nil: the system's alone.
	Roots *x509.CertPool
	// PublicOnly refuses endpoints whose name leads to a private address or to this host.
	// Link-local ones, where clouds keep their secrets, are refused always.
	PublicOnly bool
	// Every is how often it looks; zero means a second.
	Every time.Duration
	Log   *slog.Logger
}

// Run posts until ctx ends; what is under way then is finished. A daemon that is
// away or sealed is asked again.
func (d *Deliverer) Run(ctx context.Context) error {
	every := d.Every
	if every == 0 {
		every = time.Second
	}
	post := d.client()
	defer post.CloseIdleConnections()
	said := ""
	for {
		n, err := d.round(context.WithoutCancel(ctx), post)
		if err != nil && err.Error() != said {
			said = err.Error()
			d.Log.Error("taking events", "error", err)
		}
		if n > 0 && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

func (d *Deliverer) client() *http.Client {
	return &http.Client{
		Timeout:       postWithin,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: d.Roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			DialContext: (&net.Dialer{Timeout: 5 * time.Second, ControlContext: d.control}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
			MaxResponseHeaderBytes: maxHeader, MaxConnsPerHost: atOnce, IdleConnTimeout: 30 * time.Second,
		},
	}
}

// ErrAddress: the endpoint's name leads where nothing is posted.
var ErrAddress = errors.New("nothing is posted to this address")

// control judges the address that a name has come to, at the very connection, so that a
// name that leads elsewhere the second time gains nothing.
func (d *Deliverer) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := to.Addr().Unmap().WithZone("")
	switch {
	case ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || ip == broadcast:
	case d.PublicOnly && (ip.IsLoopback() || ip.IsPrivate() || shared.Contains(ip)):
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", ErrAddress, ip)
}

var (
	broadcast = netip.MustParseAddr("255.255.255.255")
	shared    = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
)

// round takes what is due, posts it and reports.
func (d *Deliverer) round(ctx context.Context, post *http.Client) (int, error) {
	take, cancel := context.WithTimeout(ctx, callWithin)
	due, err := d.Courier.TakeEvents(take, &sigilv1.TakeEventsRequest{Most: atOnce})
	cancel()
	if err != nil {
		return 0, err
	}
	var all sync.WaitGroup
	for _, e := range due.GetEvents() {
		all.Go(func() {
			code, err := d.post(ctx, post, e)
			report := &sigilv1.ReportEventRequest{EventId: e.GetEventId(), HttpStatus: uint32(code)}
			if err != nil {
				report.Why = clip(err.Error(), 120)
			}
			d.Log.Info("event", "event", e.GetEventId(), "url", e.GetUrl(), "status", code, "error", err)
			ctx, cancel := context.WithTimeout(ctx, callWithin)
			defer cancel()
			if _, err := d.Courier.ReportEvent(ctx, report); err != nil {
				d.Log.Error("reporting an event; it will be delivered again", "event", e.GetEventId(), "error", err)
			}
		})
	}
	all.Wait()
	return len(due.GetEvents()), nil
}

// post returns the status of the answer.
func (d *Deliverer) post(ctx context.Context, post *http.Client, e *sigilv1.DueEvent) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.GetUrl(), bytes.NewReader(e.GetBody()))
	if err != nil {
		return 0, err
	}
	if req.URL.Scheme != "https" {
		return 0, errors.New("the endpoint is not https")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sigild")
	req.Header.Set(SignatureHeader, e.GetSignature())
	answer, err := post.Do(req)
	if err != nil {
		return 0, fmt.Errorf("posting: %w", err)
	}
	_, _ = io.CopyN(io.Discard, answer.Body, maxHeader)
	_ = answer.Body.Close()
	return answer.StatusCode, nil
}

func clip(s string, most int) string { return s[:min(len(s), most)] }

// onceFlag is true once.
type onceFlag struct{ done atomic.Bool }

func (o *onceFlag) first() bool { return !o.done.Swap(true) }
