package model

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/refusal"
)

// Status of a delegation, as it was written down last.
type Status string

// The statuses. That one is paused, or over and not yet written down as ended, follows
// from the rest.
const (
	pending Status = "pending"
	active  Status = "active"
	revoked Status = "revoked"
	expired Status = "expired"
	failed  Status = "failed"
)

type delegation struct {
	wallet, user int
	status       Status
	ends         time.Time // zero: never
	// approveBy is zero once approved.
	approveBy time.Time
	paused    Level
	// place is what a vendor's delegation signs with; nil for one of our own.
	place *place
	// spent counts against the limit of 1000.
	spent uint64
}

type wallet struct {
	// vendor is -1 for the owner's own.
	vendor int
	paused Level
}

// request is a signature that was approved.
type request struct {
	delegation int
	lamports   uint64
	answered   bool
	// refunded: nothing left, so it is reserved anew. Its id stays that of these lamports.
	refunded bool
}

// Model is the whole state. Make one with [New].
type Model struct {
	// sockets: acts come over the daemon's sockets, which turn away stamps of credentials
	// that are not registered before anything else; and what lies in its store is not seen.
	sockets      bool
	now, reached time.Time
	// offered is nil as long as the organization never said.
	offered      *bool
	denied       bool
	removed      [Users]bool
	secondEnded  bool
	ruthLeft     bool
	appliance    Level
	organization Level
	wallets      []wallet
	delegations  []*delegation
	requests     map[int]*request
	vendors      [VendorWallets]vendor
}

// approveWithin is how long a proposal waits.
const approveWithin = 7 * 24 * time.Hour

// New is an organization of three root members with a quorum of two, whose user Dana
// owns the own wallets, at a time.
func New(now time.Time) *Model {
	m := &Model{now: now, reached: now, requests: map[int]*request{}}
	for range OwnWallets {
		m.wallets = append(m.wallets, wallet{vendor: -1})
	}
	for i := range m.vendors {
		m.vendors[i] = newVendor()
	}
	return m
}

// Verdict is what must come of an act: the refusal or outcome, and the changes in the
// order in which they become durable.
type Verdict struct {
	Refused refusal.Reason
	Outcome string
	changes []func()
}

func no(r refusal.Reason) Verdict            { return Verdict{Refused: r} }
func do(changes ...func()) Verdict           { return Verdict{changes: changes} }
func (v Verdict) and(more ...func()) Verdict { v.changes = append(v.changes, more...); return v }

// happen makes the changes that were durable when the process died before write cut;
// 0: it did not. The last change of an act is never durable before its last write.
func (v Verdict) happen(cut int) {
	n := len(v.changes)
	if cut > 0 {
		n = max(0, min(cut-1, n-1))
	}
	for _, change := range v.changes[:n] {
		change()
	}
}

// later is the clock that ends go by: what is over stays over when the host's clock is
// turned back.
func (m *Model) later() time.Time {
	if m.reached.After(m.now) {
		return m.reached
	}
	return m.now
}

// Judge says what must come of an act. It changes nothing; the verdict's changes do.
func (m *Model) Judge(a Act) Verdict {
	if m.sockets && m.unknown(a) {
		return no(refusal.StampInvalid)
	}
	switch a.Verb {
	case Enable:
		return m.byQuorum(a, m.enable)
	case Propose:
		return m.propose(a)
	case Approve:
		return m.approve(a)
	case Create:
		return m.create(a)
	case Revoke:
		return m.revoke(a)
	case Pause:
		return m.pause(a)
	case Resume:
		return m.resume(a)
	case Deliver:
		return m.deliver(a)
	case Bind:
		return m.byQuorum(a, m.bind)
	case Sign:
		return m.sign(a)
	case SignStamped:
		return m.signStamped(a)
	case SetClock:
		return do(func() { m.now = a.At })
	case Sweep:
		return do(m.sweep)
	case Deny:
		return m.deny(a)
	case RemoveUser:
		return m.byQuorum(a, func(a Act) Verdict { return do(func() { m.removeUser(a.User) }) })
	case EndCredential:
		return m.endCredential(a)
	case DropRoot:
		return m.byQuorum(a, func(Act) Verdict { return do(func() { m.ruthLeft = true }) })
	case Meddle: // who does it has no right to it, whoever that is
		return m.authority(a, false)
	case Restart:
		return do()
	}
	panic(fmt.Sprintf("no such act: %+v", a))
}

// authority is the refusal of who may not; its zero refuses nothing.
func (m *Model) authority(a Act, may bool) Verdict {
	switch {
	case !a.Inside():
		return no(refusal.NotFound) // to them the organization does not exist
	case !may:
		return no(refusal.QuorumMissing)
	}
	return Verdict{}
}

