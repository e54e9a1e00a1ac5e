package mpc

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

// extended decodes an xpub (BIP-32) into chain code and public key.
func extended(t *testing.T, xpub string) (chainCode, publicKey []byte) {
	t.Helper()
	const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
	x := new(big.Int)
	for _, c := range xpub {
		x.Mul(x, big.NewInt(58)).Add(x, big.NewInt(int64(strings.IndexRune(alphabet, c))))
	}
	b := x.FillBytes(make([]byte, 82))
	once := sha256.Sum256(b[:78])
	if twice := sha256.Sum256(once[:]); !bytes.Equal(twice[:4], b[78:]) {
		t.Fatalf("%s has a wrong checksum", xpub)
	}
	return b[13:45], b[45:78]
}

// The non-hardened steps of BIP-32's test vectors 1 and 2.
func TestDeriveIsBIP32(t *testing.T) {
	for _, tc := range []struct {
		parent, child string
		path          []uint32
	}{
		{"xpub68Gmy5EdvgibQVfPdqkBBCHxA5htiqg55crXYuXoQRKfDBFA1WEjWgP6LHhwBZeNK1VTsfTFUHCdrfp1bgwQ9xv5ski8PX9rL2dZXvgGDnw",
			"xpub6ASuArnXKPbfEwhqN6e3mwBcDTgzisQN1wXN9BJcM47sSikHjJf3UFHKkNAWbWMiGj7Wf5uMash7SyYq527Hqck2AxYysAA7xmALppuCkwQ", []uint32{1}},
		{"xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB",
			"xpub69H7F5d8KSRgmmdJg2KhpAK8SR3DjMwAdkxj3ZuxV27CprR9LgpeyGmXUbC6wb7ERfvrnKZjXoUmmDznezpbZb7ap6r1D3tgFxHmwMkQTPH", []uint32{0}},
	} {
		chainCode, key := extended(t, tc.parent)
		_, want := extended(t, tc.child)
		got, err := derive(key, chainCode, tc.path)
		if err != nil || !bytes.Equal(got.publicKey, want) || len(got.tweak) != 32 {
			t.Errorf("child %v of %s: %x, error %v, want %x", tc.path, tc.parent, got.publicKey, err, want)
		}
	}
	chainCode, key := extended(t, "xpub661MyMwAqRbcFW31YEwpkMuc5THy2PSt5bDMsktWQcFF8syAmRUapSCGu8ED9W6oDMSgv6Zz8idoc4a6mr8BDzTJY47LJhkJ8UB7WEGuduB")
	if got, err := derive(key, chainCode, nil); err != nil || !bytes.Equal(got.publicKey, key) || got.tweak != nil {
		t.Errorf("the empty path: %x, %x, %v; want the key itself", got.publicKey, got.tweak, err)
	}
	for name, path := range map[string][]uint32{"hardened": {1 << 31}, "too long": make([]uint32, 9)} {
		if _, err := derive(key, chainCode, path); !errors.Is(err, ErrPath) {
			t.Errorf("%s: error %v, want ErrPath", name, err)
		}
	}
	if _, err := derive(key, nil, []uint32{1}); !errors.Is(err, ErrPath) {
		t.Errorf("without a chain code: error %v, want ErrPath", err)
	}
}

func TestParsePath(t *testing.T) {
	for text, want := range map[string][]uint32{"0": {0}, "0/7": {0, 7}, "2147483647": {1<<31 - 1}, "1/2/3/4/5/6/7/8": {1, 2, 3, 4, 5, 6, 7, 8}} {
		got, err := ParsePath(text)
		if err != nil || !slices.Equal(got, want) || FormatPath(got) != text {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "m/0", "0'", "0h", "0H", "2147483648", "-1", "+1", "01", "0/", "/0", "1/2/3/4/5/6/7/8/9", "0x1", " 1"} {
		if got, err := ParsePath(text); !errors.Is(err, ErrPath) {
			t.Errorf("%q: %v, error %v, want ErrPath", text, got, err)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"0/7", "0'", "1/2/3/4/5/6/7/8", "//", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if path, err := ParsePath(text); err == nil && FormatPath(path) != text {
			t.Errorf("%q parses as %v, which is written %q", text, path, FormatPath(path))
		}
	})
}

func TestChainCodesAreAgreedAndFresh(t *testing.T) {
	c := Committee{SetID: "s", Scheme: chains.ECDSASecp256k1, Parties: []Party{Recovery, Server, User}, Threshold: 2}
	one, err := makeChainCode(t.Context(), c, nil)
	if err != nil || len(one) != 32 {
		t.Fatalf("chain code %x, error %v", one, err)
	}
	two, err := makeChainCode(t.Context(), c, nil)
	if err != nil || bytes.Equal(one, two) {
		t.Errorf("a second chain code %x, error %v, want another one than %x", two, err, one)
	}
	c.Scheme = chains.EdDSAEd25519
	if code, err := makeChainCode(t.Context(), c, nil); code != nil || err != nil {
		t.Errorf("Ed25519: %x, %v, want none", code, err)
	}
}
