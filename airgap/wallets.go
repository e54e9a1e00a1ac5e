package airgap

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/chains/solana"
)

// What wallet programs show to off-line signers: ERC-4527 for EVM chains, and its
// likeness for Solana, whose members Keystone's registry defines (sol-sign-request,
// sol-signature). Neither names our wallet, so whoever carries it does; neither has
// an end. A derivation path is read and passed over: here the address names the key.

// form is how a request came, and so how its answer leaves.
type form uint8

const (
	formOurs form = iota
	formERC4527
	formSolana
)

// The types of wallets' resources.
const (
	typeETHRequest = "eth-sign-request"
	typeETHAnswer  = "eth-signature"
	typeSOLRequest = "sol-sign-request"
	typeSOLAnswer  = "sol-signature"
)

// tagUUID is CBOR tag 37 around 16 bytes.
const tagUUID = 37

type wireETHRequest struct {
	ID       *cbor.RawTag    `cbor:"1,keyasint,omitempty"`
	Data     []byte          `cbor:"2,keyasint"`
	DataType uint8           `cbor:"3,keyasint"`
	ChainID  *uint64         `cbor:"4,keyasint,omitempty"`
	Path     cbor.RawMessage `cbor:"5,keyasint,omitempty"`
	Address  []byte          `cbor:"6,keyasint,omitempty"`
	Origin   string          `cbor:"7,keyasint,omitempty"`
}

// The data types of ERC-4527, and what they are to us.
var ethKinds = map[uint8]chains.Kind{
	1: chains.KindEVMTransaction, // legacy, RLP
	2: chains.KindEVMTypedData,
	3: chains.KindEVMMessage,
	4: chains.KindEVMTransaction, // EIP-2718
}

func parseETHRequest(b []byte) (*Request, error) {
	var w wireETHRequest
	if err := decodeStrict(b, &w); err != nil {
		return nil, fmt.Errorf("reading the eth-sign-request: %w", err)
	}
	kind, ok := ethKinds[w.DataType]
	if !ok {
		return nil, fmt.Errorf("reading the eth-sign-request: %w: data type %d", ErrForm, w.DataType)
	}
	if len(w.Address) != 20 {
		return nil, fmt.Errorf("reading the eth-sign-request: %w: it names no address of 20 bytes, so nobody can say whose signature it asks for", ErrForm)
	}
	// The payload says its type itself; a wallet that says another thing beside it is confused, or wants us to be.
	typed := len(w.Data) > 0 && w.Data[0] < 0x80
	if kind == chains.KindEVMTransaction && typed != (w.DataType == 4) {
		return nil, fmt.Errorf("reading the eth-sign-request: %w: data type %d does not fit the transaction", ErrForm, w.DataType)
	}
	r, err := foreign(formERC4527, w.ID, w.Data, kind, w.Origin, b)
	if err != nil {
		return nil, fmt.Errorf("reading the eth-sign-request: %w", err)
	}
	r.Signer = signable.Signer{Chain: "eip155", Address: evm.Checksum([20]byte(w.Address))}
	if w.ChainID == nil || kind == chains.KindEVMMessage {
		return r, nil
	}
	d, err := r.Decode()
	if err != nil {
		return nil, fmt.Errorf("reading the eth-sign-request: %w", err)
	}
	// Typed data may name no chain; then there is nothing to compare.
	if said := fmt.Sprintf("eip155:%d", *w.ChainID); d.Chain != "" && d.Chain != "eip155" && d.Chain != said {
		return nil, fmt.Errorf("reading the eth-sign-request: %w: it says %s, its payload %s", ErrForm, said, d.Chain)
	}
	return r, nil
}

type wireSOLRequest struct {
	ID       *cbor.RawTag    `cbor:"1,keyasint,omitempty"`
	Data     []byte          `cbor:"2,keyasint"`
	Path     cbor.RawMessage `cbor:"3,keyasint,omitempty"`
	Address  []byte          `cbor:"4,keyasint,omitempty"`
	Origin   string          `cbor:"5,keyasint,omitempty"`
	SignType uint8           `cbor:"6,keyasint"`
}

