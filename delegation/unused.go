package delegation

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// A credential that nobody uses is one that nobody would miss when it is stolen. After as
// long as was said when it was registered, or as the configuration says for all, it counts
// as unused until it is used. That is looked at every hour: the journal hears of each
// once, as event credential.unused, the log too, and a metric has their number. Nothing
// ends by itself.

// unused reports whether its alarm is due; standard is when that of others is, 0: never.
func (r *registered) unused(now time.Time, standard time.Duration) bool {
	after := standard
	if r.UnusedAlarm > 0 {
		after = time.Duration(r.UnusedAlarm) * time.Second
	}
	since := r.LastUsed
	if since == nil {
		since = r.CreatedAt
	}
	return after > 0 && since != nil && !r.ended(now) && now.Sub(*since) >= after
}

// unusedCredential says where one is: a user's, or the root's when that is nil.
type unusedCredential struct {
	organization string
	user         *user
	id           string
	told         bool
}

// unusedCredentials are those whose alarm is due, of all organizations.
func (s *Service) unusedCredentials() (list []unusedCredential) {
	now := s.clock()
	s.book.mu.RLock()
	defer s.book.mu.RUnlock()
	for _, u := range s.book.users {
		for i := range u.Credentials {
			if c := &u.Credentials[i]; c.unused(now, s.cfg.UnusedAlarm) {
				list = append(list, unusedCredential{u.Organization, u, c.ID, c.UnusedTold})
			}
		}
	}
	for _, o := range s.book.organizations {
		for i := range o.Root {
			if c := &o.Root[i]; c.unused(now, s.cfg.UnusedAlarm) {
				list = append(list, unusedCredential{o.ID, nil, c.ID, c.UnusedTold})
			}
		}
	}
	return list
}

// UnusedCredentials lists the ids of credentials whose alarm is due, of all organizations.
func (s *Service) UnusedCredentials() []string {
	var ids []string
	for _, c := range s.unusedCredentials() {
		ids = append(ids, c.id)
	}
	slices.Sort(ids)
	return ids
}

// UnusedCount is how many there were when that was last looked at.
func (s *Service) UnusedCount() int { return int(s.unusedCount.Load()) }

// methodUnused is the entry's that tells of one.
const methodUnused = "credential/unused"

// TellUnused journals every credential whose alarm became due, once until it is used
// again. Durable on return.
func (s *Service) TellUnused(ctx context.Context) error {
	list := s.unusedCredentials()
	s.unusedCount.Store(int64(len(list)))
	var all error
	for _, c := range list {
		if c.told {
			continue
		}
		if err := s.tellUnused(ctx, c); err != nil {
			all = errors.Join(all, fmt.Errorf("telling of credential %s: %w", c.id, err))
		}
	}
	return all
}

func (s *Service) tellUnused(ctx context.Context, c unusedCredential) error {
	return s.vault.UpdateAlone(ctx, func(tx *vault.Tx) error {
		now := s.journal.At(tx).Now().UTC()
		var told *registered
		err := s.rewrite(tx, c.organization, c.user, c.id, func(r *registered) {
			if !r.UnusedTold && r.unused(now, s.cfg.UnusedAlarm) { // it may have been used meanwhile
				r.UnusedTold, told = true, r
			}
		})
		if err != nil || told == nil {
			return err
		}
		e := journal.Entry{
			Kind: journal.KindAct, Method: methodUnused, Organization: c.organization, Outcome: "unused",
			Facts: map[string]string{"credential": c.id, "name": told.Name},
		}
		if c.user != nil {
			e.User = c.user.ID
		}
		if told.LastUsed != nil {
			e.Facts["last_used"] = told.LastUsed.Format(time.RFC3339)
		}
		s.log.Warn("a credential is not used", "organization", c.organization, "user", e.User, "credential", c.id, "name", told.Name, "last_used", e.Facts["last_used"])
		_, err = s.journal.Append(tx, e)
		return err
	})
}
