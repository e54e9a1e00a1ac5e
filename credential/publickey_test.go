package credential

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var algorithms = []Algorithm{P256, Ed25519, Secp256k1}

func mustKey(t testing.TB, a Algorithm) *PrivateKey {
	t.Helper()
	k, err := GenerateKey(a)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "openssl", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignAndVerify(t *testing.T) {
	for _, a := range algorithms {
		t.Run(string(a), func(t *testing.T) {
			k := mustKey(t, a)
			sig, err := k.Sign([]byte("message"))
			if err != nil {
				t.Fatal(err)
			}
			if err := k.Public().Verify([]byte("message"), sig); err != nil {
				t.Fatalf("own signature: %v", err)
			}
			if err := k.Public().Verify([]byte("Message"), sig); !errors.Is(err, ErrSignature) {
				t.Errorf("other message: got %v, want ErrSignature", err)
			}
			if err := mustKey(t, a).Public().Verify([]byte("message"), sig); !errors.Is(err, ErrSignature) {
				t.Errorf("other key: got %v, want ErrSignature", err)
			}
			for i := range sig {
				bad := bytes.Clone(sig)
				bad[i] ^= 1
				if err := k.Public().Verify([]byte("message"), bad); !errors.Is(err, ErrSignature) {
					t.Fatalf("byte %d changed: got %v, want ErrSignature", i, err)
				}
			}
			for _, bad := range [][]byte{nil, sig[:len(sig)-1], append(bytes.Clone(sig), 0)} {
				if err := k.Public().Verify([]byte("message"), bad); !errors.Is(err, ErrSignature) {
					t.Errorf("%d bytes: got %v, want ErrSignature", len(bad), err)
				}
			}
		})
	}
}

func TestVerifiesWhatOpenSSLSigned(t *testing.T) {
	message := testFile(t, "message.txt")
	for _, a := range algorithms {
		public, err := ParsePublicKey(a, unhex(t, string(testFile(t, string(a)+".pub"))))
		if err != nil {
			t.Fatal(err)
		}
		if err := public.Verify(message, testFile(t, string(a)+".sig")); err != nil {
			t.Errorf("%s: %v", a, err)
		}
		key, err := ParseKey(testFile(t, string(a)+".pem"))
		if err != nil {
			t.Errorf("%s: %v", a, err)
		} else if !key.Public().Equal(public) {
			t.Errorf("%s: key file gives %x, want %x", a, key.Public().Bytes, public.Bytes)
		}
	}
}

func TestRefusesHighS(t *testing.T) {
	public, err := ParsePublicKey(Secp256k1, unhex(t, string(testFile(t, "secp256k1.pub"))))
	if err != nil {
		t.Fatal(err)
	}
	if err := public.Verify(testFile(t, "message.txt"), testFile(t, "secp256k1-high-s.sig")); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v, want ErrSignature", err)
	}
}

func TestRefusesLooseDER(t *testing.T) {
	for _, a := range []Algorithm{P256, Secp256k1} {
		k := mustKey(t, a)
		sig, err := k.Sign([]byte("message"))
		if err != nil {
			t.Fatal(err)
		}
		rLen := int(sig[3])
		longForm := append([]byte{0x30, 0x81}, sig[1:]...)
		padded := append([]byte{0x30, sig[1] + 1, 0x02, sig[3] + 1, 0x00}, sig[4:]...) // r with a needless zero in front
		if sig[4] == 0 {
			padded = append([]byte{0x30, sig[1] + 1, 0x02, sig[3] + 1, 0x00, 0x00}, sig[5:]...)
		}
		negative := append([]byte{0x30, sig[1] + 3, 0x02, 0x01, 0xff}, sig[2:]...)
		zeroR := append([]byte{0x30, sig[1] - byte(rLen) + 1, 0x02, 0x01, 0x00}, sig[4+rLen:]...)
		raw := make([]byte, 64)
		for name, bad := range map[string][]byte{"long form length": longForm, "padded r": padded, "negative": negative, "zero r": zeroR, "r||s": raw} {
			if err := k.Public().Verify([]byte("message"), bad); !errors.Is(err, ErrSignature) {
				t.Errorf("%s, %s: got %v, want ErrSignature", a, name, err)
			}
		}
	}
}

