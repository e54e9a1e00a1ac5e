package airgap

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/chains/solana"
)

// memoRequest asks public to sign a message with one memo.
func memoRequest(public ed25519.PublicKey, text string) *Request {
	program, err := hex.DecodeString("054a535a992921064d24e87160da387c7c35b5ddbc92bb81e41fa8404105448d")
	if err != nil {
		panic(err)
	}
	raw := append([]byte{1, 0, 1, 2}, public...)
	raw = append(append(raw, program...), bytes.Repeat([]byte{7}, 32)...)
	raw = append(append(raw, 1, 1, 1, 0, byte(len(text))), text...)
	return &Request{
		ID: "payout-1", Wallet: "wal_1", Signer: signable.Signer{Chain: solanaMainnet, Address: solana.Address([32]byte(public))},
		Kind: chains.KindSolanaMessage, Payload: raw, NotAfter: time.Unix(1800000000, 0).UTC(), Note: "October, as agreed",
	}
}

func TestRequestComesBackAsItWent(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := memoRequest(public, "hi")
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseRequest(b)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.Encode()
	if err != nil || !bytes.Equal(again, b) {
		t.Fatalf("encoded again: %x, %v\nwant %x", again, err, b)
	}
	if got.ID != r.ID || got.Wallet != r.Wallet || got.Signer != r.Signer || got.Kind != r.Kind || !bytes.Equal(got.Payload, r.Payload) || !got.NotAfter.Equal(r.NotAfter) || got.Note != r.Note {
		t.Errorf("got %+v\nwant %+v", got, r)
	}
	if got.Digest() != r.Digest() {
		t.Error("two digests of one request")
	}
	for at, want := range map[time.Time]bool{r.NotAfter.Add(-time.Second): false, r.NotAfter: true, r.NotAfter.Add(time.Hour): true} {
		if got.Expired(at) != want {
			t.Errorf("expired at %s: %v", at, !want)
		}
	}
	if (&Request{}).Expired(time.Now()) {
		t.Error("a request without an end has ended")
	}
	d, err := got.Decode()
	if err != nil || d.Summary == "" {
		t.Errorf("decoded: %+v, %v", d, err)
	}
}

