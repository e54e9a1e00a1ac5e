package credential_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/credential/authenticator"
)

func register(t testing.TB, d *authenticator.Device, challenge string) credential.Registration {
	t.Helper()
	text, err := d.Register([]byte(challenge))
	if err != nil {
		t.Fatal(err)
	}
	r, err := credential.ParseRegistration(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// From the browser's two answers to a public file that is read again.
func TestRegistrationBecomesAPublicFile(t *testing.T) {
	d := device(t)
	d.Flags |= 8 | 16 // a passkey that is kept elsewhere, too
	asked := credential.RelyingParty{ID: d.ID, Origins: d.Origins}
	key, party, err := asked.Register(register(t, d, "challenge"), []byte("challenge"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(key.Bytes, d.Public().Bytes) || key.Algorithm != credential.WebAuthnP256 || !bytes.Equal(party.CredentialID, d.CredentialID) {
		t.Fatalf("key %x of %s, party %+v", key.Bytes, key.Algorithm, party)
	}
	proof, err := credential.NewProof(d, credential.ForUser, "phone")
	if err != nil {
		t.Fatal(err)
	}
	text, err := credential.PublicFile{Purpose: credential.ForUser, Name: "phone", Key: key, Proof: proof, Party: &party}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	f, err := credential.ParsePublicFile(text)
	if err != nil || f.Party == nil || f.Party.ID != d.ID || len(f.Party.Origins) != 1 {
		t.Fatalf("%+v, %v", f, err)
	}
	for name, change := range map[string]func(m map[string]any){
		"version 1":          func(m map[string]any) { m["version"] = 1 },
		"no relying party":   func(m map[string]any) { delete(m, "rp_id") },
		"another party":      func(m map[string]any) { m["rp_id"] = "evil.example" },
		"another name":       func(m map[string]any) { m["name"] = "pen" },
		"another purpose":    func(m map[string]any) { m["purpose"] = "delegated-user" },
		"a plain P-256 key":  func(m map[string]any) { m["algorithm"] = "p256" },
		"no credential id":   func(m map[string]any) { m["credential_id"] = "" },
		"origin without end": func(m map[string]any) { m["origins"] = m["origins"].(string) + " " },
	} {
		m := map[string]any{}
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		spoiled, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := credential.ParsePublicFile(spoiled); err == nil {
			t.Errorf("%s is read", name)
		}
	}
	plain, err := credential.GenerateKey(credential.P256)
	if err != nil {
		t.Fatal(err)
	}
	other, err := credential.NewPublicFile(plain, credential.ForUser, "phone")
	if err != nil {
		t.Fatal(err)
	}
	if other.Party = &party; func() bool { b, _ := other.Encode(); _, err := credential.ParsePublicFile(b); return err == nil }() {
		t.Error("a plain key with a relying party is read")
	}
}

// What section 7.1 of WebAuthn wants checked, one at a time.
func TestRegistrationIsRefused(t *testing.T) {
	page := func(s string) func(*authenticator.Device, *credential.Registration) {
		return func(d *authenticator.Device, r *credential.Registration) { r.ClientDataJSON = []byte(s) }
	}
	answer := base64.RawURLEncoding.EncodeToString([]byte("challenge"))
	rows := []struct {
		name, text string
		device     func(*authenticator.Device)
		spoil      func(*authenticator.Device, *credential.Registration)
	}{
		{"type", "of no registration", nil, page(`{"type":"webauthn.get","challenge":"` + answer + `","origin":"https://wallet.example"}`)},
		{"challenge", "another challenge", nil, page(`{"type":"webauthn.create","challenge":"A` + answer + `","origin":"https://wallet.example"}`)},
		{"origin", "is not of this credential", nil, page(`{"type":"webauthn.create","challenge":"` + answer + `","origin":"https://evil.example"}`)},
		{"frame", "frame", nil, page(`{"type":"webauthn.create","challenge":"` + answer + `","origin":"https://wallet.example","crossOrigin":true}`)},
		{"not present", "not present", func(d *authenticator.Device) { d.Flags = 4 }, nil},
		{"not verified", "not verified", func(d *authenticator.Device) { d.Flags = 1 }, nil},
		{"extensions flag", "a flag", func(d *authenticator.Device) { d.Flags |= 128 }, nil},
		{"extensions", "no extensions", func(d *authenticator.Device) { d.Extra = []byte{0xa0} }, nil},
		{"another name", "is not the name", nil, func(_ *authenticator.Device, r *credential.Registration) { r.ID = []byte("another") }},
		{"no object", "attestationObject", nil, func(_ *authenticator.Device, r *credential.Registration) { r.AttestationObject = []byte{0xa0, 0} }},
		{"no key", "no key", nil, func(_ *authenticator.Device, r *credential.Registration) { r.AttestationObject[31+32] &^= 64 }},
		{"another relying party", "another relying party", nil, func(_ *authenticator.Device, r *credential.Registration) { r.AttestationObject[31] ^= 1 }},
		{"another algorithm", "ES256", nil, func(_ *authenticator.Device, r *credential.Registration) {
			r.AttestationObject = bytes.Replace(r.AttestationObject, []byte{3, 0x26, 0x20}, []byte{3, 0x27, 0x20}, 1)
		}},
		{"no point", "no point", nil, func(_ *authenticator.Device, r *credential.Registration) {
			r.AttestationObject[len(r.AttestationObject)-1] ^= 1
		}},
	}
	for _, row := range rows {
		d := device(t)
		rp := d.RelyingParty
		if row.device != nil {
			row.device(d)
		}
		r := register(t, d, "challenge")
		if row.spoil != nil {
			row.spoil(d, &r)
		}
		if _, _, err := rp.Register(r, []byte("challenge")); err == nil || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.text)
		}
	}
	d := device(t)
	if _, _, err := (credential.RelyingParty{ID: "Wallet", Origins: d.Origins}).Register(register(t, d, "c"), nil); err == nil {
		t.Error("a relying party that is none registers")
	}
}

// The vector of WebAuthn Level 3, section 16.2 (ES256, no attestation). Its user was
// present and not verified, which is refused; told otherwise, which nothing in a
// registration without attestation keeps from being said, the key is the vector's, and
// verifies the vector's assertion.
func TestRegistrationOfTheStandard(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	r := credential.Registration{
		ID:                unhex("f91f391db4c9b2fde0ea70189cba3fb63f579ba6122b33ad94ff3ec330084be4"),
		ClientDataJSON:    unhex("7b2274797065223a22776562617574686e2e637265617465222c226368616c6c656e6765223a22414d4d507434557878475453746e63647134313759447742466938767049612d7077386f4f755657345441222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267222c2263726f73734f726967696e223a66616c73652c22657874726144617461223a22636c69656e74446174614a534f4e206d617920626520657874656e6465642077697468206164646974696f6e616c206669656c647320696e20746865206675747572652c207375636820617320746869733a20426b5165446a646354427258426941774a544c453551227d"),
		AttestationObject: unhex("a363666d74646e6f6e656761747453746d74a068617574684461746158a4bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b559000000008446ccb9ab1db374750b2367ff6f3a1f0020f91f391db4c9b2fde0ea70189cba3fb63f579ba6122b33ad94ff3ec330084be4a5010203262001215820afefa16f97ca9b2d23eb86ccb64098d20db90856062eb249c33a9b672f26df61225820930a56b87a2fca66334b03458abf879717c12cc68ed73290af2e2664796b9220"),
	}
	rp, challenge := credential.RelyingParty{ID: "example.org", Origins: []string{"https://example.org"}}, unhex("00c30fb78531c464d2b6771dab8d7b603c01162f2fa486bea70f283ae556e130")
	if _, _, err := rp.Register(r, challenge); err == nil || !strings.Contains(err.Error(), "not verified") {
		t.Errorf("as it is: %v", err)
	}
	flags := bytes.Index(r.AttestationObject, unhex("e4b559")) + 2
	r.AttestationObject[flags] |= 4
	key, _, err := rp.Register(r, challenge)
	if err != nil {
		t.Fatal(err)
	}
	if want := "02" + "afefa16f97ca9b2d23eb86ccb64098d20db90856062eb249c33a9b672f26df61"; hex.EncodeToString(key.Bytes) != want {
		t.Errorf("key %x, want %s", key.Bytes, want)
	}
	x, y := elliptic.UnmarshalCompressed(elliptic.P256(), key.Bytes)
	client := sha256.Sum256(unhex("7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a224f63446e55685158756c5455506f334a5558543049393770767a7a59425039745a63685879617630314167222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267222c2263726f73734f726967696e223a66616c73657d"))
	digest := sha256.Sum256(append(unhex("bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b51900000000"), client[:]...))
	signature := unhex("3046022100f50a4e2e4409249c4a853ba361282f09841df4dd4547a13a87780218deffcd380221008480ac0f0b93538174f575bf11a1dd5d78c6e486013f937295ea13653e331e87")
	verifier, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))))
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(verifier, digest[:], signature) {
		t.Error("the key does not verify the vector's assertion")
	}
}

