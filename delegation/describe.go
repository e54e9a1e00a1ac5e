package delegation

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
)

// Summary is a delegation on one line.
type Summary struct {
	ID, Wallet, WalletName, DelegatedUser, DelegatedUserName, Status string
	Awaiting                                                         bool
	CreatedAt                                                        time.Time
	ExpiresAt                                                        *time.Time
}

// ListQuery picks delegations.
type ListQuery struct {
	Organization string
	// Wallet and Status pick those alone; "" all.
	Wallet, Status string
	// Awaiting picks those that wait for their owner.
	Awaiting bool
	// After is the id that the list goes on behind.
	After string
}

// MaxList is how many one list has at most.
const MaxList = 256

// Delegations lists what the actor may see, by id: a root member all of the
// organization's, an end user those of their own wallets.
func (s *Service) Delegations(a Actor, q ListQuery) ([]Summary, error) {
	if err := s.member(a, q.Organization); err != nil {
		return nil, err
	}
	now := s.clock()
	mine := map[string]bool{}
	var out []Summary
	for _, d := range s.book.delegationsOf(q.Organization) {
		if d.ID <= q.After || q.Wallet != "" && d.Wallet != q.Wallet || q.Awaiting && !d.awaiting(now) || q.Status != "" && s.book.statusOf(d, now) != q.Status {
			continue
		}
		seen, asked := mine[d.Owner]
		if !asked {
			seen = s.concerns(a, q.Organization, d.Owner)
			mine[d.Owner] = seen
		}
		if seen {
			out = append(out, s.book.summary(d, now))
		}
	}
	slices.SortFunc(out, func(x, y Summary) int { return cmp.Compare(x.ID, y.ID) })
	return out[:min(len(out), MaxList)], nil
}

func (b *book) summary(d *delegationRecord, now time.Time) Summary {
	out := Summary{ID: d.ID, Wallet: d.Wallet, DelegatedUser: d.DelegatedUser, Status: b.statusOf(d, now), Awaiting: d.awaiting(now), CreatedAt: d.CreatedAt, ExpiresAt: d.ExpiresAt}
	if w := find(b, b.wallets, d.Wallet); w != nil {
		out.WalletName = w.Name
	}
	if u := find(b, b.users, d.DelegatedUser); u != nil {
		out.DelegatedUserName = u.Name
	}
	return out
}

// statusOf is where a delegation stands now: what is on disk, and what the clock
// and the pauses make of it.
func (b *book) statusOf(d *delegationRecord, now time.Time) string {
	switch {
	case d.Status == statusActive && d.expired(now), d.lapsed(now):
		return statusExpired
	case d.Status == statusActive && b.standstillOf(d.Organization, d.Wallet, d.ID).pause != nil:
		return statusPaused
	}
	return d.Status
}

// LimitUsage is a limit and what counts against it now. Of a limit by destination
// nothing is known here.
type LimitUsage struct {
	Limit policy.Limit
	Used  policy.Usage
	// Left of the amount and of the count, where the limit bounds them.
	Left      uint256.Int
	LeftCount uint64
}

// RequestOutcome is what one request came to.
type RequestOutcome struct {
	Sequence                            uint64
	At                                  time.Time
	Outcome, RequestID, Reason, Summary string
}

// Description says what a delegation may do, what it did and what is left.
type Description struct {
	Delegation
	WalletName, Chain, Address, DelegatedUserName string
	// Terms are the bytes that the owner approves.
	Terms []byte
	// ApproveBy is nil unless it waits for its owner.
	ApproveBy *time.Time
	// Pause is nil unless one holds; PausedScope is what it stops.
	Pause       *Pause
	PausedScope string
	// May has a sentence for each of its own rules and limits.
	May          []string
	Usage        []LimitUsage
	APIKeyMadeAt *time.Time
	// Signed and NotSigned count the outcomes since entry LookedFrom; Newest has some of them.
	Signed, NotSigned int
	Newest            []RequestOutcome
	LookedFrom        uint64
}