// Any one change of the bytes is refused or changes the words.
func TestOneBitOfARequestIsAnotherRequest(t *testing.T) {
	r := memoRequest(make(ed25519.PublicKey, 32), "hi")
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 8 * len(b) {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := ParseRequest(bad); err == nil && Words(got.Digest()) == Words(r.Digest()) {
			t.Errorf("bit %d flipped: the words are the same", i)
		}
	}
	for n := range b {
		if _, err := ParseRequest(b[:n]); !errors.Is(err, ErrForm) {
			t.Errorf("%d bytes of %d: %v", n, len(b), err)
		}
	}
	if _, err := ParseRequest(append(bytes.Clone(b), 0)); !errors.Is(err, ErrForm) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestRequestsAreRefused(t *testing.T) {
	good := wireRequest{Form: requestForm, ID: "a", Wallet: "w", Chain: "eip155", Address: "0x00", Kind: "evm.message", Payload: []byte("hi")}
	for name, change := range map[string]func(*wireRequest){
		"another form":        func(w *wireRequest) { w.Form = "sigild/request/v2" },
		"no id":               func(w *wireRequest) { w.ID = "" },
		"an id of 65":         func(w *wireRequest) { w.ID = strings.Repeat("a", 65) },
		"a space in its id":   func(w *wireRequest) { w.ID = "a b" },
		"no wallet":           func(w *wireRequest) { w.Wallet = "" },
		"no payload":          func(w *wireRequest) { w.Payload = nil },
		"too much payload":    func(w *wireRequest) { w.Payload = make([]byte, MaxPayload+1) },
		"a note on two lines": func(w *wireRequest) { w.Note = "a\nb" },
		"an escape in a note": func(w *wireRequest) { w.Note = "\x1b[2J" },
		"a long note":         func(w *wireRequest) { w.Note = strings.Repeat("a", 201) },
		"an unprintable kind": func(w *wireRequest) { w.Kind = "evm.\u202emessage" },
		"a far end":           func(w *wireRequest) { w.NotAfter = 1 << 41 },
	} {
		w := good
		change(&w)
		b, err := encode(w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRequest(b); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := encode(good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseRequest(b); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for name, text := range map[string]string{
		"a float for the end":  "a80071736967696c642f726571756573742f7631016161026177036665697031353504643078303005",
		"an array":             "80",
		"nothing":              "",
		"a member given twice": "a2006161006161",
		"an endless map":       "bf0061610161ffff",
		"a long form of zero":  "a118006161",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRequest(b); !errors.Is(err, ErrForm) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unknown, err := cbor.Marshal(map[int]any{0: requestForm, 9: "more"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParseRequest(unknown); !errors.Is(err, ErrForm) {
		t.Errorf("an unknown member: %v", err)
	}
	long := &Request{ID: "a b"}
	if _, err := long.Encode(); !errors.Is(err, ErrForm) {
		t.Errorf("encoded what would not be read: %v", err)
	}
}

func TestAnswerBelongsToItsRequest(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(text string) *Request {
		r := memoRequest(public, text)
		if _, err := r.Encode(); err != nil {
			t.Fatal(err)
		}
		return r
	}
	mine, other := ask("hi"), ask("ho")
	reply, err := mine.Reply(ed25519.Sign(private, mine.Payload), "app_1", 7)
	if err != nil {
		t.Fatal(err)
	}
	a, err := mine.ParseReply(reply)
	if err != nil {
		t.Fatal(err)
	}
	out, d, err := Attach(mine, a)
	if err != nil || !bytes.HasSuffix(out.Signed, mine.Payload) || out.ID == "" || d.Summary == "" {
		t.Fatalf("attached %+v, %v", out, err)
	}
	if _, _, err := Attach(other, a); !errors.Is(err, ErrOtherRequest) {
		t.Errorf("to another request: %v", err)
	}
	// An answer that lies about which request it is for has a signature that does not fit.
	liar := *a
	liar.Request = other.Digest()
	if _, _, err := Attach(other, &liar); !errors.Is(err, solana.ErrSignature) {
		t.Errorf("a signature over something else: %v", err)
	}
	for i := range 8 * len(reply.CBOR) {
		bad := bytes.Clone(reply.CBOR)
		bad[i/8] ^= 1 << (i % 8)
		got, err := mine.ParseReply(UR{Type: reply.Type, CBOR: bad})
		if err != nil {
			continue
		}
		if _, _, err := Attach(mine, got); err == nil && bytes.Equal(got.Signature, a.Signature) && got.Appliance == a.Appliance && got.Sequence == a.Sequence {
			t.Errorf("bit %d flipped: it is the same answer", i)
		}
	}
	for _, kind := range []string{typeRequest, typeETHAnswer, typeSOLAnswer, ""} {
		if _, err := mine.ParseReply(UR{Type: kind, CBOR: reply.CBOR}); !errors.Is(err, ErrForm) {
			t.Errorf("an answer of type %q: %v", kind, err)
		}
	}
	if _, err := ParseAnswer(mine.raw); !errors.Is(err, ErrForm) {
		t.Errorf("a request for an answer: %v", err)
	}
}

// Words are for ever: two hosts of different versions must say the same.
func TestWordsOfADigest(t *testing.T) {
	var d [32]byte
	for i := range d {
		d[i] = byte(i)
	}
	if got, want := Words(d), "able acid also apex aqua  arch atom aunt away axis"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	seen := map[string]bool{}
	for i := range 256 {
		seen[minimal([]byte{byte(i)})] = true
	}
	if len(seen) != 256 || byteword(255) != "zoom" {
		t.Errorf("%d different words, the last is %q", len(seen), byteword(255))
	}
}
