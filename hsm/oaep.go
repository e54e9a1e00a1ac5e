package hsm

// EME-OAEP decoding (RFC 8017 §7.1.2 step 3) for tokens that offer the bare RSA
// operation but not OAEP with SHA-256: SoftHSM 2.6 and 2.7 are such. The worker
// does it, so that the encoded message never leaves that process.
//
// Nothing here branches, or indexes, on what is secret before it is known to be
// well formed: telling a wrong first byte from a wrong hash would let an attacker
// decrypt anything by asking often enough (Manger 2001).

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
)

// oaepExtra is what the padding takes: a zero byte, seed, label hash and a one.
const oaepExtra = 2*sha256.Size + 2

// emptyLabel is SHA-256 of the empty label.
var emptyLabel = sha256.Sum256(nil)

// unpadOAEP decodes em, the output of the RSA operation, as long as the modulus.
// It works in place: the message, if ok, is a slice of em. Hash and MGF1 are
// SHA-256, the label is empty.
func unpadOAEP(em []byte) (message []byte, ok bool) {
	if len(em) < oaepExtra {
		return nil, false // a public length
	}
	seed, db := em[1:1+sha256.Size], em[1+sha256.Size:]
	maskMGF1(seed, db)
	maskMGF1(db, seed)

	good := subtle.ConstantTimeByteEq(em[0], 0)
	good &= subtle.ConstantTimeCompare(db[:sha256.Size], emptyLabel[:])
	// What follows is zeros, then a one, then the message.
	rest := db[sha256.Size:]
	looking, index := 1, 0
	for i, b := range rest {
		zero, one := subtle.ConstantTimeByteEq(b, 0), subtle.ConstantTimeByteEq(b, 1)
		index = subtle.ConstantTimeSelect(looking&one, i, index)
		looking = subtle.ConstantTimeSelect(one, 0, looking)
		good &= looking&zero | (looking ^ 1)
	}
	good &= looking ^ 1
	if good != 1 {
		return nil, false
	}
	return rest[index+1:], true
}

// maskMGF1 xors MGF1-SHA-256 of from into to (RFC 8017 §B.2.1).
func maskMGF1(to, from []byte) {
	h := sha256.New()
	var counter [4]byte
	var block [sha256.Size]byte
	for n := uint32(0); len(to) > 0; n++ {
		binary.BigEndian.PutUint32(counter[:], n)
		h.Reset()
		h.Write(from)
		h.Write(counter[:])
		h.Sum(block[:0])
		to = to[subtle.XORBytes(to, to, block[:]):]
	}
	clear(block[:])
}
