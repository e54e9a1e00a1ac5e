package vault

// Shamir's secret sharing over GF(2^8) with the polynomial of AES (x^8 + x^4 +
// x^3 + x + 1), one polynomial of degree need−1 for each byte of the secret
// (A. Shamir, How to share a secret, CACM 22(11), 1979). A share is its x, 1 to
// 255, and one byte for each of the secret's. It authenticates nothing; whoever
// combines must hold shares against a commitment. No branch and no table lookup
// depends on a secret.

import (
	"crypto/rand"
	"fmt"
)

// splitSecret makes count shares of which any need give the secret back. The
// caller wipes them.
func splitSecret(secret []byte, need, count int) ([][]byte, error) {
	if need < 1 || count < need || count > 255 {
		return nil, fmt.Errorf("splitting a secret: %d of %d shares is impossible", need, count)
	}
	coefficients := make([]byte, need-1)
	defer clear(coefficients)
	shares := make([][]byte, count)
	for i := range shares {
		shares[i] = make([]byte, 1+len(secret))
		shares[i][0] = byte(i + 1)
	}
	for at, s := range secret {
		rand.Read(coefficients)
		for _, share := range shares {
			// Horner's rule, from the highest coefficient down to the secret.
			var y byte
			for _, c := range coefficients {
				y = gfMul(y, share[0]) ^ c
			}
			share[1+at] = gfMul(y, share[0]) ^ s
		}
	}
	return shares, nil
}

// combineShares interpolates at 0 and writes the secret to out. The shares must
// be of one length, with distinct x; fewer than were needed give noise.
func combineShares(out []byte, shares [][]byte) error {
	seen := map[byte]bool{}
	for _, s := range shares {
		if len(s) != 1+len(out) || s[0] == 0 || seen[s[0]] {
			return fmt.Errorf("%w: shares of a secret that don't belong together", ErrTampered)
		}
		seen[s[0]] = true
	}
	clear(out)
	for i, s := range shares {
		factor := byte(1)
		for j, other := range shares {
			if i != j {
				factor = gfMul(factor, gfMul(other[0], gfInvert(other[0]^s[0])))
			}
		}
		for at := range out {
			out[at] ^= gfMul(factor, s[1+at])
		}
	}
	return nil
}

func gfMul(a, b byte) (p byte) {
	for range 8 {
		p ^= a & -(b & 1)
		a = a<<1 ^ 0x1b&-(a>>7)
		b >>= 1
	}
	return p
}

// gfInvert is a^254, the inverse of a ≠ 0.
func gfInvert(a byte) byte {
	r := byte(1)
	for bit := 7; bit >= 0; bit-- {
		r = gfMul(r, r)
		if 254>>bit&1 == 1 {
			r = gfMul(r, a)
		}
	}
	return r
}
