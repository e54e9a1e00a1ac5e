package vault

import (
	"encoding/binary"
	"fmt"
)

// The head is one row that says what the whole store is, changed in the
// transaction of every change and authenticated by k_head:
//
//	"SGHD" | ver u8 = 2 | store id 16 | generation u32 | previous generation u32 | epoch u64 | seq u64
//	| records u64 | set root 32 | keyslots 32 | journal seq u64 | journal hash 32
//	                                                         and HMAC-SHA256(k_head, all of it)
//
// Version 1, of stores of schema 1, has neither previous generation nor keyslots.

const (
	headMagic   = "SGHD"
	headVersion = 2
	headLen     = 4 + 1 + 16 + 4 + 4 + 8 + 8 + 8 + 32 + 32 + 8 + 32
	headLenV1   = headLen - 4 - 32
)

type head struct {
	version    uint8 // as read; encode writes headVersion
	storeID    [16]byte
	generation uint32
	previous   uint32 // of the root key that rotation leaves behind; 0 when there is none
	epoch      uint64 // the anchor's value; 1 and still where there is none
	seq        uint64 // committed updates
	records    uint64
	setRoot    [32]byte
	keyslots   [32]byte // SHA-256 over all groups and slots
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
	b = binary.BigEndian.AppendUint32(b, h.previous)
	b = binary.BigEndian.AppendUint64(b, h.epoch)
	b = binary.BigEndian.AppendUint64(b, h.seq)
	b = binary.BigEndian.AppendUint64(b, h.records)
	b = append(b, h.setRoot[:]...)
	b = append(b, h.keyslots[:]...)
	b = binary.BigEndian.AppendUint64(b, h.journal.Seq)
	return append(b, h.journal.Hash[:]...)
}

// parseHead reads the form of either version; the MAC is the caller's to check.
func parseHead(b []byte) (head, error) {
	var h head
	if len(b) < 5 || string(b[:4]) != headMagic {
		return h, fmt.Errorf("%w: head row has an unknown form", ErrTampered)
	}
	switch h.version = b[4]; {
	case h.version != 1 && h.version != headVersion:
		return h, fmt.Errorf("%w: head version %d is not known to this build", ErrTampered, b[4])
	case h.version == 1 && len(b) != headLenV1, h.version == headVersion && len(b) != headLen:
		return h, fmt.Errorf("%w: head row has an unknown form", ErrTampered)
	}
	b = b[5:]
	u64 := func() (n uint64) { n, b = binary.BigEndian.Uint64(b), b[8:]; return n }
	u32 := func() (n uint32) { n, b = binary.BigEndian.Uint32(b), b[4:]; return n }
	take := func(out []byte) { b = b[copy(out, b):] }
	take(h.storeID[:])
	h.generation = u32()
	if h.version > 1 {
		h.previous = u32()
	}
	h.epoch, h.seq, h.records = u64(), u64(), u64()
	take(h.setRoot[:])
	if h.version > 1 {
		take(h.keyslots[:])
	}
	h.journal.Seq = u64()
	take(h.journal.Hash[:])
	return h, nil
}
