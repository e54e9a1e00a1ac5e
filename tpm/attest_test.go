package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

var nonce = []byte("a nonce of the verifier's")

func (r *rig) attested(t testing.TB, indexes ...int) Evidence {
	t.Helper()
	e, err := r.Attest(t.Context(), nonce, indexes)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEvidenceHolds(t *testing.T) {
	r := newRig(t)
	delivery := r.rsa(t)
	e := r.attested(t, 0, 7, 17)
	s, err := e.Verify(nonce)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.PCRs) != 3 || s.PCRs[17] != [32]byte(bytes.Repeat([]byte{0xff}, 32)) || !isName(s.AKName) || !isName(s.EKName) {
		t.Errorf("the evidence says %+v", s)
	}
	pub, err := r.PublicP256(t.Context(), r.keys.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	opens, err := r.PublicRSA(t.Context(), delivery)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Keys) != 3 || s.Keys[0].Use != UseStorage || s.Keys[0].Ref != r.keys.KEK ||
		s.Keys[1].Use != UseCheckpoint || s.Keys[1].Ref != r.keys.Checkpoint || !pub.Equal(s.Keys[1].Public.(*ecdsa.PublicKey)) ||
		s.Keys[2].Use != UseDelivery || s.Keys[2].Ref != delivery || !opens.Equal(s.Keys[2].Public.(*rsa.PublicKey)) {
		t.Errorf("the keys are %+v, want the SRK, the checkpoint key and the delivery key", s.Keys)
	}
	// The same TPM after a power loss: the same key, one more reset.
	if err := r.tpm.Restart(); err != nil {
		t.Fatal(err)
	}
	again, err := r.attested(t, 0).Verify(nonce)
	if err != nil || !bytes.Equal(again.AKName, s.AKName) || again.Resets <= s.Resets {
		t.Errorf("after a power loss: %+v, %v, want the same key and more than %d resets", again, err, s.Resets)
	}
	r.worked(t)
	// Keys of another secret are passed over.
	r.reopen(t, func(c *Config) { c.SecretFile = secretFile(t) })
	if s, err := r.attested(t, 0).Verify(nonce); err != nil || len(s.Keys) != 1 {
		t.Errorf("with another secret: %+v, %v, want the SRK alone", s.Keys, err)
	}
	for _, bad := range [][]byte{nil, make([]byte, 15), make([]byte, 65)} {
		if _, err := r.Attest(t.Context(), bad, []int{0}); err == nil {
			t.Errorf("a nonce of %d bytes was taken", len(bad))
		}
	}
}

