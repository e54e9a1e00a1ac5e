package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/tyler-smith/go-bip39"

	"github.com/sigild/sigild/chains"
)

// This file reads private keys that exist whole, in the three forms they are kept
// in: hex, the words of BIP-39 with a path, a Solana keypair file. Each reader
// returns 32 bytes, which the caller wipes: a secp256k1 private key or an Ed25519
// seed. Words pass through strings and math/big of a library and can't be wiped.

const (
	maxWholeKeyFile = 4 << 10
	hardened        = 1 << 31
)

// readSecretFile reads a small file whole; "-" is the standard input. The caller
// wipes the result.
func readSecretFile(path string, stdin io.Reader) ([]byte, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("reading the private key: %w", err)
		}
		defer f.Close()
		in = f
	}
	b := make([]byte, maxWholeKeyFile)
	n, err := io.ReadFull(in, b)
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(b)
		if err == nil {
			err = fmt.Errorf("more than %d bytes", maxWholeKeyFile-1)
		}
		return nil, fmt.Errorf("reading the private key: %w", err)
	}
	return b[:n], nil
}

// parseHexKey takes 64 hexadecimal digits, perhaps after 0x.
func parseHexKey(b []byte) ([]byte, error) {
	b = bytes.TrimPrefix(bytes.TrimSpace(b), []byte("0x"))
	key := make([]byte, 32)
	if len(b) != 64 {
		return nil, fmt.Errorf("a private key in hex has 64 digits, not %d", len(b))
	}
	if _, err := hex.Decode(key, b); err != nil {
		clear(key)
		return nil, errors.New("the private key is not in hex") // the error of hex quotes a byte
	}
	return key, nil
}

// parseKeypair takes what solana-keygen writes: a JSON array of 64 numbers, the
// seed and the public key, which must belong together.
func parseKeypair(b []byte) ([]byte, error) {
	var numbers []uint16
	defer func() { clear(numbers) }()
	if err := json.Unmarshal(b, &numbers); err != nil || len(numbers) != ed25519.PrivateKeySize {
		return nil, errors.New("not a Solana keypair file: want a JSON array of 64 numbers")
	}
	whole := make([]byte, ed25519.PrivateKeySize)
	defer clear(whole)
	for i, n := range numbers {
		if n > 255 {
			return nil, errors.New("not a Solana keypair file: a number is above 255")
		}
		whole[i] = byte(n)
	}
	made := ed25519.NewKeyFromSeed(whole[:32])
	defer clear(made)
	if !bytes.Equal(made, whole) {
		return nil, errors.New("the public key in the keypair file is not that of its seed")
	}
	return bytes.Clone(whole[:32]), nil
}

// parseWords takes the words of BIP-39 and a path, "m/44'/60'/0'/0/0", and derives
// by BIP-32, or by SLIP-10 for Ed25519, where every step is hardened.
func parseWords(words, passphrase []byte, path string, scheme chains.Scheme) ([]byte, error) {
	steps, err := parseKeyPath(path)
	if err != nil {
		return nil, err
	}
	seed, err := bip39.NewSeedWithErrorChecking(strings.Join(strings.Fields(string(words)), " "), string(bytes.TrimRight(passphrase, "\r\n")))
	if err != nil {
		return nil, errors.New("not words of BIP-39, or their checksum is wrong")
	}
	defer clear(seed)
	if scheme == chains.EdDSAEd25519 {
		return deriveEd25519(seed, steps)
	}
	return deriveSecp256k1(seed, steps)
}

// parseKeyPath reads m/44'/60'/0'/0/0; ' and h are hardened.
func parseKeyPath(text string) ([]uint32, error) {
	rest, ok := strings.CutPrefix(text, "m/")
	if !ok {
		return nil, fmt.Errorf("a path begins with m/, not %q", text)
	}
	var steps []uint32
	for _, s := range strings.Split(rest, "/") {
		digits := strings.TrimSuffix(strings.TrimSuffix(s, "'"), "h")
		i, err := strconv.ParseUint(digits, 10, 31)
		if err != nil || len(steps) >= 255 || len(s)-len(digits) > 1 {
			return nil, fmt.Errorf("step %q of the path is not a number below 2^31", s)
		}
		step := uint32(i)
		if digits != s {
			step += hardened
		}
		steps = append(steps, step)
	}
	return steps, nil
}

// deriveSecp256k1 is CKDpriv of BIP-32.
func deriveSecp256k1(seed []byte, path []uint32) ([]byte, error) {
	node := hmac512([]byte("Bitcoin seed"), seed)
	defer func() { clear(node) }()
	for _, step := range path {
		var parent, left secp256k1.ModNScalar
		parent.SetByteSlice(node[:32])
		priv := secp256k1.NewPrivateKey(&parent)
		data := append([]byte{0}, node[:32]...)
		if step < hardened {
			clear(data)
			data = priv.PubKey().SerializeCompressed()
		}
		next := hmac512(node[32:], data, binary.BigEndian.AppendUint32(nil, step))
		overflow := left.SetByteSlice(next[:32])
		left.Add(&parent)
		left.PutBytesUnchecked(next[:32])
		priv.Zero()
		parent.Zero()
		clear(data)
		clear(node)
		node = next
		if overflow || left.IsZero() {
			return nil, fmt.Errorf("there is no key at step %d of this path", step&^hardened)
		}
		left.Zero()
	}
	return bytes.Clone(node[:32]), nil
}

// deriveEd25519 is SLIP-10.
func deriveEd25519(seed []byte, path []uint32) ([]byte, error) {
	node := hmac512([]byte("ed25519 seed"), seed)
	defer func() { clear(node) }()
	for _, step := range path {
		if step < hardened {
			return nil, fmt.Errorf("step %d of the path is not hardened, as Ed25519 needs it", step)
		}
		next := hmac512(node[32:], []byte{0}, node[:32], binary.BigEndian.AppendUint32(nil, step))
		clear(node)
		node = next
	}
	return bytes.Clone(node[:32]), nil
}

func hmac512(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha512.New, key)
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}
