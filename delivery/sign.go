package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// Signing with what was delivered. The vendor's protocol is closed, so the vendor's
// own program speaks it, in a unit of its own behind a socket (package runner). It
// gets the share, the wallet API key, the environment's developer token and the
// approved request, each for this one signature. Nothing that it returns is believed.

// Program runs the vendor's program once.
type Program interface {
	// Connect reaches the unit; nothing secret has left. An error means that nothing was asked.
	Connect(ctx context.Context) (Run, error)
}

// Run is one run of the program.
type Run interface {
	// Sign hands everything over and returns what came back: at most 65 bytes. The
	// secrets are lent. It ends, and the program with it, when ctx does.
	Sign(ctx context.Context, request, share, apiKey, token []byte) (signature []byte, err error)
	// Close is safe after Sign and instead of it.
	Close() error
}

// request is what the program is told, as JSON; package runner's documentation is for
// those who write one.
type request struct {
	V           int    `json:"v"`
	RequestID   string `json:"request_id"`
	Delegation  string `json:"delegation"`
	Environment string `json:"environment_id"`
	Wallet      string `json:"wallet_id"`
	ShareSet    string `json:"share_set_id,omitempty"`
	Chain       string `json:"chain"`
	Address     string `json:"address"`
	Scheme      string `json:"scheme"`
	Kind        string `json:"kind"`
	Payload     []byte `json:"payload"`
	Signed      []byte `json:"signed"`
	Summary     string `json:"summary"`
}

// candidate is a material that may be signed with.
type candidate struct {
	material
	record string
}

// candidates are what is bound to the delegation, and what stands beside it.
func (s *Service) candidates(share signing.VendorShare, delegation string) (*webhook, []candidate, error) {
	hook := s.book.webhook(share.Webhook)
	if hook == nil {
		return nil, nil, fmt.Errorf("signing with a vendor's share: webhook %s is missing", share.Webhook)
	}
	w := s.book.wallet(share.Webhook, share.Wallet)
	m, ok := w.Sets[share.ShareSet]
	if !ok || m.Delegation != delegation {
		return nil, nil, refusal.New(refusal.DelegationRevoked, "the vendor's share was destroyed")
	}
	var out []candidate
	if m.Status == Bound {
		out = append(out, candidate{m, w.record(hook.Environment, share.ShareSet, m)})
	}
	if next, ok := w.Beside[share.ShareSet]; ok {
		out = append(out, candidate{next, w.record(hook.Environment, share.ShareSet, next)})
	}
	if len(out) == 0 {
		return nil, nil, refusal.New(refusal.Paused, "the vendor's share is frozen: a signature made with it did not verify against the wallet's address")
	}
	return hook, out, nil
}

// SignVendor implements signing.VendorSigner: the bound share first; if it brings no
// signature that verifies, what stands beside it. Both sign the same approved bytes.
func (s *Service) SignVendor(ctx context.Context, r signing.VendorRequest) ([]byte, error) {
	if s.cfg.Program == nil {
		return nil, refusal.New(refusal.ProviderUnavailable, "no vendor's program is configured")
	}
	hook, list, err := s.candidates(r.Share, r.Delegation)
	if err != nil {
		return nil, err
	}
	ctx, done := s.running.start(ctx, r.Delegation)
	defer done()
	var failed error
	for _, c := range list {
		signature, err := s.signWith(ctx, hook, c, r)
		if err == nil {
			if !c.Proven {
				if err := s.proved(context.WithoutCancel(ctx), r.Share, r.Delegation, c.ID); err != nil {
					return nil, fmt.Errorf("remembering that a vendor's share signs: %w", err)
				}
			}
			return signature, nil
		}
		var no *refusal.Error
		if errors.As(err, &no) && failed != nil {
			return nil, fmt.Errorf("%w; then: %v", failed, err) // the first may have signed: no plain refusal
		}
		failed = errors.Join(failed, err)
		if errors.Is(err, signing.ErrForeignSignature) {
			if err := s.froze(context.WithoutCancel(ctx), r.Share, r.Delegation, c.ID); err != nil {
				return nil, errors.Join(failed, fmt.Errorf("freezing a vendor's share: %w", err))
			}
		}
		if ctx.Err() != nil || no != nil {
			break
		}
	}
	return nil, failed
}

// signWith has the program sign with one material.
func (s *Service) signWith(ctx context.Context, hook *webhook, c candidate, r signing.VendorRequest) (signature []byte, err error) {
	text, err := json.Marshal(request{
		V: 1, RequestID: r.RequestID, Delegation: r.Delegation, Environment: hook.Environment, Wallet: r.Share.Wallet, ShareSet: r.Share.ShareSet,
		Chain: r.Chain, Address: r.Address, Scheme: string(r.Scheme), Kind: string(r.Kind), Payload: r.Payload, Signed: r.Signed, Summary: r.Summary,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the request to a vendor's program: %w", err)
	}
	run, err := s.cfg.Program.Connect(ctx)
	if err != nil {
		return nil, refusal.New(refusal.ProviderUnavailable, "the vendor's program can't be reached").Because(err)
	}
	defer func() { _ = run.Close() }()
	var raw []byte
	v := s.cfg.Vault
	err = v.With(ctx, vault.TypeVendorShare, c.record, func(share []byte) error {
		return v.With(ctx, vault.TypeVendorAPIKey, c.record, func(apiKey []byte) error {
			return s.withToken(ctx, hook, func(token []byte) error {
				if err := r.BeforeRelease(); err != nil {
					return err
				}
				raw, err = run.Sign(ctx, text, share, apiKey, token)
				return err
			})
		})
	})
	if err != nil {
		return nil, err
	}
	return r.Verify(raw)
}

// withToken lends the environment's developer token; empty where none was set.
func (s *Service) withToken(ctx context.Context, hook *webhook, use func([]byte) error) error {
	if hook.Token == "" {
		return use(nil)
	}
	return s.cfg.Vault.With(ctx, vault.TypeWebhookSecret, hook.Token, use)
}

// runs are signatures under way, so that the end of a delegation ends them.
type runs struct {
	mu sync.Mutex
	of map[string]map[*context.CancelCauseFunc]struct{}
}

var errEnded = refusal.New(refusal.DelegationRevoked, "the delegation ended while it signed")

func (r *runs) start(ctx context.Context, delegation string) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of == nil {
		r.of = map[string]map[*context.CancelCauseFunc]struct{}{}
	}
	if r.of[delegation] == nil {
		r.of[delegation] = map[*context.CancelCauseFunc]struct{}{}
	}
	r.of[delegation][&cancel] = struct{}{}
	return ctx, func() {
		cancel(nil)
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.of[delegation], &cancel)
		if len(r.of[delegation]) == 0 {
			delete(r.of, delegation)
		}
	}
}

func (r *runs) stop(delegation string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for cancel := range r.of[delegation] {
		(*cancel)(errEnded)
	}
}
