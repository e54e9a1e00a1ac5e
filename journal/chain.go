package journal

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"math/big"
	"strconv"

	"github.com/sigild/sigild/vault"
)

// The chain. Row n has the exact JSON of entry n, and
//
//	inner = SHA-256("sigild/journal/v1" | hash of row n−1 | n as u64 | body)   32 zero bytes before row 1
//	mac   = HMAC-SHA256(k_audit, inner)
//	hash  = SHA-256("sigild/journal/link/v1" | inner | mac)
//
// k_audit is the vault's subkey for "journal/mac". The hash covers the MAC, so
// that a verifier without the key notices a changed MAC too. The last row's
// number and hash are in the vault's head.

const (
	chainDomain      = "sigild/journal/v1"
	linkDomain       = "sigild/journal/link/v1"
	checkpointDomain = "sigild/journal/checkpoint/v1"
	macPurpose       = "journal/mac"
)

// inner is what a row's MAC is over.
func inner(prev vault.JournalHead, body []byte) (sum [32]byte) {
	h := sha256.New()
	h.Write([]byte(chainDomain))
	h.Write(prev.Hash[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], prev.Seq+1)
	h.Write(n[:])
	h.Write(body)
	h.Sum(sum[:0])
	return sum
}

func chainMAC(h hash.Hash, inner [32]byte) (mac [32]byte) {
	h.Reset()
	h.Write(inner[:])
	h.Sum(mac[:0])
	return mac
}

func chainHash(inner, mac [32]byte) [32]byte {
	b := make([]byte, 0, len(linkDomain)+64)
	b = append(b, linkDomain...)
	b = append(b, inner[:]...)
	return sha256.Sum256(append(b, mac[:]...))
}

// makeRow links body to prev.
func makeRow(v *vault.Vault, prev vault.JournalHead, body []byte) (vault.JournalRow, error) {
	row := vault.JournalRow{Seq: prev.Seq + 1, Body: body}
	in := inner(prev, body)
	err := v.Derive(macPurpose, func(key []byte) error {
		row.MAC = chainMAC(hmac.New(sha256.New, key), in)
		return nil
	})
	row.Hash = chainHash(in, row.MAC)
	return row, err
}

// checkpoint is what the device signs: the row up to which the chain is meant.
type checkpoint struct {
	row       vault.JournalHead
	timeMS    int64
	signature []byte // r ‖ s, 64 bytes
}

// digest is SHA-256("sigild/journal/checkpoint/v1" | store id 16 | seq u64 | hash 32 | time_ms u64).
func (c *checkpoint) digest(storeID [16]byte) [32]byte {
	b := make([]byte, 0, len(checkpointDomain)+16+8+32+8)
	b = append(b, checkpointDomain...)
	b = append(b, storeID[:]...)
	b = binary.BigEndian.AppendUint64(b, c.row.Seq)
	b = append(b, c.row.Hash[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(c.timeMS)))
}

// The facts of a checkpoint entry.
const (
	factThrough   = "through"   // decimal seq of the last row covered
	factHash      = "hash"      // its hash, hex
	factTime      = "time_ms"   // when the signature was asked for, decimal
	factSignature = "signature" // r ‖ s, hex
)

func (c *checkpoint) entry() Entry {
	return Entry{Kind: KindCheckpoint, Facts: map[string]string{
		factThrough:   strconv.FormatUint(c.row.Seq, 10),
		factHash:      hex.EncodeToString(c.row.Hash[:]),
		factTime:      strconv.FormatInt(c.timeMS, 10),
		factSignature: hex.EncodeToString(c.signature),
	}}
}

// parseCheckpoint reads the facts of a checkpoint entry.
func parseCheckpoint(e Entry) (checkpoint, error) {
	c := checkpoint{signature: make([]byte, 64)}
	var err, err2 error
	c.row.Seq, err = strconv.ParseUint(e.Facts[factThrough], 10, 64)
	c.timeMS, err2 = strconv.ParseInt(e.Facts[factTime], 10, 64)
	ok := err == nil && err2 == nil && len(e.Facts) == 4
	for name, out := range map[string][]byte{factHash: c.row.Hash[:], factSignature: c.signature} {
		ok = ok && len(e.Facts[name]) == 2*len(out)
		if ok {
			_, err := hex.Decode(out, []byte(e.Facts[name]))
			ok = err == nil
		}
	}
	if !ok {
		return c, errors.New("checkpoint has an unknown form")
	}
	return c, nil
}

