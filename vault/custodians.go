package vault

// A recovery group keeps the root key for people instead of a device: its share
// is split so that any need of count custodians give it back, and each part is
// encrypted to a custodian's age recipient (age-encryption.org/v1, X25519). The
// ciphertexts are in the store, and so in every copy of it: a custodian keeps
// nothing but the age identity.
//
//	blob  "SGCU" | ver u8 | need u8 | count u8, then for each custodian
//	      recipient len u16, text | commitment 32 | ciphertext len u16, bytes
//
// The commitment is SHA-256(domain | SHA-256(slot header) | part), and the part is
// x u8 | 32 bytes (shamir.go).

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"

	"github.com/sigild/sigild/seal"
)

// RecoveryProvider is the provider id of a recovery group's keyslot.
const RecoveryProvider = "recovery"

const (
	custodiansMagic   = "SGCU"
	custodiansVersion = 1
	domainPart        = "sigild/vault/custodian-part/v1"
	partLen           = 1 + 32
	maxCiphertext     = 1 << 10
)

// MaxCustodians is how many custodians a recovery group has at most.
const MaxCustodians = 16

// Custodians seal to people and, given their identities, open. They implement
// [seal.Sealer]; what they answer with is its sentinels and [ErrCustodians].
type Custodians struct {
	need       int
	recipients []string
	identities []age.Identity
}

// NewCustodians: any need of the age recipients ("age1…", X25519) open what is
// sealed to them. It refuses one named twice.
func NewCustodians(need int, recipients []string) (*Custodians, error) {
	if len(recipients) > MaxCustodians || need < 1 || need > len(recipients) {
		return nil, fmt.Errorf("naming custodians: %d of %d; want 1 to %d custodians, and no more needed than there are", need, len(recipients), MaxCustodians)
	}
	for i, r := range recipients {
		if _, err := age.ParseX25519Recipient(r); err != nil {
			return nil, fmt.Errorf("naming custodians: number %d is not an age X25519 recipient: %w", i+1, err)
		}
		if slices.Contains(recipients[:i], r) {
			return nil, fmt.Errorf("naming custodians: %s is named twice", r)
		}
	}
	return &Custodians{need: need, recipients: slices.Clone(recipients)}, nil
}

// PresentCustodians opens recovery groups with the identities at hand; it seals
// nothing.
func PresentCustodians(identities ...age.Identity) *Custodians {
	return &Custodians{identities: identities}
}

// Holder is the keyslot of these custodians, a group of its own.
func (c *Custodians) Holder() KeyHolder {
	return KeyHolder{Sealer: c, ID: RecoveryProvider, Ref: seal.KeyRef(fmt.Sprintf("%d-of-%d", c.need, len(c.recipients)))}
}

// Seal implements [seal.Sealer]: plaintext is a keyslot's share, 32 bytes.
func (c *Custodians) Seal(_ context.Context, _ seal.KeyRef, plaintext, aad []byte) ([]byte, error) {
	if len(plaintext) != partLen-1 || len(c.recipients) == 0 {
		return nil, fmt.Errorf("%w: custodians keep %d bytes, and must be named", seal.ErrUnsupported, partLen-1)
	}
	parts, err := splitSecret(plaintext, c.need, len(c.recipients))
	if err != nil {
		return nil, err
	}
	blob := append([]byte(custodiansMagic), custodiansVersion, byte(c.need), byte(len(c.recipients)))
	for i, part := range parts {
		defer clear(part)
		text, err := encryptTo(c.recipients[i], part)
		if err != nil {
			return nil, err
		}
		commit := commitPart(aad, part)
		blob = binary.BigEndian.AppendUint16(blob, uint16(len(c.recipients[i])))
		blob = append(append(blob, c.recipients[i]...), commit[:]...)
		blob = binary.BigEndian.AppendUint16(blob, uint16(len(text)))
		blob = append(blob, text...)
	}
	return blob, nil
}

func encryptTo(recipient string, part []byte) ([]byte, error) {
	r, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("encrypting to a custodian: %w", err)
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	if err == nil {
		_, err = w.Write(part)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("encrypting to a custodian: %w", err)
	}
	return out.Bytes(), nil
}

