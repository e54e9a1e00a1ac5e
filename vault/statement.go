package vault

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
)

// A generation statement says which root key is the store's, signed by the
// store key that the pin names:
//
//	"SGGS" | ver u8 | store id 16 | generation u32 | root-key commitment 32 | created u64 | Ed25519 signature 64
//
// The signature is over "sigild/vault/generation/v1" and everything before it.
// Rotation adds a statement; the pin outside stays as it is.

const (
	statementMagic   = "SGGS"
	statementVersion = 1
	statementLen     = 4 + 1 + 16 + 4 + 32 + 8 + ed25519.SignatureSize
	statementDomain  = "sigild/vault/generation/v1"
)

type statement struct {
	storeID    [16]byte
	generation uint32
	commit     [32]byte
	created    int64 // Unix seconds
}

func (s statement) sign(key ed25519.PrivateKey) []byte {
	b := make([]byte, 0, statementLen)
	b = append(b, statementMagic...)
	b = append(b, statementVersion)
	b = append(b, s.storeID[:]...)
	b = binary.BigEndian.AppendUint32(b, s.generation)
	b = append(b, s.commit[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(s.created))
	return append(b, ed25519.Sign(key, append([]byte(statementDomain), b...))...)
}

// openStatement parses b and verifies it against the pin: [ErrPinMismatch] when
// another key signed it or it names another store.
func openStatement(pin Pin, b []byte) (statement, error) {
	var s statement
	if len(b) != statementLen || string(b[:4]) != statementMagic || b[4] != statementVersion {
		return s, fmt.Errorf("%w: root-key statement has an unknown form", ErrTampered)
	}
	signed, sig := b[:statementLen-ed25519.SignatureSize], b[statementLen-ed25519.SignatureSize:]
	if !ed25519.Verify(pin.StoreKey[:], append([]byte(statementDomain), signed...), sig) {
		return s, fmt.Errorf("%w: root-key statement is not signed by the pinned store key", ErrPinMismatch)
	}
	copy(s.storeID[:], b[5:])
	s.generation = binary.BigEndian.Uint32(b[21:])
	copy(s.commit[:], b[25:])
	s.created = int64(binary.BigEndian.Uint64(b[57:]))
	if s.storeID != pin.StoreID {
		return s, fmt.Errorf("%w: root-key statement names another store", ErrPinMismatch)
	}
	return s, nil
}