func TestRefusesPublicKeys(t *testing.T) {
	p := mustKey(t, P256).Public().Bytes
	s := mustKey(t, Secp256k1).Public().Bytes
	uncompressed := append([]byte{4}, make([]byte, 64)...)
	offCurve := func(prefix byte, a Algorithm) []byte {
		for x := byte(1); ; x++ {
			b := make([]byte, 33)
			b[0], b[32] = prefix, x
			if _, err := ParsePublicKey(a, b); err != nil {
				return b
			}
		}
	}
	// y = p + 3 spells y = 3 a second way; p + 3 fits in 255 bits.
	twice := make([]byte, 32)
	for i, c := range new(big.Int).Add(fieldP, big.NewInt(3)).Bytes() {
		twice[31-i] = c
	}
	notOnCurve := make([]byte, 32)
	notOnCurve[0] = 2
	rows := []struct {
		name string
		a    Algorithm
		b    []byte
		want string
	}{
		{"no algorithm", "", p, "unknown algorithm"},
		{"rsa", "rsa", p, "unknown algorithm"},
		{"p256 empty", P256, nil, "0 bytes"},
		{"p256 uncompressed", P256, uncompressed, "65 bytes"},
		{"p256 cut", P256, p[:32], "32 bytes"},
		{"p256 hybrid prefix", P256, append([]byte{6}, p[1:]...), "not a point"},
		{"p256 off curve", P256, offCurve(2, P256), "not a point"},
		{"p256 x at the field", P256, append([]byte{2}, unhex(t, "ffffffff00000001000000000000000000000000ffffffffffffffffffffffff")...), "not a point"},
		{"secp256k1 uncompressed", Secp256k1, uncompressed, "65 bytes"},
		{"secp256k1 hybrid prefix", Secp256k1, append([]byte{6}, s[1:]...), "not a point"},
		{"secp256k1 off curve", Secp256k1, offCurve(3, Secp256k1), "not a point"},
		{"secp256k1 x at the field", Secp256k1, append([]byte{2}, unhex(t, "fffffffffffffffffffffffffffffffffffffffffffffffffffffffefffffc2f")...), "not a point"},
		{"ed25519 cut", Ed25519, make([]byte, 31), "31 bytes"},
		{"ed25519 two spellings", Ed25519, twice, "not canonical"},
		{"ed25519 all ones", Ed25519, bytes.Repeat([]byte{0xff}, 32), "not canonical"},
		{"ed25519 off curve", Ed25519, notOnCurve, "not a point"},
	}
	for _, row := range rows {
		k, err := ParsePublicKey(row.a, row.b)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, %v; want error with %q", row.name, k, err, row.want)
		}
		if err := (PublicKey{row.a, row.b}).Verify([]byte("m"), []byte("s")); err == nil {
			t.Errorf("%s: a value made by hand verifies", row.name)
		}
	}
}

// The small-order points as they are listed in the literature on Ed25519
// validation (RFC 8032 encodings, both signs where they exist).
func TestRefusesSmallOrder(t *testing.T) {
	for _, s := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000080",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	} {
		if _, err := ParsePublicKey(Ed25519, unhex(t, s)); err == nil || !strings.Contains(err.Error(), "small order") {
			t.Errorf("%s: got %v, want a refusal for small order", s, err)
		}
	}
	for range 50 {
		mustKey(t, Ed25519) // whose public half passes the same check
	}
}

func TestFingerprintCoversAlgorithm(t *testing.T) {
	// 33 bytes that are a point of both curves.
	for {
		b := mustKey(t, P256).Public().Bytes
		other, err := ParsePublicKey(Secp256k1, b)
		if err != nil {
			continue
		}
		k := PublicKey{P256, b}
		if k.Fingerprint() == other.Fingerprint() || k.ID() == other.ID() || k.Equal(other) {
			t.Errorf("the same bytes under two algorithms are one credential")
		}
		if id := k.ID(); len(id) != 30 || !strings.HasPrefix(id, "crd_") || len(k.Fingerprint()) != 64 {
			t.Errorf("id %q, fingerprint %q: wrong shape", id, k.Fingerprint())
		}
		return
	}
}

func TestParsePublicKeyCopies(t *testing.T) {
	b := mustKey(t, P256).Public().Bytes
	k, err := ParsePublicKey(P256, b)
	if err != nil {
		t.Fatal(err)
	}
	before := k.ID()
	b[5] ^= 1
	if k.ID() != before {
		t.Error("the key changed with the caller's buffer")
	}
}

func FuzzParsePublicKey(f *testing.F) {
	for _, a := range algorithms {
		f.Add(string(a), mustKey(f, a).Public().Bytes)
	}
	f.Fuzz(func(t *testing.T, a string, b []byte) {
		k, err := ParsePublicKey(Algorithm(a), b)
		if err != nil {
			return
		}
		if !bytes.Equal(k.Bytes, b) {
			t.Fatal("a key that parses is not its own encoding")
		}
		if err := k.Verify(b, b); err == nil {
			t.Fatal("a key is its own signature")
		}
	})
}
