package oracles

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"

	"github.com/sigild/sigild/airgap"
	"github.com/sigild/sigild/chains"
)

// qrRow is one thing that the wallets' libraries are asked to do.
type qrRow map[string]any

// Parts of ours are joined by theirs and parts of theirs by ours, with losses, in
// disorder, and with mixed fragments beyond the first round.
func TestPartsAreUnderstoodByAndFromWallets(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := rand.New(rand.NewPCG(seed, 0))
	var rows []qrRow
	var sent [][]byte
	for _, n := range []int{1, 99, 100, 101, 250, 1000, 5000, 20000} {
		b := cborBytes(g, n)
		u := airgap.UR{Type: "sigild-request", CBOR: b}
		frames := 6 * u.Fragments()
		parts, err := u.Parts(frames)
		if err != nil {
			t.Fatal(err)
		}
		if u.Fragments() > 1 {
			parts = lossy(g, parts)
		}
		rows = append(rows, qrRow{"verb": "collect", "parts": parts}, qrRow{"verb": "split", "type": "sigild-request", "cbor": hex.EncodeToString(b), "fragment": 100, "count": frames})
		sent = append(sent, b)
	}
	answers, ok := ask(t, "qr.mjs", rows)
	if !ok {
		t.Error("qr.mjs refused some of our parts")
	}
	for i, b := range sent {
		joined, split := answers[2*i], answers[2*i+1]
		if joined["cbor"] != hex.EncodeToString(b) || joined["type"] != "sigild-request" {
			t.Errorf("%d bytes: theirs read %v", len(b), joined)
		}
		var theirs []string
		for _, p := range split["parts"].([]any) {
			theirs = append(theirs, p.(string))
		}
		if len(b) > 100 {
			theirs = lossy(g, theirs)
		}
		var c airgap.Collector
		for _, p := range theirs {
			if err := c.Add(p); err != nil {
				t.Fatalf("%d bytes: %v", len(b), err)
			}
		}
		u, whole, err := c.Message()
		if err != nil || !whole || !bytes.Equal(u.CBOR, b) {
			have, need := c.Progress()
			t.Errorf("%d bytes: ours read whole %v, %v, %d of %d of %d parts", len(b), whole, err, have, need, len(theirs))
		}
	}
}

// lossy drops a third and shuffles the rest.
func lossy(g *rand.Rand, parts []string) []string {
	var kept []string
	for _, p := range parts {
		if g.IntN(3) > 0 {
			kept = append(kept, p)
		}
	}
	g.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
	return kept
}

// cborBytes is a CBOR byte string of n bytes: what goes into a resource is CBOR.
func cborBytes(g *rand.Rand, n int) []byte {
	b := []byte{0x5a, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	for range n {
		b = append(b, byte(g.Uint32()))
	}
	return b
}

func TestPicturesAreReadByAndFromOthers(t *testing.T) {
	parts, err := airgap.UR{Type: "sigild-answer", CBOR: cborBytes(rand.New(rand.NewPCG(1, 2)), 300)}.Parts(9)
	if err != nil {
		t.Fatal(err)
	}
	var rows []qrRow
	for _, p := range parts {
		picture, err := airgap.PictureQR(p)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, qrRow{"verb": "see", "png": hex.EncodeToString(picture)}, qrRow{"verb": "draw", "text": p})
	}
	answers, ok := ask(t, "qr.mjs", rows)
	if !ok {
		t.Fatal("qr.mjs can't read our pictures")
	}
	var theirs, ours airgap.Collector
	for i, p := range parts {
		if err := theirs.Add(answers[2*i]["text"].(string)); err != nil {
			t.Errorf("part %d: they read %v: %v", i, answers[2*i], err)
		}
		picture, err := hex.DecodeString(answers[2*i+1]["png"].(string))
		if err != nil {
			t.Fatal(err)
		}
		text, err := airgap.ReadQR(picture)
		if err != nil {
			t.Fatalf("part %d, drawn by them: %v", i, err)
		}
		if err := ours.Add(text); err != nil {
			t.Errorf("part %d of %q: %v", i, p, err)
		}
	}
	for _, c := range []*airgap.Collector{&theirs, &ours} {
		if u, whole, err := c.Message(); !whole || err != nil || u.Type != "sigild-answer" {
			t.Errorf("joined: whole %v, %v", whole, err)
		}
	}
}

const uuid = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d"

