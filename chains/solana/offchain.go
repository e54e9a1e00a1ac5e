package solana

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"unicode/utf8"

	"github.com/sigild/sigild/chains"
)

// Messages that are signed and never become a transaction: off-chain messages in
// their envelope, which starts with a byte no transaction starts with, and the
// text of Sign In With Solana (siws.go). Everything else is refused, first of all
// what is a transaction.
//
//	version 0: domain "\xffsolana offchain", 0, application domain (32 bytes),
//	  format u8, signer count u8, signers, length u16, text
//	version 1: domain, 1, signer count u8, signers in ascending order, text
//
// (docs.anza.xyz, Off-Chain Message Signing; version 1 as @solana/kit has it.)

// Roots of the view of a message.
const (
	OffchainRoot = "solana.offchain_message"
	SIWSRoot     = "solana.siws"
)

// MaxOffchain is the largest message that is not a transaction, in bytes.
const MaxOffchain = 65535 + 1 + 16 + 1 + 32 + 2 + 32*255 + 2

// maxLedger is the largest message of formats 0 and 1, envelope included: what a
// hardware wallet signs.
const maxLedger = 1232

const signingDomain = "\xffsolana offchain"

// OffchainType lays out the root "solana.offchain_message".
var OffchainType = structOf(
	chains.Field{Name: "version", Type: typeInt, Doc: "version of the envelope, 0 or 1"},
	chains.Field{Name: "application_domain", Type: typePubkey, Doc: "who asks for it, 32 bytes of its choice; absent in version 1"},
	chains.Field{Name: "format", Type: typeInt, Doc: "0 ASCII, 1 short UTF-8, 2 long UTF-8; absent in version 1"},
	chains.Field{Name: "signers", Type: listOf(typePubkey), Doc: "who must sign it"},
	chains.Field{Name: "text", Type: typeString, Doc: "the message"},
)

// Roots says which policy roots a payload of each kind has, and their layout. A
// message has one of the two: it is off-chain, or it signs in.
var Roots = map[chains.Kind]map[string]*chains.Type{
	chains.KindSolanaMessage:  {Root: TxType},
	chains.KindSolanaOffchain: {OffchainRoot: OffchainType, SIWSRoot: SIWSType},
}

// DecodeOffchain reads the message b, which is no transaction, that wallet is to
// sign: it must be one of the signers, or the account that signs in. chain is the
// wallet's CAIP-2 id. Errors are [*chains.DecodeError]. b is copied.
func DecodeOffchain(b []byte, wallet [32]byte, chain string) (*chains.Decoded, error) {
	return decodeOffchain(b, &wallet, chain)
}

// InspectOffchain is DecodeOffchain for people who look at a message without
// being one of its signers.
func InspectOffchain(b []byte, chain string) (*chains.Decoded, error) {
	return decodeOffchain(b, nil, chain)
}

func decodeOffchain(b []byte, wallet *[32]byte, chain string) (*chains.Decoded, error) {
	switch {
	case !validChain(chain):
		return nil, fail(chains.CodeForm, -1, "%q is not the CAIP-2 id of a Solana cluster", chain)
	case len(b) == 0:
		return nil, fail(chains.CodeForm, -1, "empty payload")
	case len(b) > MaxOffchain:
		return nil, fail(chains.CodeForm, -1, "message of %d bytes, at most %d", len(b), MaxOffchain)
	case startsTransaction(b):
		return nil, fail(chains.CodeForm, 0, "a transaction, which is not signed as a message")
	}
	raw := bytes.Clone(b)
	d := &chains.Decoded{
		Kind: chains.KindSolanaOffchain, Chain: chain, Raw: raw,
		Sign: chains.SignInput{Scheme: chains.EdDSAEd25519, Message: raw},
	}
	w := &writer{}
	switch {
	case bytes.HasPrefix(b, []byte(signingDomain)):
		view, err := readEnvelope(b, wallet, w)
		if err != nil {
			return nil, err
		}
		d.View = chains.View{OffchainRoot: view}
	case b[0] < 0x80:
		view, err := readSIWS(string(raw), wallet, w)
		if err != nil {
			return nil, err
		}
		d.View = chains.View{SIWSRoot: view}
	default:
		return nil, fail(chains.CodeForm, 0, "neither an off-chain message nor a sign-in text")
	}
	d.Summary = w.String()
	return d, nil
}

// startsTransaction reports whether b starts with a transaction message, or with
// signatures and a transaction message, whatever follows.
func startsTransaction(b []byte) bool {
	if _, err := parseFrom(&reader{b: b}); err == nil {
		return true
	}
	r := &reader{b: b}
	n := r.compactU16("signature count")
	r.take(64*n, "signatures")
	if r.err != nil || n == 0 {
		return false
	}
	_, err := parseFrom(&reader{b: b[r.pos:]})
	return err == nil
}