// solanaMainnet is the CAIP-2 id of the one cluster that wallets mean: a
// sol-sign-request names none.
const solanaMainnet = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

var solKinds = map[uint8]chains.Kind{1: chains.KindSolanaMessage, 2: chains.KindSolanaOffchain}

func parseSOLRequest(b []byte) (*Request, error) {
	var w wireSOLRequest
	if err := decodeStrict(b, &w); err != nil {
		return nil, fmt.Errorf("reading the sol-sign-request: %w", err)
	}
	kind, ok := solKinds[w.SignType]
	if !ok {
		return nil, fmt.Errorf("reading the sol-sign-request: %w: sign type %d", ErrForm, w.SignType)
	}
	if len(w.Address) != 32 {
		return nil, fmt.Errorf("reading the sol-sign-request: %w: it names no address of 32 bytes, so nobody can say whose signature it asks for", ErrForm)
	}
	r, err := foreign(formSolana, w.ID, w.Data, kind, w.Origin, b)
	if err != nil {
		return nil, fmt.Errorf("reading the sol-sign-request: %w", err)
	}
	r.Signer = signable.Signer{Chain: solanaMainnet, Address: solana.Address([32]byte(w.Address))}
	return r, nil
}

// foreign is what both forms share.
func foreign(made form, id *cbor.RawTag, data []byte, kind chains.Kind, origin string, raw []byte) (*Request, error) {
	if len(data) == 0 || len(data) > MaxPayload {
		return nil, fmt.Errorf("%w: a payload of %d bytes, 1 to %d are taken", ErrForm, len(data), MaxPayload)
	}
	if len(origin) > maxNote || !printable(origin) {
		return nil, fmt.Errorf("%w: its origin is no printable ASCII of at most %d bytes", ErrForm, maxNote)
	}
	r := &Request{Kind: kind, Payload: data, Note: origin, made: made, raw: raw}
	if id == nil {
		// Two requests without an id are the same one when they ask for the same.
		d := r.Digest()
		r.ID = "qr-" + hex.EncodeToString(d[:16])
		return r, nil
	}
	uuid, err := readUUID(id)
	if err != nil {
		return nil, err
	}
	r.ID = hex.EncodeToString(uuid)
	return r, nil
}

func readUUID(t *cbor.RawTag) (uuid []byte, err error) {
	if t.Number != tagUUID || decodeStrict(t.Content, &uuid) != nil || len(uuid) != 16 {
		return nil, fmt.Errorf("%w: its request id is no UUID", ErrForm)
	}
	return uuid, nil
}

func writeUUID(uuid []byte) (*cbor.RawTag, error) {
	b, err := encode(uuid)
	return &cbor.RawTag{Number: tagUUID, Content: b}, err
}

type wireSignature struct {
	ID        *cbor.RawTag `cbor:"1,keyasint,omitempty"`
	Signature []byte       `cbor:"2,keyasint"`
	Origin    string       `cbor:"3,keyasint,omitempty"`
}

// Reply puts a signature into the form that the request's maker reads: an answer of
// ours, an eth-signature or a sol-signature. appliance and sequence go into ours only.
func (r *Request) Reply(signature []byte, appliance string, sequence uint64) (UR, error) {
	if r.made == formOurs {
		a := Answer{Request: r.Digest(), Signature: signature, Appliance: appliance, Sequence: sequence}
		b, err := a.Encode()
		return UR{Type: typeAnswer, CBOR: b}, err
	}
	w := wireSignature{Signature: signature, Origin: "sigild"}
	kind := typeSOLAnswer
	if r.made == formERC4527 {
		kind = typeETHAnswer
		v, err := r.wireV(signature)
		if err != nil {
			return UR{}, err
		}
		w.Signature = append(slices.Clone(signature[:64]), v...)
	} else {
		w.Origin = "" // a sol-signature has no such member
	}
	if uuid, err := hex.DecodeString(r.ID); err == nil && len(uuid) == 16 {
		if w.ID, err = writeUUID(uuid); err != nil {
			return UR{}, fmt.Errorf("encoding the %s: %w", kind, err)
		}
	}
	b, err := encode(w)
	if err != nil {
		return UR{}, fmt.Errorf("encoding the %s: %w", kind, err)
	}
	return UR{Type: kind, CBOR: b}, nil
}