// What a wallet program shows is read, signed here by a key of the test, and the
// answer means to the wallet's library what it means to us.
func TestWalletsRequestsAreAnswered(t *testing.T) {
	key, err := crypto.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	address := crypto.PubkeyToAddress(key.PublicKey)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	memo := append(append([]byte{1, 0, 1, 2}, public...), memoTail()...)
	requests := []struct {
		row  qrRow
		kind chains.Kind
		v    byte // of parity 0, in the answer
	}{
		{qrRow{"verb": "ethRequest", "data": hex.EncodeToString(legacyOf(137)), "dataType": 1, "chainId": 137}, chains.KindEVMTransaction, 0},
		{qrRow{"verb": "ethRequest", "data": hex.EncodeToString(typedOf(137)), "dataType": 4, "chainId": 137}, chains.KindEVMTransaction, 0},
		{qrRow{"verb": "ethRequest", "data": hex.EncodeToString([]byte("log me in")), "dataType": 3, "chainId": 1}, chains.KindEVMMessage, 27},
		{qrRow{"verb": "ethRequest", "data": hex.EncodeToString([]byte(mail)), "dataType": 2, "chainId": 1}, chains.KindEVMTypedData, 27},
		{qrRow{"verb": "solRequest", "data": hex.EncodeToString(memo), "signType": 1}, chains.KindSolanaMessage, 0},
	}
	var rows []qrRow
	for _, r := range requests {
		r.row["uuid"], r.row["origin"], r.row["address"] = uuid, "some wallet", address.Hex()
		if r.kind == chains.KindSolanaMessage {
			r.row["address"] = hex.EncodeToString(public)
		}
		rows = append(rows, r.row)
	}
	asked, ok := ask(t, "qr.mjs", rows)
	if !ok {
		t.Fatal("qr.mjs makes no requests")
	}
	var back []qrRow
	for i, r := range requests {
		u, err := airgap.ReadMessage([]byte(asked[i]["ur"].(string)))
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		req, err := airgap.RequestOf(u)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if req.Kind != r.kind || req.Note != "some wallet" || req.ID != "9b1deb4d3b7d4bad9bdd2b0d7b3dcb6d" {
			t.Errorf("request %d read as %+v", i, req)
		}
		d, err := req.Decode()
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		var signature []byte
		if r.kind == chains.KindSolanaMessage {
			signature = ed25519.Sign(private, d.Sign.Message)
		} else if signature, err = crypto.Sign(d.Sign.Digest[:], key); err != nil {
			t.Fatal(err)
		}
		reply, err := req.Reply(signature, "app_1", 7)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		verb := "ethSignature"
		if r.kind == chains.KindSolanaMessage {
			verb = "solSignature"
		}
		back = append(back, qrRow{"verb": verb, "cbor": hex.EncodeToString(reply.CBOR)})
		answer, err := req.ParseReply(reply)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		out, _, err := airgap.Attach(req, answer)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if r.kind == chains.KindEVMTransaction {
			var tx types.Transaction
			if err := tx.UnmarshalBinary(out.Signed); err != nil {
				t.Fatalf("request %d: go-ethereum can't read what is sent: %v", i, err)
			}
			from, err := types.Sender(types.LatestSignerForChainID(tx.ChainId()), &tx)
			if err != nil || from != address {
				t.Errorf("request %d: sent by %s, %v", i, from, err)
			}
		}
	}
	said, ok := ask(t, "qr.mjs", back)
	if !ok {
		t.Fatalf("qr.mjs refuses our answers: %v", said)
	}
	for i, r := range requests {
		s, err := hex.DecodeString(said[i]["signature"].(string))
		if err != nil || said[i]["id"] != "9b1deb4d3b7d4bad9bdd2b0d7b3dcb6d" {
			t.Errorf("answer %d: %v, %v", i, said[i], err)
			continue
		}
		tail := s[64:]
		switch {
		case r.kind == chains.KindSolanaMessage:
			if len(tail) != 0 {
				t.Errorf("answer %d: a signature of %d bytes", i, len(s))
			}
		case i == 0: // 35 + 2·137 + parity
			if v := int(tail[0])<<8 | int(tail[len(tail)-1]); len(tail) != 2 || v != 309 && v != 310 {
				t.Errorf("answer %d: v %x", i, tail)
			}
		default:
			if len(tail) != 1 || tail[0]-r.v > 1 {
				t.Errorf("answer %d: v %x, want %d or %d", i, tail, r.v, r.v+1)
			}
		}
	}
}

// legacyOf is rlp([0, 1 gwei, 21000, to, 1 ether, "", chain, 0, 0]), the unsigned legacy transaction of EIP-155.
func legacyOf(chain byte) []byte {
	body := append([]byte{0x80, 0x84, 0x3b, 0x9a, 0xca, 0x00, 0x82, 0x52, 0x08, 0x94}, bytes.Repeat([]byte{0x35}, 20)...)
	body = append(body, 0x88, 0x0d, 0xe0, 0xb6, 0xb3, 0xa7, 0x64, 0x00, 0x00, 0x80, 0x81, chain, 0x80, 0x80)
	return append([]byte{0xc0 + byte(len(body))}, body...)
}

// typedOf is 0x02 ‖ rlp([chain, 0, 1 gwei, 2 gwei, 21000, to, 1 wei, "", []]).
func typedOf(chain byte) []byte {
	body := append([]byte{0x81, chain, 0x80, 0x84, 0x3b, 0x9a, 0xca, 0x00, 0x84, 0x77, 0x35, 0x94, 0x00, 0x82, 0x52, 0x08, 0x94}, bytes.Repeat([]byte{0x35}, 20)...)
	body = append(body, 0x01, 0x80, 0xc0)
	return append([]byte{0x02, 0xc0 + byte(len(body))}, body...)
}

// memoTail is what follows the wallet in a message with one memo.
func memoTail() []byte {
	program := common.FromHex("054a535a992921064d24e87160da387c7c35b5ddbc92bb81e41fa8404105448d")
	return append(append(program, bytes.Repeat([]byte{7}, 32)...), 1, 1, 1, 0, 2, 'h', 'i')
}

const mail = `{"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"chainId","type":"uint256"}],"Mail":[{"name":"contents","type":"string"}]},` +
	`"primaryType":"Mail","domain":{"name":"Post","chainId":1},"message":{"contents":"Hello"}}`
