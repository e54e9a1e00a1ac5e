package signing

import (
	"context"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/vault"
)

// What the tests in package signing_test may touch: they are outside because the
// real authority, package delegation, imports this one.

// BeforeRelease and BeforeApproval set the hooks; call them before requests run.
func (s *Service) BeforeRelease(f func())  { s.testOnlyBeforeRelease = f }
func (s *Service) BeforeApproval(f func()) { s.testOnlyBeforeApproval = f }

// InQueue is how many requests run or wait for a slot.
func (s *Service) InQueue() int { return len(s.queue) }

// Approved is an approval in a test's hands.
type Approved = approved

// ErrRedeemed is errRedeemed.
var ErrRedeemed = errRedeemed

// Approve is steps 3 to 7.
func (s *Service) Approve(ctx context.Context, r Request) (*Approved, error) {
	st, err := s.authenticate(r)
	if err != nil {
		return nil, err
	}
	if err := s.mayServe(st, s.now()); err != nil {
		return nil, err
	}
	done, err := s.takeTurn(ctx, st.Organization, r.ID)
	if err != nil {
		return nil, err
	}
	defer done()
	d, err := decode(r, st)
	if err != nil {
		return nil, err
	}
	prior, err := s.prior(r, st, d)
	if err != nil {
		return nil, err
	}
	v, err := s.judge(r, st, d, prior, nil)
	if err != nil {
		return nil, err
	}
	return s.approve(ctx, r, st, d, v, prior)
}

// Release is steps 8 to 10.
func (s *Service) Release(ctx context.Context, a *Approved) (*Result, error) {
	return s.release(ctx, a)
}

// Forget drops an approval as a crash would.
func (a *Approved) Forget() { a.leave() }

// DecodeAndJudge is steps 5 and 6.
func (s *Service) DecodeAndJudge(r Request, st *Standing) (*chains.Decoded, policy.Decision, error) {
	d, err := decode(r, st)
	if err != nil {
		return nil, policy.Decision{}, err
	}
	v, err := s.judge(r, st, d, earlier{}, nil)
	return d, v.Decision, err
}

// LendShares is step 8.
func (s *Service) LendShares(ctx context.Context, st *Standing, use func([][]byte) error) error {
	return s.vault.WithAll(ctx, vault.TypeShare, st.ShareIDs, use)
}

// GuardKeys are guardKeys.
func GuardKeys(st *Standing, d *chains.Decoded) []string { return guardKeys(st, d) }

// Make makes one presignature, at once.
func (p *Presignatures) Make(ctx context.Context, w *Presigning) error { return p.make(ctx, w) }

// Prune is what Run does every second.
func (p *Presignatures) Prune() *Presigning { return p.prune() }

// Presignable is presignable, and Pause is pause.
var (
	Presignable = presignable
	Pause       = pause
)

// Take takes one for a request and destroys it.
func (p *Presignatures) Take(st *Standing, d *chains.Decoded) bool {
	one := p.take(st, d)
	if one != nil {
		one.Destroy()
	}
	return one != nil
}

// Proved spares a test the proof, and Unproved demands it again.
func (p *Presignatures) Proved()   { p.done = true }
func (p *Presignatures) Unproved() { p.done = false }
