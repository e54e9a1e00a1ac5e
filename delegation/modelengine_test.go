package delegation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"

	"github.com/sigild/sigild/mpc"
)

// double is an engine for the lives of the model alone, which are too many for real
// ceremonies: its parties exchange one message, after which each of them signs with the
// whole key. What signing expects of an engine it does: the message with which a party
// gives up its share is marked, so the last look at the delegation comes before it.
// Campaign lives have the real engines (cmd/sigilctl).
type double struct{}

const doubleEngine = "double-of-tests"

// doubles has the keys of the double's sets, by public key.
var doubles struct {
	mu   sync.Mutex
	keys map[string]ed25519.PrivateKey
}

func init() { mpc.Register(doubleEngine, double{}) }

// newDoubleKey makes a key that the double signs with.
func newDoubleKey() ed25519.PublicKey {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err)
	}
	doubles.mu.Lock()
	defer doubles.mu.Unlock()
	if doubles.keys == nil {
		doubles.keys = map[string]ed25519.PrivateKey{}
	}
	doubles.keys[string(public)] = private
	return public
}

func (double) Keygen(context.Context, mpc.Session, mpc.KeygenParams) (body, public []byte, err error) {
	return nil, nil, errors.New("the double makes no keys")
}

func (double) Reshare(_ context.Context, _ mpc.Session, p mpc.ReshareParams) (body, public []byte, err error) {
	if p.Body == nil {
		body = []byte("a double's share of " + p.Self.String())
	}
	return body, bytes.Clone(p.PublicKey), nil
}

func (double) Sign(ctx context.Context, s mpc.Session, p mpc.SignParams) ([]byte, error) {
	doubles.mu.Lock()
	key := doubles.keys[string(p.PublicKey)]
	doubles.mu.Unlock()
	if key == nil {
		return nil, errors.New("the double has no such key")
	}
	var others []mpc.Member
	for _, q := range p.Quorum {
		if q != p.Self {
			others = append(others, mpc.Member{SetID: p.Committee.SetID, Party: q})
		}
	}
	if err := s.Send(ctx, mpc.Envelope{To: others, Kind: "double", Final: true, Payload: []byte{1}}); err != nil {
		return nil, err
	}
	for range others {
		if _, err := s.Recv(ctx); err != nil {
			return nil, fmt.Errorf("waiting for the other party: %w", err)
		}
	}
	return ed25519.Sign(key, p.Input.Message), nil
}
