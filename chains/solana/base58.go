package solana

import (
	"encoding/binary"
	"fmt"
	"strings"
)

const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// Address spells 32 bytes (a key, a blockhash) in base58.
func Address(k [32]byte) string { return base58(k[:]) }

// ParseAddress reads the base58 of exactly 32 bytes, in its only spelling.
func ParseAddress(s string) (k [32]byte, err error) {
	if len(s) < 32 || len(s) > 44 {
		return k, fmt.Errorf("parsing address: %d characters, want 32 to 44", len(s))
	}
	var n [33]byte // one byte of room shows overflow
	for i := range len(s) {
		carry := strings.IndexByte(alphabet, s[i])
		if carry < 0 {
			return k, fmt.Errorf("parsing address: character %d is not base58", i)
		}
		for j := len(n) - 1; j >= 0; j-- {
			carry += 58 * int(n[j])
			n[j] = byte(carry)
			carry >>= 8
		}
	}
	if k = [32]byte(n[1:]); n[0] != 0 || Address(k) != s {
		return [32]byte{}, fmt.Errorf("parsing address: not the base58 of 32 bytes")
	}
	return k, nil
}

// base58 spells b, whose length is a multiple of 4 and at most 64. It divides
// by 58^5 at a time, which fits 32-bit limbs.
func base58(b []byte) string {
	var out [96]byte
	return string(appendBase58(out[:0], b))
}

func appendBase58(to, b []byte) []byte {
	var limbs [16]uint32
	n := len(b) / 4
	for i := range n {
		limbs[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	var out [96]byte
	at := len(out)
	for first := 0; first < n; {
		if limbs[first] == 0 {
			first++
			continue
		}
		var rem uint64
		for i := first; i < n; i++ {
			v := rem<<32 | uint64(limbs[i])
			limbs[i] = uint32(v / 656356768)
			rem = v % 656356768
		}
		for range 5 {
			at--
			out[at] = alphabet[rem%58]
			rem /= 58
		}
	}
	for at < len(out) && out[at] == alphabet[0] {
		at++
	}
	for _, c := range b {
		if c != 0 {
			break
		}
		at--
		out[at] = alphabet[0]
	}
	return append(to, out[at:]...)
}
