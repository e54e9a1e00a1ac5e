package solana

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	bin "github.com/gagliardetto/binary"
	sdk "github.com/gagliardetto/solana-go"

	"github.com/sigild/sigild/chains"
)

func FuzzDecode(f *testing.F) {
	for _, v := range rows[vector](f, "solana.jsonl") {
		f.Add(unhex(f, v.MessageHex))
	}
	for _, v := range rows[struct{ MessageHex string }](f, "solana_traps.jsonl") {
		f.Add(unhex(f, v.MessageHex))
	}
	for _, v := range rows[v1Row](f, "solana_v1.jsonl") {
		f.Add(unhex(f, v.MessageHex))
	}
	f.Add(fiveInstructions())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) { checkDecode(t, in) })
}

// checkDecode holds for all bytes: either a DecodeError, or a message that we
// and solana-go encode to the same bytes, with a view of the right layout.
func checkDecode(t *testing.T, in []byte) (accepted bool) {
	d, err := Decode(in, firstKey(in), mainnet, Known{})
	if err != nil {
		var de *chains.DecodeError
		if !errors.As(err, &de) || d != nil || de.Offset > len(in) {
			t.Fatalf("%x: %v, %v", in, d, err)
		}
		return false
	}
	m, err := parse(d.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if again := draftOf(m).encode(); !bytes.Equal(again, in) {
		t.Fatalf("%x encodes to %x", in, again)
	}
	var theirs sdk.Message
	if err := theirs.UnmarshalWithDecoder(bin.NewBinDecoder(in)); err != nil {
		t.Fatalf("%x: solana-go refuses: %v", in, err)
	}
	if again, err := theirs.MarshalBinary(); err != nil || !bytes.Equal(again, in) {
		t.Fatalf("%x: solana-go encodes to %x, %v", in, again, err)
	}
	if err := TxType.Conform(d.View[Root]); err != nil {
		t.Fatalf("%x: %v", in, err)
	}
	if root(t, d, "transfers").Partial && !d.Opaque {
		t.Fatalf("%x: partial transfers and not opaque", in)
	}
	for i := range len(d.Summary) {
		if c := d.Summary[i]; c < ' ' || c > '~' {
			t.Fatalf("%x: summary %q", in, d.Summary)
		}
	}
	return true
}

func FuzzParseAddress(f *testing.F) {
	f.Add(Address(payer))
	f.Add("11111111111111111111111111111111")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseAddress(s)
		theirs, theirErr := sdk.PublicKeyFromBase58(s)
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("%q: %v, solana-go %v", s, err, theirErr)
		}
		if err == nil && (sdk.PublicKey(k) != theirs || Address(k) != s) {
			t.Fatalf("%q reads as %x", s, k)
		}
	})
}

// TestMutations changes messages in seeded ways, since fuzz seeds alone stay
// close to what is valid.
func TestMutations(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	accepted := 0
	seeds := [][]byte{fiveInstructions()}
	for _, v := range rows[vector](t, "solana.jsonl") {
		seeds = append(seeds, unhex(t, v.MessageHex))
	}
	for _, v := range rows[v1Row](t, "solana_v1.jsonl") {
		seeds = append(seeds, unhex(t, v.MessageHex))
	}
	for _, good := range seeds {
		for range 300 {
			if checkDecode(t, mutate(rng, good)) {
				accepted++
			}
		}
	}
	t.Logf("%d mutants were messages", accepted)
}

func mutate(rng *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + rng.IntN(3) {
		if len(b) == 0 {
			return b
		}
		i := rng.IntN(len(b))
		switch rng.IntN(6) {
		case 0:
			b[i] ^= 1 << rng.IntN(8)
		case 1:
			b[i] = byte(rng.Uint32())
		case 2:
			b = append(b[:i], b[i+1:]...)
		case 3:
			b = append(b[:i+1], b[i:]...)
		case 4:
			b = b[:i]
		case 5: // the instructions are at the end
			i = len(b) - 1 - rng.IntN(min(len(b), 40))
			b[i] = byte(rng.IntN(8))
		}
	}
	return b
}
