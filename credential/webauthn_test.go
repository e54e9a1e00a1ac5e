package credential_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/credential/authenticator"
)

func device(t testing.TB) *authenticator.Device {
	t.Helper()
	d, err := authenticator.New()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAssertionVerifies(t *testing.T) {
	d := device(t)
	a, err := d.Assert([]byte("statement"))
	if err != nil {
		t.Fatal(err)
	}
	counter, err := d.Verify(d.Public(), []byte("statement"), a)
	if err != nil || counter != 1 {
		t.Errorf("counter %d, %v; want 1", counter, err)
	}
	d.Flags |= 8 | 16 // a passkey that is kept elsewhere, too
	d.Page = `{"other_keys_can_be_added_here":{"a":[1]},"origin":"https://wallet.example","challenge":"%s","type":"webauthn.get"}`
	if a, err = d.Assert([]byte("statement")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Verify(d.Public(), []byte("statement"), a); err != nil {
		t.Error(err)
	}
}

// What section 7.2 of WebAuthn wants checked, one at a time.
func TestAssertionIsRefused(t *testing.T) {
	page := func(s string) func(*authenticator.Device) { return func(d *authenticator.Device) { d.Page = s } }
	rows := []struct {
		name, text string
		spoil      func(*authenticator.Device)
	}{
		{"type", "of no assertion", page(`{"type":"webauthn.create","challenge":"%s","origin":"https://wallet.example"}`)},
		{"no type", "of no assertion", page(`{"challenge":"%s","origin":"https://wallet.example"}`)},
		{"challenge", "does not verify", page(`{"type":"webauthn.get","challenge":"A%s","origin":"https://wallet.example"}`)},
		{"origin", "is not of this credential", page(`{"type":"webauthn.get","challenge":"%s","origin":"https://evil.example"}`)},
		{"origin in capitals", "is not of this credential", page(`{"type":"webauthn.get","challenge":"%s","origin":"https://WALLET.example"}`)},
		{"origin twice", "twice", page(`{"type":"webauthn.get","challenge":"%s","origin":"https://wallet.example","origin":"https://wallet.example"}`)},
		{"cross origin", "frame", page(`{"type":"webauthn.get","challenge":"%s","origin":"https://wallet.example","crossOrigin":true}`)},
		{"cross origin as text", "frame", page(`{"type":"webauthn.get","challenge":"%s","origin":"https://wallet.example","crossOrigin":"false"}`)},
		{"top origin", "frame", page(`{"type":"webauthn.get","challenge":"%s","origin":"https://wallet.example","topOrigin":"https://evil.example"}`)},
		{"no object", "no object", page(`["%s"]`)},
		{"two objects", "not JSON", page(`{"type":"webauthn.get","challenge":"%s","origin":"https://wallet.example"}{}`)},
		{"too long", "at most", page(`{"type":"webauthn.get","challenge":"%s","origin":"https://wallet.example","x":"` + strings.Repeat("x", 1024) + `"}`)},
		{"relying party", "another relying party", func(d *authenticator.Device) { d.ID = "evil.example" }},
		{"not present", "not present", func(d *authenticator.Device) { d.Flags = 4 }},
		{"not verified", "not verified", func(d *authenticator.Device) { d.Flags = 1 }},
		{"attested key", "a flag", func(d *authenticator.Device) { d.Flags |= 64 }},
		{"extensions flag", "a flag", func(d *authenticator.Device) { d.Flags |= 128 }},
		{"reserved flag", "a flag", func(d *authenticator.Device) { d.Flags |= 2 }},
		{"backed up, not eligible", "without being eligible", func(d *authenticator.Device) { d.Flags |= 16 }},
		{"extensions", "no extensions", func(d *authenticator.Device) { d.Extra = []byte{0xa0} }},
	}
	for _, row := range rows {
		d := device(t)
		rp, key := d.RelyingParty, d.Public()
		row.spoil(d)
		a, err := d.Assert([]byte("statement"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rp.Verify(key, []byte("statement"), a); err == nil || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.text)
		}
	}
	d := device(t)
	a, err := d.Assert([]byte("statement"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Verify(device(t).Public(), []byte("statement"), a); err == nil {
		t.Error("another key's assertion verifies")
	}
	if _, err := d.Verify(credential.PublicKey{Algorithm: credential.P256, Bytes: d.Public().Bytes}, []byte("statement"), a); err == nil {
		t.Error("an assertion verifies with a plain P-256 credential")
	}
	if err := d.Public().Verify([]byte("statement"), a.Signature); err == nil {
		t.Error("a WebAuthn key verifies a bare signature")
	}
}

func TestRelyingPartyIsRefused(t *testing.T) {
	good := device(t).RelyingParty
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*credential.RelyingParty){
		"no credential id": func(rp *credential.RelyingParty) { rp.CredentialID = nil },
		"capitals":         func(rp *credential.RelyingParty) { rp.ID = "Wallet.example" },
		"a port":           func(rp *credential.RelyingParty) { rp.ID = "wallet.example:1" },
		"no origins":       func(rp *credential.RelyingParty) { rp.Origins = nil },
		"http":             func(rp *credential.RelyingParty) { rp.Origins = []string{"http://wallet.example"} },
		"a path":           func(rp *credential.RelyingParty) { rp.Origins = []string{"https://wallet.example/"} },
		"another domain":   func(rp *credential.RelyingParty) { rp.Origins = []string{"https://notwallet.example"} },
	} {
		rp := good
		spoil(&rp)
		if rp.Check() == nil {
			t.Errorf("%s: %+v is taken", name, rp)
		}
	}
}

func TestAssertionAsStampAndProof(t *testing.T) {
	d := device(t)
	stamp, err := d.Stamp("apl_a", "org_a", "/m", []byte("message"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	data, err := stamp.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := credential.ParseStamp(data)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.VerifyAs(&d.RelyingParty, "apl_a", "/m", []byte("message")); err != nil {
		t.Error(err)
	}
	if err := again.Verify("apl_a", "/m", []byte("message")); err == nil {
		t.Error("it verifies without a relying party")
	}
	if _, err := again.VerifyAs(&d.RelyingParty, "apl_a", "/m", []byte("massage")); err == nil {
		t.Error("it verifies over another message")
	}
	for _, bad := range []string{
		strings.Replace(string(data), `"authenticatorData"`, `"authenticatordata"`, 1),
		strings.Replace(string(data), "SIGILD_WEBAUTHN_P256", "SIGILD_P256_SHA256", 1),
	} {
		if _, err := credential.ParseStamp([]byte(bad)); err == nil {
			t.Errorf("%s is read", bad)
		}
	}
	proof, err := credential.NewProof(d, credential.ForUser, "passkey")
	if err != nil {
		t.Fatal(err)
	}
	if err := credential.VerifyProofAs(d.Public(), &d.RelyingParty, credential.ForUser, "passkey", proof); err != nil {
		t.Error(err)
	}
	if credential.VerifyProofAs(d.Public(), &d.RelyingParty, credential.ForOperator, "passkey", proof) == nil ||
		credential.VerifyProof(d.Public(), credential.ForUser, "passkey", proof) == nil {
		t.Error("a proof holds for more than it was made for")
	}
}

func FuzzAssertion(f *testing.F) {
	d := device(f)
	proof, err := d.Sign([]byte("statement"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(proof)
	f.Add([]byte(`{"authenticatorData":"","clientDataJson":"` + hex.EncodeToString([]byte(`{"type":"webauthn.get","challenge":1}`)) + `","signature":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := credential.ParseAssertion(b)
		if err != nil {
			return
		}
		if again, err := a.Encode(); err != nil || len(again) > 2*len(b)+8 {
			t.Errorf("%v, %d bytes of %d", err, len(again), len(b))
		}
		if _, err := d.Verify(d.Public(), []byte("another statement"), a); err == nil {
			t.Error("an assertion over something else verifies")
		}
	})
}
