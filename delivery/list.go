package delivery

import (
	"cmp"
	"slices"
	"time"
)

// Delivery is what a member may see of what was delivered for a share set.
type Delivery struct {
	ID, Webhook, Environment string
	// Wallet, ShareSet, User, Chain and Address are the vendor's names; ShareSet, User and Address may be empty.
	Wallet, ShareSet, User, Chain, Address string
	Status                                 Status
	// At is the created event's own time, TakenAt ours.
	At, TakenAt time.Time
	// RevokedAt is the time of the youngest revocation that stands against it; zero unless revoked.
	RevokedAt time.Time
	// Delegation signs with it; "" unless bound or frozen. Proven: a signature made with it verified.
	Delegation string
	Proven     bool
	// Beside says that another delivery for the set is bound, whose place it would take.
	Beside bool
}

// MaxList is how many deliveries one list has at most.
const MaxList = 256

// Deliveries lists what was delivered to an organization, by id, from the one
// behind after on; at most [MaxList]. Revoked ones stay listed.
func (s *Service) Deliveries(a Actor, org, after string) ([]Delivery, error) {
	if err := a.Member(org); err != nil {
		return nil, err
	}
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	var out []Delivery
	for _, w := range s.book.wallets {
		hook := s.book.webhooks[w.Webhook]
		if hook.Organization != org {
			continue
		}
		add := func(set string, m material, beside bool) {
			if m.ID <= after {
				return
			}
			d := Delivery{
				ID: m.ID, Webhook: hook.ID, Environment: hook.Environment, Wallet: w.Wallet, ShareSet: set, User: m.User,
				Chain: m.Chain, Address: m.Address, Status: m.Status, At: m.At, TakenAt: m.TakenAt,
				Delegation: m.Delegation, Proven: m.Proven, Beside: beside,
			}
			if m.Status == Revoked {
				d.RevokedAt, _ = w.buried(set)
			}
			out = append(out, d)
		}
		for set, m := range w.Sets {
			add(set, m, false)
		}
		for set, m := range w.Beside {
			add(set, m, true)
		}
	}
	slices.SortFunc(out, func(a, b Delivery) int { return cmp.Compare(a.ID, b.ID) })
	return out[:min(len(out), MaxList)], nil
}
