package server

import (
	"context"
	"errors"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
)

// Handler of audit.proto.

type auditService struct {
	sigilv1.UnimplementedAuditServiceServer
	a *Appliance
}

func (s auditService) ReadJournal(ctx context.Context, r *sigilv1.ReadJournalRequest) (*sigilv1.ReadJournalResponse, error) {
	p, err := s.a.open()
	if err != nil {
		return nil, err
	}
	limit := int(min(r.GetLimit(), journal.MaxPage+1))
	if limit == 0 {
		limit = journal.MaxPage
	}
	if limit > journal.MaxPage {
		return nil, refusal.New(refusal.RequestInvalid, "limit must be at most %d", journal.MaxPage).With("field", "limit")
	}
	rows, err := p.Journal.Page(ctx, r.GetFrom(), limit)
	if errors.Is(err, journal.ErrPruned) {
		return nil, refusal.New(refusal.NotFound, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	st := p.Journal.Status()
	out := &sigilv1.ReadJournalResponse{LastSequence: st.Entries, CheckpointSequence: st.Covered}
	for _, row := range rows {
		out.Entries = append(out.Entries, &sigilv1.JournalEntry{Sequence: row.Seq, Body: row.Body, Hash: row.Hash[:], Mac: row.MAC[:]})
	}
	return out, nil
}
