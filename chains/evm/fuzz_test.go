package evm

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/ethereum/go-ethereum/core/types"

	"github.com/sigild/sigild/chains"
)

func FuzzDecode(f *testing.F) {
	for _, v := range rows[vector](f, "evm_tx.jsonl") {
		f.Add(unhex(f, v.Unsigned))
		f.Add(unhex(f, v.Signed))
	}
	f.Add(encode(f, transfer()))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) { checkDecode(t, in) })
}

// checkDecode holds for all bytes: either a DecodeError, or a transaction that
// go-ethereum encodes to the same bytes and hashes to the same digest.
func checkDecode(t *testing.T, in []byte) (accepted bool) {
	d, err := decodeTx(in, testWallet)
	if err != nil {
		var de *chains.DecodeError
		if !errors.As(err, &de) || d != nil || de.Offset > len(in) {
			t.Fatalf("%x: %v, %v", in, d, err)
		}
		return false
	}
	tx, err := parse(d.Raw, false)
	if err != nil {
		t.Fatal(err)
	}
	data := tx.txData()
	digest := types.LatestSignerForChainID(tx.chainID.ToBig()).Hash(types.NewTx(data))
	if legacy, ok := data.(*types.LegacyTx); ok {
		legacy.V = tx.chainID.ToBig()
	}
	if again := encode(t, data); !bytes.Equal(again, in) {
		t.Fatalf("%x encodes to %x", in, again)
	}
	if digest != d.Sign.Digest {
		t.Fatalf("%x: digest %x, go-ethereum %s", in, d.Sign.Digest, digest)
	}
	if err := TxType.Conform(d.View[Root]); err != nil {
		t.Fatalf("%x: %v", in, err)
	}
	for i := range len(d.Summary) {
		if c := d.Summary[i]; c < ' ' || c > '~' {
			t.Fatalf("%x: summary %q", in, d.Summary)
		}
	}
	return true
}

// TestMutations changes the vectors in seeded ways, since fuzz seeds alone stay
// close to what is valid.
func TestMutations(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for _, v := range rows[vector](t, "evm_tx.jsonl") {
		good := unhex(t, v.Unsigned)
		for range 200 {
			if checkDecode(t, mutate(rng, good)) {
				accepted++
			}
		}
	}
	t.Logf("%d mutants were transactions", accepted)
}

func mutate(rng *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	for range 1 + rng.IntN(3) {
		if len(b) == 0 {
			return b
		}
		i := rng.IntN(min(len(b), 64)) // the header and the fields are at the front
		if rng.IntN(4) == 0 {
			i = rng.IntN(len(b))
		}
		switch rng.IntN(5) {
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
		}
	}
	return b
}
