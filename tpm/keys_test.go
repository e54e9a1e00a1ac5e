package tpm

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/binary"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// persistent lists the persistent handles.
func (r *rig) persistent(t testing.TB) []tpm2.TPMHandle {
	t.Helper()
	var all []tpm2.TPMHandle
	err := r.do(t.Context(), func(turn *turn) (err error) {
		all, err = turn.handles(tpm2.TPMHTPersistent)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestProvisionTakesTheFirstFreeHandles(t *testing.T) {
	r := newRig(t)
	second, err := r.Provision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second.KEK != r.keys.KEK || second.Checkpoint == r.keys.Checkpoint {
		t.Errorf("provisioning again gave %+v after %+v, want the same SRK and another key", second, r.keys)
	}
	if got := r.persistent(t); len(got) != 2 || got[0] != firstPersistent || got[1] != firstPersistent+1 {
		t.Errorf("the persistent handles are %x, want the first two of our range", got)
	}
	if err := r.remove(t.Context(), r.keys.Checkpoint, checkpointTemplate); err != nil {
		t.Fatal(err)
	}
	if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("signing with a key that was removed: %v, want ErrNotFound", err)
	}
	if err := r.remove(t.Context(), r.keys.Checkpoint, checkpointTemplate); err != nil {
		t.Errorf("removing it again: %v", err)
	}
	if r.keys, err = r.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := r.persistent(t); len(got) != 2 || got[0] != firstPersistent {
		t.Errorf("the persistent handles are %x, want the gap filled", got)
	}
	r.reopen(t)
	r.worked(t)
}

func TestEvictedCheckpointKeyIsNotFound(t *testing.T) {
	r := newRig(t)
	r.Close()
	out := string(r.tpm.Run(t, "tpm2_readpublic", "-c", "0x81020000"))
	if !strings.Contains(out, string(r.keys.Checkpoint)) {
		t.Errorf("tpm2_readpublic says %s, want the Name %s", out, r.keys.Checkpoint)
	}
	r.tpm.Run(t, "tpm2_evictcontrol", "-Q", "-C", "o", "-c", "0x81020000")
	r.reopen(t)
	if _, err := r.PublicP256(t.Context(), r.keys.Checkpoint); !errors.Is(err, seal.ErrNotFound) || !strings.Contains(err.Error(), "hint") {
		t.Errorf("reading a key that was evicted: %v, want ErrNotFound and a hint", err)
	}
	if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("signing with it: %v, want ErrNotFound", err)
	}
}

// An interposer can't answer with another key's public area: the reference is a
// digest of it.
func TestSubstitutedPublicKeyIsNotFound(t *testing.T) {
	r, b := busRig(t)
	r.reopen(t)
	b.set(nil, changing(tpm2.TPMCCReadPublic, func(a []byte) []byte {
		i := bytes.Index(a, []byte{0x00, 0x23, 0x00, 0x0b})
		a[i+len(tpm2.Marshal(checkpointTemplate))] ^= 1 // in its point
		return a
	}))
	if _, err := r.PublicP256(t.Context(), r.keys.Checkpoint); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("reading a public key that was changed: %v, want ErrNotFound", err)
	}
}

// A key that is not what we make is refused, though it is there and signs.
func TestWeakCheckpointKeyIsRefused(t *testing.T) {
	r := newRig(t, withoutSecret)
	for name, change := range map[string]func(*tpm2.TPMTPublic){
		"restricted":     func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = true },
		"counted":        func(p *tpm2.TPMTPublic) { p.ObjectAttributes.NoDA = false },
		"can move":       func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM, p.ObjectAttributes.FixedParent = false, false },
		"with a policy":  func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) },
		"any scheme":     func(p *tpm2.TPMTPublic) { p.Parameters = anyScheme },
		"another's hash": func(p *tpm2.TPMTPublic) { p.Parameters = withSHA384 },
	} {
		template := checkpointTemplate
		change(&template)
		ref, err := r.persistTemplate(t, template)
		if err != nil {
			t.Fatalf("%s: making the key: %v", name, err)
		}
		if _, err := r.SignP256(t.Context(), ref, [32]byte{1}); !errors.Is(err, seal.ErrPolicy) {
			t.Errorf("%s: signing: %v, want ErrPolicy", name, err)
		}
		if _, err := r.PublicP256(t.Context(), ref); !errors.Is(err, seal.ErrPolicy) {
			t.Errorf("%s: reading the public key: %v, want ErrPolicy", name, err)
		}
	}
	r.worked(t)
}

