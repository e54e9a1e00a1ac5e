package stamping

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/stamping/dfns"
	"github.com/sigild/sigild/stamping/turnkey"
	"github.com/sigild/sigild/vault"
)

// maxCredentials bounds an organization's credentials, revoked ones included.
const maxCredentials = 256

// NewCredential asks for a credential of a vendor's.
type NewCredential struct {
	secret
	RequestID    string
	Organization string
	// Name is for people.
	Name   string
	Vendor Vendor
	// Account is the vendor's name of what the credential is of: Turnkey's organization
	// id, Dfns' id of the credential ("cr-…").
	Account string
	// Witness says for Dfns that a challenge is a request's; nil with TrustCaller, and
	// for Turnkey.
	Witness     *credential.PublicKey
	TrustCaller bool
	// Private is a key that exists, 32 bytes; the caller keeps and wipes it. Empty: one is made.
	Private []byte
}

// CredentialCreated answers CreateVendorCredential.
type CredentialCreated struct {
	CredentialID string `json:"credential_id"`
	// PublicKey is for the vendor: a P-256 point, compressed.
	PublicKey []byte `json:"public_key"`
}

// Create makes a credential, or takes its key in, under the root quorum. The private
// key is sealed in the same transaction. Durable on return.
func (s *Service) Create(ctx context.Context, a Actor, n NewCredential) (CredentialCreated, error) {
	if err := n.check(); err != nil {
		return CredentialCreated{}, err
	}
	return journal.Act(ctx, s.cfg.Journal, a.Entry(n.Organization, n.RequestID), func() error { return a.Root(n.Organization) }, func(tx *vault.Tx, e *journal.Entry) (out CredentialCreated, err error) {
		put := func(raw []byte) error {
			out, err = s.create(tx, e, n, raw)
			return err
		}
		if len(n.Private) > 0 {
			return out, put(n.Private)
		}
		return out, makeKey(put)
	})
}

func (s *Service) create(tx *vault.Tx, e *journal.Entry, n NewCredential, raw []byte) (CredentialCreated, error) {
	public, err := publicOf(raw)
	if err != nil {
		return CredentialCreated{}, refusal.New(refusal.RequestInvalid, "%v", err).With("field", "private_key")
	}
	have := s.book.of(n.Organization)
	if len(have) >= maxCredentials {
		return CredentialCreated{}, refusal.New(refusal.RequestInvalid, "the organization has %d vendor credentials, no more are taken", len(have))
	}
	if slices.ContainsFunc(have, func(r *record) bool { return bytes.Equal(r.Public, public) }) {
		return CredentialCreated{}, refusal.New(refusal.RequestInvalid, "the organization has, or had, a vendor credential with this key").With("field", "private_key")
	}
	r := &record{
		V: recordVersion, ID: "vcr_" + strings.ToLower(rand.Text()), Organization: n.Organization, Name: n.Name, Vendor: n.Vendor, CreatedAt: s.now().UTC(),
		Status: Active, Imported: len(n.Private) > 0, Public: public, Account: n.Account, TrustCaller: n.TrustCaller,
	}
	if n.Witness != nil {
		r.Witness = &witness{Algorithm: n.Witness.Algorithm, Public: n.Witness.Bytes}
	}
	if err := tx.Put(vault.TypeVendorKey, r.key(), raw); err != nil {
		return CredentialCreated{}, err
	}
	if err := s.book.put(tx, r); err != nil {
		return CredentialCreated{}, err
	}
	e.Facts = map[string]string{
		"vendor_credential": r.ID, "vendor": string(r.Vendor), "account": r.Account, "public_key": hex.EncodeToString(public), "origin": r.origin(),
	}
	if r.Vendor == Dfns {
		e.Facts["challenges"] = r.challenges()
	}
	return CredentialCreated{CredentialID: r.ID, PublicKey: public}, nil
}

func (r *record) origin() string {
	if r.Imported {
		return "imported"
	}
	return "here"
}

// challenges says who vouches that a challenge is a request's.
func (r *record) challenges() string {
	if r.Witness == nil {
		return "caller"
	}
	return "witness " + hex.EncodeToString(r.Witness.Public)
}