// byQuorum is for what the root quorum alone may do.
func (m *Model) byQuorum(a Act, then func(Act) Verdict) Verdict {
	if v := m.authority(a, m.quorum(a)); v.Refused != "" {
		return v
	}
	return then(a)
}

func (m *Model) enable(a Act) Verdict {
	if m.removed[0] { // the default delegated user is the first
		return no(refusal.NotActive)
	}
	on := a.On
	return do(func() { m.offered = &on })
}

// draft refuses what can't be delegated, now and until a.Ends.
func (m *Model) draft(a Act) refusal.Reason {
	switch {
	case m.offered != nil && !*m.offered, m.removed[a.User]:
		return refusal.NotActive
	case !a.Ends.IsZero() && !a.Ends.After(m.now):
		return refusal.RequestInvalid
	}
	return ""
}

func (m *Model) propose(a Act) Verdict {
	w := m.wallets[a.Wallet]
	if v := m.authority(a, m.member(a)); v.Refused != "" {
		return v
	}
	switch {
	case m.rootMembers(a) == 0 && (w.vendor >= 0 || !m.owner(a)):
		return no(refusal.NotFound) // somebody else's wallet
	case m.offered == nil || !*m.offered || w.vendor >= 0:
		return no(refusal.NotActive)
	}
	if r := m.draft(a); r != "" {
		return no(r)
	}
	d := &delegation{wallet: a.Wallet, user: a.User, status: pending, ends: a.Ends, approveBy: m.now.Add(approveWithin)}
	return do(func() { m.delegations = append(m.delegations, d) })
}

// mine reports whether who stamps may act as the owner of a wallet; a vendor's wallet
// is the organization's own.
func (m *Model) mine(a Act, w int) bool {
	if m.wallets[w].vendor >= 0 {
		return m.quorum(a)
	}
	return m.owner(a)
}

func (d *delegation) over(now time.Time) bool { return !d.ends.IsZero() && !now.Before(d.ends) }

// waits reports whether a proposal still waits.
func (d *delegation) waits(now time.Time) bool {
	return d.status == pending && !d.approveBy.IsZero() && now.Before(d.approveBy) && !d.over(now)
}

func (m *Model) approve(a Act) Verdict {
	d := m.delegations[a.Delegation]
	if v := m.authority(a, m.mine(a, d.wallet)); v.Refused != "" {
		return v
	}
	switch {
	case d.status != pending || d.approveBy.IsZero():
		return no(refusal.NotActive)
	case !d.waits(m.later()):
		return no(refusal.DelegationExpired)
	case m.offered != nil && !*m.offered:
		return no(refusal.NotActive)
	case m.still(d.wallet):
		return no(refusal.Paused)
	case a.Wrong:
		return no(refusal.RequestInvalid)
	}
	return do(func() { d.approveBy = time.Time{} }, func() { d.status = active })
}

func (m *Model) create(a Act) Verdict {
	if v := m.authority(a, m.mine(a, a.Wallet)); v.Refused != "" {
		return v
	}
	if m.wallets[a.Wallet].vendor >= 0 {
		return no(refusal.NotActive)
	}
	if r := m.draft(a); r != "" {
		return no(r)
	}
	if m.still(a.Wallet) {
		return no(refusal.Paused)
	}
	d := &delegation{wallet: a.Wallet, user: a.User, status: pending, ends: a.Ends}
	return do(func() { m.delegations = append(m.delegations, d) }, func() { d.status = active })
}

// interrupted is what a restart finds of ceremonies that ran.
func (m *Model) interrupted() {
	for _, d := range m.delegations {
		if d.status == pending && d.approveBy.IsZero() {
			d.status = failed
		}
	}
}

func (m *Model) revoke(a Act) Verdict {
	d := m.delegations[a.Delegation]
	if v := m.authority(a, m.mine(a, d.wallet) || m.quorum(a)); v.Refused != "" {
		return v
	}
	switch d.status {
	case revoked:
		return do()
	case failed:
		return no(refusal.NotActive)
	}
	return do(func() { m.end(d, revoked) })
}

// end destroys what a delegation signs with.
func (m *Model) end(d *delegation, s Status) {
	d.status = s
	if d.place != nil {
		m.vendors[d.place.vendor].unbind(d)
	}
}

func (m *Model) sweep() {
	for _, d := range m.delegations {
		now := m.later()
		if d.status == active && d.over(now) || d.status == pending && !d.approveBy.IsZero() && !d.waits(now) {
			m.end(d, expired)
		}
	}
}

