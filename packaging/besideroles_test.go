package packaging

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"filippo.io/age"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Roles of the test of the units beside the daemon: the vendor that posts, who scrapes
// the metrics, the bot that signs.

// fetched is an answer over HTTP.
type fetched struct {
	Status int
	TLS    uint16
	Body   string
}

func fetch(c *http.Client, req *http.Request) (fetched, error) {
	defer c.CloseIdleConnections()
	answer, err := c.Do(req)
	if err != nil {
		return fetched{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	f := fetched{Status: answer.StatusCode, Body: string(body)}
	if answer.TLS != nil {
		f.TLS = answer.TLS.Version
	}
	return f, err
}

// post sends the file body to a url under a signature, over TLS that roots vouch for.
func post(url, body, signature, roots string) (fetched, error) {
	b, err := os.ReadFile(body)
	if err != nil {
		return fetched{}, err
	}
	pem, err := os.ReadFile(roots)
	if err != nil {
		return fetched{}, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return fetched{}, errors.New("no certificate")
	}
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		return fetched{}, err
	}
	req.Header.Set("x-dynamic-signature-256", signature)
	return fetch(&http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}, req)
}

// scrape asks a unix socket for the metrics.
func scrape(socket string) (fetched, error) {
	req, err := http.NewRequest(http.MethodGet, "http://sigild/metrics", nil)
	if err != nil {
		return fetched{}, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return fetch(&http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: dial}}, req)
}

// signed is what a bot was answered.
type signed struct{ Signature, Reason, Error string }

// sign asks for the signature of a Solana message, in hex, under an API key that an age
// identity opens.
func sign(apiKey, identity, wallet, message string) (signed, error) {
	key, err := openAge(apiKey, identity)
	if err != nil {
		return signed{}, err
	}
	payload, err := hex.DecodeString(message)
	if err != nil {
		return signed{}, err
	}
	c, err := client.Dial(appSocket)
	if err != nil {
		return signed{}, err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := c.WithAPIKey(key).Signing().Sign(ctx, &sigilv1.SignRequest{
		RequestId: fmt.Sprint("sign-", time.Now().UnixNano()), WalletId: wallet, Payload: &sigilv1.SignRequest_SolanaMessage{SolanaMessage: payload},
	})
	if err != nil {
		return signed{Reason: client.Reason(err), Error: err.Error()}, nil
	}
	return signed{Signature: hex.EncodeToString(out.GetSignature())}, nil
}

func openAge(file, identity string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	g, err := os.Open(identity)
	if err != nil {
		return nil, err
	}
	defer g.Close()
	ids, err := age.ParseIdentities(g)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(f, ids...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
