package credential

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/stamps.jsonl anew")

// vector is a line of testdata/stamps.jsonl; testdata/README.md explains it.
type vector struct {
	Name           string    `json:"name"`
	Algorithm      Algorithm `json:"algorithm"`
	PrivateKey     string    `json:"private_key"`
	PublicKey      string    `json:"public_key"`
	ApplianceID    string    `json:"appliance_id"`
	OrganizationID string    `json:"organization_id"`
	Method         string    `json:"method"`
	IssuedAt       int64     `json:"issued_at"`
	Message        string    `json:"message"`
	Statement      string    `json:"statement"`
	Stamp          string    `json:"stamp"`
	Now            int64     `json:"now"`
	Verdict        string    `json:"verdict"`
}

const (
	vectorIssued = 1763700000123
	vectorMethod = "/sigil.v1.WalletService/GetWallet"
)

func (v vector) act(t testing.TB) Act {
	return Act{v.ApplianceID, v.OrganizationID, v.Method, time.UnixMilli(v.IssuedAt), sha256.Sum256(unhex(t, v.Message))}
}

func (v vector) judge(t testing.TB) string {
	t.Helper()
	s, err := ParseStamp([]byte(v.Stamp))
	if err != nil {
		return "malformed"
	}
	if err := s.Fresh(time.UnixMilli(v.Now)); err != nil {
		return "time"
	}
	if err := s.Verify(v.ApplianceID, v.Method, unhex(t, v.Message)); err != nil {
		return "signature"
	}
	return "ok"
}

