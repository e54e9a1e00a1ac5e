package journal

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/vault"
)

// The archive is a folder of segments, best on another disk or carried elsewhere:
// what a restored backup has forgotten is in them. Files are made whole: written
// under another name, fsynced, then given their name, which must be free. Names
// are segment-<first>-<last>.sgj with numbers of 16 digits, so that their order is
// that of the chain.

// Archive says where segments go.
type Archive struct {
	// Dir must exist; "" keeps no archive.
	Dir string
	// Entries and After bound what is in no segment: one is made when so many entries
	// wait, or the oldest waited so long, or after an urgent one. 0: 4096 and 1 h.
	Entries uint64
	After   time.Duration
}

func (a Archive) withDefaults() Archive {
	if a.Entries == 0 {
		a.Entries = 4096
	}
	if a.After == 0 {
		a.After = time.Hour
	}
	return a
}

const (
	segmentPrefix = "segment-"
	segmentSuffix = ".sgj"
)

func segmentName(first, last uint64) string {
	return fmt.Sprintf("%s%016d-%016d%s", segmentPrefix, first, last, segmentSuffix)
}

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (first, last uint64, ok bool) {
	middle := strings.TrimSuffix(strings.TrimPrefix(name, segmentPrefix), segmentSuffix)
	a, b, _ := strings.Cut(middle, "-")
	first, err := strconv.ParseUint(a, 10, 64)
	last, err2 := strconv.ParseUint(b, 10, 64)
	return first, last, err == nil && err2 == nil && segmentName(first, last) == name
}

// SegmentFiles lists the segments of a folder in the order of the chain. Other
// files are left alone.
func SegmentFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("listing segments: %w", err)
	}
	var paths []string
	for _, e := range entries {
		if _, _, ok := parseSegmentName(e.Name()); ok && e.Type().IsRegular() {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	return paths, nil
}

// cutter turns verified rows, given one after the other, into segment files.
type cutter struct {
	dir     string
	storeID [16]byte
	entries uint64 // a segment has at least so many rows, except the last
	prev    vault.JournalHead
	rows    []vault.JournalRow
	latest  checkpoint // the newest that covers rows; row.Seq ≤ prev.Seq: none does
	found   uint64     // the last row of a file that lies there already and begins here; 0: none
	made    func(Segment, string, [32]byte) error
}

// add takes the next row and its entry.
func (c *cutter) add(row vault.JournalRow, e Entry) error {
	if next := c.prev.Seq + uint64(len(c.rows)) + 1; row.Seq != next {
		return segmentError("entry %d is not in the store, %d is the next there; hint: continue in the folder of the archive", next, row.Seq)
	}
	c.rows = append(c.rows, row)
	if e.Kind != KindCheckpoint {
		return nil
	}
	cp, err := parseCheckpoint(e)
	if err != nil {
		return err
	}
	c.latest = cp
	if c.found != 0 && cp.row.Seq != c.found || c.found == 0 && cp.row.Seq < c.prev.Seq+c.entries {
		return nil
	}
	return c.cut()
}

// look finds what a crash left: a file that begins where the next one shall. It is
// made again, with the same bytes, so that files never overlap.
func (c *cutter) look() error {
	c.found = 0
	files, err := SegmentFiles(c.dir)
	for _, f := range files {
		if first, last, _ := parseSegmentName(filepath.Base(f)); first == c.prev.Seq+1 {
			c.found = last
		}
	}
	return err
}

// cut writes what the newest checkpoint covers; nothing if that is nothing.
func (c *cutter) cut() error {
	if c.latest.row.Seq <= c.prev.Seq {
		return nil
	}
	n := c.latest.row.Seq - c.prev.Seq
	rows := c.rows[:n]
	if c.found != 0 && c.found != c.latest.row.Seq {
		return segmentError("%s is there already, and its last entry is under no checkpoint; hint: move it away, it is evidence", segmentName(c.prev.Seq+1, c.found))
	}
	if rows[n-1].Hash != c.latest.row.Hash {
		return segmentError("the checkpoint was made over another entry %d", c.latest.row.Seq)
	}
	path := filepath.Join(c.dir, segmentName(c.prev.Seq+1, c.latest.row.Seq))
	sum, err := createWhole(path, func(w io.Writer) error { return writeSegment(w, c.storeID, c.prev, rows, c.latest) })
	if err != nil {
		return err
	}
	s := Segment{StoreID: c.storeID, First: c.prev.Seq + 1, Last: c.latest.row.Seq, Prev: c.prev.Hash}
	c.prev = c.latest.row
	c.rows = append([]vault.JournalRow(nil), c.rows[n:]...)
	return errors.Join(c.made(s, path, sum), c.look())
}

// createWhole makes path, mode 0600, with what write writes, durable on return. A
// file of that name with the same bytes is as good; with others it is an error.
func createWhole(path string, write func(io.Writer) error) (sum [32]byte, err error) {
	fail := func(err error) ([32]byte, error) { return sum, fmt.Errorf("writing a segment: %w", err) }
	part := path + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) { // left by a crash
		return fail(err)
	}
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fail(err)
	}
	h := sha256.New()
	err = write(io.MultiWriter(f, h))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(part)
		return fail(err)
	}
	h.Sum(sum[:0])
	err = unix.Renameat2(unix.AT_FDCWD, part, unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	if errors.Is(err, fs.ErrExist) {
		// A crash came between the file and the entry that tells of it.
		err = sameFile(path, sum)
		_ = os.Remove(part)
	}
	if err != nil {
		return fail(err)
	}
	return sum, syncDir(filepath.Dir(path))
}

