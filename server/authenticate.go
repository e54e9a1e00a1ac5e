package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/refusal"
)

// The metadata a call may carry.
const (
	stampKey  = "sigild-stamp-bin"
	apiKeyKey = "sigild-api-key"
)

const (
	// maxStamps of one call.
	maxStamps = 16
	// maxAPIKey is the longest text that is looked at; ours have fewer than 100 characters.
	maxAPIKey  = 128
	apiKeyHead = "sgk_"
)

// Directory knows who is registered on this appliance; delegation answers.
// Both methods are called from many calls at once and must not block on a device.
type Directory interface {
	// ApplianceID is what stamps bind to. The error wraps vault.ErrSealed while
	// the store is sealed; it goes through Status.
	ApplianceID() (string, error)
	// KnownCredential reports whether the key is registered and alive: with the
	// operators for organization "", else with that organization, and what its
	// assertions are verified with, nil for a credential that makes none. What it may do
	// is decided by each act.
	KnownCredential(organizationID string, key credential.PublicKey) (party *credential.RelyingParty, known bool)
	// NoteUse remembers that a stamp was verified. Its error, a refusal, says that an
	// authenticator's counter did not grow; what grew is durable on return.
	NoteUse(ctx context.Context, organizationID string, key credential.PublicKey, counter uint32) error
}

// proven is what a call has shown besides its caller's uid.
type proven struct {
	organizationID string
	credentials    []credential.PublicKey
	stamps         [][]byte
	apiKey         []byte
}

// authenticate is step 3: what the row demands must be there, and nothing else,
// so that nobody believes a stamp counted where none is looked at.
func (s *Server) authenticate(ctx context.Context, row *access, md metadata.MD, message []byte) (proven, error) {
	stamps, keys := md.Get(stampKey), md.Get(apiKeyKey)
	if row.by != byStamps && row.by != byEither && len(stamps) > 0 {
		return proven{}, refusal.New(refusal.StampInvalid, "this method takes no stamps")
	}
	if row.by != byAPIKey && row.by != byEither && len(keys) > 0 {
		return proven{}, refusal.New(refusal.APIKeyInvalid, "this method takes no wallet API key")
	}
	switch {
	case row.by == byEither && len(stamps) > 0 && len(keys) > 0:
		return proven{}, refusal.New(refusal.StampInvalid, "this method takes stamps or a wallet API key, not both")
	case row.by == byAPIKey, row.by == byEither && len(stamps) == 0:
		return readAPIKey(keys)
	case row.by == byStamps, row.by == byEither:
		return s.verifyStamps(ctx, row, stamps, message)
	}
	return proven{}, nil
}

// readAPIKey takes exactly one value of the right form; whether it opens the
// wallet is delegation's to say, in the same words.
func readAPIKey(values []string) (proven, error) {
	if len(values) == 0 {
		return proven{}, refusal.New(refusal.APIKeyInvalid, "this method needs the wallet API key, in metadata %s", apiKeyKey)
	}
	key := values[0]
	bad := func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-'
	}
	if len(values) > 1 || len(key) > maxAPIKey || !strings.HasPrefix(key, apiKeyHead) || strings.ContainsFunc(key, bad) {
		return proven{}, refusal.New(refusal.APIKeyInvalid, "the wallet API key does not open this wallet")
	}
	return proven{apiKey: []byte(key)}, nil // metadata is a string already; the copy can be wiped
}

// verifyStamps checks every stamp over exactly the received bytes. One that
// fails refuses the call. An unknown credential and a wrong signature look alike.
func (s *Server) verifyStamps(ctx context.Context, row *access, values []string, message []byte) (proven, error) {
	if len(values) == 0 {
		return proven{}, refusal.New(refusal.StampInvalid, "this method needs stamps (%s), in metadata %s", row.stamps, stampKey)
	}
	if len(values) > maxStamps {
		return proven{}, refusal.New(refusal.StampInvalid, "%d stamps, at most %d are taken", len(values), maxStamps)
	}
	stamps := make([]credential.Stamp, len(values))
	for i, value := range values {
		stamp, err := credential.ParseStamp([]byte(value))
		if err != nil {
			return proven{}, refusal.New(refusal.StampInvalid, "stamp %d: %v", i+1, err)
		}
		if stamp.OrganizationID != stamps[0].OrganizationID && i > 0 {
			return proven{}, refusal.New(refusal.StampInvalid, "the stamps name different organizations")
		}
		stamps[i] = stamp
	}
	organization := stamps[0].OrganizationID
	switch { // a row may take either; who may do what to which scope is the act's to say
	case organization != "" && row.stamps&^operators == 0:
		return proven{}, refusal.New(refusal.StampInvalid, "operators' stamps name no organization")
	case organization == "" && row.stamps&operators == 0:
		return proven{}, refusal.New(refusal.StampInvalid, "the stamps name no organization")
	}
	now := s.now()
	for i, stamp := range stamps {
		if err := stamp.Fresh(now); err != nil {
			return proven{}, refusal.New(refusal.StampExpired, "stamp %d: %v", i+1, err).
				With("server_time", now.UTC().Format(time.RFC3339))
		}
	}
	appliance, err := s.directory.ApplianceID()
	if err != nil {
		return proven{}, err
	}
	if appliance == "" {
		return proven{}, errors.New("verifying stamps: the directory gives no appliance id")
	}
	out := proven{organizationID: organization}
	for _, value := range values {
		out.stamps = append(out.stamps, []byte(value))
	}
	counters := make([]uint32, len(stamps))
	for i, stamp := range stamps {
		party, known := s.directory.KnownCredential(organization, stamp.PublicKey)
		var wrong error
		if counters[i], wrong = stamp.VerifyAs(party, appliance, row.method, message); wrong != nil || !known {
			return proven{}, refusal.New(refusal.StampInvalid,
				"stamp %d: not a registered credential's signature over this request, method, organization and appliance", i+1).Because(wrong)
		}
	}
	for i, stamp := range stamps { // none is used up by a call whose other stamps are bad
		if err := s.directory.NoteUse(ctx, organization, stamp.PublicKey, counters[i]); err != nil {
			return proven{}, err
		}
		if !slices.ContainsFunc(out.credentials, stamp.PublicKey.Equal) {
			out.credentials = append(out.credentials, stamp.PublicKey)
		}
	}
	return out, nil
}
