package frost

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"testing"

	"filippo.io/edwards25519"
)

// vectorSigner is one signer of RFC 9591, appendix E.1.
type vectorSigner struct {
	id                                                    byte
	share, hidingRandomness, bindingRandomness            string
	hidingNonce, bindingNonce, hiding, binding, factor, z string
}

// The vector of FROST(Ed25519, SHA-512), RFC 9591 appendix E.1: 2 of 3, signers 1 and 3.
const (
	vectorSecret      = "7b1c33d3f5291d85de664833beb1ad469f7fb6025a0ec78b3a790c6e13a98304"
	vectorKey         = "15d21ccd7ee42959562fc8aa63224c8851fb3ec85a3faf66040d380fb9738673"
	vectorCoefficient = "178199860edd8c62f5212ee91eff1295d0d670ab4ed4506866bae57e7030b204"
	vectorMessage     = "74657374"
	vectorSignature   = "36282629c383bb820a88b71cae937d41f2f2adfcc3d02e55507e2fb9e2dd3cbebd9d2b0844e49ae0f3fa935161e1419aab7b47d21a37ebeae1f17d4987b3160b"
	// The binding factor input of both ends with the identifier.
	vectorInput = "15d21ccd7ee42959562fc8aa63224c8851fb3ec85a3faf66040d380fb9738673504df914fa965023fb75c25ded4bb260f417de6d32e5c442c6ba313791cc9a4948d6273e8d3511f93348ea7a708a9b862bc73ba2a79cfdfe07729a193751cbc973af46d8ac3440e518d4ce440a0e7d4ad5f62ca8940f32de6d8dc00fc12c660b817d587d82f856d277ce6473cae6d2f5763f7da2e8b4d799a3f3e725d4522ec7"
)

