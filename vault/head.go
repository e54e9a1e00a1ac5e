package vault

import (
	"encoding/binary"
	"fmt"
)

// The head is one row that says what the whole store is, changed in the
// transaction of every change and authenticated by k_head:
//
//	"SGHD" | ver u8 | store id 16 | generation u32 | epoch u64 | seq u64 | records u64 | set root 32
//	| journal seq u64 | journal hash 32            and HMAC-SHA256(k_head, all of it)

const (
	headMagic   = "SGHD"
	headVersion = 1
	headLen     = 4 + 1 + 16 + 4 + 8 + 8 + 8 + 32 + 8 + 32
)

type head struct {
	storeID    [16]byte
	generation uint32
	epoch      uint64 // moves with the rollback anchor; 1 while there is none
	seq        uint64 // committed updates
	records    uint64
	setRoot    [32]byte
	journal    JournalHead
}

// JournalHead is the journal's last row; Seq 0 when there is none.
type JournalHead struct {
	Seq  uint64
	Hash [32]byte
}

func (h *head) encode() []byte {
	b := make([]byte, 0, headLen)
	b = append(b, headMagic...)
	b = append(b, headVersion)
	b = append(b, h.storeID[:]...)
	b = binary.BigEndian.AppendUint32(b, h.generation)
	b = binary.BigEndian.AppendUint64(b, h.epoch)
	b = binary.BigEndian.AppendUint64(b, h.seq)
	b = binary.BigEndian.AppendUint64(b, h.records)
	b = append(b, h.setRoot[:]...)
	b = binary.BigEndian.AppendUint64(b, h.journal.Seq)
	return append(b, h.journal.Hash[:]...)
}

// parseHead reads the form; the MAC is the caller's to check.
func parseHead(b []byte) (head, error) {
	var h head
	if len(b) != headLen || string(b[:4]) != headMagic {
		return h, fmt.Errorf("%w: head row has an unknown form", ErrTampered)
	}
	if b[4] != headVersion {
		return h, fmt.Errorf("%w: head version %d is not known to this build", ErrTampered, b[4])
	}
	copy(h.storeID[:], b[5:])
	h.generation = binary.BigEndian.Uint32(b[21:])
	h.epoch = binary.BigEndian.Uint64(b[25:])
	h.seq = binary.BigEndian.Uint64(b[33:])
	h.records = binary.BigEndian.Uint64(b[41:])
	copy(h.setRoot[:], b[49:])
	h.journal.Seq = binary.BigEndian.Uint64(b[81:])
	copy(h.journal.Hash[:], b[89:])
	return h, nil
}
