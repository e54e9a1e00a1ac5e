package hsm

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"strings"

	"github.com/sigild/sigild/seal"
)

// A key reference is text that a keyslot keeps for ever and authenticates:
//
//	ref     = hex [ ";" wrapping ] [ ";without=" name *( "," name ) ]
//	hex     = CKA_ID, lower case
//	name    = a protection that the token could not give the key when it was made
//
// A reference has one spelling. How a key wraps and what it may lack are decided
// when it is made; a key that lacks more later is refused.

// maxRef is what a keyslot holds.
const maxRef = 255

// kwpPrefix is what is wrapped before the plaintext: nonce, hash, length (wrap.go).
const kwpPrefix = 16 + 32 + 1

// wrapping is how a KEK seals. It is the first byte of a blob, too.
type wrapping byte

const (
	wrapNone    wrapping = 0 // the key is no KEK
	wrapGCM     wrapping = 1 // CKM_AES_GCM, the aad in the mechanism
	wrapKWP     wrapping = 2 // CKM_AES_KEY_WRAP_KWP of a session object
	wrapPad     wrapping = 3 // CKM_AES_KEY_WRAP_PAD of a session object
	wrapOAEP    wrapping = 4 // RSA-OAEP-SHA256 by the token, and an HMAC of the token over it
	wrapRawOAEP wrapping = 5 // the same with the bare RSA operation
)

// wrappingNames; GCM is what a reference means that names none.
var wrappingNames = [...]string{wrapGCM: "gcm", wrapKWP: "kwp", wrapPad: "kwpad", wrapOAEP: "oaep", wrapRawOAEP: "rawoaep"}

func (w wrapping) known() bool { return w >= wrapGCM && int(w) < len(wrappingNames) }

// blobLen is the length of a blob of n bytes of plaintext; OAEP's also depends on
// the modulus, so there it is the least.
func (w wrapping) blobLen(n int) (least, most int) {
	switch w {
	case wrapGCM:
		n += blobOverhead
		return n, n
	case wrapKWP, wrapPad:
		// One block more (RFC 5649 §4.1), and with PKCS padding two.
		n = 1 + (kwpPrefix+n+7)/8*8 + 8
		return n, n + 8
	default:
		return 1 + minModulus + macLen, 1 + maxModulus + macLen
	}
}

// protection is one of the things that we ask of a key beyond what makes it usable.
type protection uint16

const (
	lackModifiable protection = 1 << iota
	lackCopyable
	lackMechanisms
	lackEncrypt
	lackDecrypt
	lackWrap
	lackUnwrap
	lackSign
	lackDerive
	lackAlwaysSensitive
	lackNeverExtractable
	lackLocal

	lackAll = lackLocal<<1 - 1
)

// protectionNames are the attributes that carry them, in the order of the bits.
var protectionNames = [...]string{
	"CKA_MODIFIABLE", "CKA_COPYABLE", "CKA_ALLOWED_MECHANISMS", "CKA_ENCRYPT", "CKA_DECRYPT", "CKA_WRAP", "CKA_UNWRAP",
	"CKA_SIGN", "CKA_DERIVE", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE", "CKA_LOCAL",
}

// names lists the attributes of p.
func (p protection) names() []string {
	var out []string
	for i, name := range protectionNames {
		if p&(1<<i) != 0 {
			out = append(out, name)
		}
	}
	return out
}

// keyRef is a reference taken apart.
type keyRef struct {
	wrap    wrapping // wrapNone for a key that is no KEK
	without protection
	id      []byte
}

// text is the one spelling of r.
func (r keyRef) text() seal.KeyRef {
	s := hex.EncodeToString(r.id)
	if r.wrap.known() && r.wrap != wrapGCM {
		s += ";" + wrappingNames[r.wrap]
	}
	if names := r.without.names(); len(names) > 0 {
		for i, n := range names {
			names[i] = strings.ToLower(strings.TrimPrefix(n, "CKA_"))
		}
		s += ";without=" + strings.Join(names, ",")
	}
	return seal.KeyRef(s)
}

// parseRef takes a reference apart. What is no reference of ours is
// [seal.ErrNotFound]: no key has that name. The wrapping of a bare id is GCM.
func parseRef(ref seal.KeyRef) (keyRef, error) {
	bad := fmt.Errorf("%w: %.140q is not the lower-case hex of a CKA_ID, as sigild writes it", seal.ErrNotFound, string(ref))
	if len(ref) > maxRef {
		return keyRef{}, bad
	}
	parts := strings.Split(string(ref), ";")
	id, err := hex.DecodeString(parts[0])
	if err != nil || len(id) < 1 || len(id) > maxID {
		return keyRef{}, bad
	}
	r := keyRef{wrap: wrapGCM, id: id}
	for _, part := range parts[1:] {
		if list, ok := strings.CutPrefix(part, "without="); ok {
			for name := range strings.SplitSeq(list, ",") {
				for i, p := range protectionNames {
					if "CKA_"+strings.ToUpper(name) == p {
						r.without |= 1 << i
					}
				}
			}
			continue
		}
		for w, name := range wrappingNames {
			if name != "" && name == part {
				r.wrap = wrapping(w)
			}
		}
	}
	if r.text() != ref { // another spelling, another order, a name we don't know
		return keyRef{}, bad
	}
	return r, nil
}

// plainID is parseRef for keys that are named by their id alone.
func plainID(ref seal.KeyRef) ([]byte, error) {
	r, err := parseRef(ref)
	if err == nil && (keyRef{id: r.id}).text() != ref {
		err = fmt.Errorf("%w: %.140q is more than the hex of a CKA_ID", seal.ErrNotFound, string(ref))
	}
	return r.id, err
}

// boundKey is a key reference on the wire: wrapping ‖ u16 without ‖ id.
var boundKey = bound{4, 3 + maxID}

func (r keyRef) wire() []byte {
	return append(binary.BigEndian.AppendUint16([]byte{byte(r.wrap)}, uint16(r.without)), r.id...)
}

// readWire reads what wire wrote; b is within boundKey.
func readWire(b []byte) (keyRef, error) {
	r := keyRef{wrapping(b[0]), protection(binary.BigEndian.Uint16(b[1:])), b[3:]}
	if r.wrap != wrapNone && !r.wrap.known() || bits.Len16(uint16(r.without)) > len(protectionNames) {
		return keyRef{}, newFault(errRefused, "reading a key reference: wrapping %d, without %#x", r.wrap, uint16(r.without))
	}
	return r, nil
}
