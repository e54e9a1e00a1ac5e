package delegation

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// A ceremony that waits or runs can be aborted. One transaction marks it as failed with
// what it was for: a wallet or a delegation that it was to make is failed, a key whose
// root set it was to replace keeps that set. Then whatever runs of it is cancelled. Its
// result would be put on disk by a transaction that looks for an end first: an abort
// that was acknowledged leaves nothing of it, and one that comes too late is refused.

// NewAbort asks to end a ceremony.
type NewAbort struct {
	RequestID    string
	Organization string
	Ceremony     string
	// Reason is for people: 1 to 64 printable characters.
	Reason string
}

// CeremonyAborted answers AbortCeremony.
type CeremonyAborted struct{}

// AbortCeremony ends a ceremony under the stamp of the owner of what it is for, or the
// root quorum. Durable on return; a new one may begin at once.
func (s *Service) AbortCeremony(ctx context.Context, a Actor, n NewAbort) error {
	if err := checkName("reason", n.Reason); err != nil {
		return err
	}
	authorize := func() error {
		if err := s.member(a, n.Organization); err != nil {
			return err
		}
		c, err := s.book.ceremony(n.Organization, n.Ceremony)
		if err != nil {
			return err
		}
		owner := s.book.owner(c)
		if !s.concerns(a, n.Organization, owner) {
			return refusal.New(refusal.NotFound, "no such ceremony")
		}
		if owner != "" && s.owner(a, n.Organization, owner) == nil {
			return nil
		}
		return s.root(a, n.Organization)
	}
	_, err := act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (CeremonyAborted, error) {
		c, err := s.book.ceremony(n.Organization, n.Ceremony)
		if err != nil {
			return CeremonyAborted{}, err
		}
		why := "aborted: " + n.Reason
		undo := func(tx *vault.Tx, _ *journal.Entry) error {
			return errors.Join(s.dropTaken(tx, c), s.failTarget(tx, c))
		}
		l := s.listed(c)
		e.Wallet, e.Delegation, e.Reason = l.Wallet, l.Delegation, n.Reason
		e.Facts = map[string]string{"ceremony": c.ID, "kind": c.Kind}
		if err := s.writeEnd(tx, c, statusFailed, why, undo); err != nil {
			return CeremonyAborted{}, err
		}
		tx.OnCommit(func() { s.underWay.stop(c.ID) })
		return CeremonyAborted{}, nil
	})
	return err
}

// dropTaken destroys the share that a co-signer put on disk before it heard that the
// other side has its own.
func (s *Service) dropTaken(tx *vault.Tx, c *ceremonyRecord) error {
	k := s.book.keyOf(c)
	if c.Kind != kindCosign || k == nil || k.Root.ID == "" {
		return nil
	}
	for _, p := range k.Here {
		if err := tx.Delete(vault.TypeShare, ShareID(k.Root.ID, p)); err != nil && !errors.Is(err, vault.ErrNotFound) {
			return err
		}
	}
	return nil
}

// errEnded is why a ceremony that was aborted puts nothing on disk.
func errEnded() *refusal.Error {
	return refusal.New(refusal.NotActive, "the ceremony has ended")
}

// ended says whether a ceremony has.
func (b *book) ended(id string) bool {
	c := find(b, b.ceremonies, id)
	return c == nil || !c.open()
}

// open says that a ceremony waits or runs.
func (c *ceremonyRecord) open() bool { return c.Status == statusRunning || c.Status == statusWaiting }

// underWay has what cancels the ceremonies that run.
type underWay struct {
	mu   sync.Mutex // guards runs
	runs map[string]context.CancelFunc
}

func newUnderWay() *underWay { return &underWay{runs: map[string]context.CancelFunc{}} }

// enter has cancel called when the ceremony is aborted, until leave.
func (u *underWay) enter(id string, cancel context.CancelFunc) (leave func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.runs[id] = cancel
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.runs, id)
	}
}

func (u *underWay) stop(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if cancel := u.runs[id]; cancel != nil {
		cancel()
	}
}

// ListedCeremony is one of a list, with what it is for.
type ListedCeremony struct {
	Ceremony
	// Wallet is its wallet; Delegation that which an issue is for, "" otherwise.
	Wallet, Delegation string
	// WaitsFor is "device" or "co-signer" while it waits to be joined, until Ends.
	WaitsFor string
	Ends     time.Time
}

// maxListed bounds a list of ceremonies.
const maxListed = 100

// ListCeremonies lists what an actor may see, newest first, at most 100: those that wait
// or run, or with all every one. after is the id of the last of the list before, wallet
// one that they are for; "" for neither.
func (s *Service) ListCeremonies(a Actor, org, wallet, after string, all bool) ([]ListedCeremony, error) {
	if err := s.member(a, org); err != nil {
		return nil, err
	}
	var listed []ListedCeremony
	for _, c := range s.book.ceremoniesOf(org) {
		if !all && !c.open() || !s.concerns(a, org, s.book.owner(c)) {
			continue
		}
		l := s.listed(c)
		if wallet == "" || l.Wallet == wallet {
			listed = append(listed, l)
		}
	}
	slices.SortFunc(listed, func(x, y ListedCeremony) int {
		if d := y.StartedAt.Compare(x.StartedAt); d != 0 {
			return d
		}
		return strings.Compare(x.ID, y.ID)
	})
	if after != "" {
		i := slices.IndexFunc(listed, func(l ListedCeremony) bool { return l.ID == after })
		if i < 0 {
			return nil, refusal.New(refusal.NotFound, "no such ceremony")
		}
		listed = listed[i+1:]
	}
	return listed[:min(len(listed), maxListed)], nil
}

// ShowCeremony is one of the list, by its id.
func (s *Service) ShowCeremony(a Actor, org, id string) (ListedCeremony, error) {
	if _, err := s.Ceremony(a, org, id); err != nil {
		return ListedCeremony{}, err
	}
	c, err := s.book.ceremony(org, id)
	if err != nil {
		return ListedCeremony{}, err
	}
	return s.listed(c), nil
}

func (s *Service) listed(c *ceremonyRecord) ListedCeremony {
	l := ListedCeremony{Ceremony: s.describe(c), Wallet: c.Target}
	d := find(s.book, s.book.delegations, c.Target)
	if d != nil {
		l.Wallet, l.Delegation = d.Wallet, d.ID
	}
	if c.Status != statusWaiting {
		return l
	}
	l.WaitsFor, l.Ends = "co-signer", c.StartedAt.Add(waitFor)
	if s.byDevice(c) {
		l.WaitsFor = "device"
	}
	return l
}

// ceremoniesOf lists an organization's ceremonies in no order.
func (b *book) ceremoniesOf(org string) (of []*ceremonyRecord) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, c := range b.ceremonies {
		if c.Organization == org {
			of = append(of, c)
		}
	}
	return of
}