var vectorSigners = []vectorSigner{{
	id:                1,
	share:             "929dcc590407aae7d388761cddb0c0db6f5627aea8e217f4a033f2ec83d93509",
	hidingRandomness:  "0fd2e39e111cdc266f6c0f4d0fd45c947761f1f5d3cb583dfcb9bbaf8d4c9fec",
	bindingRandomness: "69cd85f631d5f7f2721ed5e40519b1366f340a87c2f6856363dbdcda348a7501",
	hidingNonce:       "812d6104142944d5a55924de6d49940956206909f2acaeedecda2b726e630407",
	bindingNonce:      "b1110165fc2334149750b28dd813a39244f315cff14d4e89e6142f262ed83301",
	hiding:            "b5aa8ab305882a6fc69cbee9327e5a45e54c08af61ae77cb8207be3d2ce13de3",
	binding:           "67e98ab55aa310c3120418e5050c9cf76cf387cb20ac9e4b6fdb6f82a469f932",
	factor:            "f2cb9d7dd9beff688da6fcc83fa89046b3479417f47f55600b106760eb3b5603",
	z:                 "001719ab5a53ee1a12095cd088fd149702c0720ce5fd2f29dbecf24b7281b603",
}, {
	id:                3,
	share:             "d3cb090a075eb154e82fdb4b3cb507f110040905468bb9c46da8bdea643a9a02",
	hidingRandomness:  "86d64a260059e495d0fb4fcc17ea3da7452391baa494d4b00321098ed2a0062f",
	bindingRandomness: "13e6b25afb2eba51716a9a7d44130c0dbae0004a9ef8d7b5550c8a0e07c61775",
	hidingNonce:       "c256de65476204095ebdc01bd11dc10e57b36bc96284595b8215222374f99c0e",
	bindingNonce:      "243d71944d929063bc51205714ae3c2218bd3451d0214dfb5aeec2a90c35180d",
	hiding:            "cfbdb165bd8aad6eb79deb8d287bcc0ab6658ae57fdcc98ed12c0669e90aec91",
	binding:           "7487bc41a6e712eea2f2af24681b58b1cf1da278ea11fe4e8b78398965f13552",
	factor:            "b087686bf35a13f3dc78e780a34b0fe8a77fef1b9938c563f5573d71d8d7890f",
	z:                 "bd86125de990acc5e1f13781d8e32c03a9bbd4c53539bbc106058bfd14326007",
}}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func scalarOf(t testing.TB, s string) *scalar {
	t.Helper()
	x, err := decodeScalar(unhex(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func wantHex(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if hex.EncodeToString(got) != want {
		t.Errorf("%s is %x, want %s", what, got, want)
	}
}

func TestRFC9591Vector(t *testing.T) {
	// The dealer's polynomial gives the key and the shares.
	f := polynomial{scalarOf(t, vectorSecret), scalarOf(t, vectorCoefficient)}
	wantHex(t, "key", f.commit()[0].Bytes(), vectorKey)

	key, msg := unhex(t, vectorKey), unhex(t, vectorMessage)
	var signers []*signer
	var drawn []*nonces
	for _, v := range vectorSigners {
		id := mustScalar(v.id)
		wantHex(t, "share", f.at(id).Bytes(), v.share)
		secret := scalarOf(t, v.share)
		n, c, err := commit([32]byte(unhex(t, v.hidingRandomness)), [32]byte(unhex(t, v.bindingRandomness)), secret)
		if err != nil {
			t.Fatal(err)
		}
		wantHex(t, "hiding nonce", n.hiding.Bytes(), v.hidingNonce)
		wantHex(t, "binding nonce", n.binding.Bytes(), v.bindingNonce)
		wantHex(t, "hiding commitment", c.encoded[:32], v.hiding)
		wantHex(t, "binding commitment", c.encoded[32:], v.binding)
		if c, err = decodeCommitment(c.encoded); err != nil {
			t.Fatal(err)
		}
		signers, drawn = append(signers, &signer{id: id, public: new(point).ScalarBaseMult(secret), commitment: c}), append(drawn, n)
	}
	// Whatever order they come in.
	common := newSigning(key, msg, []*signer{signers[1], signers[0]})
	var shares []*scalar
	for i, v := range vectorSigners {
		wantHex(t, "binding factor input", common.bindingInputs()[i], vectorInput+hex.EncodeToString(mustScalar(v.id).Bytes()))
		wantHex(t, "binding factor", signers[i].rho.Bytes(), v.factor)
		z := common.share(signers[i], drawn[i], scalarOf(t, v.share))
		wantHex(t, "signature share", z.Bytes(), v.z)
		if !common.verifyShare(signers[i], z) {
			t.Errorf("share of signer %d does not verify", v.id)
		}
		if common.verifyShare(signers[i], new(scalar).Add(z, one)) || common.verifyShare(signers[1-i], z) {
			t.Errorf("a wrong share of signer %d verifies", v.id)
		}
		if drawn[i].hiding.Equal(zero) != 1 || drawn[i].binding.Equal(zero) != 1 {
			t.Error("nonces are still there after the share")
		}
		shares = append(shares, z)
	}
	sig := common.aggregate(shares)
	wantHex(t, "signature", sig, vectorSignature)
	if !ed25519.Verify(key, msg, sig) {
		t.Error("crypto/ed25519 refuses the signature")
	}
}

// torsion is a point of order 8 (RFC 8032's curve has cofactor 8).
const torsion = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"

func TestDecodePointRefuses(t *testing.T) {
	g := edwards25519.NewGeneratorPoint()
	small, err := new(point).SetBytes(unhex(t, torsion))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"short":                    g.Bytes()[:31],
		"not on the curve":         unhex(t, "0200000000000000000000000000000000000000000000000000000000000000"),
		"identity":                 identity.Bytes(),
		"identity, not canonical":  unhex(t, "0100000000000000000000000000000000000000000000000000000000000080"),
		"y above p":                unhex(t, "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
		"of order 8":               small.Bytes(),
		"generator plus a torsion": new(point).Add(g, small).Bytes(),
	} {
		if _, err := decodePoint(b); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
	if p, err := decodePoint(g.Bytes()); err != nil || p.Equal(g) != 1 {
		t.Errorf("generator: %v", err)
	}
}

func TestDecodeScalarRefusesWhatIsNotCanonical(t *testing.T) {
	for _, s := range []string{
		"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010", // L
		"eed3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010", // L+1
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"00",
	} {
		if _, err := decodeScalar(unhex(t, s)); err == nil {
			t.Errorf("%s: decoded", s)
		}
	}
	top := unhex(t, "ecd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010") // L-1
	if s, err := decodeScalar(top); err != nil || s.Equal(minusOne) != 1 {
		t.Errorf("L-1: %v", err)
	}
}

// With randomness that repeats, session, message, secret and count still make
// other nonces.
func TestNoncesNeverRepeat(t *testing.T) {
	secret, other := randomScalar(), randomScalar()
	seen := map[string]string{}
	draw := func(name string, session byte, msg string, s *scalar) {
		n, c, err := freshNonces([32]byte{session}, []byte(msg), s)
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range []string{string(n.hiding.Bytes()), string(n.binding.Bytes()), string(c.encoded)} {
			if before, dup := seen[k]; dup {
				t.Errorf("%s has a nonce of %s", name, before)
			}
			seen[k] = name
		}
	}
	for range 100 {
		draw("the same", 1, "m", secret)
	}
	draw("another session", 2, "m", secret)
	draw("another message", 1, "n", secret)
	draw("another secret", 1, "m", other)

	// The hedge of RFC 9591 §4.1: the same randomness, another secret.
	if bytes.Equal(nonceGenerate([32]byte{1}, secret).Bytes(), nonceGenerate([32]byte{1}, other).Bytes()) {
		t.Error("the secret is not in the nonce")
	}
}

func TestPolynomialsAndCommitmentsAgree(t *testing.T) {
	for n := 2; n <= 4; n++ {
		f := newPolynomial(randomScalar(), n)
		c, x := f.commit(), randomScalar()
		if new(point).ScalarBaseMult(f.at(x)).Equal(c.at(x)) != 1 {
			t.Errorf("%d coefficients: value and commitment differ", n)
		}
		var ids []*scalar
		var points []*point
		for range n {
			ids = append(ids, randomScalar())
			points = append(points, c.at(ids[len(ids)-1]))
		}
		if interpolate(ids, points, zero).Equal(c[0]) != 1 || interpolate(ids, points, x).Equal(c.at(x)) != 1 {
			t.Errorf("%d points do not interpolate the polynomial", n)
		}
		f.wipe()
		if f[0].Equal(zero) != 1 || f[n-1].Equal(zero) != 1 {
			t.Error("coefficients are still there")
		}
	}
}
