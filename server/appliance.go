package server

import (
	"context"
	"sync/atomic"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/delivery"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/outbox"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/stamping"
)

// Appliance is what lies behind the handlers. The sockets are served whether the
// store is sealed or not; while it is, every method but GetStatus, the health check
// and Unseal answers SEALED.
type Appliance struct {
	// version is the build's.
	version string
	// state is swapped, never modified; each call loads it once.
	state atomic.Pointer[state]
	// peers are the connections of peer.sock.
	peers peerConns
}

type state struct {
	parts *Parts // nil while sealed
	why   string // why it is sealed
	guard *Guard // set when an operator sealed it
}

// Guard lets operators' stamps through to Unseal while the store is closed.
type Guard struct {
	delegation.Guard
	// Unseal opens the rooms when the operators' quorum stamped it, and leaves them
	// closed otherwise.
	Unseal func(ctx context.Context, a delegation.Actor, requestID string) error
}

// Parts are the open rooms of an unsealed appliance.
type Parts struct {
	Delegation *delegation.Service
	Signing    *signing.Service
	Delivery   *delivery.Service
	Stamping   *stamping.Service
	Outbox     *outbox.Service
	Journal    *journal.Journal
	// Status fills in what the rooms below know: providers, anchor, pool, journal.
	Status func() *sigilv1.GetStatusResponse
	// Close ends the rooms and wipes the root key, after an operator sealed the appliance.
	Close func(ctx context.Context) error
}

// NewAppliance starts sealed.
func NewAppliance(version string) *Appliance {
	a := &Appliance{version: version}
	a.Sealed("starting")
	return a
}

// Sealed makes every later call answer SEALED with the reason.
func (a *Appliance) Sealed(why string) { a.state.Store(&state{why: why}) }

// SealedBy is Sealed for an appliance that an operator sealed on purpose.
func (a *Appliance) SealedBy(why string, g Guard) { a.state.Store(&state{why: why, guard: &g}) }

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
	if g := a.state.Load().guard; g != nil {
		return g.ApplianceID, nil
	}
	p, err := a.open()
	if err != nil {
		return "", err
	}
	return p.Delegation.ApplianceID(), nil
}

// KnownCredential implements [Directory].
func (a *Appliance) KnownCredential(organizationID string, key credential.PublicKey) (*credential.RelyingParty, bool) {
	if g := a.state.Load().guard; g != nil {
		return nil, organizationID == "" && g.Knows(key)
	}
	p, err := a.open()
	if err != nil {
		return nil, false
	}
	return p.Delegation.KnownCredential(organizationID, key)
}

// NoteUse implements [Directory].
func (a *Appliance) NoteUse(ctx context.Context, organizationID string, key credential.PublicKey, counter uint32) error {
	if organizationID == "" {
		return nil
	}
	p, err := a.open()
	if err != nil {
		return err
	}
	return p.Delegation.NoteUse(ctx, organizationID, key, counter)
}

// Services are the handlers of this appliance.
func (a *Appliance) Services() Services {
	return Services{
		Status:        statusService{a: a},
		Organization:  organizationService{a: a},
		User:          userService{a: a},
		Wallet:        walletService{a: a},
		Delegation:    delegationService{a: a},
		Access:        delegatedAccessService{a: a},
		Policy:        policyService{a: a},
		Delivery:      deliveryService{a: a},
		Vendor:        vendorService{a: a},
		Endpoint:      endpointService{a: a},
		Courier:       courierService{a: a},
		Activity:      activityService{a: a},
		Order:         orderService{a: a},
		Key:           keyService{a: a},
		Signing:       signingService{a: a},
		Control:       controlService{a: a},
		Keyslot:       keyslotService{a: a},
		Clock:         clockService{a: a},
		Audit:         auditService{a: a},
		Limit:         limitService{a: a},
		Member:        memberService{a: a},
		DelegatedUser: delegatedUserService{a: a},
		KeyDelegation: keyDelegationService{a: a},
		Device:        deviceService{a: a},
		Cosign:        cosignService{a: a},
		Receipt:       receiptService{a: a},
		Ceremony:      ceremonyService{a: a},
		Credential:    vendorCredentialService{a: a},
		Stamping:      stampingService{a: a},
		Open:          func() bool { return a.state.Load().parts != nil },
	}
}

// enter gives a handler the parts and the actor of its call.
func (a *Appliance) enter(ctx context.Context) (*Parts, delegation.Actor, error) {
	p, err := a.open()
	if err != nil {
		return nil, delegation.Actor{}, err
	}
	return p, actorOf(ctx), nil
}

// actorOf is what the wrapper found out about the call.
func actorOf(ctx context.Context) delegation.Actor {
	r := requestFrom(ctx)
	return delegation.Actor{
		Caller: journalCaller(r.caller), Method: r.method, RequestHash: r.hash,
		Organization: r.organizationID, Credentials: r.credentials,
	}
}

func journalCaller(c Caller) journal.Caller {
	return journal.Caller{UID: c.UID, GID: c.GID, PID: c.PID}
}
