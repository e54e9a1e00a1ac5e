package journal

// A segment is a closed range of the chain as one file, for keeping outside the
// store. It needs no signature of its own: it ends at a row that a checkpoint
// covers, and carries that checkpoint. The last row's hash covers every row, every
// MAC and the row before the first, so that one signature vouches for the file and
// for what it continues. Integers are big-endian.
//
//	"SGJS" | ver u8 | store id 16 | first u64 | last u64 | hash of row first−1 32 | time_ms u64 | signature 64
//	| for each row first…last: body length u32 | body | mac 32
//
// time_ms and signature are those of the checkpoint whose `through` is last. The
// hashes of the rows are not in the file; whoever reads it computes them.

import (
	"bufio"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/sigild/sigild/vault"
)

const (
	segmentMagic   = "SGJS"
	segmentVersion = 1
	segmentHeader  = 4 + 1 + 16 + 8 + 8 + 32 + 8 + 64
	// maxSegment bounds the rows of one file.
	maxSegment = 1 << 20
)

// Segment is the head of one file. Nothing in it is secret.
type Segment struct {
	StoreID     [16]byte
	First, Last uint64
	// Prev is the hash of row First−1; zero when First is 1.
	Prev      [32]byte
	timeMS    int64
	signature []byte
}

// SegmentError says why a file is not a segment, or not the one wanted.
type SegmentError struct{ Reason string }

func (e *SegmentError) Error() string { return "segment doesn't verify: " + e.Reason }

func segmentError(format string, args ...any) error {
	return &SegmentError{Reason: fmt.Sprintf(format, args...)}
}

// writeSegment writes rows, which must be those that c covers and that follow prev.
func writeSegment(out io.Writer, storeID [16]byte, prev vault.JournalHead, rows []vault.JournalRow, c checkpoint) error {
	b := make([]byte, 0, segmentHeader)
	b = append(b, segmentMagic...)
	b = append(b, segmentVersion)
	b = append(b, storeID[:]...)
	b = binary.BigEndian.AppendUint64(b, prev.Seq+1)
	b = binary.BigEndian.AppendUint64(b, c.row.Seq)
	b = append(b, prev.Hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(c.timeMS))
	b = append(b, c.signature...)
	w := bufio.NewWriter(out)
	_, _ = w.Write(b) // Flush returns the first error
	for i := range rows {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(rows[i].Body)))
		_, _ = w.Write(n[:])
		_, _ = w.Write(rows[i].Body)
		_, _ = w.Write(rows[i].MAC[:])
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("writing a segment: %w", err)
	}
	return nil
}

// readSegmentHead reads the form of the head; the signature is for readSegment to check.
func readSegmentHead(in io.Reader) (Segment, error) {
	var s Segment
	b := make([]byte, segmentHeader)
	if _, err := io.ReadFull(in, b); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return s, segmentError("it is cut off in its head")
		}
		return s, fmt.Errorf("reading a segment: %w", err)
	}
	if string(b[:4]) != segmentMagic {
		return s, segmentError("it is no segment")
	}
	if b[4] != segmentVersion {
		return s, segmentError("version %d is not known to this build", b[4])
	}
	copy(s.StoreID[:], b[5:])
	s.First, s.Last = binary.BigEndian.Uint64(b[21:]), binary.BigEndian.Uint64(b[29:])
	copy(s.Prev[:], b[37:])
	ms := binary.BigEndian.Uint64(b[69:])
	s.signature = b[77:]
	switch {
	case s.First == 0 || s.Last < s.First || s.Last-s.First >= maxSegment || s.Last > 1<<62:
		return s, segmentError("it says that it holds entries %d to %d", s.First, s.Last)
	case s.First == 1 && s.Prev != [32]byte{}:
		return s, segmentError("something stands before its first entry")
	case ms > 1<<62:
		return s, segmentError("it has an impossible time")
	}
	s.timeMS = int64(ms)
	return s, nil
}

// readSegment checks a whole file with w, which stands where the segment begins,
// and shows each row once it fits the chain. Only a nil error vouches for what was
// shown: the signature is checked after the last row.
func readSegment(in io.Reader, w *walker, visit func(vault.JournalRow, Entry) error) (Segment, error) {
	r := bufio.NewReader(in)
	s, err := readSegmentHead(r)
	if err != nil {
		return s, err
	}
	switch {
	case s.StoreID != w.storeID:
		return s, segmentError("it is of store %x, not %x", s.StoreID, w.storeID)
	case s.First != w.last.Seq+1:
		return s, segmentError("it begins with entry %d, wanted is %d", s.First, w.last.Seq+1)
	case s.Prev != w.last.Hash:
		return s, segmentError("it continues another chain than the one that ends with entry %d", w.last.Seq)
	}
	for w.last.Seq < s.Last {
		row, err := readRow(r, w.last)
		if err != nil {
			return s, err
		}
		e, err := w.step(row)
		if err != nil {
			return s, err
		}
		if err := visit(row, e); err != nil {
			return s, err
		}
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return s, segmentError("something follows its last entry")
	}
	return s, w.sign(checkpoint{row: w.last, timeMS: s.timeMS, signature: s.signature})
}

// readRow reads the row after prev and computes its hash.
func readRow(r io.Reader, prev vault.JournalHead) (vault.JournalRow, error) {
	row := vault.JournalRow{Seq: prev.Seq + 1}
	cut := func(err error) error {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return segmentError("it is cut off in entry %d", row.Seq)
		}
		return fmt.Errorf("reading a segment: %w", err)
	}
	var n [4]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return row, cut(err)
	}
	size := binary.BigEndian.Uint32(n[:])
	if size > MaxEntry {
		return row, segmentError("entry %d has %d bytes, at most %d", row.Seq, size, MaxEntry)
	}
	row.Body = make([]byte, size)
	if _, err := io.ReadFull(r, row.Body); err != nil {
		return row, cut(err)
	}
	if _, err := io.ReadFull(r, row.MAC[:]); err != nil {
		return row, cut(err)
	}
	row.Hash = chainHash(inner(prev, row.Body), row.MAC)
	return row, nil
}

// sign takes c, from outside the chain, as covering the row walked last.
func (w *walker) sign(c checkpoint) error {
	if w.pub == nil {
		return segmentError("the checkpoint key is not known: the first segment has it, or give the key")
	}
	if !c.verify(w.pub, w.storeID) {
		return segmentError("the checkpoint's signature over entry %d doesn't verify", c.row.Seq)
	}
	return nil
}

// walkFrom is a walker that stands behind row at, which another signature vouches for.
func walkFrom(storeID [16]byte, pub *ecdsa.PublicKey, at vault.JournalHead) *walker {
	w := &walker{storeID: storeID, pub: pub, last: at}
	if at.Seq > 0 {
		w.covered = vault.JournalHead{Seq: at.Seq - 1}
		w.open = []openRow{{JournalHead: at, upkeep: true}}
	}
	return w
}
