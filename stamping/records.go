package stamping

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/vault"
)

// Vendor is the word for a vendor whose requests are read.
type Vendor string

// The vendors.
const (
	Turnkey Vendor = "turnkey"
	Dfns    Vendor = "dfns"
)

// Status of a credential.
type Status string

// The statuses.
const (
	Active  Status = "active"
	Revoked Status = "revoked" // its key is destroyed
)

const recordVersion = 1

// record is of type vault.TypeVendorCredential; its id is ID. It holds no secret.
type record struct {
	V            int       `json:"v"`
	ID           string    `json:"id"`
	Organization string    `json:"organization"`
	Name         string    `json:"name"`
	Vendor       Vendor    `json:"vendor"`
	CreatedAt    time.Time `json:"created_at"`
	Status       Status    `json:"status"`
	// RevokedAt is zero unless revoked.
	RevokedAt time.Time `json:"revoked_at,omitzero"`
	// Imported: the key was once outside.
	Imported bool `json:"imported,omitempty"`
	// Public is the key's public half, a P-256 point, compressed.
	Public []byte `json:"public"`
	// Account is the vendor's name of what the credential is of: Turnkey's organization
	// id, Dfns' id of the credential.
	Account string `json:"account"`
	// Witness says for Dfns that a challenge is a request's; nil elsewhere, and where
	// TrustCaller says that nobody does.
	Witness     *witness `json:"witness,omitempty"`
	TrustCaller bool     `json:"trust_caller,omitempty"`
}

type witness struct {
	Algorithm credential.Algorithm `json:"algorithm"`
	Public    []byte               `json:"public"`
}

func (w *witness) key() (credential.PublicKey, error) {
	return credential.ParsePublicKey(w.Algorithm, w.Public)
}

// key is the id of the record of type vault.TypeVendorKey that holds the private half:
// the credential's id and SHA-256 of what it is for. A record's id is in the
// authenticated data of its envelope (docs/formats.md), so the key opens only as what
// it was sealed as.
func (r *record) key() string {
	h := sha256.New()
	for _, text := range []string{"sigild/vendor-key/v1", r.Organization, string(r.Vendor), r.Account, hex.EncodeToString(r.Public)} {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(text)))
		h.Write(length[:])
		h.Write([]byte(text))
	}
	return r.ID + "/" + hex.EncodeToString(h.Sum(nil))
}

// decodeRecord refuses unknown members, other versions and trailing bytes.
func decodeRecord(b []byte) (*record, error) {
	r := new(record)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("decoding record: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("decoding record: bytes after the object")
	}
	if r.V != recordVersion {
		return nil, fmt.Errorf("decoding record: version %d is not %d", r.V, recordVersion)
	}
	return r, nil
}

// book is the state in memory, without secrets. What the map points to is never
// modified, only replaced, once the transaction is on disk.
type book struct {
	// mu guards credentials.
	mu          sync.RWMutex
	credentials map[string]*record
}

func loadBook(ctx context.Context, v *vault.Vault) (*book, error) {
	b := &book{credentials: map[string]*record{}}
	err := v.Each(ctx, vault.TypeVendorCredential, func(id string, plaintext []byte) error {
		r, err := decodeRecord(plaintext)
		if err != nil {
			return fmt.Errorf("record %s: %w", id, err)
		}
		if r.ID != id {
			return fmt.Errorf("record %s calls itself %s", id, r.ID)
		}
		b.credentials[id] = r
		return nil
	})
	return b, err
}

// credential is nil when there is none.
func (b *book) credential(id string) *record {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.credentials[id]
}

// of lists the credentials of an organization.
func (b *book) of(org string) (list []*record) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, r := range b.credentials {
		if r.Organization == org {
			list = append(list, r)
		}
	}
	return list
}

// put seals a record inside the transaction; the map changes when it is on disk.
func (b *book) put(tx *vault.Tx, r *record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encoding record: %w", err)
	}
	if err := tx.Put(vault.TypeVendorCredential, r.ID, text); err != nil {
		return err
	}
	tx.OnCommit(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.credentials[r.ID] = r
	})
	return nil
}