// What tpm2-tools say of the quote.
func TestQuoteVerifiesElsewhere(t *testing.T) {
	r := newRig(t)
	e := r.attested(t, 0, 7)
	r.Close()
	ak, err := public(e.AK, attestTemplate)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(ak)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(r.tpm.Dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	r.tpm.Run(t, "tpm2_checkquote", "-u", write("ak.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"-m", write("quote", e.Quote.Statement), "-s", write("sig", e.Quote.Signature), "-q", hex.EncodeToString(qualifying(nonce)))
}

func TestChangedEvidenceIsRefused(t *testing.T) {
	r := newRig(t)
	e := r.attested(t, 0, 7)
	other := newRig(t).attested(t, 0, 7)
	file, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	parsed := func() Evidence {
		c, err := ParseEvidence(file)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	// Each byte of each part.
	for name, part := range map[string]func(*Evidence) []byte{
		"nonce": func(e *Evidence) []byte { return e.Nonce }, "ak": func(e *Evidence) []byte { return e.AK },
		"quote": func(e *Evidence) []byte { return e.Quote.Statement }, "quote's signature": func(e *Evidence) []byte { return e.Quote.Signature },
		"a key": func(e *Evidence) []byte { return e.Keys[1].Public }, "its certificate": func(e *Evidence) []byte { return e.Keys[1].Statement },
		"its signature": func(e *Evidence) []byte { return e.Keys[1].Signature },
	} {
		size := len(part(&e))
		for i := range size {
			c := parsed()
			part(&c)[i] ^= 1
			if _, err := c.Verify(nonce); !errors.Is(err, ErrEvidence) {
				t.Errorf("%s, byte %d: %v, want ErrEvidence", name, i, err)
			}
		}
	}
	for name, change := range map[string]func(*Evidence){
		"a PCR's value":       func(e *Evidence) { e.PCRs[7] = repeated(1) },
		"a PCR more":          func(e *Evidence) { e.PCRs[8] = repeated(0) },
		"a PCR less":          func(e *Evidence) { delete(e.PCRs, 7) },
		"no PCR":              func(e *Evidence) { e.PCRs = nil },
		"no quote":            func(e *Evidence) { e.Quote = Signed{} },
		"a quote for another": func(e *Evidence) { e.Quote = other.Quote },
		"another TPM's key":   func(e *Evidence) { e.Keys = append(e.Keys, other.Keys[1]) },
		"a key's certificate": func(e *Evidence) { e.Keys[1].Signed = e.Keys[0].Signed },
		"a quote as one":      func(e *Evidence) { e.Keys[1].Signed = e.Quote },
		"the reverse":         func(e *Evidence) { e.Quote = e.Keys[1].Signed },
		"no AK":               func(e *Evidence) { e.AK = nil },
		"a checkpoint key":    func(e *Evidence) { e.AK = e.Keys[1].Public },
		"no EK":               func(e *Evidence) { e.EK = nil },
		"an SRK as EK":        func(e *Evidence) { e.EK = e.Keys[0].Public },
	} {
		c := parsed()
		change(&c)
		if _, err := c.Verify(nonce); !errors.Is(err, ErrEvidence) {
			t.Errorf("%s: %v, want ErrEvidence", name, err)
		}
	}
	if _, err := e.Verify([]byte("the nonce of somebody else")); !errors.Is(err, ErrEvidence) {
		t.Errorf("another nonce: %v, want ErrEvidence", err)
	}
	if _, err := parsed().Verify(nonce); err != nil {
		t.Error(err)
	}
}

// A key in the TPM that is weaker than ours is certified by no evidence of ours, and
// refused by the verifier when somebody else has it certified.
func TestWeakKeyIsNoKeyOfOurs(t *testing.T) {
	r := newRig(t, withoutSecret)
	template := checkpointTemplate
	template.ObjectAttributes.FixedTPM, template.ObjectAttributes.FixedParent = false, false
	ref, err := r.persistTemplate(t, template)
	if err != nil {
		t.Fatal(err)
	}
	e := r.attested(t, 0)
	err = r.do(t.Context(), func(turn *turn) error {
		ak, err := turn.endorsed(attestTemplate)
		if err != nil {
			return err
		}
		k, err := turn.persistent(ref)
		if err != nil {
			return err
		}
		c, err := turn.certify(ak, nonce, loaded{k.handle, k.name, tpm2.Marshal(k.public)}, nil)
		e.Keys = append(e.Keys, c)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Verify(nonce); !errors.Is(err, ErrEvidence) || !strings.Contains(err.Error(), "key 3") || !strings.Contains(err.Error(), "as sigild makes them") {
		t.Errorf("a key that can leave the TPM: %v, want ErrEvidence", err)
	}
}

func TestChallenge(t *testing.T) {
	r, other := newRig(t), newRig(t)
	e := r.attested(t, 0)
	c, secret, err := NewChallenge(e)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := r.Answer(t.Context(), c)
	if err != nil || !bytes.Equal(answer, secret) || len(secret) != challengeLen {
		t.Errorf("the answer is %x, %v, want %x", answer, err, secret)
	}
	if answer, err := other.Answer(t.Context(), c); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("another TPM answers %x, %v, want ErrNotFound", answer, err)
	}
	// A key in software that looks like an AK, beside a real endorsement key: its
	// evidence holds by itself, and the challenge finds it out.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	forged := forge(t, e, key)
	if _, err := forged.Verify(nonce); err != nil {
		t.Fatalf("the forgery is not good enough for this test: %v", err)
	}
	if c, _, err = NewChallenge(forged); err != nil {
		t.Fatal(err)
	}
	if answer, err := r.Answer(t.Context(), c); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("a forged attestation key is answered for: %x, %v, want ErrNotFound", answer, err)
	}
	for _, part := range [][]byte{c.Credential, c.Seed} {
		part[len(part)/2] ^= 1
		if _, err := r.Answer(t.Context(), c); err == nil {
			t.Error("a changed challenge was answered")
		}
		part[len(part)/2] ^= 1
	}
	for name, change := range map[string]func(*Evidence){
		"no AK": func(e *Evidence) { e.AK = nil }, "no EK": func(e *Evidence) { e.EK = nil }, "an AK as EK": func(e *Evidence) { e.EK = e.AK },
	} {
		bad := e
		change(&bad)
		if _, _, err := NewChallenge(bad); !errors.Is(err, ErrEvidence) {
			t.Errorf("%s: %v, want ErrEvidence", name, err)
		}
	}
	r.worked(t)
}

// forge signs e anew with a key in software.
func forge(t testing.TB, e Evidence, key *ecdsa.PrivateKey) Evidence {
	t.Helper()
	area := attestTemplate
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
		X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
	})
	e.AK = tpm2.Marshal(area)
	e.Keys = nil
	digest := sha256.Sum256(e.Quote.Statement)
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	e.Quote.Signature = tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
		Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()},
	})})
	return e
}

// maker signs certificates of endorsement keys.
type maker struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newMaker(t testing.TB) maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "maker"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return maker{key, cert}
}

