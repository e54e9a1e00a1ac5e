package tpm

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/seal"
)

// secretLen is the size of the outside secret in bytes.
const secretLen = 32

// authLen is the size of an auth value: the most that an object whose Name is a
// SHA-256 takes.
const authLen = sha256.Size

// role is what an auth value is for.
type role int

const (
	roleSeal role = iota
	roleSign
	roleCount
	roleDecrypt
	roles
)

// roleLabels tell the auth values apart. Changing one orphans every blob and key.
var roleLabels = [roles]string{
	roleSeal: "sigild/tpm/auth/seal/v1", roleSign: "sigild/tpm/auth/sign/v1",
	roleCount: "sigild/tpm/auth/count/v1", roleDecrypt: "sigild/tpm/auth/decrypt/v1",
}

// maxPIN is the longest PIN in bytes.
const maxPIN = 256

// pinLabel is what a PIN is mixed with the outside secret under.
const pinLabel = "sigild/tpm/auth/pin/v1"

// auths are the auth values that the outside secret and the PIN give our objects;
// the zero auths gives them none.
type auths struct {
	buf *secmem.Buf
	has [roles]bool // which roles have one
}

// readAuths derives the auth values from the files of the outside secret and of the
// PIN; an empty path stands for none. A PIN goes into the auth value of what is sealed
// alone. Secret and PIN are wiped on return.
func readAuths(secretFile, pinFile string) (a auths, err error) {
	if secretFile == "" && pinFile == "" {
		return auths{}, nil
	}
	if a.buf, err = secmem.New(int(roles) * authLen); err != nil {
		return auths{}, fmt.Errorf("reading the TPM's outside secret: %w", err)
	}
	derive := func(r role, secret []byte) error {
		a.has[r] = true
		return a.buf.Use(func(out []byte) error {
			deriveAuth(out[int(r)*authLen:(int(r)+1)*authLen], secret, roleLabels[r])
			return nil
		})
	}
	withPIN := func(secret []byte) error {
		if pinFile == "" {
			return nil
		}
		return readPrivate(pinFile, "the TPM's PIN", maxPIN+1, func(pin []byte) error {
			pin = bytes.TrimSuffix(pin, []byte("\n"))
			if len(pin) < 1 || len(pin) > maxPIN {
				return fmt.Errorf("reading the TPM's PIN %s: %w: %d bytes, want 1 to %d", pinFile, seal.ErrPolicy, len(pin), maxPIN)
			}
			mac := hmac.New(sha256.New, secret)
			mac.Write([]byte(pinLabel)) // a hash never fails
			mac.Write(pin)
			mixed := mac.Sum(nil)
			defer clear(mixed)
			return derive(roleSeal, mixed)
		})
	}
	if secretFile == "" {
		err = withPIN(make([]byte, secretLen))
	} else {
		err = readPrivate(secretFile, "the TPM's outside secret", secretLen, func(secret []byte) error {
			if len(secret) != secretLen {
				return fmt.Errorf("reading the TPM's outside secret %s: %w: it must have %d bytes; hint: make it with head -c 32 /dev/urandom", secretFile, seal.ErrPolicy, secretLen)
			}
			for r := range roles {
				if err := derive(r, secret); err != nil {
					return err
				}
			}
			return withPIN(secret)
		})
	}
	if err != nil {
		a.destroy()
		return auths{}, err
	}
	return a, nil
}

// readPrivate lends use what is in a file that others can't read, at most one byte
// more than most, and wipes it.
func readPrivate(path, what string, most int, use func(b []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("opening %s: %w: %w", what, seal.ErrUnavailable, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reading %s: %w: %w", what, seal.ErrUnavailable, err)
	}
	// A group bit for reading is let through: systemd shows the ACL mask of a
	// credential there.
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o037 != 0 {
		return fmt.Errorf("reading %s %s: %w: mode %s, want a regular file that others can't read (0400)", what, path, seal.ErrPolicy, info.Mode())
	}
	buf, err := secmem.New(most + 1)
	if err != nil {
		return fmt.Errorf("reading %s: %w", what, err)
	}
	defer buf.Destroy()
	return buf.Use(func(b []byte) error {
		n, err := io.ReadFull(f, b)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("reading %s: %w: %w", what, seal.ErrUnavailable, err)
		}
		return use(b[:n])
	})
}

// deriveAuth writes the auth value for label to out: the first block without a
// zero byte of HMAC-SHA256(secret, label ‖ counter), counter in 4 bytes from 0. One
// block in nine has a zero byte. It would do harm: TPMs strip zeros at the end of
// an auth value (Part 1 §19.6.5), and go-tpm v0.9.8 cuts it at the first zero
// anywhere, so that the TPM would refuse us.
func deriveAuth(out, secret []byte, label string) {
	for i := uint32(0); ; i++ {
		block := macBlock(secret, label, i)
		copy(out, block)
		clear(block)
		if !bytes.Contains(out, []byte{0}) {
			return
		}
	}
}

func macBlock(secret []byte, label string, i uint32) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(label)) // a hash never fails
	mac.Write(binary.BigEndian.AppendUint32(nil, i))
	return mac.Sum(nil)
}

// lend lends the auth value of r to use, nil when there is none. use must not keep it.
func (a auths) lend(r role, use func(auth []byte) error) error {
	if !a.has[r] {
		return use(nil)
	}
	return a.buf.Use(func(all []byte) error {
		return use(all[int(r)*authLen : (int(r)+1)*authLen : (int(r)+1)*authLen])
	})
}

// destroy wipes them.
func (a auths) destroy() {
	if a.buf != nil {
		a.buf.Destroy()
	}
}