// readEnvelope reads an off-chain message and says what it is.
func readEnvelope(b []byte, wallet *[32]byte, w *writer) (chains.Value, error) {
	r := &reader{b: b, pos: len(signingDomain)}
	version := r.u8("version")
	if r.err == nil && version > 1 {
		return chains.Value{}, fail(chains.CodeForm, r.pos-1, "unsupported off-chain message version %d", version)
	}
	domain, format := chains.Value{}, chains.Value{}
	f := 2
	var application []byte
	if version == 0 {
		application = r.take(32, "application domain")
		f = r.u8("format")
		domain, format = chains.Value{Kind: chains.KindPubkey, Raw: bytes.Clone(application)}, chains.Uint64Value(uint64(f))
	}
	count := r.u8("signer count")
	signers := r.take(32*count, "signers")
	at := r.pos
	text := b[r.pos:]
	if version == 0 {
		length := r.take(2, "length")
		if r.err == nil {
			text = b[r.pos:]
			if n := int(length[0]) | int(length[1])<<8; n != len(text) {
				r.fail(at, "text of %d bytes, its length says %d", len(text), n)
			}
		}
	}
	if r.err != nil {
		return chains.Value{}, r.err
	}
	if err := checkEnvelope(b, version, f, signers, text, wallet); err != nil {
		return chains.Value{}, err
	}
	w.WriteString("sign the off-chain message ")
	w.quoteAll(text)
	if version == 0 {
		w.WriteString(" for application ")
		w.address((*[32]byte)(application))
	}
	for i := range count {
		if k := (*[32]byte)(signers[32*i:]); wallet == nil || *k != *wallet {
			w.WriteString("; also signed by ")
			w.address(k)
		}
	}
	return chains.StructValue(chains.Uint64Value(uint64(version)), domain, format,
		chains.SeqValue(keySeq(bytes.Clone(signers))), chains.StringValue(string(text))), nil
}

// checkEnvelope holds a message against the rules of its version and format.
func checkEnvelope(b []byte, version, format int, signers, text []byte, wallet *[32]byte) error {
	sem := func(f string, args ...any) error { return fail(chains.CodeSemantic, -1, f, args...) }
	switch {
	case len(signers) == 0:
		return sem("no signer")
	case len(text) == 0:
		return sem("empty text")
	case len(text) > 65535:
		return sem("text of %d bytes, at most 65535", len(text))
	case format > 2:
		return sem("unknown format %d", format)
	case format < 2 && len(b) > maxLedger:
		return sem("message of %d bytes, at most %d in format %d", len(b), maxLedger, format)
	case !utf8.Valid(text):
		return fail(chains.CodeEncoding, -1, "the text is not UTF-8")
	case format == 0 && bytes.IndexFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) >= 0:
		return sem("format 0 is printable ASCII")
	}
	found := wallet == nil
	for i := 0; i < len(signers); i += 32 {
		own := signers[i : i+32]
		found = found || bytes.Equal(own, wallet[:])
		for j := 0; j < i; j += 32 {
			if c := bytes.Compare(signers[j:j+32], own); c == 0 {
				return sem("signer %d is listed twice", i/32)
			} else if version == 1 && c > 0 {
				return sem("signers are not in ascending order")
			}
		}
	}
	if !found {
		return fail(chains.CodeSigner, -1, "wallet %s is not a signer of this message", Address(*wallet))
	}
	return nil
}

// keySeq is keys one after the other.
type keySeq []byte

func (s keySeq) Len() int { return len(s) / 32 }

func (s keySeq) At(i int) chains.Value {
	return chains.Value{Kind: chains.KindPubkey, Raw: s[32*i : 32*i+32 : 32*i+32]}
}

// CheckOffchain verifies wallet's signature over the message of d, decoded again
// and compared with what was judged. There is nothing to assemble: the signature
// is what the application wants. Errors: [ErrSignature], [ErrMismatch].
func CheckOffchain(d *chains.Decoded, wallet [32]byte, sig [64]byte) error {
	fresh, err := DecodeOffchain(d.Raw, wallet, d.Chain)
	if err != nil {
		return fmt.Errorf("decoding payload again: %w", err)
	}
	if !bytes.Equal(fresh.Sign.Message, d.Sign.Message) || !fresh.View.Equal(d.View) {
		return fmt.Errorf("decoding payload again: %w", ErrMismatch)
	}
	if !ed25519.Verify(wallet[:], d.Sign.Message, sig[:]) {
		return fmt.Errorf("verifying signature: %w", ErrSignature)
	}
	return nil
}