// How far back a description looks, and how much of it is shown.
const (
	lookBack  = 4096 // journal entries
	maxNewest = 16
)

// Describe describes a delegation to its owner and to root members.
func (s *Service) Describe(ctx context.Context, a Actor, org, id string) (Description, error) {
	shown, err := s.Delegation(a, org, id)
	if err != nil {
		return Description{}, err
	}
	d, err := s.book.delegation(org, id)
	if err != nil {
		return Description{}, err
	}
	w, _, err := s.book.wallet(org, d.Wallet)
	if err != nil {
		return Description{}, err
	}
	out := Description{Delegation: shown, WalletName: w.Name, Chain: w.Chain, Address: w.Address}
	out.DelegatedUserName = s.book.summary(d, s.now()).DelegatedUserName
	if out.Terms, err = s.termsOf(d); err != nil {
		return Description{}, err
	}
	if d.awaiting(s.clock()) {
		out.ApproveBy = d.ApproveBy
	}
	held := s.book.standstillOf(org, d.Wallet, d.ID)
	out.Pause, out.PausedScope = held.pause, held.what
	k, err := s.apiKey(d.APIKey)
	if err != nil {
		return Description{}, err
	}
	if k != nil {
		out.APIKeyMadeAt = &k.CreatedAt
	}
	out.May = wordsOf(d)
	now := s.now()
	for _, l := range d.Limits {
		out.Usage = append(out.Usage, s.usage(d, l, now))
	}
	return out, s.history(ctx, d, &out)
}

// wordsOf says a delegation's own rules and limits; those of its organization and
// of the appliance narrow them and are not the delegation's to tell.
func wordsOf(d *delegationRecord) (may []string) {
	for _, p := range d.Policies {
		may = append(may, p.Name+": "+p.Words())
	}
	for _, t := range d.Templates {
		may = append(may, t.Name+": "+t.text().Words())
	}
	if d.OrganizationAllows {
		may = append(may, "may sign what the organization's own policies allow, now and as they will be")
	}
	for _, l := range d.Limits {
		may = append(may, l.Name+": "+l.Words())
	}
	return may
}

// usage is what the journal says of a limit at this moment.
func (s *Service) usage(d *delegationRecord, l policy.Limit, now time.Time) LimitUsage {
	out := LimitUsage{Limit: l}
	if l.Per == policy.PerDestination {
		return out
	}
	g := s.limitGroup(d.Organization, l, "", now)
	out.Used, out.Left, out.LeftCount = g.Used, g.Left, g.LeftCount
	return out
}

// history counts what the newest entries of the journal tell of the delegation.
func (s *Service) history(ctx context.Context, d *delegationRecord, out *Description) error {
	last := s.journal.Status().Entries
	out.LookedFrom = 1
	if last > lookBack {
		out.LookedFrom = last - lookBack + 1
	}
	entries, err := s.journal.Entries(ctx, out.LookedFrom, lookBack+64)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		out.LookedFrom = max(out.LookedFrom, entries[0].Seq) // older ones may have been pruned
	}
	summaries := map[uint64]string{}
	for _, e := range entries {
		if e.Delegation != d.ID {
			continue
		}
		one := RequestOutcome{Sequence: e.Seq, At: time.UnixMilli(e.TimeMS).UTC(), Outcome: string(e.Kind), RequestID: e.RequestID}
		switch e.Kind {
		case journal.KindApproved:
			summaries[e.Seq] = e.Reason
			continue
		case journal.KindSigned:
			out.Signed++
			one.Summary = summaries[e.ApprovedSeq]
		case journal.KindRefused, journal.KindFailed, journal.KindOutcomeUnknown:
			out.NotSigned++
			one.Reason, one.Summary = e.Outcome, summaries[e.ApprovedSeq]
		default:
			continue
		}
		out.Newest = append(out.Newest, one)
	}
	slices.Reverse(out.Newest)
	out.Newest = out.Newest[:min(len(out.Newest), maxNewest)]
	return nil
}

// statusPaused is shown, never stored.
const statusPaused = "paused"