func (n NewCredential) check() error {
	invalid := func(field, format string, args ...any) error {
		return refusal.New(refusal.RequestInvalid, format, args...).With("field", field)
	}
	if err := journal.CheckRequestID(n.RequestID); err != nil {
		return err
	}
	if len(n.Name) == 0 || len(n.Name) > 64 || strings.ContainsFunc(n.Name, func(c rune) bool { return c < 0x20 || c > 0x7e }) {
		return invalid("name", "name must have 1 to 64 printable ASCII characters")
	}
	if len(n.Private) != 0 && len(n.Private) != scalarSize {
		return invalid("private_key", "private_key must have %d bytes", scalarSize)
	}
	switch n.Vendor {
	case Turnkey:
		if !goodTurnkeyID(n.Account) {
			return invalid("turnkey", "Turnkey's organization id must have 1 to %d characters of [A-Za-z0-9-]", turnkey.MaxID)
		}
		if n.Witness != nil || n.TrustCaller {
			return invalid("turnkey", "Turnkey has no challenges")
		}
	case Dfns:
		if !dfns.GoodID(n.Account) || !strings.HasPrefix(n.Account, "cr-") {
			return invalid("dfns", "Dfns' id of the credential is cr- and lower-case letters, digits and hyphens")
		}
		if (n.Witness != nil) == n.TrustCaller {
			return invalid("dfns", "either a witness says that challenges are of their requests, or the caller is trusted")
		}
		if n.Witness != nil && n.Witness.Algorithm == credential.WebAuthnP256 {
			return invalid("dfns", "a witness signs with a key of its own, not with an authenticator")
		}
	default:
		return invalid("vendor", "no such vendor")
	}
	return nil
}

// goodTurnkeyID reports whether an id, or an address, is one that Turnkey could have.
func goodTurnkeyID(id string) bool {
	return id != "" && len(id) <= turnkey.MaxID && !strings.ContainsFunc(id, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-'
	})
}

// Credential is what a member may see of one.
type Credential struct {
	ID, Name             string
	Vendor               Vendor
	Account              string
	PublicKey            []byte
	Status               Status
	CreatedAt, RevokedAt time.Time // RevokedAt is zero unless revoked
	Imported             bool
	// Witness is who says for Dfns that a challenge is a request's; nil: nobody.
	Witness     *credential.PublicKey
	TrustCaller bool
}

// Credentials lists an organization's credentials by id, revoked ones too; at most 256.
func (s *Service) Credentials(a Actor, org string) ([]Credential, error) {
	if err := a.Member(org); err != nil {
		return nil, err
	}
	var out []Credential
	for _, r := range s.book.of(org) {
		c := Credential{
			ID: r.ID, Name: r.Name, Vendor: r.Vendor, Account: r.Account, PublicKey: r.Public, Status: r.Status,
			CreatedAt: r.CreatedAt, RevokedAt: r.RevokedAt, Imported: r.Imported, TrustCaller: r.TrustCaller,
		}
		if r.Witness != nil {
			key, err := r.Witness.key()
			if err != nil {
				return nil, err
			}
			c.Witness = &key
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Credential) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// CredentialRevoked answers RevokeVendorCredential.
type CredentialRevoked struct {
	Delegations []string `json:"delegations"`
}

// Revoke destroys a credential's key under the root quorum, and ends every delegation
// that it stamps for. It returns when no stamp of theirs is under way; the vendor still
// knows the public key. Durable on return.
func (s *Service) Revoke(ctx context.Context, a Actor, requestID, org, id string) (CredentialRevoked, error) {
	if err := journal.CheckRequestID(requestID); err != nil {
		return CredentialRevoked{}, err
	}
	out, err := journal.Act(ctx, s.cfg.Journal, a.Entry(org, requestID), func() error { return a.Root(org) }, func(tx *vault.Tx, e *journal.Entry) (CredentialRevoked, error) {
		r, err := s.find(org, id)
		if err != nil || r.Status == Revoked {
			return CredentialRevoked{}, err
		}
		ended, err := s.cfg.Delegations.EndCredential(tx, id)
		if err != nil {
			return CredentialRevoked{}, err
		}
		if err := tx.Delete(vault.TypeVendorKey, r.key()); err != nil {
			return CredentialRevoked{}, err
		}
		revoked := *r
		revoked.Status, revoked.RevokedAt = Revoked, s.now().UTC()
		e.Facts = map[string]string{"vendor_credential": id, "vendor": string(r.Vendor), "delegations": strings.Join(ended, " ")}
		return CredentialRevoked{Delegations: ended}, s.book.put(tx, &revoked)
	})
	if err != nil {
		return CredentialRevoked{}, err
	}
	for _, d := range out.Delegations {
		if err := s.cfg.Delegations.Await(ctx, d); err != nil {
			return CredentialRevoked{}, err
		}
	}
	return out, nil
}

// find locates a credential of an organization; one of another does not exist.
func (s *Service) find(org, id string) (*record, error) {
	r := s.book.credential(id)
	if r == nil || r.Organization != org {
		return nil, refusal.New(refusal.NotFound, "no such vendor credential")
	}
	return r, nil
}
