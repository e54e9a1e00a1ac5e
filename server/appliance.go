package server

import (
	"context"
	"sync/atomic"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
)

// Appliance is what lies behind the handlers. The sockets are served whether the
// store is sealed or not; while it is, every method but GetStatus answers SEALED.
type Appliance struct {
	// version is the build's.
	version string
	// state is swapped, never modified; each call loads it once.
	state atomic.Pointer[state]
}

type state struct {
	parts *Parts // nil while sealed
	why   string // why it is sealed
}

// Parts are the open rooms of an unsealed appliance.
type Parts struct {
	Delegation *delegation.Service
	Signing    *signing.Service
	// Status fills in what the rooms below know: providers, anchor, pool, journal.
	Status func() *sigilv1.GetStatusResponse
}

// NewAppliance starts sealed.
func NewAppliance(version string) *Appliance {
	a := &Appliance{version: version}
	a.Sealed("starting")
	return a
}

// Sealed makes every later call answer SEALED with the reason.
func (a *Appliance) Sealed(why string) { a.state.Store(&state{why: why}) }

// Unsealed lets calls through to the parts.
func (a *Appliance) Unsealed(p Parts) { a.state.Store(&state{parts: &p}) }

// open returns the parts, or the refusal that says why there are none.
func (a *Appliance) open() (*Parts, error) {
	st := a.state.Load()
	if st.parts == nil {
		return nil, refusal.New(refusal.Sealed, "the store is sealed: %s", st.why)
	}
	return st.parts, nil
}

// ApplianceID implements [Directory].
func (a *Appliance) ApplianceID() (string, error) {
	p, err := a.open()
	if err != nil {
		return "", err
	}
	return p.Delegation.ApplianceID(), nil
}

// KnownCredential implements [Directory].
func (a *Appliance) KnownCredential(organizationID string, key credential.PublicKey) bool {
	p, err := a.open()
	return err == nil && p.Delegation.KnownCredential(organizationID, key)
}

// Services are the handlers of this appliance.
func (a *Appliance) Services() Services {
	return Services{
		Status:       statusService{a: a},
		Organization: organizationService{a: a},
		User:         userService{a: a},
		Wallet:       walletService{a: a},
		Delegation:   delegationService{a: a},
		Signing:      signingService{a: a},
	}
}

// enter gives a handler the parts and the actor of its call.
func (a *Appliance) enter(ctx context.Context) (*Parts, delegation.Actor, error) {
	p, err := a.open()
	if err != nil {
		return nil, delegation.Actor{}, err
	}
	r := requestFrom(ctx)
	return p, delegation.Actor{
		Caller: journalCaller(r.caller), Method: r.method, RequestHash: r.hash,
		Organization: r.organizationID, Credentials: r.credentials,
	}, nil
}

func journalCaller(c Caller) journal.Caller {
	return journal.Caller{UID: c.UID, GID: c.GID, PID: c.PID}
}
