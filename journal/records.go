package journal

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// What an update changed of the vault's records is in the journal, too: in the entry
// of the act that changed them, or in a records entry of its own. So segments hold
// all that a restored backup has forgotten (replay.go). It is sealed under a subkey
// that every copy of the store derives, and has no secret in it: of a share there is
// that it was removed, never what it was.
//
//	records  nonce 12 | AES-256-GCM(k_records, deflate(list)), AAD = domain | store id | seq u64
//	list     for each record, in order: type u16 | flags u8 (1 removed, 2 content) | id | content
//
// and each step of the anchor has an entry, so that whoever replays knows how far the
// anchor had come.

const (
	recordsDomain  = "sigild/journal/records/v1"
	recordsPurpose = "journal/records"
	// recordsInAct and recordsAlone bound what one entry holds, in bytes of plaintext.
	recordsInAct = 128 << 10
	recordsAlone = 640 << 10
)

// The facts of an epoch entry.
const (
	factEpoch = "epoch" // that the commit moves to, decimal
	factKey   = "key"   // the sealing key from then on, where the anchor replaces it
)

// observer is the journal as the vault's.
type observer struct{ j *Journal }

func (o observer) Changed(tx *vault.Tx, changes []vault.Change) error {
	for len(changes) > 0 {
		n, size := 0, 0
		for n < len(changes) && (n == 0 || size+sizeOf(changes[n]) <= recordsAlone) {
			size += sizeOf(changes[n])
			n++
		}
		if _, err := o.j.append(tx, Entry{Kind: KindRecords}, changes[:n]); err != nil {
			return fmt.Errorf("journaling changed records: %w", err)
		}
		changes = changes[n:]
	}
	return nil
}

func (o observer) Advancing(tx *vault.Tx, epoch uint64, key seal.KeyRef) error {
	facts := map[string]string{factEpoch: strconv.FormatUint(epoch, 10)}
	if key != "" {
		facts[factKey] = string(key)
	}
	_, err := o.j.append(tx, Entry{Kind: KindEpoch, Facts: facts}, nil)
	return err
}

func parseEpoch(e *Entry) (epoch uint64, key seal.KeyRef, err error) {
	if epoch, err = strconv.ParseUint(e.Facts[factEpoch], 10, 64); err != nil {
		return 0, "", errors.New("epoch entry has an unknown form")
	}
	return epoch, seal.KeyRef(e.Facts[factKey]), nil
}

func sizeOf(c vault.Change) int { return 16 + len(c.ID) + len(c.Content) }

// actChanges are the changes that an act's entry takes along; what is too long has
// entries of its own behind it.
func actChanges(tx *vault.Tx) (mine []vault.Change, rest []vault.Change) {
	changes := tx.Changes()
	size := 0
	for _, c := range changes {
		size += sizeOf(c)
	}
	if size > recordsInAct {
		return nil, changes
	}
	return changes, nil
}

// destroyedBy names the secrets among removed records, for people: at most 256, and how
// many more.
func destroyedBy(lists ...[]vault.Change) (named []string) {
	more := 0
	for _, c := range slices.Concat(lists...) {
		switch {
		case !c.Removed || !c.Type.Secret():
		case len(named) == 256:
			more++
		default:
			named = append(named, c.Type.String()+" "+c.ID)
		}
	}
	if more > 0 {
		named = append(named, fmt.Sprintf("and %d more", more))
	}
	return named
}

func packChanges(changes []vault.Change) []byte {
	w := &packer{}
	for _, c := range changes {
		w.raw(binary.BigEndian.AppendUint16(nil, uint16(c.Type)), []byte{bit(c.Removed) | bit(c.Content != nil)<<1})
		w.text(c.ID, string(c.Content))
	}
	return w.b
}

// unpackChanges is the inverse; what doesn't fit is refused.
func unpackChanges(b []byte) (changes []vault.Change, err error) {
	r := &unpacker{b: b}
	for len(r.b) > 0 && !r.bad {
		c := vault.Change{Type: vault.Type(binary.BigEndian.Uint16(r.raw(2)))}
		flags := r.u8()
		c.Removed, c.ID = flags&1 != 0, r.text()
		content := []byte(r.text())
		if flags&2 != 0 {
			c.Content = content
		}
		if flags > 2 || len(content) > 0 && c.Content == nil {
			r.bad = true
		}
		changes = append(changes, c)
	}
	if r.bad {
		return nil, errors.New("records of an entry have an unknown form")
	}
	return changes, nil
}

// recordsKey lends the cipher of sealed changes.
func recordsKey(v *vault.Vault, use func(cipher.AEAD) error) error {
	return v.Derive(recordsPurpose, func(key []byte) error {
		block, err := aes.NewCipher(key)
		if err != nil {
			return fmt.Errorf("sealing changed records: %w", err)
		}
		g, err := cipher.NewGCM(block)
		if err != nil {
			return fmt.Errorf("sealing changed records: %w", err)
		}
		return use(g)
	})
}

func recordsAAD(storeID [16]byte, seq uint64) []byte {
	b := append([]byte(recordsDomain), storeID[:]...)
	return binary.BigEndian.AppendUint64(b, seq)
}

// sealChanges gives what entry seq holds of changes.
func sealChanges(v *vault.Vault, seq uint64, changes []vault.Change) ([]byte, error) {
	var packed bytes.Buffer
	w, err := flate.NewWriter(&packed, flate.BestSpeed)
	if err == nil {
		_, err = w.Write(packChanges(changes))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("packing changed records: %w", err)
	}
	out := make([]byte, 12, 12+packed.Len()+16)
	if _, err := rand.Read(out); err != nil {
		return nil, fmt.Errorf("sealing changed records: %w", err)
	}
	err = recordsKey(v, func(g cipher.AEAD) error {
		out = g.Seal(out, out, packed.Bytes(), recordsAAD(v.StoreID(), seq))
		return nil
	})
	return out, err
}

// openChanges is the inverse.
func openChanges(v *vault.Vault, e *Entry) ([]vault.Change, error) {
	if len(e.Records) == 0 {
		return nil, nil
	}
	bad := fmt.Errorf("%w: the records of entry %d don't open", vault.ErrTampered, e.Seq)
	if len(e.Records) < 12+16 {
		return nil, bad
	}
	var packed []byte
	err := recordsKey(v, func(g cipher.AEAD) (err error) {
		if packed, err = g.Open(nil, e.Records[:12], e.Records[12:], recordsAAD(v.StoreID(), e.Seq)); err != nil {
			return bad
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), 2*recordsAlone+1))
	if err != nil || len(plain) > 2*recordsAlone {
		return nil, bad
	}
	changes, err := unpackChanges(plain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", vault.ErrTampered, err)
	}
	return changes, nil
}