// certify makes a certificate as makers of TPMs do: no subject, and a critical
// alternative name that holds a directory name.
func (m maker) certify(t testing.TB, e Evidence, until time.Time) []byte {
	t.Helper()
	ek, err := public(e.EK, tpm2.ECCEKTemplate)
	if err != nil {
		t.Fatal(err)
	}
	name, err := asn1.Marshal(pkix.Name{Country: []string{"id:54534700"}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	san, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		ExtraExtensions: []pkix.Extension{{Id: oidSubjectAltName, Critical: true, Value: san}},
	}, m.cert, ek, m.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestCertificateOfTheEndorsementKey(t *testing.T) {
	r := newRig(t)
	e := r.attested(t, 0)
	good, other := newMaker(t), newMaker(t)
	roots := x509.NewCertPool()
	roots.AddCert(good.cert)
	later := time.Now().Add(time.Hour)
	der := good.certify(t, e, later)
	if err := e.VerifyEK(roots, time.Now()); !errors.Is(err, ErrEvidence) || !strings.Contains(err.Error(), "no certificate") {
		t.Errorf("no certificate: %v, want ErrEvidence", err)
	}

	// As a maker leaves it in the TPM, with something behind it.
	r.Close()
	path := filepath.Join(r.tpm.Dir, "cert")
	if err := os.WriteFile(path, append(bytes.Clone(der), bytes.Repeat([]byte{0xff}, 300)...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.tpm.Run(t, "tpm2_nvdefine", "-C", "p", "-s", strconv.Itoa(len(der)+300), "-a", "ppwrite|ppread|ownerread|authread|no_da|platformcreate", "0x01c0000a")
	r.tpm.Run(t, "tpm2_nvwrite", "-C", "p", "-i", path, "0x01c0000a")
	r.reopen(t)
	if e = r.attested(t, 0); !bytes.Equal(e.EKCertificate, der) {
		t.Fatalf("the evidence has a certificate of %d bytes, want %d", len(e.EKCertificate), len(der))
	}
	if err := e.VerifyEK(roots, time.Now()); err != nil {
		t.Error(err)
	}
	if err := e.VerifyEK(roots, later.Add(time.Hour)); !errors.Is(err, ErrEvidence) {
		t.Errorf("a certificate that expired: %v, want ErrEvidence", err)
	}
	for name, der := range map[string][]byte{
		"another maker's": other.certify(t, e, later), "another key's": good.certify(t, newRig(t).attested(t, 0), later),
		"no certificate": []byte("x"), "cut": der[:len(der)-1],
	} {
		bad := e
		bad.EKCertificate = der
		if err := bad.VerifyEK(roots, time.Now()); !errors.Is(err, ErrEvidence) {
			t.Errorf("%s: %v, want ErrEvidence", name, err)
		}
	}
}

// A register changes between our look and the quote: both are taken again.
func TestQuoteWhilePCRsChange(t *testing.T) {
	r, b := busRig(t)
	times := 3
	b.set(nil, changing(tpm2.TPMCCPCRRead, func(a []byte) []byte {
		if times > 0 {
			times--
			b.inject(t, extendCommand(16))
		}
		return a
	}))
	if _, err := r.attested(t, 16).Verify(nonce); err != nil || times != 0 {
		t.Errorf("the evidence: %v", err)
	}
}

// kept is evidence of a TPM (swtpm) that is gone; what held once holds for ever.
func kept(t testing.TB) (file []byte, e Evidence) {
	t.Helper()
	file, err := os.ReadFile("testdata/evidence.json")
	if err != nil {
		t.Fatal(err)
	}
	if e, err = ParseEvidence(file); err != nil {
		t.Fatal(err)
	}
	return file, e
}

func TestKeptEvidenceHolds(t *testing.T) {
	_, e := kept(t)
	if s, err := e.Verify(nonce); err != nil || len(s.Keys) != 2 || len(s.PCRs) != 2 {
		t.Errorf("%+v, %v, want two PCRs and two keys", s, err)
	}
}

// FuzzEvidence: what holds is what that TPM signed; of its keys some may be missing.
func FuzzEvidence(f *testing.F) {
	good, made := kept(f)
	f.Add(good)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvidence(b)
		if err != nil {
			if !errors.Is(err, ErrEvidence) {
				t.Errorf("reading: %v, want ErrEvidence", err)
			}
			return
		}
		if again, err := e.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s is encoded again as %s, %v", b, again, err)
		}
		_, err = e.Verify(nonce)
		if err != nil {
			if !errors.Is(err, ErrEvidence) {
				t.Errorf("verifying: %v, want ErrEvidence", err)
			}
			return
		}
		same := bytes.Equal(e.AK, made.AK) && bytes.Equal(e.Quote.Statement, made.Quote.Statement)
		for _, k := range e.Keys {
			same = same && slices.ContainsFunc(made.Keys, func(m CertifiedKey) bool { return bytes.Equal(m.Public, k.Public) })
		}
		if !same {
			t.Errorf("evidence that nobody made holds: %s", b)
		}
	})
}

func FuzzParseChallenge(f *testing.F) {
	good, err := Challenge{[]byte{1}, []byte{2}}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseChallenge(b)
		if err != nil {
			return
		}
		if again, err := c.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%s is encoded again as %s, %v", b, again, err)
		}
	})
}
