package evm

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Address is the account address of a secp256k1 public key: 33 bytes
// compressed or 65 uncompressed (SEC 1). A point that is not on the curve is an error.
func Address(pub []byte) ([20]byte, error) {
	switch len(pub) {
	case 33:
		k, err := crypto.DecompressPubkey(pub)
		if err != nil {
			return [20]byte{}, fmt.Errorf("decompressing public key: %w", err)
		}
		return crypto.PubkeyToAddress(*k), nil
	case 65:
		k, err := crypto.UnmarshalPubkey(pub)
		if err != nil {
			return [20]byte{}, fmt.Errorf("reading public key: %w", err)
		}
		return crypto.PubkeyToAddress(*k), nil
	}
	return [20]byte{}, fmt.Errorf("reading public key: %d bytes, want 33 or 65", len(pub))
}

// Checksum spells an address with the checksum of EIP-55.
func Checksum(a [20]byte) string { return common.Address(a).Hex() }

// ErrChecksum is a mixed-case address whose EIP-55 checksum is wrong.
var ErrChecksum = errors.New("wrong EIP-55 checksum")

// ParseAddress reads "0x" and 40 hex digits. All lower or all upper case carry
// no checksum; mixed case must be the EIP-55 spelling, else [ErrChecksum].
func ParseAddress(s string) ([20]byte, error) {
	var a [20]byte
	if len(s) != 42 || s[:2] != "0x" {
		return a, errors.New("parsing address: want 0x and 40 hex digits")
	}
	if _, err := hex.Decode(a[:], []byte(s[2:])); err != nil {
		return a, errors.New("parsing address: want 0x and 40 hex digits")
	}
	lower, upper := false, false
	for _, c := range s[2:] {
		lower = lower || c >= 'a'
		upper = upper || c >= 'A' && c <= 'F'
	}
	if lower && upper && Checksum(a) != s {
		return [20]byte{}, fmt.Errorf("parsing address: %w", ErrChecksum)
	}
	return a, nil
}
