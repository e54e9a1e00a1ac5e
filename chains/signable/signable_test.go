package signable_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/chains/solana"
)

const cluster = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"

// A memo of one signer: one byte of version 0 header, no lookup tables.
func memo(key ed25519.PublicKey) []byte {
	program, err := solana.ParseAddress("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
	if err != nil {
		panic(err)
	}
	var b bytes.Buffer
	b.Write([]byte{1, 0, 1, 2})
	b.Write(key)
	b.Write(program[:])
	b.Write(bytes.Repeat([]byte{7}, 32))
	b.Write([]byte{1, 1, 1, 0, 2, 'h', 'i'})
	return b.Bytes()
}

func TestSignatureGoesBackIntoASolanaMessage(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer := signable.Signer{Chain: cluster, Address: solana.Address([32]byte(public))}
	raw := memo(public)
	d, err := signable.Decode(chains.KindSolanaMessage, raw, signer, signable.Interfaces{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := signable.Assemble(d, signer, signable.Interfaces{}, ed25519.Sign(private, raw))
	if err != nil || !bytes.HasSuffix(a.Signed, raw) || a.ID == "" {
		t.Fatalf("assembled %+v, %v", a, err)
	}
	forged := ed25519.Sign(private, raw)
	forged[0] ^= 1
	if _, err := signable.Assemble(d, signer, signable.Interfaces{}, forged); !errors.Is(err, solana.ErrSignature) {
		t.Errorf("a forged signature: %v", err)
	}
	if _, err := signable.Assemble(d, signer, signable.Interfaces{}, forged[:63]); err == nil {
		t.Error("63 bytes of signature were taken")
	}
}

func TestKindsKeepToTheirChain(t *testing.T) {
	onEVM := signable.Signer{Chain: "eip155", Address: "0x9858EfFD232B4033E47d90003D41EC34EcaEda94"}
	onSolana := signable.Signer{Chain: cluster, Address: "MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr"}
	for kind := range evm.Roots {
		if _, err := signable.Decode(kind, []byte{2}, onSolana, signable.Interfaces{}); !errors.Is(err, signable.ErrKind) {
			t.Errorf("%s on Solana: %v", kind, err)
		}
	}
	for _, kind := range []chains.Kind{chains.KindSolanaMessage, chains.KindSolanaOffchain, "raw_digest", ""} {
		if _, err := signable.Decode(kind, []byte{2}, onEVM, signable.Interfaces{}); !errors.Is(err, signable.ErrKind) {
			t.Errorf("%q on EVM: %v", kind, err)
		}
	}
	var bad *chains.DecodeError
	if _, err := signable.Decode(chains.KindEVMTransaction, []byte{2}, onEVM, signable.Interfaces{}); !errors.As(err, &bad) {
		t.Errorf("half a transaction: %v", err)
	}
	if _, err := signable.Decode(chains.KindEVMMessage, []byte("hi"), signable.Signer{Chain: "eip155", Address: "0x1"}, signable.Interfaces{}); err == nil || errors.As(err, &bad) {
		t.Errorf("a signer without an address: %v", err)
	}
	d, err := signable.Decode(chains.KindEVMMessage, []byte("hi"), onEVM, signable.Interfaces{})
	if err != nil {
		t.Fatal(err)
	}
	forged, _ := hex.DecodeString("7b00000000000000000000000000000000000000000000000000000000000001" + "7b00000000000000000000000000000000000000000000000000000000000001" + "00")
	if a, err := signable.Assemble(d, onEVM, signable.Interfaces{}, forged); err == nil {
		t.Errorf("a signature of nobody was taken: %+v", a)
	}
}