// Unseal implements [seal.Sealer]. It wants as many custodians as are needed, each
// counted once: fewer are [ErrCustodians].
func (c *Custodians) Unseal(_ context.Context, _ seal.KeyRef, blob, aad []byte, use func([]byte) error) error {
	g, err := parseCustodians(blob)
	if err != nil {
		return err
	}
	var parts [][]byte
	defer func() {
		for _, p := range parts {
			clear(p)
		}
	}()
	for i, x := range g.custodians {
		if len(parts) == g.need {
			break
		}
		part, ok := c.decrypt(x.ciphertext)
		if !ok {
			continue
		}
		parts = append(parts, part)
		commit := commitPart(aad, part)
		if subtle.ConstantTimeCompare(commit[:], x.commit) != 1 || part[0] != byte(i+1) {
			return fmt.Errorf("%w: the part of custodian %s is not the one that was made", seal.ErrTampered, x.recipient)
		}
	}
	if len(parts) < g.need {
		return fmt.Errorf("%w: %d of the %d that are needed are here", ErrCustodians, len(parts), g.need)
	}
	secret := make([]byte, partLen-1)
	defer clear(secret)
	if err := combineShares(secret, parts); err != nil {
		return err
	}
	return use(secret)
}

// decrypt tries the identities at hand.
func (c *Custodians) decrypt(ciphertext []byte) (part []byte, ok bool) {
	if len(c.identities) == 0 {
		return nil, false
	}
	r, err := age.Decrypt(bytes.NewReader(ciphertext), c.identities...)
	if err != nil {
		return nil, false
	}
	part = make([]byte, partLen)
	if _, err := io.ReadFull(r, part); err != nil {
		clear(part)
		return nil, false
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		clear(part)
		return nil, false
	}
	return part, true
}

func commitPart(aad, part []byte) [32]byte {
	of := sha256.Sum256(aad)
	return sha256.Sum256(append(append([]byte(domainPart), of[:]...), part...))
}

// custodianGroup is a parsed blob.
type custodianGroup struct {
	need       int
	custodians []custodian
}

type custodian struct {
	recipient          string
	commit, ciphertext []byte
}

// parseCustodians reads the strict form of a blob; the result keeps parts of b.
func parseCustodians(b []byte) (custodianGroup, error) {
	var g custodianGroup
	bad := func(what string) (custodianGroup, error) {
		return custodianGroup{}, fmt.Errorf("%w: recovery keyslot %s", ErrTampered, what)
	}
	if len(b) < 7 || string(b[:4]) != custodiansMagic {
		return bad("has an unknown form")
	}
	if b[4] != custodiansVersion {
		return bad(fmt.Sprintf("version %d is not known to this build", b[4]))
	}
	g.need = int(b[5])
	count := int(b[6])
	if count > MaxCustodians || g.need < 1 || g.need > count {
		return bad(fmt.Sprintf("of %d in %d custodians", g.need, count))
	}
	b = b[7:]
	field := func(limit int) (out []byte, ok bool) {
		if len(b) < 2 {
			return nil, false
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; n == 0 || n > limit || n > len(b) {
			return nil, false
		}
		out, b = b[:n:n], b[n:]
		return out, true
	}
	for range count {
		recipient, ok := field(maxSlotText)
		if !ok || len(b) < 32 {
			return bad("is cut off")
		}
		x := custodian{recipient: string(recipient), commit: b[:32:32]}
		b = b[32:]
		if x.ciphertext, ok = field(maxCiphertext); !ok {
			return bad("is cut off")
		}
		g.custodians = append(g.custodians, x)
	}
	if len(b) != 0 {
		return bad("has bytes behind its end")
	}
	return g, nil
}

// custodiansOf are the people that a blob was sealed to, to seal to them again.
func custodiansOf(blob []byte) (*Custodians, error) {
	g, err := parseCustodians(blob)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, x := range g.custodians {
		names = append(names, x.recipient)
	}
	return NewCustodians(g.need, names)
}
