package delegation

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/sigild/sigild/vault"
)

// A wallet API key is "sgk_<id>_<secret>": id has 26 base32 characters, secret
// is 32 random bytes in unpadded base64url. At rest there is the id and
// HMAC-SHA256(k_apikey, whole key), where k_apikey derives from the root key.

const (
	apiKeyPrefix  = "sgk_"
	apiKeyIDLen   = 26
	apiKeySecret  = 32
	apiKeyLen     = len(apiKeyPrefix) + apiKeyIDLen + 1 + 43
	apiKeyPurpose = "sigild/apikey/v1"
)

// newAPIKey lends a fresh key to use and wipes it.
func newAPIKey(use func(id string, key []byte) error) error {
	id := strings.ToLower(rand.Text())
	secret := make([]byte, apiKeySecret)
	defer clear(secret)
	if _, err := rand.Read(secret); err != nil {
		return fmt.Errorf("making a wallet API key: %w", err)
	}
	key := make([]byte, 0, apiKeyLen)
	defer func() { clear(key[:cap(key)]) }()
	key = append(append(append(key, apiKeyPrefix...), id...), '_')
	key = base64.RawURLEncoding.AppendEncode(key, secret)
	return use(id, key)
}

// apiKeyID reads the public id out of a key; "" when it has not the form of one.
func apiKeyID(key []byte) string {
	if len(key) != apiKeyLen || !bytes.HasPrefix(key, []byte(apiKeyPrefix)) || key[len(apiKeyPrefix)+apiKeyIDLen] != '_' {
		return ""
	}
	return string(key[len(apiKeyPrefix) : len(apiKeyPrefix)+apiKeyIDLen])
}

// apiKey opens the record of a wallet API key; nil for one that is not there.
func (s *Service) apiKey(id string) (*apiKeyRecord, error) {
	of := func() string {
		s.book.mu.RLock()
		defer s.book.mu.RUnlock()
		return s.book.apiKeys[id]
	}
	delegation, rec := of(), new(apiKeyRecord)
	if delegation == "" {
		return nil, nil
	}
	err := s.vault.With(context.Background(), vault.TypeAPIKey, id, func(b []byte) error { return decodeRecord(b, rec) })
	switch {
	case errors.Is(err, vault.ErrNotFound) && of() == "": // revoked meanwhile
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading the API key of delegation %s: %w", delegation, err)
	case rec.ID != id || rec.Delegation != delegation:
		return nil, fmt.Errorf("reading the API key of delegation %s: it says it is %q of %q", delegation, rec.ID, rec.Delegation)
	}
	return rec, nil
}

// apiKeyOrAny is apiKey, but for an id that is not there it opens another record, so
// that the time tells nobody which ids are known.
func (s *Service) apiKeyOrAny(id string) (*apiKeyRecord, error) {
	s.book.mu.RLock()
	known, any := s.book.apiKeys[id] != "", ""
	if !known {
		for any = range s.book.apiKeys {
			break
		}
	}
	s.book.mu.RUnlock()
	if !known {
		_, _ = s.apiKey(any) // whatever is wrong with it is no business of who asks
		return nil, nil
	}
	return s.apiKey(id)
}

// verifier computes what is stored of a key.
func (s *Service) verifier(key []byte) ([]byte, error) {
	var sum []byte
	err := s.vault.Derive(apiKeyPurpose, func(k []byte) error {
		m := hmac.New(sha256.New, k)
		m.Write(key)
		sum = m.Sum(nil)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("deriving the API key verifier: %w", err)
	}
	return sum, nil
}
