package delegation

import (
	"context"
	"encoding/hex"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// Actor is who performs an act: the peer of the socket and the credentials whose
// stamps over the received bytes were verified. The server makes it; nothing in
// it is taken from the message.
type Actor struct {
	Caller journal.Caller
	// Method is the full gRPC method the stamps are bound to.
	Method string
	// RequestHash is SHA-256 of the received message bytes.
	RequestHash [32]byte
	// Organization is the one the stamps name; "" for operators' stamps.
	Organization string
	// Credentials are distinct.
	Credentials []credential.PublicKey
}

// Entry is the journal entry of an act of this actor, to be filled in.
func (a Actor) Entry(org, requestID string) journal.Entry {
	e := journal.Entry{
		Kind: journal.KindAct, Method: a.Method, Organization: org,
		RequestID: requestID, RequestHash: hex.EncodeToString(a.RequestHash[:]), Caller: &a.Caller,
	}
	for _, c := range a.Credentials {
		e.Credentials = append(e.Credentials, c.ID())
	}
	return e
}

// act is [journal.Act] for an actor.
func act[T any](ctx context.Context, s *Service, a Actor, org, requestID string, authorize func() error, do func(tx *vault.Tx, e *journal.Entry) (T, error)) (T, error) {
	return journal.Act(ctx, s.journal, a.Entry(org, requestID), authorize, do)
}

// Acting is an actor together with what this appliance lets it do, for the rooms
// beside delegation that have acts of their own.
type Acting struct {
	Actor
	s *Service
}

// Acting binds an actor of a call to the service's records.
func (s *Service) Acting(a Actor) Acting { return Acting{a, s} }

// Root demands the organization's root quorum.
func (a Acting) Root(org string) error { return a.s.root(a.Actor, org) }

// Member demands the stamp of a root member of the organization: what is no end
// user's is theirs alone to see.
func (a Acting) Member(org string) error {
	if err := a.s.member(a.Actor, org); err != nil {
		return err
	}
	if !a.s.concerns(a.Actor, org, "") {
		return quorumMissing("root members", 0, 1)
	}
	return nil
}
