package delegation

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
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

// act runs one administrative act:
//
//   - authorize is checked first, also when the answer is already stored;
//   - the same request id with the same bytes returns the stored answer, with
//     other bytes it is refused;
//   - do, the journal entry and the answer are one transaction, alone in it.
//
// T must encode as JSON and hold no secret: it is kept in the journal.
func act[T any](ctx context.Context, s *Service, a Actor, org, requestID string, authorize func() error, do func(tx *vault.Tx, e *journal.Entry) (T, error)) (T, error) {
	var answer T
	if err := CheckRequestID(requestID); err != nil {
		return answer, err
	}
	hash := hex.EncodeToString(a.RequestHash[:])
	err := s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		if err := authorize(); err != nil {
			return err
		}
		if prior, ok := s.journal.At(tx).Request(org, requestID); ok {
			if prior.RequestHash != hash || prior.Method != a.Method {
				return refusal.New(refusal.RequestIDReused, "this request_id was used for something else")
			}
			if err := json.Unmarshal(prior.Answer, &answer); err != nil {
				return fmt.Errorf("reading the stored answer: %w", err)
			}
			return nil
		}
		e := journal.Entry{
			Kind: journal.KindAct, Method: a.Method, Organization: org,
			RequestID: requestID, RequestHash: hash, Caller: &a.Caller,
		}
		for _, c := range a.Credentials {
			e.Credentials = append(e.Credentials, c.ID())
		}
		var err error
		if answer, err = do(tx, &e); err != nil {
			return err
		}
		if e.Answer, err = json.Marshal(answer); err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		_, err = s.journal.Append(tx, e)
		return err
	})
	if err != nil {
		var none T
		return none, err
	}
	return answer, nil
}
