package evm

import (
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// Transaction types (EIP-2718).
const (
	typeLegacy  = 0x00
	typeAccess  = 0x01 // EIP-2930
	typeDynamic = 0x02 // EIP-1559
	typeBlob    = 0x03 // EIP-4844
	typeSetCode = 0x04 // EIP-7702
)

// tx is one parsed transaction. Byte slices alias the parsed buffer.
type tx struct {
	typ        byte
	chainID    uint256.Int
	nonce      uint64
	tip        uint256.Int // max priority fee per gas; from typeDynamic on
	price      uint256.Int // gas price, or max fee per gas
	gas        uint64
	to         []byte // 20 bytes, or empty for contract creation
	value      uint256.Int
	data       []byte
	accessList []byte      // its canonical encoding, header included; nil in legacy
	blobFee    uint256.Int // max fee per blob gas; typeBlob only
	blobHashes []byte      // canonical encoding of the list; typeBlob only
	blobs      int         // how many there are
	auths      []byte      // canonical encoding of the authorization list; typeSetCode only

	// Set when a signed transaction was parsed.
	parity byte
	r, s   uint256.Int

	at struct{ chainID, nonce, tip, price, to, blobs int } // where the fields were
}

// parse reads exactly one transaction, signed or not, and nothing after it.
func parse(b []byte, signed bool) (*tx, error) {
	r := &reader{b: b}
	t := &tx{}
	switch first := b[0]; {
	case first >= 0xc0:
		t.readLegacy(r, signed)
	case first >= 0x80:
		return nil, fail(chains.CodeEncoding, 0, "an RLP string where a transaction is expected")
	case first >= typeAccess && first <= typeSetCode:
		t.typ = first
		r.pos = 1
		t.readTyped(r, signed)
	default:
		return nil, fail(chains.CodeEncoding, 0, "unknown transaction type 0x%02x", first)
	}
	if r.err == nil && r.pos != len(b) {
		r.fail(r.pos, "bytes after the transaction")
	}
	if r.err != nil {
		return nil, r.err
	}
	return t, nil
}

func (t *tx) readLegacy(r *reader, signed bool) {
	end := r.list(len(r.b), "the transaction")
	t.at.nonce = r.pos
	t.nonce = r.uint64(end, "nonce")
	t.at.price = r.pos
	r.uint256(end, "gas price", &t.price)
	t.readCall(r, end)
	if r.err == nil && r.pos == end {
		r.err = fail(chains.CodeSemantic, r.pos, "no chain id: transactions from before EIP-155 are valid on every chain")
		return
	}
	t.at.chainID = r.pos
	var v uint256.Int
	r.uint256(end, "chain id", &v)
	r.uint256(end, "r", &t.r)
	r.uint256(end, "s", &t.s)
	t.endList(r, end)
	if signed {
		t.readLegacyV(r, &v)
		return
	}
	t.chainID = v
	if r.err == nil && !(t.r.IsZero() && t.s.IsZero()) {
		r.err = fail(chains.CodeForm, t.at.chainID, "the transaction is signed already")
	}
}

// readLegacyV splits v = 35 + 2*chain id + parity (EIP-155).
func (t *tx) readLegacyV(r *reader, v *uint256.Int) {
	if r.err != nil {
		return
	}
	if v.LtUint64(35) {
		r.fail(t.at.chainID, "v without a chain id")
		return
	}
	t.chainID.SubUint64(v, 35)
	t.parity = byte(t.chainID.Uint64() & 1)
	t.chainID.Rsh(&t.chainID, 1)
}

func (t *tx) readTyped(r *reader, signed bool) {
	end := r.list(len(r.b), "the transaction")
	t.at.chainID = r.pos
	if t.typ == typeBlob && r.err == nil && r.pos < end && r.b[r.pos] >= 0xc0 {
		r.err = fail(chains.CodeForm, r.pos, "the network form of a blob transaction; blobs are not signed, give the transaction alone")
	}
	r.uint256(end, "chain id", &t.chainID)
	t.at.nonce = r.pos
	t.nonce = r.uint64(end, "nonce")
	if t.typ >= typeDynamic {
		t.at.tip = r.pos
		r.uint256(end, "max priority fee per gas", &t.tip)
	}
	t.at.price = r.pos
	r.uint256(end, "gas price", &t.price)
	t.readCall(r, end)
	t.readAccessList(r, end)
	switch t.typ {
	case typeBlob:
		r.uint256(end, "max fee per blob gas", &t.blobFee)
		t.at.blobs = r.pos
		t.readBlobHashes(r, end)
	case typeSetCode:
		t.readAuthorizations(r, end)
	}
	if !signed {
		if r.err == nil && r.pos != end && t.readSignature(&reader{b: r.b, pos: r.pos}, end) {
			r.err = fail(chains.CodeForm, r.pos, "the transaction is signed already")
		}
		t.endList(r, end)
		return
	}
	if r.err == nil && !t.readSignature(r, end) {
		r.fail(r.pos, "no well-formed signature")
	}
}

// readSignature reads parity, r and s and reports whether they end the list.
func (t *tx) readSignature(r *reader, end int) bool {
	parity := r.uint64(end, "y parity")
	r.uint256(end, "r", &t.r)
	r.uint256(end, "s", &t.s)
	t.parity = byte(parity & 1)
	return r.err == nil && r.pos == end && parity <= 1
}

// readCall reads gas, to, value and data, which all types have in this order.
func (t *tx) readCall(r *reader, end int) {
	t.gas = r.uint64(end, "gas")
	t.at.to = r.pos
	t.to = r.bytes(end, "to")
	if r.err == nil && len(t.to) != 0 && len(t.to) != 20 {
		r.fail(t.at.to, "to has the wrong length")
	}
	r.uint256(end, "value", &t.value)
	t.data = r.bytes(end, "data")
}

// readAccessList checks the list of [address, [storage keys]] (EIP-2930) and
// keeps its bytes; being canonical they stand for the contents.
func (t *tx) readAccessList(r *reader, end int) {
	start := r.pos
	stop := r.list(end, "access list")
	for r.err == nil && r.pos < stop {
		entry := r.list(stop, "access list entry")
		r.fixed(entry, 20, "access list address")
		keys := r.list(entry, "storage keys")
		for r.err == nil && r.pos < keys {
			r.fixed(keys, 32, "storage key")
		}
		t.endList(r, entry)
	}
	if r.err == nil {
		t.accessList = r.b[start:stop:stop]
	}
}

// readBlobHashes checks the list of versioned hashes (EIP-4844) and keeps its bytes.
func (t *tx) readBlobHashes(r *reader, end int) {
	start := r.pos
	stop := r.list(end, "blob hashes")
	for r.err == nil && r.pos < stop {
		at := r.pos
		if h := r.fixed(stop, 32, "blob hash"); r.err == nil && h[0] != 1 {
			r.err = fail(chains.CodeSemantic, at, "blob hash of version %d, only 1 exists (EIP-4844)", h[0])
		}
		t.blobs++
	}
	if r.err == nil {
		t.blobHashes = r.b[start:stop:stop]
	}
}

func (t *tx) endList(r *reader, end int) {
	if r.err == nil && r.pos != end {
		r.fail(r.pos, "more items than the list may have")
	}
}

// check refuses what is well encoded but no node would take.
func (t *tx) check() error {
	var fee uint256.Int
	switch {
	case t.chainID.IsZero():
		return fail(chains.CodeSemantic, t.at.chainID, "chain id 0")
	case t.typ == typeLegacy && t.chainID.Gt(maxLegacyChainID):
		return fail(chains.CodeSemantic, t.at.chainID, "chain id too large for a v of 256 bits")
	case t.nonce == ^uint64(0):
		return fail(chains.CodeSemantic, t.at.nonce, "nonce 2^64-1 (EIP-2681)")
	case t.tip.Gt(&t.price):
		return fail(chains.CodeSemantic, t.at.tip, "max priority fee per gas above max fee per gas")
	case t.typ >= typeBlob && len(t.to) == 0:
		return fail(chains.CodeSemantic, t.at.to, "a transaction of type 0x%02x creates no contract", t.typ)
	case t.typ == typeBlob && t.blobs == 0:
		return fail(chains.CodeSemantic, t.at.blobs, "a blob transaction without blobs (EIP-4844)")
	case t.typ == typeSetCode && len(t.auths) < 2:
		return fail(chains.CodeSemantic, -1, "a set-code transaction without authorizations (EIP-7702)")
	case t.fee(&fee):
		return fail(chains.CodeSemantic, t.at.price, "the highest fee exceeds 256 bits")
	}
	return nil
}

// maxLegacyChainID is (2^256-1-36)/2: v = 35 + 2*chain id + parity must fit.
var maxLegacyChainID = func() *uint256.Int {
	n := new(uint256.Int).SetAllOne()
	n.SubUint64(n, 36)
	return n.Rsh(n, 1)
}()

// gasPerBlob is what one blob takes (EIP-4844, GAS_PER_BLOB).
const gasPerBlob = 131072

// fee sets f to gas times price, and for blobs their gas times their price, in
// wei, and reports overflow.
func (t *tx) fee(f *uint256.Int) (overflow bool) {
	var gas, blobs uint256.Int
	gas.SetUint64(t.gas)
	_, overflow = f.MulOverflow(&gas, &t.price)
	if t.blobs == 0 {
		return overflow
	}
	blobs.SetUint64(uint64(t.blobs) * gasPerBlob)
	_, more := blobs.MulOverflow(&blobs, &t.blobFee)
	_, sum := f.AddOverflow(f, &blobs)
	return overflow || more || sum
}
