package journal

import (
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/sigild/sigild/vault"
)

// An extract is one act's entry as a document that the device signs: for whom the act
// concerns and who may not read what others did between it and the next checkpoint,
// which a receipt would show. The row's hash is in it, so that whoever has the journal
// finds the same entry there.

// extractKind is the kind of the document.
const extractKind = "journal-act"

// Extract is what the document says.
type Extract struct {
	Appliance string `json:"appliance"`
	// Store and EntryHash are in hex.
	Store     string    `json:"store"`
	EntryHash string    `json:"entry_hash"`
	MadeAt    time.Time `json:"made_at"`
	// Act is the entry, without its sealed records.
	Act Entry `json:"act"`
}

// Extract has the device sign the entry of an act, which is committed. find picks it
// among those from number from on, of which it sees at most limit. It returns nil
// when there is none, or those before it were pruned.
func (j *Journal) Extract(ctx context.Context, from uint64, limit int, find func(Entry) bool) (document []byte, err error) {
	var x *Extract
	next := from
	err = j.v.JournalRows(ctx, from, limit, func(row vault.JournalRow) error {
		if x != nil || row.Seq != next {
			return nil
		}
		next++
		e, err := decodeEntry(row.Body)
		if err != nil {
			return &VerifyError{Seq: row.Seq, Reason: err.Error()}
		}
		if e.Kind == KindAct && find(e) {
			e.Records = nil
			x = &Extract{Act: e, EntryHash: hex.EncodeToString(row.Hash[:])}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking for an act: %w", err)
	}
	if x == nil {
		return nil, nil
	}
	g := j.genesis
	x.Appliance, x.Store, x.MadeAt = g.ApplianceID, hex.EncodeToString(g.StoreID[:]), j.Now().Truncate(time.Second)
	return SignDocument(ctx, j.cfg.Signer, j.cfg.CheckpointKey, g.CheckpointKey, extractKind, x)
}

// OpenExtract checks an extract with the checkpoint key alone and gives it as a receipt,
// which ends with its act. Errors: [ErrDocument].
func OpenExtract(document []byte, pub *ecdsa.PublicKey) (r Receipt, err error) {
	var x Extract
	if err := OpenDocument(document, pub, extractKind, &x); err != nil {
		return Receipt{}, err
	}
	id, err := hex.DecodeString(x.Store)
	if err != nil || len(id) != len(r.StoreID) || x.Act.Kind != KindAct {
		return Receipt{}, fmt.Errorf("%w: it names no store, or no act", ErrDocument)
	}
	return Receipt{Act: x.Act, StoreID: [16]byte(id), Through: x.Act.Seq}, nil
}
