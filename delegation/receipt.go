package delegation

import (
	"context"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Whose delegation has ended can have it in writing what was destroyed, by whom and
// when: the entry of the act that ended it, under the device's signature. The record
// says behind which entry that act stands.

// lookForEnd is how many entries behind the mark are looked at: the act's own is the
// first of its kind.
const lookForEnd = 64

// noteEnd marks in a record that is about to end where the journal stands. The first end
// is the one that destroyed the shares.
func noteEnd(tx *vault.Tx, ended *delegationRecord) error {
	if ended.EndedAfter != 0 {
		return nil
	}
	head, err := tx.JournalHead()
	ended.EndedAfter = head.Seq
	return err
}

// Receipt has the device sign what ended a delegation, for its wallet's owner and for
// root members. It refuses a delegation that has not ended.
func (s *Service) Receipt(ctx context.Context, a Actor, org, id string) ([]byte, error) {
	shown, err := s.Delegation(a, org, id) // who may not see it hears that it is not there
	if err != nil {
		return nil, err
	}
	d, err := s.book.delegation(org, id)
	if err != nil {
		return nil, err
	}
	switch {
	case d.EndedAt == nil:
		return nil, refusal.New(refusal.NotActive, "the delegation is %s: nothing was destroyed", shown.Status)
	case d.EndedAfter == 0:
		return nil, refusal.New(refusal.NotActive, "it ended under a build that kept no mark of it: sigilctl receipt make, on the host, finds the act")
	}
	document, err := s.journal.Extract(ctx, d.EndedAfter+1, lookForEnd, func(e journal.Entry) bool { return e.Organization == org })
	if err == nil && document == nil {
		err = refusal.New(refusal.NotActive, "the act that ended it is in the journal's archive alone: sigilctl receipt make, on the host, finds it there")
	}
	return document, err
}