func (m *Model) removeUser(u int) {
	m.removed[u] = true
	for _, d := range m.delegations {
		if d.user == u && (d.status == active || d.status == pending) {
			m.end(d, revoked)
		}
	}
}

// deny sets a policy of the organization, or takes it back. A delegated user may give up
// policies that allow it something; this one does not exist for it.
func (m *Model) deny(a Act) Verdict {
	bots := !m.removed[0] && a.count(Bot0) > 0 || !m.removed[1] && a.count(Bot1) > 0
	may := m.quorum(a)
	if v := m.authority(a, may || !a.On && bots); v.Refused != "" {
		return v
	}
	if !a.On && (!m.denied || !may) {
		return no(refusal.NotFound)
	}
	return do(func() { m.denied = a.On })
}

// endCredential is the owner's alone: no quorum ends a user's credentials.
func (m *Model) endCredential(a Act) Verdict {
	if v := m.authority(a, m.owner(a)); v.Refused != "" {
		return v
	}
	if m.secondEnded {
		return no(refusal.NotFound)
	}
	return do(func() { m.secondEnded = true })
}

// held is the pause of exactly a scope.
func (m *Model) held(a Act) *Level {
	switch a.Scope {
	case OfAppliance:
		return &m.appliance
	case OfOrganization:
		return &m.organization
	case OfWallet:
		return &m.wallets[a.Wallet].paused
	}
	return &m.delegations[a.Delegation].paused
}

// still reports whether a pause of any level covers a wallet.
func (m *Model) still(w int) bool {
	return m.appliance+m.organization+m.wallets[w].paused > 0
}

func (m *Model) pause(a Act) Verdict {
	level := ByOperator
	if a.Scope == OfAppliance {
		if !a.Above() || a.count(Otto, Olga) == 0 {
			return no(refusal.QuorumMissing)
		}
	} else {
		owns := a.Scope == OfWallet && m.wallets[a.Wallet].vendor < 0 && m.owner(a) ||
			a.Scope == OfDelegation && m.wallets[m.delegations[a.Delegation].wallet].vendor < 0 && m.owner(a)
		if v := m.authority(a, m.rootMembers(a) > 0 || owns); v.Refused != "" {
			return v
		}
		if level = ByRoot; m.rootMembers(a) == 0 {
			level = ByOwner
		}
		if a.Scope == OfDelegation && !m.delegations[a.Delegation].alive() {
			return no(refusal.NotActive)
		}
	}
	at := m.held(a)
	return do(func() { *at = max(*at, level) })
}

func (d *delegation) alive() bool { return d.status == active || d.status == pending }

func (m *Model) resume(a Act) Verdict {
	at := m.held(a)
	if a.Scope == OfAppliance {
		if !a.Above() || a.count(Otto, Olga) < 2 {
			return no(refusal.QuorumMissing)
		}
		return do(func() { *at = Running })
	}
	w := a.Wallet
	if a.Scope == OfDelegation {
		w = m.delegations[a.Delegation].wallet
	}
	owns := a.Scope != OfOrganization && m.wallets[w].vendor < 0 && m.owner(a) && *at == ByOwner
	if v := m.authority(a, owns || m.quorum(a)); v.Refused != "" {
		return v
	}
	if a.Scope == OfDelegation && !m.delegations[a.Delegation].alive() {
		return no(refusal.NotActive)
	}
	return do(func() { *at = Running })
}

// shown is the status that people read.
func (m *Model) shown(d *delegation) string {
	now := m.later()
	switch {
	case d.status == active && d.over(now), d.status == pending && !d.approveBy.IsZero() && !d.waits(now):
		return string(expired)
	case d.status == active && (m.still(d.wallet) || d.paused > 0):
		return "paused"
	}
	return string(d.status)
}

// Picture tells everything that must be there, as text.
func (m *Model) Picture() string {
	var lines []string
	shares, keys := 0, 0
	for i, d := range m.delegations {
		lines = append(lines, fmt.Sprintf("delegation %d of wallet %d to user %d: %s", i, d.wallet, d.user, m.shown(d)))
		if d.status == active && d.place == nil {
			shares += 2
		}
		if d.status == active || d.status == expired && d.approveBy.IsZero() {
			keys++
		}
	}
	var all []string
	live := 0
	for i := range m.vendors {
		for _, p := range m.vendors[i].list(m, i) {
			all = append(all, p.line)
			live += p.live
		}
	}
	slices.Sort(all)
	lines = append(lines, all...)
	if m.sockets {
		return strings.Join(lines, "\n")
	}
	return fmt.Sprintf("%s\n%d shares, %d API keys, %d vendor's shares", strings.Join(lines, "\n"), shares, keys, live)
}
