package courier

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Bounds of the receiver. A vendor's own limits are far below.
const (
	maxBody     = 64 << 10
	maxHeader   = 8 << 10
	maxUnderWay = 16
	pathPrefix  = "/webhooks/"
)

// bounds are those of one connection, and how many there are.
type bounds struct {
	connections                 int
	headers, whole, answerAfter time.Duration
}

// usual are the receiver's; tests have no time for them.
var usual = bounds{connections: 64, headers: 5 * time.Second, whole: 10 * time.Second, answerAfter: 20 * time.Second}

// Receiver hands deliveries to the daemon.
type Receiver struct {
	// Deliveries is the daemon.
	Deliveries sigilv1.DeliveryServiceClient
	// Certificate is the server's; nil serves plain HTTP, for a proxy on this machine
	// that ends TLS.
	Certificate *tls.Certificate
	Log         *slog.Logger
	// within is usual but in tests.
	within bounds
}

// Serve answers on l until ctx ends, then lets calls under way end.
func (r *Receiver) Serve(ctx context.Context, l net.Listener) error {
	within := r.within
	if within == (bounds{}) {
		within = usual
	}
	srv := &http.Server{
		Handler: r.handler(), ReadHeaderTimeout: within.headers, ReadTimeout: within.whole, WriteTimeout: within.answerAfter,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(r.Log.Handler(), slog.LevelDebug),
	}
	srv.SetKeepAlivesEnabled(false) // who has delivered holds no place
	l = &bounded{Listener: l, places: make(chan struct{}, within.connections)}
	if r.Certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{*r.Certificate}, MinVersion: tls.VersionTLS12})
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("receiving: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), within.answerAfter)
	defer cancel()
	return srv.Shutdown(stop)
}

func (r *Receiver) handler() http.Handler {
	places := make(chan struct{}, maxUnderWay)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		webhook, ok := strings.CutPrefix(req.URL.Path, pathPrefix)
		if !ok || webhook == "" || strings.ContainsRune(webhook, '/') || len(webhook) > 64 {
			http.Error(w, "there is nothing here", http.StatusNotFound)
			return
		}
		if req.Method != http.MethodPost {
			http.Error(w, "POST only", http.StatusMethodNotAllowed)
			return
		}
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default: // the vendor tries again
			http.Error(w, "busy", http.StatusServiceUnavailable)
			return
		}
		r.hand(w, req, webhook)
	})
}

// hand reads one delivery and hands it over, byte for byte.
func (r *Receiver) hand(w http.ResponseWriter, req *http.Request, webhook string) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	var long *http.MaxBytesError
	if errors.As(err, &long) {
		http.Error(w, "too long", http.StatusRequestEntityTooLarge)
		return
	}
	if err != nil {
		http.Error(w, "not read", http.StatusBadRequest)
		return
	}
	in := &sigilv1.IngestDeliveryRequest{WebhookId: webhook, Body: body}
	if signatures := req.Header.Values(SignatureHeader); len(signatures) == 1 {
		in.Signature = signatures[0]
	}
	ctx, cancel := context.WithTimeout(req.Context(), callWithin)
	defer cancel()
	_, err = r.Deliveries.IngestDelivery(ctx, in)
	code := answer(err)
	r.Log.Info("delivery", "webhook", webhook, "bytes", len(body), "answer", code)
	if err != nil {
		http.Error(w, http.StatusText(code), code)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// answer is the HTTP status for what the daemon said: all that is wrong with a
// delivery looks the same, and what may pass is tried again.
func answer(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case slices.Contains([]string{"DELIVERY_INVALID", "REQUEST_INVALID", "NOT_FOUND"}, client.Reason(err)):
		return http.StatusForbidden
	}
	return http.StatusServiceUnavailable
}

// bounded takes no more connections than there are places.
type bounded struct {
	net.Listener
	places chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	b.places <- struct{}{}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.places
		return nil, err
	}
	return &placed{Conn: c, leave: b.places}, nil
}

type placed struct {
	net.Conn
	leave chan struct{}
	once  onceFlag
}

func (p *placed) Close() error {
	err := p.Conn.Close()
	if p.once.first() {
		<-p.leave
	}
	return err
}
