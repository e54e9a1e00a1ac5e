package delivery

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// unauthentic is the answer to every delivery that isn't the vendor's or that we
// can't open, whatever is wrong with it.
func unauthentic() *refusal.Error {
	return refusal.New(refusal.DeliveryInvalid, "the delivery does not authenticate")
}

// dummySecret stands in for the secrets of an unknown webhook.
var dummySecret = []byte("sigild: no such webhook")

// authenticate returns the webhook under one of whose live secrets the signature is
// HMAC-SHA256 over exactly the bytes of body. Every live secret is tried.
func (s *Service) authenticate(ctx context.Context, in Received) (*webhook, error) {
	got, ok := parseSignature(in.Signature)
	if !ok {
		return nil, unauthentic()
	}
	hook := s.book.webhook(in.Webhook)
	if hook == nil {
		verify(dummySecret, in.Body, got)
		return nil, unauthentic()
	}
	genuine := false
	for _, id := range hook.Secrets {
		err := s.cfg.Vault.With(ctx, vault.TypeWebhookSecret, id, func(secret []byte) error {
			genuine = verify(secret, in.Body, got) || genuine
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading a secret of webhook %s: %w", hook.ID, err)
		}
	}
	if !genuine {
		return nil, unauthentic()
	}
	return hook, nil
}

func verify(secret, body []byte, got [sha256.Size]byte) bool {
	mac := hmac.New(sha256.New, secret)
	mac.Write(body)
	return hmac.Equal(mac.Sum(nil), got[:])
}

const signatureHead = "sha256="

// parseSignature reads the value of the header x-dynamic-signature-256: "sha256="
// and 64 lower-case hex digits, nothing else.
func parseSignature(header string) (sum [sha256.Size]byte, ok bool) {
	digits, found := strings.CutPrefix(header, signatureHead)
	if !found || len(digits) != 2*len(sum) || strings.ContainsFunc(digits, func(c rune) bool { return c >= 'A' && c <= 'F' }) {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(digits))
	return sum, err == nil
}
