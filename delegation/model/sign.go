package model

import "github.com/sigild/sigild/refusal"

// The rules of every delegation of the model: up to 500 lamports a transfer, 1000 in all.
const (
	mostAtOnce = 500
	mostEver   = 1000
)

// sign is one request with a wallet API key. Who does not hold the key of an active
// delegation learns nothing; who does is told what holds it up, the widest stop first.
func (m *Model) sign(a Act) Verdict {
	d := m.delegations[a.Delegation]
	known := d.status == active || d.status == expired && d.approveBy.IsZero()
	prior := m.requests[a.Request.ID]
	fresh := prior == nil || prior.refunded
	switch {
	case a.Wrong || !known || a.Wallet != d.wallet:
		return no(refusal.APIKeyInvalid)
	case m.still(d.wallet) || d.paused > 0:
		return no(refusal.Paused)
	case d.status == expired || d.over(m.now):
		return no(refusal.DelegationExpired)
	case prior != nil && (prior.delegation != a.Delegation || prior.lamports != a.Request.Lamports):
		return no(refusal.RequestIDReused)
	case prior != nil && prior.answered:
		return do() // the same answer again
	case m.denied || a.Request.Lamports > mostAtOnce:
		return no(refusal.PolicyDenied)
	case d.over(m.later()):
		return no(refusal.DelegationExpired)
	case fresh && d.spent+a.Request.Lamports > mostEver:
		return no(refusal.LimitExceeded)
	}
	approved := func() {
		if fresh {
			d.spent += a.Request.Lamports
			m.requests[a.Request.ID] = &request{delegation: a.Delegation, lamports: a.Request.Lamports}
		}
	}
	refunded := func() {
		if fresh {
			d.spent -= a.Request.Lamports
			m.requests[a.Request.ID].refunded = true
		}
	}
	signed := func() { m.requests[a.Request.ID].answered = true }
	if d.place == nil {
		return do(approved, signed)
	}
	return m.signVendor(a, d, do(approved), refunded, signed)
}

// signVendor has the vendor's program sign, with what is bound first, then with what
// stands beside it. What it returns is believed only if it verifies.
func (m *Model) signVendor(a Act, d *delegation, v Verdict, refunded, signed func()) Verdict {
	p := d.place
	var list []*material
	if p.in.status == "bound" {
		list = append(list, p.in)
	}
	if p.beside != nil {
		list = append(list, p.beside)
	}
	switch {
	case len(list) == 0: // frozen
		v.Refused = refusal.Paused
		return v.and(refunded)
	case a.Away: // nothing was asked
		v.Refused = refusal.ProviderUnavailable
		return v.and(refunded)
	}
	for _, c := range list {
		bound := c == p.in
		switch c.event.Mood {
		case Good:
			if !c.proven {
				v = v.and(func() {
					if !bound {
						p.in, p.beside = c, nil
					}
					c.status, c.proven = "bound", true
				})
			}
			return v.and(signed)
		case Foreign:
			if !bound {
				v = v.and(func() { p.beside = nil })
				continue
			}
			v = v.and(func() { c.status, d.paused = "frozen", ByAppliance })
			v.Refused = refusal.OutcomeUnknown
			return v.and(func() {}) // nothing more is tried: the delegation is paused
		}
	}
	v.Refused = refusal.OutcomeUnknown // the charge stands
	return v.and(func() {})
}

// signStamped is a delegated user's, or anybody's, stamp for one of the owner's wallets:
// no policy of the organization allows it, whoever asks.
func (m *Model) signStamped(a Act) Verdict {
	users := m.owner(a) || a.count(Erin) > 0 || !m.removed[0] && a.count(Bot0) > 0 || !m.removed[1] && a.count(Bot1) > 0
	switch {
	case !a.Inside():
		return no(refusal.NotFound)
	case !users:
		return no(refusal.QuorumMissing)
	case m.wallets[a.Wallet].vendor >= 0:
		return no(refusal.NotActive)
	case m.still(a.Wallet):
		return no(refusal.Paused)
	}
	return no(refusal.PolicyDenied)
}
