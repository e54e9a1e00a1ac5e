package credential

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

// Private keys rest in PEM files that openssl reads and writes: PKCS#8
// ("PRIVATE KEY", RFC 5958) for P-256 and Ed25519; SEC 1 ("EC PRIVATE KEY", RFC
// 5915) for secp256k1, which crypto/x509 doesn't know. One block, nothing else.
// Files have mode 0600, are never overwritten, and are refused when others may
// read them. They are not encrypted: the credential of a person belongs on a device.

// maxKeyFile is the largest key file that is read, in bytes.
const maxKeyFile = 8192

const (
	blockPKCS8 = "PRIVATE KEY"
	blockSEC1  = "EC PRIVATE KEY"
)

// sec1 is ECPrivateKey of RFC 5915.
type sec1 struct {
	Version    int
	PrivateKey []byte
	Curve      asn1.ObjectIdentifier `asn1:"optional,explicit,tag:0"`
	PublicKey  asn1.BitString        `asn1:"optional,explicit,tag:1"`
}

var oidSecp256k1 = asn1.ObjectIdentifier{1, 3, 132, 0, 10} // SEC 2 section A.2.1

// Save writes the key to a new file of mode 0600 and syncs it. An existing file
// is an error that wraps os.ErrExist.
func (k *PrivateKey) Save(path string) error {
	der, block, err := k.der()
	if err != nil {
		return err
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der})
	defer clear(text)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("creating key file: %w", err)
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(path) // a half-written key is of no use
		return fmt.Errorf("writing key file %s: %w", path, err)
	}
	return nil
}

func (k *PrivateKey) der() (der []byte, block string, err error) {
	if len(k.raw) == 0 {
		return nil, "", errors.New("encoding private key: it was wiped")
	}
	switch k.public.Algorithm {
	case P256:
		var priv *ecdsa.PrivateKey
		if priv, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), k.raw); err == nil {
			der, err = x509.MarshalPKCS8PrivateKey(priv)
		}
		block = blockPKCS8
	case Ed25519:
		priv := ed25519.NewKeyFromSeed(k.raw)
		defer clear(priv)
		der, err = x509.MarshalPKCS8PrivateKey(priv)
		block = blockPKCS8
	default:
		pub, parseErr := k.public.secp256k1()
		if parseErr != nil {
			return nil, "", parseErr
		}
		der, err = asn1.Marshal(sec1{
			Version:    1,
			PrivateKey: k.raw,
			Curve:      oidSecp256k1,
			PublicKey:  asn1.BitString{Bytes: pub.SerializeUncompressed(), BitLength: 8 * 65},
		})
		block = blockSEC1
	}
	if err != nil {
		return nil, "", fmt.Errorf("encoding private key: %w", err)
	}
	return der, block, nil
}

// LoadKey reads a key file. The caller wipes the key when done.
func LoadKey(path string) (*PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening key file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("opening key file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("opening key file: %s is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("opening key file: others may read %s (mode %04o); hint: chmod 600 it, and make a new key if they may have", path, info.Mode().Perm())
	}
	text := make([]byte, maxKeyFile+1)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading key file: %w", err)
	}
	key, err := ParseKey(text[:n])
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return key, nil
}

// ParseKey reads a private key's PEM text. The caller keeps and wipes text.
func ParseKey(text []byte) (*PrivateKey, error) {
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("reading private key: more than %d bytes", maxKeyFile)
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, errors.New("reading private key: no PEM block")
	}
	defer clear(block.Bytes)
	if len(bytes.TrimSpace(rest)) != 0 || len(block.Headers) != 0 ||
		!bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN "+block.Type+"-----")) {
		return nil, errors.New("reading private key: more than one PEM block without headers; hint: openssl writes such a file with -noout or genpkey")
	}
	switch block.Type {
	case blockPKCS8:
		return parsePKCS8(block.Bytes)
	case blockSEC1:
		return parseSEC1(block.Bytes)
	}
	return nil, fmt.Errorf("reading private key: PEM block %q is not read; want %q or, for secp256k1, %q", clip(block.Type), blockPKCS8, blockSEC1)
}

func parsePKCS8(der []byte) (*PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("reading private key: not PKCS#8 of a known algorithm") // x509's text may quote the content
	}
	switch priv := parsed.(type) {
	case *ecdsa.PrivateKey:
		if priv.Curve != elliptic.P256() {
			return nil, errors.New("reading private key: of the NIST curves only P-256 is taken")
		}
		raw, err := priv.Bytes()
		if err != nil {
			return nil, fmt.Errorf("reading private key: %w", err)
		}
		return newPrivateKey(P256, raw)
	case ed25519.PrivateKey:
		defer clear(priv)
		return newPrivateKey(Ed25519, priv.Seed())
	}
	return nil, errors.New("reading private key: the algorithm is not P-256, Ed25519 or secp256k1")
}

func parseSEC1(der []byte) (*PrivateKey, error) {
	var s sec1
	rest, err := asn1.Unmarshal(der, &s)
	if err != nil || len(rest) != 0 || s.Version != 1 {
		return nil, errors.New("reading private key: not an ECPrivateKey (RFC 5915)")
	}
	defer clear(s.PrivateKey)
	if !s.Curve.Equal(oidSecp256k1) {
		return nil, errors.New("reading private key: an EC PRIVATE KEY block must be of secp256k1; hint: openssl pkcs8 -topk8 -nocrypt for P-256")
	}
	key, err := newPrivateKey(Secp256k1, bytes.Clone(s.PrivateKey))
	if err != nil {
		return nil, err
	}
	if len(s.PublicKey.Bytes) != 0 {
		stated, err := secp256k1.ParsePubKey(s.PublicKey.Bytes)
		if err != nil || !bytes.Equal(stated.SerializeCompressed(), key.public.Bytes) {
			key.Wipe()
			return nil, errors.New("reading private key: the public key beside it is another")
		}
	}
	return key, nil
}