// makeVectors is what -update writes: every algorithm once in good order, then
// each part of the statement changed after stamping, then each fault of form.
func makeVectors(t *testing.T) []vector {
	secrets := map[Algorithm]string{
		P256:      strings.Repeat("11", 32),
		Ed25519:   strings.Repeat("22", 32),
		Secp256k1: strings.Repeat("33", 32),
	}
	good := func(a Algorithm) vector {
		key, err := newPrivateKey(a, unhex(t, secrets[a]))
		if err != nil {
			t.Fatal(err)
		}
		v := vector{
			Name:           string(a) + " in order",
			Algorithm:      a,
			PrivateKey:     secrets[a],
			PublicKey:      hex.EncodeToString(key.Public().Bytes),
			ApplianceID:    "apl_aaaaaaaaaaaaaaaaaaaaaaaaaa",
			OrganizationID: "org_bbbbbbbbbbbbbbbbbbbbbbbbbb",
			Method:         vectorMethod,
			IssuedAt:       vectorIssued,
			Message:        hex.EncodeToString([]byte("\x0a\x1eorg_bbbbbbbbbbbbbbbbbbbbbbbbbb\x12\x1ewal_cccccccccccccccccccccccccc")),
			Now:            vectorIssued + 1000,
			Verdict:        "ok",
		}
		v.Statement = hex.EncodeToString(v.act(t).Statement())
		s, err := NewStamp(key, v.act(t))
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		v.Stamp = string(encoded)
		return v
	}
	var out []vector
	add := func(a Algorithm, name, verdict string, change func(*vector)) {
		v := good(a)
		v.Name, v.Verdict = string(a)+" "+name, verdict
		change(&v)
		// The statement of a line is always the one its own parts give.
		v.Statement = hex.EncodeToString(v.act(t).Statement())
		out = append(out, v)
	}
	replace := func(old, new string) func(*vector) {
		return func(v *vector) {
			if !strings.Contains(v.Stamp, old) {
				t.Fatalf("stamp %s has no %q", v.Stamp, old)
			}
			v.Stamp = strings.Replace(v.Stamp, old, new, 1)
		}
	}
	for _, a := range algorithms {
		out = append(out, good(a))
		add(a, "other message", "signature", func(v *vector) { v.Message += "00" })
		add(a, "other method", "signature", func(v *vector) { v.Method = "/sigil.v1.WalletService/FetchShare" })
		add(a, "other appliance", "signature", func(v *vector) { v.ApplianceID = "apl_zzzzzzzzzzzzzzzzzzzzzzzzzz" })
		add(a, "other organization", "signature", func(v *vector) {
			v.OrganizationID = "org_zzzzzzzzzzzzzzzzzzzzzzzzzz"
			replace("org_bbbbbbbbbbbbbbbbbbbbbbbbbb", v.OrganizationID)(v)
		})
		add(a, "other time", "signature", func(v *vector) {
			v.IssuedAt++
			replace("1763700000123", "1763700000124")(v)
		})
		add(a, "empty signature", "malformed", func(v *vector) {
			at := strings.Index(v.Stamp, `"signature":"`) + len(`"signature":"`)
			end := at + strings.IndexByte(v.Stamp[at:], '"')
			v.Stamp = v.Stamp[:at] + v.Stamp[end:]
		})
	}
	p := func(name, verdict string, change func(*vector)) { add(P256, name, verdict, change) }
	p("120 s old", "ok", func(v *vector) { v.Now = vectorIssued + 120_000 })
	p("older than 120 s", "time", func(v *vector) { v.Now = vectorIssued + 120_001 })
	p("30 s ahead", "ok", func(v *vector) { v.Now = vectorIssued - 30_000 })
	p("more than 30 s ahead", "time", func(v *vector) { v.Now = vectorIssued - 30_001 })
	p("members in another order", "ok", func(v *vector) {
		replace(`"issuedAt":1763700000123,`, ``)(v)
		replace(`{`, `{ "issuedAt" : 1763700000123, `)(v)
	})
	p("scheme of another curve", "malformed", func(v *vector) {
		// The bytes are no point of secp256k1.
		replace(schemeP256, schemeSecp256k1)(v)
	})
	p("scheme of another system", "malformed", replace(schemeP256, "SIGNATURE_SCHEME_TK_API_P256"))
	p("unknown member", "malformed", replace(`{`, `{"extra":"x",`))
	p("member twice", "malformed", replace(`{`, `{"issuedAt":1763700000123,`))
	p("member in other case", "malformed", replace(`"issuedAt"`, `"IssuedAt"`))
	p("member missing", "malformed", replace(`"issuedAt":1763700000123,`, ``))
	p("time as string", "malformed", replace(`1763700000123`, `"1763700000123"`))
	p("time with exponent", "malformed", replace(`1763700000123`, `1763700000123e0`))
	p("time with fraction", "malformed", replace(`1763700000123`, `1763700000123.0`))
	p("negative time", "malformed", replace(`1763700000123`, `-1763700000123`))
	p("scheme null", "malformed", replace(`"`+schemeP256+`"`, `null`))
	p("nested", "malformed", replace(`"`+schemeP256+`"`, `{"a":"b"}`))
	p("public key in capitals", "malformed", func(v *vector) {
		v.Stamp = strings.Replace(v.Stamp, v.PublicKey, strings.ToUpper(v.PublicKey), 1)
	})
	p("public key cut", "malformed", func(v *vector) { v.Stamp = strings.Replace(v.Stamp, v.PublicKey, v.PublicKey[:64], 1) })
	p("organization with a quote", "malformed", replace("org_bbbb", `org_\"bb`))
	p("two objects", "malformed", func(v *vector) { v.Stamp += v.Stamp })
	p("array", "malformed", func(v *vector) { v.Stamp = "[" + v.Stamp + "]" })
	p("trailing comma", "malformed", func(v *vector) { v.Stamp = strings.TrimSuffix(v.Stamp, "}") + ",}" })
	p("cut", "malformed", func(v *vector) { v.Stamp = v.Stamp[:len(v.Stamp)-1] })
	p("empty", "malformed", func(v *vector) { v.Stamp = "" })
	p("too long", "malformed", func(v *vector) { v.Stamp += strings.Repeat(" ", MaxStampBytes) })
	return out
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "stamps.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var out []vector
	for line := range bytes.Lines(data) {
		var v vector
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func TestStampVectors(t *testing.T) {
	if *update {
		var out bytes.Buffer
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		for _, v := range makeVectors(t) {
			if err := enc.Encode(v); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join("testdata", "stamps.jsonl"), out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	vectors := readVectors(t)
	if want := len(makeVectors(t)); len(vectors) != want {
		t.Fatalf("%d vectors, want %d; run with -update", len(vectors), want)
	}
	for _, v := range vectors {
		if got := hex.EncodeToString(v.act(t).Statement()); got != v.Statement {
			t.Errorf("%s: statement\n got %s\nwant %s", v.Name, got, v.Statement)
		}
		if got := v.judge(t); got != v.Verdict {
			t.Errorf("%s: verdict %q, want %q", v.Name, got, v.Verdict)
		}
		key, err := newPrivateKey(v.Algorithm, unhex(t, v.PrivateKey))
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(key.Public().Bytes); got != v.PublicKey {
			t.Errorf("%s: public key %s, want %s", v.Name, got, v.PublicKey)
		}
	}
}

// The statement once by hand, so that the vectors don't only agree with themselves.
func TestStatementLayout(t *testing.T) {
	a := Act{"apl_a", "org_b", "/s/M", time.UnixMilli(0x0102030405), [32]byte{0: 0xaa, 31: 0xbb}}
	want := "0000000f" + hex.EncodeToString([]byte("sigild/stamp/v1")) +
		"00000005" + hex.EncodeToString([]byte("apl_a")) +
		"00000005" + hex.EncodeToString([]byte("org_b")) +
		"00000004" + hex.EncodeToString([]byte("/s/M")) +
		"00000008" + "0000000102030405" +
		"00000020" + "aa" + strings.Repeat("00", 30) + "bb"
	if got := hex.EncodeToString(a.Statement()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNewStampRefuses(t *testing.T) {
	k := mustKey(t, Ed25519)
	now := time.UnixMilli(vectorIssued)
	for name, act := range map[string]Act{
		"no appliance":      {"", "org_b", vectorMethod, now, [32]byte{}},
		"no method":         {"apl_a", "org_b", "", now, [32]byte{}},
		"short method":      {"apl_a", "org_b", "GetWallet", now, [32]byte{}},
		"no time":           {"apl_a", "org_b", vectorMethod, time.Time{}, [32]byte{}},
		"organization":      {"apl_a", "org b", vectorMethod, now, [32]byte{}},
		"long organization": {"apl_a", strings.Repeat("o", 65), vectorMethod, now, [32]byte{}},
	} {
		if _, err := NewStamp(k, act); err == nil {
			t.Errorf("%s: was stamped", name)
		}
	}
	k.Wipe()
	if _, err := NewStamp(k, Act{"apl_a", "", vectorMethod, now, [32]byte{}}); err == nil {
		t.Error("a wiped key stamps")
	}
	if _, err := (Stamp{}).Encode(); err == nil {
		t.Error("an empty stamp is encoded")
	}
	if _, err := (Stamp{PublicKey: k.Public(), Signature: make([]byte, 2000)}).Encode(); err == nil {
		t.Error("an oversized stamp is encoded")
	}
}

func FuzzParseStamp(f *testing.F) {
	for _, v := range readVectors(f) {
		f.Add([]byte(v.Stamp))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseStamp(data)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatalf("a stamp that parses doesn't encode: %v", err)
		}
		second, err := ParseStamp(again)
		if err != nil {
			t.Fatalf("re-encoded stamp: %v", err)
		}
		if !second.PublicKey.Equal(s.PublicKey) || !bytes.Equal(second.Signature, s.Signature) ||
			!second.IssuedAt.Equal(s.IssuedAt) || second.OrganizationID != s.OrganizationID {
			t.Fatalf("got %+v, want %+v", second, s)
		}
	})
}

func TestProofAndRecipient(t *testing.T) {
	for _, a := range algorithms {
		k, other := mustKey(t, a), mustKey(t, a)
		proof, err := NewProof(k, ForUser, "Ada's key")
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyProof(k.Public(), ForUser, "Ada's key", proof); err != nil {
			t.Error(err)
		}
		for name, err := range map[string]error{
			"other purpose": VerifyProof(k.Public(), ForOperator, "Ada's key", proof),
			"other name":    VerifyProof(k.Public(), ForUser, "Bob's key", proof),
			"other key":     VerifyProof(other.Public(), ForUser, "Ada's key", proof),
		} {
			if !errors.Is(err, ErrSignature) {
				t.Errorf("%s, %s: got %v, want ErrSignature", a, name, err)
			}
		}
		if err := VerifyProof(k.Public(), "guest", "Ada's key", proof); err == nil || errors.Is(err, ErrSignature) {
			t.Errorf("unknown purpose: got %v", err)
		}
		if err := VerifyProof(k.Public(), ForUser, "", proof); err == nil || errors.Is(err, ErrSignature) {
			t.Errorf("no name: got %v", err)
		}

		const recipient = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"
		sig, err := SignRecipient(k, recipient)
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyRecipient(k.Public(), recipient, sig); err != nil {
			t.Error(err)
		}
		if err := VerifyRecipient(k.Public(), recipient+"x", sig); !errors.Is(err, ErrSignature) {
			t.Errorf("other recipient: got %v", err)
		}
		if err := VerifyRecipient(other.Public(), recipient, sig); !errors.Is(err, ErrSignature) {
			t.Errorf("other key: got %v", err)
		}
		for _, bad := range []string{"", "age1 x", "age1\n", strings.Repeat("a", 513)} {
			if _, err := SignRecipient(k, bad); err == nil {
				t.Errorf("recipient %q was signed", bad)
			}
			if err := VerifyRecipient(k.Public(), bad, sig); err == nil {
				t.Errorf("recipient %q was verified", bad)
			}
		}
	}
	k := mustKey(t, Ed25519)
	for _, bad := range []string{"", strings.Repeat("n", 65), "tab\t", "\u00fc"} {
		if _, err := NewProof(k, ForUser, bad); err == nil {
			t.Errorf("name %q was taken", bad)
		}
	}
	if _, err := NewPublicFile(k, "guest", "x"); err == nil {
		t.Error("a file for an unknown purpose was made")
	}
}

func TestPublicFile(t *testing.T) {
	k := mustKey(t, P256)
	f, err := NewPublicFile(k, ForOperator, "Ada")
	if err != nil {
		t.Fatal(err)
	}
	data, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParsePublicFile(data)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "Ada" || got.Purpose != ForOperator || !got.Key.Equal(k.Public()) {
		t.Errorf("got %+v, want %+v", got, f)
	}
	for name, change := range map[string][2]string{
		"other name":     {`"Ada"`, `"Eve"`},
		"other purpose":  {`"operator"`, `"user"`},
		"no purpose":     {`"operator"`, `"king"`},
		"version 2":      {`"version": 1`, `"version": 2`},
		"version text":   {`"version": 1`, `"version": "1"`},
		"unknown member": {`{`, `{"x":"y",`},
		"algorithm":      {`"p256"`, `"ed25519"`},
		"no proof":       {`"proof"`, `"prove"`},
	} {
		bad := strings.Replace(string(data), change[0], change[1], 1)
		if bad == string(data) {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := ParsePublicFile([]byte(bad)); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
	if _, err := ParsePublicFile(append(data, bytes.Repeat([]byte(" "), maxPublicFile)...)); err == nil {
		t.Error("an oversized file was taken")
	}
}

func FuzzParsePublicFile(f *testing.F) {
	for _, a := range algorithms {
		file, err := NewPublicFile(mustKey(f, a), ForUser, "seed")
		if err != nil {
			f.Fatal(err)
		}
		data, err := file.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := ParsePublicFile(data)
		if err != nil {
			return
		}
		if err := VerifyProofAs(file.Key, file.Party, file.Purpose, file.Name, file.Proof); err != nil {
			t.Fatal(err)
		}
	})
}