func (c *checkpoint) verify(pub *ecdsa.PublicKey, storeID [16]byte) bool {
	d := c.digest(storeID)
	r, s := new(big.Int).SetBytes(c.signature[:32]), new(big.Int).SetBytes(c.signature[32:])
	return ecdsa.Verify(pub, d[:], r, s)
}

// walker checks rows one after the other. It is the one checker, for Open with
// the MAC key and for Verify without.
type walker struct {
	storeID [16]byte
	mac     hash.Hash        // HMAC under k_audit; nil off-line
	pub     *ecdsa.PublicKey // of checkpoints; when nil the genesis names it
	genesis Genesis

	last        vault.JournalHead // the row walked last
	lastMS      int64             // its time
	covered     vault.JournalHead // the last row under a checkpoint
	open        []openRow         // every row after covered
	checkpoints int
}

// openRow is a row that no checkpoint covers yet.
type openRow struct {
	vault.JournalHead
	upkeep bool
}

// step checks one row, whose number is the next one; its error is a *VerifyError.
func (w *walker) step(row vault.JournalRow) (Entry, error) {
	fail := func(k Kind, format string, args ...any) (Entry, error) {
		return Entry{}, &VerifyError{Seq: row.Seq, Kind: k, Reason: fmt.Sprintf(format, args...)}
	}
	e, err := decodeEntry(row.Body)
	kind := e.Kind
	in := inner(w.last, row.Body)
	if chainHash(in, row.MAC) != row.Hash {
		return fail(kind, "hash doesn't fit the entry, its MAC and the entry before it")
	}
	if w.mac != nil {
		if mac := chainMAC(w.mac, in); !hmac.Equal(mac[:], row.MAC[:]) {
			return fail(kind, "MAC doesn't authenticate")
		}
	}
	if err != nil {
		return fail("", "%v", err)
	}
	if e.Seq != row.Seq {
		return fail(kind, "entry says it is number %d", e.Seq)
	}
	if e.TimeMS < w.lastMS {
		return fail(kind, "its time is before that of the entry before it")
	}
	at := vault.JournalHead{Seq: row.Seq, Hash: row.Hash}
	switch e.Kind {
	case KindGenesis:
		if err := w.begin(e); err != nil {
			return fail(kind, "%v", err)
		}
	case KindCheckpoint:
		if err := w.checkpoint(e); err != nil {
			return fail(kind, "%v", err)
		}
	}
	w.last, w.lastMS = at, e.TimeMS
	w.open = append(w.open, openRow{at, e.Kind.upkeep()})
	return e, nil
}

func (w *walker) begin(e Entry) error {
	g, err := parseGenesis(e)
	if err != nil {
		return err
	}
	if g.StoreID != w.storeID {
		return fmt.Errorf("genesis is of store %x, the file is store %x", g.StoreID, w.storeID)
	}
	if w.pub != nil && !w.pub.Equal(g.CheckpointKey) {
		return errors.New("genesis names another checkpoint key than the one expected")
	}
	w.genesis, w.pub = g, g.CheckpointKey
	return nil
}

func (w *walker) checkpoint(e Entry) error {
	c, err := parseCheckpoint(e)
	if err != nil {
		return err
	}
	if c.row.Seq <= w.covered.Seq || c.row.Seq > w.last.Seq {
		return fmt.Errorf("checkpoint covers entry %d, want one from %d to %d", c.row.Seq, w.covered.Seq+1, w.last.Seq)
	}
	first := w.open[0].Seq
	if w.open[c.row.Seq-first].JournalHead != c.row {
		return fmt.Errorf("checkpoint was made over another entry %d", c.row.Seq)
	}
	if w.pub == nil {
		return errors.New("checkpoint can't be verified without the genesis or a key")
	}
	if !c.verify(w.pub, w.storeID) {
		return errors.New("checkpoint's signature doesn't verify")
	}
	w.open = append([]openRow(nil), w.open[c.row.Seq-first+1:]...)
	w.covered = c.row
	w.checkpoints++
	return nil
}

// unsigned counts the entries after the last checkpoint, without the journal's own
// upkeep, and names the first of them; 0, 0 when there is none.
func (w *walker) unsigned() (first, count uint64) {
	for _, r := range w.open {
		if !r.upkeep {
			if count++; first == 0 {
				first = r.Seq
			}
		}
	}
	return first, count
}