func sameFile(path string, sum [32]byte) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return err
	}
	if [32]byte(h.Sum(nil)) != sum {
		return fmt.Errorf("%s exists and holds something else; hint: move it away, it is evidence", path)
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("writing a segment: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("writing a segment: %w", err)
	}
	return nil
}

// The facts of an archived entry.
const (
	factFirst = "first"  // decimal seq
	factLast  = "last"   // decimal seq
	factFile  = "sha256" // of the file, hex
	// and factHash, of the last row
)

// archivedUpTo is what a chain says of its archive: the last row in a segment.
func archivedUpTo(e *Entry) (vault.JournalHead, error) {
	var h vault.JournalHead
	seq, err := strconv.ParseUint(e.Facts[factLast], 10, 64)
	if err == nil && len(e.Facts[factHash]) == 2*len(h.Hash) {
		_, err = hex.Decode(h.Hash[:], []byte(e.Facts[factHash]))
	} else if err == nil {
		err = errors.New("no hash")
	}
	if err != nil || seq == 0 || seq >= e.Seq {
		return h, errors.New("archived entry has an unknown form")
	}
	h.Seq = seq
	return h, nil
}

// archive writes what is due into segments, and an entry for each. force takes
// whatever a checkpoint covers.
func (j *Journal) archive(ctx context.Context, force bool) error {
	if j.cfg.Archive.Dir == "" {
		return nil
	}
	j.mu.RLock()
	due := force || j.unarchived.due(j.nowLocked(), j.cfg.Archive)
	from, covered := j.proj.archived, j.unsigned.covered
	j.mu.RUnlock()
	if !due || covered <= from.Seq {
		return nil
	}
	c := &cutter{dir: j.cfg.Archive.Dir, storeID: j.v.StoreID(), entries: j.cfg.Archive.Entries, prev: from}
	c.made = func(s Segment, path string, sum [32]byte) error { return j.archived(ctx, c.prev, s, path, sum) }
	// What goes out is what the chain says, not what the disk says: each row must
	// continue the one before, and the last must be the one that was signed.
	w := walkFrom(j.v.StoreID(), j.genesis.CheckpointKey, from)
	if err := c.look(); err != nil {
		return fmt.Errorf("archiving the journal: %w", err)
	}
	err := j.v.JournalRows(ctx, from.Seq+1, 0, func(row vault.JournalRow) error {
		e, err := w.step(row)
		if err != nil {
			return err
		}
		return c.add(row, e)
	})
	if err == nil {
		err = c.cut()
	}
	if err != nil {
		return fmt.Errorf("archiving the journal: %w", err)
	}
	return nil
}

// archived journals that a segment is outside.
func (j *Journal) archived(ctx context.Context, last vault.JournalHead, s Segment, path string, sum [32]byte) error {
	e := Entry{Kind: KindArchived, Facts: map[string]string{
		factFirst: strconv.FormatUint(s.First, 10), factLast: strconv.FormatUint(s.Last, 10),
		factHash: hex.EncodeToString(last.Hash[:]), factFile: hex.EncodeToString(sum[:]),
	}}
	err := j.v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		_, err := j.Append(tx, e)
		return err
	})
	if err == nil {
		j.cfg.Log.InfoContext(ctx, "archived a segment of the journal", "file", path, "first", s.First, "last", s.Last)
	}
	return err
}

// Export writes the closed part of the journal in the database at path as segment
// files into dir, each of at least entries rows but the last; it continues behind
// the segments that are there. It verifies on the way like [Verify], needs no
// secret and no daemon, and changes nothing in the store. It returns the files it
// made; what no checkpoint covers yet stays for the next time.
func Export(ctx context.Context, path string, pub *ecdsa.PublicKey, dir string, entries uint64) (made []string, r Report, err error) {
	files, err := SegmentFiles(dir)
	if err != nil {
		return nil, Report{}, err
	}
	c := &cutter{dir: dir, entries: max(1, entries), made: func(_ Segment, path string, _ [32]byte) error {
		made = append(made, path)
		return nil
	}}
	var after uint64
	if len(files) > 0 {
		_, after, _ = parseSegmentName(filepath.Base(files[len(files)-1]))
	}
	w := &walker{pub: pub}
	r, err = walkFile(ctx, path, w, func(prev vault.JournalHead, row vault.JournalRow, e Entry) error {
		if row.Seq <= after {
			return nil
		}
		if row.Seq == after+1 {
			c.storeID, c.prev = w.storeID, prev
		}
		return c.add(row, e)
	})
	if err == nil && r.Entries < after {
		err = segmentError("the folder holds entries up to %d, the journal ends with %d", after, r.Entries)
	}
	if err == nil {
		err = c.cut()
	}
	return made, r, err
}
