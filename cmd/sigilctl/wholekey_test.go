package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/mpc"
)

const junk = "test test test test test test test test test test test junk"

// The addresses that Hardhat and Foundry show for these words.
func TestWordsGiveTheKnownAddresses(t *testing.T) {
	for path, want := range map[string]string{
		"m/44'/60'/0'/0/0": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
		"m/44h/60h/0h/0/1": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
	} {
		key, err := parseWords([]byte(junk+"\n"), nil, path, chains.ECDSASecp256k1)
		if err != nil {
			t.Fatal(err)
		}
		pub, err := mpc.PublicKeyOf(chains.ECDSASecp256k1, key)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := evm.Address(pub); err != nil || evm.Checksum(a) != want {
			t.Errorf("%s: %s, %v, want %s", path, evm.Checksum(a), err, want)
		}
	}
}

// Vector 1 of SLIP-10 for ed25519, and a passphrase's vector of BIP-39 (Trezor).
func TestSLIP10AndPassphrase(t *testing.T) {
	seed, _ := hex.DecodeString("000102030405060708090a0b0c0d0e0f")
	for path, want := range map[string]string{
		"m/0'":       "68e0fe46dfb67e368c75379acec591dad19df3cde26e63b93a8e704f1dade7a3",
		"m/0'/1'/2'": "92a5b23c0b8a99e37d07df3fb9966917f5d06e02ddbd909c7e184371463e9fc9",
	} {
		steps, err := parseKeyPath(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := deriveEd25519(seed, steps); err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s: %x, %v, want %s", path, got, err, want)
		}
	}
	a, err := parseWords([]byte(junk), []byte("one"), "m/0'", chains.EdDSAEd25519)
	if err != nil {
		t.Fatal(err)
	}
	b, err := parseWords([]byte(junk), []byte("two\n"), "m/0'", chains.EdDSAEd25519)
	if err != nil || bytes.Equal(a, b) {
		t.Errorf("the passphrase changes nothing: %v", err)
	}
}

// Test vectors 1 and 3 of BIP-32, in part.
func TestBIP32PrivateDerivation(t *testing.T) {
	for _, tc := range []struct{ seed, path, want string }{
		{"000102030405060708090a0b0c0d0e0f", "m/0'/1/2'/2/1000000000", "471b76e389e528d6de6d816857e012c5455051cad6660850e58372a6c3e6e7c8"},
		{"000102030405060708090a0b0c0d0e0f", "m/0'", "edb2e14f9ee77d26dd93b4ecede8d16ed408ce149b6cd80b0715a2d911a0afea"},
	} {
		seed, _ := hex.DecodeString(tc.seed)
		steps, err := parseKeyPath(tc.path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := deriveSecp256k1(seed, steps); err != nil || hex.EncodeToString(got) != tc.want {
			t.Errorf("%s: %x, %v, want %s", tc.path, got, err, tc.want)
		}
	}
}

func TestHexKeys(t *testing.T) {
	want := strings.Repeat("ab", 32)
	for _, good := range []string{want, "0x" + want, want + "\n", strings.ToUpper(want)} {
		if key, err := parseHexKey([]byte(good)); err != nil || hex.EncodeToString(key) != want {
			t.Errorf("%q: %x, %v", good, key, err)
		}
	}
	for _, bad := range []string{"", want[1:], want + "00", strings.Repeat("zz", 32)} {
		if _, err := parseHexKey([]byte(bad)); err == nil || strings.Contains(err.Error(), "zz") {
			t.Errorf("%q: error %v", bad, err)
		}
	}
}

func TestSolanaKeypairs(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, 32)
	pub, err := mpc.PublicKeyOf(chains.EdDSAEd25519, seed)
	if err != nil {
		t.Fatal(err)
	}
	numbers := func(b []byte) []byte {
		var n []int
		for _, x := range b {
			n = append(n, int(x))
		}
		out, _ := json.Marshal(n)
		return out
	}
	good := numbers(append(bytes.Clone(seed), pub...))
	if got, err := parseKeypair(good); err != nil || !bytes.Equal(got, seed) {
		t.Errorf("%s: %x, %v (address %s)", good, got, err, solana.Address([32]byte(pub)))
	}
	for name, bad := range map[string][]byte{
		"another public key": numbers(append(bytes.Clone(seed), seed...)), "short": numbers(seed), "no JSON": []byte("x"),
		"above 255": bytes.Replace(good, []byte("[7,"), []byte("[700,"), 1), "an object": []byte("{}"),
	} {
		if _, err := parseKeypair(bad); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
}

func TestWordsAndPathsThatAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		words, path string
		scheme      chains.Scheme
	}{
		"wrong checksum":   {strings.Replace(junk, "junk", "test", 1), "m/0", chains.ECDSASecp256k1},
		"no words":         {"hello world", "m/0", chains.ECDSASecp256k1},
		"no m":             {junk, "0/1", chains.ECDSASecp256k1},
		"nothing":          {junk, "", chains.ECDSASecp256k1},
		"empty step":       {junk, "m/0//1", chains.ECDSASecp256k1},
		"too large":        {junk, "m/2147483648", chains.ECDSASecp256k1},
		"two marks":        {junk, "m/0''", chains.ECDSASecp256k1},
		"mixed marks":      {junk, "m/0h'", chains.ECDSASecp256k1},
		"Ed25519, no mark": {junk, "m/44'/501'/0", chains.EdDSAEd25519},
	} {
		if _, err := parseWords([]byte(tc.words), nil, tc.path, tc.scheme); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
}

func FuzzWholeKeys(f *testing.F) {
	f.Add([]byte(junk), "m/44'/60'/0'/0/0")
	f.Add([]byte("[1,2,3]"), "m/0h")
	f.Add([]byte(strings.Repeat("ab", 32)), "")
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		for _, parse := range []func() ([]byte, error){
			func() ([]byte, error) { return parseHexKey(b) },
			func() ([]byte, error) { return parseKeypair(b) },
			func() ([]byte, error) { return parseWords(b, nil, path, chains.EdDSAEd25519) },
		} {
			if key, err := parse(); err == nil && len(key) != 32 {
				t.Errorf("%q: a key of %d bytes", b, len(key))
			}
		}
	})
}
