package journal

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"

	"github.com/sigild/sigild/vault"
)

// A receipt proves to somebody elsewhere that an act is in the journal, for whoever was
// promised that something is destroyed. It is a segment (segment.go) that begins with
// the act's entry and ends with the row that the next checkpoint covers, so the device
// has signed it, and the checkpoint key alone verifies it. Entries between the two are
// in it, too; an act with a request id is followed by its checkpoint at once, so there
// are few.

// maxReceipt bounds the rows of a receipt.
const maxReceipt = 1024

// ErrNotCovered: no checkpoint covers the entry yet.
var ErrNotCovered = errors.New("entry is under no checkpoint yet")

// errReceiptDone ends the walk.
var errReceiptDone = errors.New("receipt is complete")

// MakeReceipt writes the receipt of entry seq, an act, from the journal in the database
// at path, which it verifies on the way; pub as for [Verify]. It needs no secret and no
// daemon. Errors: [ErrNotCovered], [*VerifyError], an entry that is no act or not there.
func MakeReceipt(ctx context.Context, out io.Writer, path string, pub *ecdsa.PublicKey, seq uint64) error {
	var (
		rows []vault.JournalRow
		prev vault.JournalHead
		end  checkpoint
	)
	w := &walker{pub: pub}
	_, err := walkFile(ctx, path, w, func(before vault.JournalHead, row vault.JournalRow, e Entry) error {
		switch {
		case row.Seq < seq:
			return nil
		case row.Seq == seq && e.Kind != KindAct:
			return fmt.Errorf("making a receipt: entry %d is of kind %s, a receipt is of an act", seq, e.Kind)
		case row.Seq == seq:
			prev = before
		}
		rows = append(rows, row)
		if e.Kind == KindCheckpoint {
			c, err := parseCheckpoint(e)
			if err != nil {
				return err
			}
			if end = c; c.row.Seq >= seq {
				return errReceiptDone
			}
		}
		if len(rows) > maxReceipt {
			return fmt.Errorf("making a receipt: more than %d entries to the next checkpoint", maxReceipt)
		}
		return nil
	})
	switch {
	case err == nil && len(rows) == 0:
		return fmt.Errorf("making a receipt: entry %d is not in the store; hint: was it pruned? the archive has it", seq)
	case err == nil:
		return fmt.Errorf("making a receipt: %w: %d; hint: a running daemon signs within seconds", ErrNotCovered, seq)
	case !errors.Is(err, errReceiptDone):
		return err
	}
	return writeSegment(out, w.storeID, prev, rows[:end.row.Seq-seq+1], end)
}

// Receipt is what a verified receipt says.
type Receipt struct {
	Act     Entry
	StoreID [16]byte
	// Through is the last entry that is in it.
	Through uint64
}

// VerifyReceipt checks a receipt with the checkpoint key alone. Errors: [*SegmentError],
// [*VerifyError].
func VerifyReceipt(b []byte, pub *ecdsa.PublicKey) (r Receipt, err error) {
	if pub == nil {
		return r, segmentError("the checkpoint key is needed")
	}
	s, err := readSegmentHead(bytes.NewReader(b))
	if err != nil {
		return r, err
	}
	if s.Last-s.First >= maxReceipt {
		return r, segmentError("it says that it holds entries %d to %d, too many for a receipt", s.First, s.Last)
	}
	w := walkFrom(s.StoreID, pub, vault.JournalHead{Seq: s.First - 1, Hash: s.Prev})
	_, err = readSegment(bytes.NewReader(b), w, func(_ vault.JournalRow, e Entry) error {
		if e.Seq == s.First {
			r = Receipt{Act: e, StoreID: s.StoreID, Through: s.Last}
		}
		return nil
	})
	if err != nil {
		return Receipt{}, err
	}
	if r.Act.Kind != KindAct {
		return Receipt{}, segmentError("it begins with an entry of kind %s, a receipt with an act", r.Act.Kind)
	}
	return r, nil
}