func TestResponsesAreRefused(t *testing.T) {
	d := device(t)
	registration, err := d.Register([]byte("c"))
	if err != nil {
		t.Fatal(err)
	}
	asked := sha256.Sum256([]byte("m"))
	assertion, err := d.AssertResponse(asked[:])
	if err != nil {
		t.Fatal(err)
	}
	id, a, err := credential.ParseAssertionResponse(assertion)
	if err != nil || !bytes.Equal(id, d.CredentialID) {
		t.Fatalf("%q, %v", id, err)
	}
	if _, err := d.Verify(d.Public(), []byte("m"), a); err != nil {
		t.Error(err)
	}
	for name, text := range map[string][]byte{
		"nothing": nil, "no object": []byte("[]"), "no members": []byte("{}"), "two": append(append([]byte{}, registration...), '{', '}'),
		"no base64url": bytes.Replace(registration, []byte(`"rawId":"`), []byte(`"rawId":"+`), 1),
		"a number":     bytes.Replace(registration, []byte(`"rawId":"`), []byte(`"rawId":1,"x":"`), 1),
		"too long":     append(bytes.Repeat([]byte(" "), 64<<10), registration...),
		"another type": bytes.Replace(registration, []byte("public-key"), []byte("password"), 1),
		"an assertion": assertion,
	} {
		if _, err := credential.ParseRegistration(text); err == nil {
			t.Errorf("%s is a registration", name)
		}
	}
	for name, text := range map[string][]byte{"nothing": nil, "a registration": registration, "two": append(append([]byte{}, assertion...), '1')} {
		if _, _, err := credential.ParseAssertionResponse(text); err == nil {
			t.Errorf("%s is an assertion", name)
		}
	}
}

// Whatever a page hands over, it is refused or is a key that can be registered.
func FuzzRegistration(f *testing.F) {
	d := device(f)
	registration, err := d.Register([]byte("c"))
	if err != nil {
		f.Fatal(err)
	}
	assertion, err := d.AssertResponse([]byte("m"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(registration)
	f.Add(assertion)
	f.Fuzz(func(t *testing.T, text []byte) {
		if _, _, err := credential.ParseAssertionResponse(text); err == nil && len(text) > 64<<10 {
			t.Error("a long text is read")
		}
		r, err := credential.ParseRegistration(text)
		if err != nil {
			return
		}
		key, party, err := credential.RelyingParty{ID: "wallet.example", Origins: []string{"https://wallet.example"}}.Register(r, nil)
		if err != nil {
			return
		}
		if _, err := credential.ParsePublicKey(key.Algorithm, key.Bytes); err != nil || party.Check() != nil {
			t.Errorf("key %x, %v; party %+v", key.Bytes, err, party)
		}
	})
}
