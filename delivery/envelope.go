package delivery

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/sigild/sigild/seal"
)

// The one envelope that is taken: RSA-OAEP with SHA-256 of a random 32-byte key,
// AES-256-GCM with a nonce of 16 bytes, a tag of 16, no additional data.
const (
	envelopeAlg  = "HYBRID-RSA-AES-256"
	contentKey   = 32
	nonceSize    = 16
	tagSize      = 16
	maxEncoded   = 4096     // characters of a member but ct, as the vendor's own client
	maxSealed    = 32 << 10 // characters of ct: a share of ours over secp256k1 has 12 kB
	minModulus   = 2048 / 8
	maxModulus   = 4096 / 8
	maxPlaintext = maxSealed * 3 / 4
)

// envelope is one encrypted secret. Nothing in it is secret.
type envelope struct {
	iv [nonceSize]byte
	// sealed is the ciphertext with its tag.
	sealed []byte
	ek     []byte
	// kid is the vendor's name of our key; "" for none.
	kid string
}

// readEnvelope decodes the members alg, iv, ct, tag, ek and kid; others are let
// through. Which key opens it is found by trying, since kid is the vendor's name for
// a key and may be absent.
func readEnvelope(field string, v *value) (envelope, error) {
	if v.members == nil {
		return envelope{}, malformed(field, "%s is no object", field)
	}
	alg, err := v.text("alg", true)
	if err != nil {
		return envelope{}, err
	}
	if alg != envelopeAlg {
		return envelope{}, malformed(field, "alg of %s is not %s", field, envelopeAlg)
	}
	var e envelope
	iv, err := v.base64url("iv", nonceSize, nonceSize)
	if err != nil {
		return envelope{}, err
	}
	e.iv = [nonceSize]byte(iv)
	ct, err := v.base64url("ct", 1, maxPlaintext)
	if err != nil {
		return envelope{}, err
	}
	tag, err := v.base64url("tag", tagSize, tagSize)
	if err != nil {
		return envelope{}, err
	}
	if e.ek, err = v.base64url("ek", minModulus, maxModulus); err != nil {
		return envelope{}, err
	}
	if e.kid, err = v.vendorID("kid", false); err != nil {
		return envelope{}, err
	}
	e.sealed = append(ct, tag...)
	return e, nil
}

// base64url is a member of base64url without padding (RFC 4648 §5), in its one
// canonical spelling, of least to most bytes.
func (v *value) base64url(name string, least, most int) ([]byte, error) {
	m := v.members[name]
	if m == nil || !m.isText {
		return nil, malformed(name, "%s is missing or no string", name)
	}
	if longest := max(maxEncoded, base64.RawURLEncoding.EncodedLen(most)); len(m.string) > longest {
		return nil, malformed(name, "%s has more than %d characters", name, longest)
	}
	// The decoder skips line ends.
	b, err := base64.RawURLEncoding.Strict().DecodeString(m.string)
	if err != nil || strings.ContainsAny(m.string, "\r\n") {
		return nil, malformed(name, "%s is not base64url without padding", name)
	}
	if len(b) < least || len(b) > most {
		return nil, malformed(name, "%s has %d bytes, want %d to %d", name, len(b), least, most)
	}
	return b, nil
}

// errUnopened is what the closure of a decryption says when the content key is
// not that of the content.
var errUnopened = errors.New("content does not authenticate")

// lend opens e with one of the webhook's keys, the newest first, lends the
// plaintext to use and wipes it. What none of them opens is refused in the words
// of a wrong MAC. A device that doesn't answer is its own error: then the vendor
// should send again.
func (s *Service) lend(ctx context.Context, hook *webhook, e envelope, use func(plaintext []byte) error) error {
	plain := make([]byte, 0, len(e.sealed))
	defer func() { clear(plain[:cap(plain)]) }()
	var trouble error
	for _, k := range hook.Keys {
		if k.Provider != s.cfg.DeviceID {
			trouble = fmt.Errorf("%w: decryption key %s is in %s", seal.ErrUnavailable, k.Ref, k.Provider)
			continue
		}
		err := s.cfg.Device.DecryptOAEPSHA256(ctx, k.Ref, e.ek, func(content []byte) (err error) {
			plain, err = e.open(plain[:0], content)
			return err
		})
		switch {
		case err == nil:
			return use(plain)
		case errors.Is(err, errUnopened), errors.Is(err, seal.ErrTampered):
		case errors.Is(err, seal.ErrNotFound): // retired, or the token isn't the one it was
			trouble = fmt.Errorf("%w: %w", seal.ErrUnavailable, err)
		default:
			trouble = err // another key may still open it
		}
	}
	if trouble != nil {
		return trouble
	}
	return unauthentic()
}

// open decrypts into dst, which has room.
func (e envelope) open(dst, content []byte) ([]byte, error) {
	if len(content) != contentKey {
		return dst, errUnopened
	}
	block, err := aes.NewCipher(content)
	if err != nil {
		return dst, err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, nonceSize)
	if err != nil {
		return dst, err
	}
	out, err := gcm.Open(dst, e.iv[:], e.sealed, nil)
	if err != nil {
		return dst, errUnopened
	}
	return out, nil
}

func parsePublic(der []byte) (*rsa.PublicKey, error) {
	public, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := public.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("not an RSA key")
	}
	return key, nil
}
