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

// auths are the auth values that the outside secret gives our objects; the zero
// auths gives them none.
type auths struct{ buf *secmem.Buf }

// readAuths derives the auth values from the secret in the file at path; an empty
// path gives none. The secret itself is wiped on return.
func readAuths(path string) (auths, error) {
	if path == "" {
		return auths{}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return auths{}, fmt.Errorf("opening the TPM's outside secret: %w: %w", seal.ErrUnavailable, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return auths{}, fmt.Errorf("reading the TPM's outside secret: %w: %w", seal.ErrUnavailable, err)
	}
	// A group bit for reading is let through: systemd shows the ACL mask of a
	// credential there.
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o037 != 0 {
		return auths{}, fmt.Errorf("reading the TPM's outside secret %s: %w: mode %s, want a regular file that others can't read (0400)", path, seal.ErrPolicy, info.Mode())
	}
	secret, err := secmem.New(secretLen + 1)
	if err != nil {
		return auths{}, fmt.Errorf("reading the TPM's outside secret: %w", err)
	}
	defer secret.Destroy()
	a, err := secmem.New(int(roles) * authLen)
	if err != nil {
		return auths{}, fmt.Errorf("reading the TPM's outside secret: %w", err)
	}
	err = secret.Use(func(b []byte) error {
		n, err := io.ReadFull(f, b)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("reading the TPM's outside secret: %w: %w", seal.ErrUnavailable, err)
		}
		if n != secretLen {
			return fmt.Errorf("reading the TPM's outside secret %s: %w: it must have %d bytes; hint: make it with head -c 32 /dev/urandom", path, seal.ErrPolicy, secretLen)
		}
		return a.Use(func(out []byte) error {
			for r, label := range roleLabels {
				deriveAuth(out[r*authLen:(r+1)*authLen], b[:secretLen], label)
			}
			return nil
		})
	})
	if err != nil {
		a.Destroy()
		return auths{}, err
	}
	return auths{a}, nil
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

// lend lends the auth value of r to use, nil when there is no outside secret. use
// must not keep it.
func (a auths) lend(r role, use func(auth []byte) error) error {
	if a.buf == nil {
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
