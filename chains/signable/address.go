package signable

import (
	"fmt"

	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

// AddressOf gives the text form of a public key's address on a chain: 33 bytes,
// compressed SEC 1, for "eip155"; 32 bytes, RFC 8032, for a Solana cluster.
func AddressOf(chain string, publicKey []byte) (string, error) {
	if (Signer{Chain: chain}).OnEVM() {
		a, err := evm.Address(publicKey)
		if err != nil {
			return "", fmt.Errorf("deriving the address: %w", err)
		}
		return evm.Checksum(a), nil
	}
	if len(publicKey) != 32 {
		return "", fmt.Errorf("deriving the address: public key has %d bytes", len(publicKey))
	}
	return solana.Address([32]byte(publicKey)), nil
}
