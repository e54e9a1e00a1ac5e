package journal

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/sigild/sigild/vault"
)

// A page is a few rows of the running journal, for whoever may read it over a socket.

const (
	// MaxPage is how many rows a page has at most.
	MaxPage = 256
	// maxPageBytes is where a page ends before that; it has one row at least.
	maxPageBytes = 512 << 10
)

// ErrPruned: the entry is not in the store any more.
var ErrPruned = errors.New("the entry is in the archive alone")

// Page reads committed rows from number from on, at most limit of them (1 to [MaxPage]),
// each of them authenticated under the journal's key and linked to the one before it.
// From 0 gives the last ones; past the end there are none. Errors: [ErrPruned],
// *[VerifyError], those of the vault.
func (j *Journal) Page(ctx context.Context, from uint64, limit int) (rows []vault.JournalRow, err error) {
	if limit < 1 || limit > MaxPage {
		return nil, fmt.Errorf("reading a page of %d entries: at most %d", limit, MaxPage)
	}
	head, err := j.v.JournalHead()
	if err != nil {
		return nil, err
	}
	j.mu.RLock()
	pruned := j.proj.pruned
	j.mu.RUnlock()
	if from == 0 {
		from = 1
		if head.Seq > uint64(limit) {
			from = head.Seq - uint64(limit) + 1
		}
		from = max(from, pruned.Seq+1)
	}
	if from > head.Seq {
		return nil, nil
	}
	if from > 1 && from <= pruned.Seq {
		return nil, fmt.Errorf("reading entry %d: %w; the store has them from %d on", from, ErrPruned, pruned.Seq+1)
	}
	var prev vault.JournalHead
	switch {
	case from == 1 && pruned.Seq > 1:
		limit = 1 // the genesis stays; what follows it is gone
	case from == pruned.Seq+1:
		prev = pruned
	case from > 1: // the row before it, for its hash
		err = j.v.JournalRows(ctx, from-1, 1, func(r vault.JournalRow) error {
			prev = vault.JournalHead{Seq: r.Seq, Hash: r.Hash}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("reading a page: %w", err)
		}
	}
	var read []vault.JournalRow
	size := 0
	full := errors.New("the page is full")
	err = j.v.JournalRows(ctx, from, limit, func(r vault.JournalRow) error {
		if size += len(r.Body); len(read) > 0 && size > maxPageBytes {
			return full
		}
		read = append(read, r)
		return nil
	})
	if err != nil && !errors.Is(err, full) {
		return nil, fmt.Errorf("reading a page: %w", err)
	}
	return read, j.v.Derive(macPurpose, func(key []byte) error {
		h := hmac.New(sha256.New, key)
		for _, r := range read {
			in := inner(prev, r.Body)
			if mac := chainMAC(h, in); r.Seq != prev.Seq+1 || !hmac.Equal(mac[:], r.MAC[:]) || chainHash(in, r.MAC) != r.Hash {
				return &VerifyError{Seq: r.Seq, Reason: "MAC doesn't authenticate"}
			}
			prev = vault.JournalHead{Seq: r.Seq, Hash: r.Hash}
		}
		return nil
	})
}

// Links checks rows as they come from elsewhere, one after the other: each must be a
// strict entry and continue the one before. What the first continues is not known, and
// MACs and checkpoints are not looked at; [Verify] does. The zero Links is ready.
type Links struct{ last vault.JournalHead }

// Last is the number of the row that Next took last.
func (l *Links) Last() uint64 { return l.last.Seq }

// Next takes the next row. Its error is a *[VerifyError], and then nothing changed.
func (l *Links) Next(r vault.JournalRow) (Entry, error) {
	e, err := decodeEntry(r.Body)
	switch {
	case err != nil:
		return Entry{}, &VerifyError{Seq: r.Seq, Reason: err.Error()}
	case e.Seq != r.Seq:
		return Entry{}, &VerifyError{Seq: r.Seq, Kind: e.Kind, Reason: fmt.Sprintf("entry says it is number %d", e.Seq)}
	case l.last.Seq != 0 && (r.Seq != l.last.Seq+1 || chainHash(inner(l.last, r.Body), r.MAC) != r.Hash):
		return Entry{}, &VerifyError{Seq: r.Seq, Kind: e.Kind, Reason: fmt.Sprintf("it doesn't continue entry %d", l.last.Seq)}
	}
	l.last = vault.JournalHead{Seq: r.Seq, Hash: r.Hash}
	return e, nil
}
