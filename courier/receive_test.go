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
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/internal/testvendor"
)

// daemon is what the receiver hands to. Whole deliveries by real daemons are in
// cmd/sigilctl; here are the ones that no daemon ever sees.
type daemon struct {
	sigilv1.DeliveryServiceClient
	// mu guards got.
	mu  sync.Mutex
	got []*sigilv1.IngestDeliveryRequest
	err error
}

func (d *daemon) IngestDelivery(_ context.Context, in *sigilv1.IngestDeliveryRequest, _ ...grpc.CallOption) (*sigilv1.IngestDeliveryResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got = append(d.got, in)
	return &sigilv1.IngestDeliveryResponse{}, d.err
}

func (d *daemon) seen() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.got)
}

// brief are bounds for tests: what is slow is cut off soon.
var brief = bounds{connections: 4, headers: 300 * time.Millisecond, whole: 600 * time.Millisecond, answerAfter: time.Minute}

// receiver runs one with TLS and returns where, and who vouches for it.
func receiver(t *testing.T, d *daemon, within bounds) (address string, roots *x509.CertPool) {
	t.Helper()
	certificate, key, err := testvendor.Localhost()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certificate)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &Receiver{Deliveries: d, Certificate: &pair, Log: slog.New(slog.DiscardHandler), within: within}
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), roots
}

func dial(t *testing.T, address string, roots *x509.CertPool) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func post(address string, roots *x509.CertPool, body io.Reader) (int, error) {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "localhost"}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodPost, "https://"+address+"/webhooks/whk_1", body)
	if err != nil {
		return 0, err
	}
	req.Header.Set(SignatureHeader, "sha256=aa")
	answer, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(req)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, errors.Join(err, func() error {
		if !answer.Close {
			return errors.New("the connection is kept")
		}
		return nil
	}())
}

func TestReceiverHandsOverByteForByte(t *testing.T) {
	d := &daemon{}
	address, roots := receiver(t, d, bounds{})
	body := []byte("{\"a\":1}\r\n\x00")
	if code, err := post(address, roots, bytes.NewReader(body)); code != 200 || err != nil {
		t.Fatalf("%d, %v", code, err)
	}
	if d.seen() != 1 || !bytes.Equal(d.got[0].GetBody(), body) || d.got[0].GetSignature() != "sha256=aa" || d.got[0].GetWebhookId() != "whk_1" {
		t.Errorf("handed over: %v", d.got)
	}
	// The daemon is away, or refuses: again, or never.
	for want, refused := range map[int]error{503: status.Error(codes.Unavailable, "away"), 200: nil} {
		d.mu.Lock()
		d.err = refused
		d.mu.Unlock()
		if code, err := post(address, roots, bytes.NewReader(body)); code != want || err != nil {
			t.Errorf("%v: %d, %v, want %d", refused, code, err, want)
		}
	}
}

// Who sends slowly is cut off: in the handshake, in the headers and in the body, however
// little comes how steadily. Its place is free again, and the daemon has seen nothing.
func TestReceiverCutsOffTheSlow(t *testing.T) {
	for name, dribble := range map[string]func(t *testing.T, address string, roots *x509.CertPool) net.Conn{
		"no handshake": func(t *testing.T, address string, _ *x509.CertPool) net.Conn {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		"headers": func(t *testing.T, address string, roots *x509.CertPool) net.Conn {
			c := dial(t, address, roots)
			fmt.Fprint(c, "POST /webhooks/whk_1 HTTP/1.1\r\nHost: localhost\r\nX-A: ")
			return c
		},
		"body": func(t *testing.T, address string, roots *x509.CertPool) net.Conn {
			c := dial(t, address, roots)
			fmt.Fprint(c, "POST /webhooks/whk_1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
			return c
		},
		"chunks": func(t *testing.T, address string, roots *x509.CertPool) net.Conn {
			c := dial(t, address, roots)
			fmt.Fprint(c, "POST /webhooks/whk_1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nff00\r\n")
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := &daemon{}
			address, roots := receiver(t, d, brief)
			for range brief.connections { // all places are taken
				c := dribble(t, address, roots)
				defer c.Close()
				go func() {
					for {
						if _, err := c.Write([]byte("a")); err != nil {
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
			}
			// Whoever comes then waits, and is served.
			if code, err := post(address, roots, strings.NewReader("{}")); code != 200 || err != nil {
				t.Errorf("behind the slow ones: %d, %v", code, err)
			}
			if d.seen() != 1 {
				t.Errorf("the daemon has seen %d deliveries, want one", d.seen())
			}
		})
	}
}

// No more connections are held than there are places; the next one waits in the queue of
// the kernel.
func TestReceiverHoldsSoManyConnections(t *testing.T) {
	d := &daemon{}
	patient := brief
	patient.headers, patient.whole = time.Minute, time.Minute
	address, roots := receiver(t, d, patient)
	var held []*tls.Conn
	for range patient.connections {
		held = append(held, dial(t, address, roots))
	}
	waiting, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	c := tls.Client(waiting, &tls.Config{RootCAs: roots, ServerName: "localhost"})
	shaken := make(chan error, 1)
	go func() { shaken <- c.HandshakeContext(t.Context()) }()
	select {
	case err := <-shaken:
		t.Fatalf("one more than the places is served: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	held[0].Close()
	if err := <-shaken; err != nil {
		t.Errorf("after one has left: %v", err)
	}
}

func TestReceiverRefusesWhatIsTooLong(t *testing.T) {
	d := &daemon{}
	address, roots := receiver(t, d, bounds{})
	if code, err := post(address, roots, bytes.NewReader(make([]byte, maxBody+1))); code != 413 || err != nil {
		t.Errorf("a byte too many: %d, %v", code, err)
	}
	// Without a length, as chunks.
	if code, err := post(address, roots, io.LimitReader(zeros{}, maxBody+1)); code != 413 || err != nil {
		t.Errorf("a byte too many in chunks: %d, %v", code, err)
	}
	if code, err := post(address, roots, bytes.NewReader(make([]byte, maxBody))); code != 200 || err != nil {
		t.Errorf("as long as may be: %d, %v", code, err)
	}
	c := dial(t, address, roots)
	fmt.Fprintf(c, "POST /webhooks/whk_1 HTTP/1.1\r\nHost: localhost\r\nX-A: %s\r\n\r\n", strings.Repeat("a", 64<<10))
	answer, err := io.ReadAll(c)
	if !bytes.HasPrefix(answer, []byte("HTTP/1.1 431")) {
		t.Errorf("long headers: %q, %v", answer, err)
	}
	if d.seen() != 1 {
		t.Errorf("the daemon has seen %d deliveries, want one", d.seen())
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestReceiverWantsTLS12(t *testing.T) {
	address, roots := receiver(t, &daemon{}, bounds{})
	for version, want := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: version, MaxVersion: version})
		if (err == nil) != want {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			c.Close()
		}
	}
	plain, err := http.Post("http://"+address+"/webhooks/whk_1", "application/json", strings.NewReader("{}"))
	if err == nil {
		plain.Body.Close()
		if plain.StatusCode != 400 {
			t.Errorf("plain HTTP: %s", plain.Status)
		}
	}
}
