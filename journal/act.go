package journal

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Act runs one administrative act; e says who asks for what and carries the
// request id and hash:
//
//   - authorize is checked first, also when the answer is already stored;
//   - the same request id with the same message returns the stored answer, with
//     another message it is REQUEST_ID_REUSED;
//   - do, the entry (which do may fill in) and the answer are one transaction,
//     alone in it, durable on return.
//
// T must encode as JSON and hold no secret: it is kept in the journal.
func Act[T any](ctx context.Context, j *Journal, e Entry, authorize func() error, do func(tx *vault.Tx, e *Entry) (T, error)) (T, error) {
	var answer, none T
	if err := CheckRequestID(e.RequestID); err != nil {
		return none, err
	}
	err := j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		if err := authorize(); err != nil {
			return err
		}
		prior, ok, err := j.At(tx).Request(e.Organization, e.RequestID)
		if err != nil {
			return err
		}
		if ok {
			if prior.RequestHash != e.RequestHash || prior.Method != e.Method {
				return refusal.New(refusal.RequestIDReused, "this request_id was used for something else")
			}
			if err := json.Unmarshal(prior.Answer, &answer); err != nil {
				return fmt.Errorf("reading the stored answer: %w", err)
			}
			return nil
		}
		e.Kind = KindAct
		if answer, err = do(tx, &e); err != nil {
			return err
		}
		if e.Answer, err = json.Marshal(answer); err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		_, err = j.Append(tx, e)
		return err
	})
	if err != nil {
		return none, err
	}
	return answer, nil
}

// CheckRequestID holds a caller's request id to 1 to 64 characters of [A-Za-z0-9_-].
func CheckRequestID(id string) error {
	if len(id) == 0 || len(id) > 64 {
		return refusal.New(refusal.RequestInvalid, "request_id must have 1 to 64 characters").With("field", "request_id")
	}
	for _, c := range []byte(id) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-':
		default:
			return refusal.New(refusal.RequestInvalid, "request_id may hold letters, digits, _ and - only").With("field", "request_id")
		}
	}
	return nil
}