// wireV is the last part of an eth-signature, as wallets put it into what they
// send: 27 or 28 for messages and typed data, 0 or 1 for typed transactions, for
// legacy ones EIP-155's 35 + 2 · chain id + parity, as many bytes as it takes.
func (r *Request) wireV(signature []byte) ([]byte, error) {
	if len(signature) != 65 || signature[64] > 1 {
		return nil, fmt.Errorf("encoding the eth-signature: a signature of %d bytes without a recovery id", len(signature))
	}
	base, err := r.baseV()
	if err != nil {
		return nil, err
	}
	v := base.Add(base, big.NewInt(int64(signature[64]))).Bytes()
	if len(v) == 0 {
		v = []byte{0}
	}
	return v, nil
}

// baseV is the v of parity 0.
func (r *Request) baseV() (*big.Int, error) {
	if r.Kind != chains.KindEVMTransaction {
		return big.NewInt(27), nil
	}
	if r.Payload[0] < 0x80 {
		return new(big.Int), nil
	}
	d, err := r.Decode()
	if err != nil {
		return nil, fmt.Errorf("decoding the request: %w", err)
	}
	id, ok := new(big.Int).SetString(strings.TrimPrefix(d.Chain, "eip155:"), 10)
	if !ok {
		return nil, fmt.Errorf("decoding the request: a transaction of %q", d.Chain)
	}
	return id.Lsh(id, 1).Add(id, big.NewInt(35)), nil
}

// ParseReply reads an answer to r in the form that r calls for. Errors wrap
// [ErrForm], or are [ErrOtherRequest]; what the signature is worth [Attach] says.
func (r *Request) ParseReply(u UR) (*Answer, error) {
	want := map[form]string{formOurs: typeAnswer, formERC4527: typeETHAnswer, formSolana: typeSOLAnswer}[r.made]
	if u.Type != want {
		return nil, fmt.Errorf("reading the answer: %w: a %s, and the request calls for a %s", ErrForm, u.Type, want)
	}
	if r.made == formOurs {
		return ParseAnswer(u.CBOR)
	}
	var w wireSignature
	if err := decodeStrict(u.CBOR, &w); err != nil {
		return nil, fmt.Errorf("reading the %s: %w", want, err)
	}
	if w.ID != nil {
		uuid, err := readUUID(w.ID)
		if err != nil {
			return nil, fmt.Errorf("reading the %s: %w", want, err)
		}
		if hex.EncodeToString(uuid) != r.ID {
			return nil, ErrOtherRequest
		}
	}
	a := &Answer{Request: r.Digest(), Signature: w.Signature}
	if r.made == formSolana {
		return a, nil
	}
	if len(w.Signature) < 65 || len(w.Signature) > 64+32 {
		return nil, fmt.Errorf("reading the %s: %w: a signature of %d bytes", want, ErrForm, len(w.Signature))
	}
	base, err := r.baseV()
	if err != nil {
		return nil, err
	}
	parity := new(big.Int).SetBytes(w.Signature[64:])
	if parity.Sub(parity, base); parity.Sign() < 0 || parity.Cmp(big.NewInt(1)) > 0 {
		return nil, fmt.Errorf("reading the %s: %w: its v is of another kind of payload or another chain", want, ErrForm)
	}
	a.Signature = append(slices.Clone(w.Signature[:64]), byte(parity.Uint64()))
	return a, nil
}
