// Package link connects the processes of a joint ceremony: TLS 1.3 between two ends
// that know each other by pinned keys, frames over a gRPC stream inside it, and the
// relay that carries its bytes over a network for a daemon that has none. It serves
// the server's peer door, the daemon that calls a peer, and the user's device.
//
// It refuses every certificate whose key is not pinned, whatever it says of itself,
// older TLS, and session tickets. The relay holds no key: who runs it can end
// connections, and see when and how much is sent, no more.
package link

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"time"
)

// Pin names the key of one end: SHA-256 of its SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
type Pin [sha256.Size]byte

const pinPrefix = "sha256:"

// String is "sha256:" and 64 hexadecimal digits.
func (p Pin) String() string { return pinPrefix + hex.EncodeToString(p[:]) }

// ParsePin reads what String writes.
func ParsePin(text string) (Pin, error) {
	digits, ok := strings.CutPrefix(text, pinPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != sha256.Size || strings.ToLower(digits) != digits {
		return Pin{}, fmt.Errorf("%.80q is no pin: want %s and 64 small hexadecimal digits", text, pinPrefix)
	}
	return Pin(b), nil
}

// PinOf is the pin of an Ed25519 or P-256 public key.
func PinOf(public crypto.PublicKey) (Pin, error) {
	switch k := public.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return Pin{}, errors.New("pinning a key: a curve other than P-256")
		}
	default:
		return Pin{}, fmt.Errorf("pinning a key: %T is neither Ed25519 nor P-256", public)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return Pin{}, fmt.Errorf("pinning a key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// Identity is one end's key, in the certificate that TLS wants around it. Nothing in
// the certificate but the key means anything.
type Identity struct {
	pin         Pin
	certificate tls.Certificate
}

// NewIdentity makes the certificate of a key, which signs it and every handshake.
func NewIdentity(signer crypto.Signer) (*Identity, error) {
	pin, err := PinOf(signer.Public())
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sigild"},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 §4.1.2.5: none
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("making the certificate of %s: %w", pin, err)
	}
	return &Identity{pin, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: signer}}, nil
}

// Pin names the identity's key.
func (i *Identity) Pin() Pin { return i.pin }

// LentKey is an Ed25519 key that is lent for each signature, as one that is sealed.
type LentKey struct {
	// Key is the public half.
	Key ed25519.PublicKey
	// Lend calls use with the 32 bytes of the seed, which it wipes or takes back.
	Lend func(use func(seed []byte) error) error
}

var _ crypto.Signer = LentKey{}

// Public is the key.
func (k LentKey) Public() crypto.PublicKey { return k.Key }

// Sign signs a message as it is (RFC 8032).
func (k LentKey) Sign(_ io.Reader, message []byte, opts crypto.SignerOpts) (signature []byte, err error) {
	if opts.HashFunc() != 0 {
		return nil, errors.New("signing: an Ed25519 key signs messages, not digests")
	}
	err = k.Lend(func(seed []byte) error {
		if len(seed) != ed25519.SeedSize {
			return fmt.Errorf("signing: a seed of %d bytes", len(seed))
		}
		whole := ed25519.NewKeyFromSeed(seed)
		defer clear(whole)
		signature = ed25519.Sign(whole, message)
		return nil
	})
	return signature, err
}

// LentIdentity is the identity of a key of which only the seed is lent.
func LentIdentity(lend func(use func(seed []byte) error) error) (*Identity, error) {
	var public ed25519.PublicKey
	err := lend(func(seed []byte) error {
		if len(seed) != ed25519.SeedSize {
			return fmt.Errorf("reading a key: a seed of %d bytes", len(seed))
		}
		whole := ed25519.NewKeyFromSeed(seed)
		defer clear(whole)
		public = slices.Clone(ed25519.PublicKey(whole[32:]))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return NewIdentity(LentKey{Key: public, Lend: lend})
}

// ErrPin: the other end's key is not one that is let in, or not the one expected.
var ErrPin = errors.New("the other end's key is not pinned")

// ServerConfig lets in whom admit knows.
func (i *Identity) ServerConfig(admit func(Pin) bool) *tls.Config {
	c := i.config(admit)
	c.ClientAuth = tls.RequireAnyClientCert
	return c
}

// ClientConfig connects to the end with this pin and no other.
func (i *Identity) ClientConfig(want Pin) *tls.Config {
	c := i.config(func(p Pin) bool { return p == want })
	c.ServerName = "sigild"
	// Names and validity are not looked at: verify below is stricter, it wants one key.
	c.InsecureSkipVerify = true
	return c
}

func (i *Identity) config(admit func(Pin) bool) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.certificate}, NextProtos: []string{"h2"}, SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			pin, err := PinOfPeer(s)
			if err != nil {
				return err
			}
			if !admit(pin) {
				return fmt.Errorf("%w: %s", ErrPin, pin)
			}
			return nil
		},
	}
}

// PinOfPeer is the pin of the key that the other end of a connection has proved to hold.
func PinOfPeer(s tls.ConnectionState) (Pin, error) {
	if s.Version != tls.VersionTLS13 || s.NegotiatedProtocol != "h2" || s.DidResume {
		return Pin{}, fmt.Errorf("%w: not a full TLS 1.3 handshake for h2", ErrPin)
	}
	if len(s.PeerCertificates) != 1 {
		return Pin{}, fmt.Errorf("%w: %d certificates, want one", ErrPin, len(s.PeerCertificates))
	}
	pin, err := PinOf(s.PeerCertificates[0].PublicKey)
	if err != nil {
		return Pin{}, fmt.Errorf("%w: %w", ErrPin, err)
	}
	return pin, nil
}