func eccParms(scheme tpm2.TPMTECCScheme) tpm2.TPMUPublicParms {
	return tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, Scheme: scheme,
		CurveID: tpm2.TPMECCNistP256, KDF: tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
	})
}

var (
	anyScheme  = eccParms(tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgNull})
	withSHA384 = eccParms(tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
		Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA384})})
)

// persistTemplate makes a key of another template persistent in our range.
func (r *rig) persistTemplate(t testing.TB, template tpm2.TPMTPublic) (ref seal.KeyRef, err error) {
	t.Helper()
	taken := r.persistent(t)
	err = r.do(t.Context(), func(turn *turn) error {
		var o object
		err := turn.session(nil, encryptBoth, func(root storageKey, s tpm2.Session) (err error) {
			o, err = turn.createUnder(root, s, template, tpm2.TPMSSensitiveCreate{
				Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{}),
			})
			return err
		})
		if err != nil {
			return err
		}
		ref = makeRef(o.name().Buffer)
		h, err := turn.load(o)
		if err != nil {
			return err
		}
		return turn.evict(h, o.name(), taken[len(taken)-1]+1)
	})
	return ref, err
}

func TestFailedProvisionLeavesNoKey(t *testing.T) {
	r, b := busRig(t)
	before := r.persistent(t)
	for _, row := range []struct {
		cc   tpm2.TPMCC
		rc   tpm2.TPMRC
		want error
		text string
	}{
		{tpm2.TPMCCCreate, 0x901, seal.ErrUnavailable, ""},
		{tpm2.TPMCCEvictControl, 0x14b, seal.ErrUnavailable, "tpm2_evictcontrol"},
		{tpm2.TPMCCSign, 0x9a2, seal.ErrAuth, ""},
		{tpm2.TPMCCUnseal, 0x99d, seal.ErrPolicy, ""},
	} {
		b.set(only(row.cc, func([]byte) []byte { return refusal(row.rc) }), nil)
		_, err := r.Provision(t.Context())
		if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%v: %v, want %v and %q", row.cc, err, row.want, row.text)
		}
		b.set(nil, nil)
		if after := r.persistent(t); len(after) != len(before) {
			t.Errorf("%v: the persistent handles are %x, were %x", row.cc, after, before)
		}
	}
}

// The answer to EvictControl is lost: the key is persistent once, and found.
func TestProvisionOverALostConnection(t *testing.T) {
	r, b := busRig(t)
	before := r.persistent(t)
	once := true
	b.set(nil, changing(tpm2.TPMCCEvictControl, func(a []byte) []byte {
		if once {
			a[0] = 0x7f // unreadable
		}
		once = false
		return a
	}))
	keys, err := r.Provision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after := r.persistent(t); len(after) != len(before)+1 || once {
		t.Errorf("the persistent handles are %x, were %x, want one more", after, before)
	}
	r.keys = keys
	r.worked(t)
}

func TestSignatureThatDoesNotVerifyIsRefused(t *testing.T) {
	r := newRig(t)
	// The TPM's answers are authentic, so what makes one fail here is a wrong public
	// key on our side.
	k := key{}
	err := r.do(t.Context(), func(turn *turn) (err error) {
		k, err = turn.find(r.keys.Checkpoint, checkpointTemplate)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	other, err := r.Provision(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = r.do(t.Context(), func(turn *turn) error {
		o, err := turn.find(other.Checkpoint, checkpointTemplate)
		if err != nil {
			return err
		}
		k.public = o.public
		return r.auth.lend(roleSign, func(auth []byte) error {
			_, err := turn.sign(auth, k, [32]byte{1})
			return err
		})
	})
	if !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("signing with a key whose public half is another's: %v, want ErrUnavailable", err)
	}
}

func TestPublicKeyVerifiesElsewhere(t *testing.T) {
	r := newRig(t)
	pub, err := r.PublicP256(t.Context(), r.keys.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	digest := [32]byte{1, 2, 3}
	sig, err := r.SignP256(t.Context(), r.keys.Checkpoint, digest)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.Verify(pub, digest[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Error("the signature does not verify")
	}
	// And tpm2-tools agree.
	r.Close()
	dir := r.tpm.Dir
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tss := []byte{0x00, 0x18, 0x00, 0x0b} // TPMT_SIGNATURE: ECDSA, SHA-256
	for _, half := range [][]byte{sig[:32], sig[32:]} {
		tss = append(binary.BigEndian.AppendUint16(tss, 32), half...)
	}
	r.tpm.Run(t, "tpm2_verifysignature", "-Q", "-c", "0x81020000", "-d", write("digest", digest[:]), "-s", write("sig", tss))
}
