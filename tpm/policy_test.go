package tpm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/seal"
)

// approver is a person with a key, and the folder where approvals arrive.
type approver struct {
	key *ecdsa.PrivateKey
	dir string
}

func newApprover(t testing.TB) approver {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return approver{key, t.TempDir()}
}

// sign signs a request.
func (a approver) sign(t testing.TB, request Approval) Approval {
	t.Helper()
	message, err := request.Message()
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256(message)
	if request.Signature, err = ecdsa.SignASN1(rand.Reader, a.key, digest[:]); err != nil {
		t.Fatal(err)
	}
	return request
}

// put writes an approval into the folder.
func (a approver) put(t testing.TB, name string, what Approval) {
	t.Helper()
	b, err := what.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (a approver) remove(t testing.TB, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(a.dir, name)); err != nil {
		t.Fatal(err)
	}
}

// bootedRig is a rig whose keys open in approved boot states alone: PCRs 7 and 16.
type bootedRig struct {
	*rig
	approver
}

var measured = []int{7, 16}

func newBootedRig(t testing.TB, change ...func(*Config)) bootedRig {
	t.Helper()
	r := &rig{tpm: testtpm.New(t), log: &logBuffer{}}
	return bindToBoot(t, r, change...)
}

// bootedBusRig is one behind a bus.
func bootedBusRig(t testing.TB, change ...func(*Config)) (bootedRig, *bus) {
	t.Helper()
	r := &rig{tpm: testtpm.New(t), log: &logBuffer{}}
	b := newBus(t, &testtpm.TPM{Dir: r.tpm.Dir, Socket: r.tpm.Socket})
	return bindToBoot(t, r, append(change, func(c *Config) { c.Path = b.path })...), b
}

// bindToBoot does what an operator does before sigilctl init.
func bindToBoot(t testing.TB, r *rig, change ...func(*Config)) bootedRig {
	t.Helper()
	r.cfg = Config{Path: r.tpm.Path, SecretFile: secretFile(t)}
	for _, c := range change {
		c(&r.cfg)
	}
	r.Provider = mustOpen(t, r.cfg)
	b := bootedRig{r, newApprover(t)}
	counter := r.counter(t)
	request, err := r.BootState(t.Context(), counter, measured)
	if err != nil {
		t.Fatal(err)
	}
	b.put(t, "first.json", b.sign(t, request))
	r.reopen(t, func(c *Config) {
		c.SRKName = r.srk
		c.PCR = &PCRPolicy{Approver: &b.key.PublicKey, Counter: counter, Dir: b.dir}
	})
	if r.keys, err = r.Provision(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// now is a request for the boot state of this moment.
func (b bootedRig) now(t testing.TB) Approval {
	t.Helper()
	a, err := b.BootState(t.Context(), b.boot.Counter, measured)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// extendCommand is TPM2_PCR_Extend with one SHA-256, in a password session.
func extendCommand(pcr int) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0x80, 0x02, 0, 0, 0, 0, 0, 0, 0x01, 0x82}, uint32(pcr))
	b = append(b, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x0b)
	return refit(append(b, make([]byte, sha256.Size)...))
}

// extend measures something.
func (b bootedRig) extend(t testing.TB, pcr int) {
	t.Helper()
	err := b.do(t.Context(), func(turn *turn) error {
		answer, err := turn.Send(extendCommand(pcr))
		if err == nil && code(answer) != tpm2.TPMRCSuccess {
			err = code(answer)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBootStateOpens(t *testing.T) {
	for name, change := range map[string]func(*Config){"with an outside secret": func(*Config) {}, "without one": withoutSecret} {
		t.Run(name, func(t *testing.T) {
			r := newBootedRig(t, change)
			blob := r.sealed(t, "a root key")
			r.opened(t, blob, "a root key")
			r.extend(t, 3) // nobody asked for it
			r.opened(t, blob, "a root key")
			if err := r.tpm.Restart(); err != nil { // a boot: the same PCRs again
				t.Fatal(err)
			}
			r.worked(t)
			r.reopen(t)
			r.opened(t, blob, "a root key")

			r.extend(t, 7)
			err := r.refused(t, blob)
			var e *PCRError
			if !errors.As(err, &e) || !errors.Is(err, seal.ErrPolicy) || len(e.Is) != 1 || e.Is[7] == e.Approved[7] || e.Name != "first.json" ||
				!strings.Contains(err.Error(), fmt.Sprintf("PCR 7 is %x instead of %064x", e.Is[7], 0)) || !strings.Contains(err.Error(), "hint") {
				t.Fatalf("another boot state: %v, want a PCRError about 7", err)
			}
			// New values, a new signature: nothing is sealed anew.
			r.put(t, "second.json", r.sign(t, r.now(t)))
			r.opened(t, blob, "a root key")
			if err := r.tpm.Restart(); err != nil { // and the old state is still good
				t.Fatal(err)
			}
			r.opened(t, blob, "a root key")
		})
	}
}

func TestRevokedApprovalsOpenNothing(t *testing.T) {
	r := newBootedRig(t)
	blob := r.sealed(t, "x")
	old := r.now(t)
	ahead := old
	ahead.Sequence++
	r.put(t, "ahead.json", r.sign(t, ahead))
	if _, err := r.Increment(t.Context(), r.boot.Counter, old.Sequence); err != nil {
		t.Fatal(err)
	}
	r.opened(t, blob, "x") // by the one made for the time after
	r.remove(t, "ahead.json")
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked approval: %v, want ErrPolicy and why", err)
	}
	for range 3 { // over restarts, too
		if err := r.tpm.Restart(); err != nil {
			t.Fatal(err)
		}
		if err := r.refused(t, blob); !errors.Is(err, seal.ErrPolicy) {
			t.Errorf("a revoked approval after a restart: %v, want ErrPolicy", err)
		}
	}
	r.put(t, "anew.json", r.sign(t, r.now(t)))
	r.opened(t, blob, "x")
}

// wrongApprovals are approvals that must not open r, though its PCRs are theirs.
func (b bootedRig) wrongApprovals(t testing.TB) map[string]Approval {
	t.Helper()
	right := b.sign(t, b.now(t))
	change := func(f func(*Approval)) Approval {
		a := right
		a.PCRs = PCRs{}
		for n, v := range right.PCRs {
			a.PCRs[n] = v
		}
		f(&a)
		return a
	}
	foreign := change(func(a *Approval) { a.SRKName = nameOf([]byte("another TPM")) })
	return map[string]Approval{
		"not signed":                change(func(a *Approval) { a.Signature = nil }),
		"another approver's":        newApprover(t).sign(t, right),
		"another host's":            b.sign(t, foreign),
		"another host's, relabeled": change(func(a *Approval) { a.Signature = b.sign(t, foreign).Signature }),
		"a changed signature":       change(func(a *Approval) { a.Signature = append([]byte{}, a.Signature...); a.Signature[20] ^= 1 }),
		"a later sequence":          change(func(a *Approval) { a.Sequence++ }),
		"fewer PCRs":                change(func(a *Approval) { delete(a.PCRs, 7) }),
		"another counter":           b.sign(t, change(func(a *Approval) { a.Counter = makeRef(counterAt(lastNV).name.Buffer) })),
	}
}

func TestWrongApprovalsOpenNothing(t *testing.T) {
	r := newBootedRig(t)
	blob := r.sealed(t, "x")
	wrong := r.wrongApprovals(t)
	r.remove(t, "first.json")
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "no approval") {
		t.Errorf("no approval: %v, want ErrPolicy", err)
	}
	for name, a := range wrong {
		r.put(t, "wrong.json", a)
		if err := r.refused(t, blob); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "wrong.json") {
			t.Errorf("%s: %v, want ErrPolicy that names the file", name, err)
		}
	}
	r.remove(t, "wrong.json")
	for name, text := range map[string]string{"no JSON": "x", "empty": "", "another form": `{"version":1}`} {
		if err := os.WriteFile(filepath.Join(r.dir, "bad.json"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := r.refused(t, blob); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "bad.json") {
			t.Errorf("%s: %v, want ErrPolicy that names the file", name, err)
		}
	}
	r.remove(t, "bad.json")
	r.put(t, "right.json", r.sign(t, r.now(t)))
	r.opened(t, blob, "x")
}

// The same wrong approvals, and others, put to the TPM without our own checks: it is
// the TPM that refuses.
func TestTheTPMItselfRefuses(t *testing.T) {
	r := newBootedRig(t)
	o, _, _, err := decodeBlob(r.sealed(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	right := r.sign(t, r.now(t))
	attempt := func(a Approval, before func(*turn) error) error {
		return r.do(t.Context(), func(turn *turn) error {
			return r.auth.lend(roleSeal, func(auth []byte) error {
				ticket, err := turn.ticket(a)
				if err != nil {
					return err
				}
				h, err := turn.loadSealed(o)
				if err != nil {
					return err
				}
				if before != nil {
					if err := before(turn); err != nil {
						return err
					}
				}
				_, err = turn.unsealApproved(auth, o, h, NamedApproval{Approval: a}, ticket)
				return err
			})
		})
	}
	if err := attempt(right, nil); err != nil {
		t.Fatalf("the right approval: %v", err)
	}
	for name, a := range r.wrongApprovals(t) {
		if err := attempt(a, nil); err == nil {
			t.Errorf("%s: the TPM unsealed", name)
		}
	}
	// A ticket for one approval, another in its place.
	extended := r.now(t)
	r.extend(t, 7)
	if err := attempt(r.sign(t, extended), nil); !errors.Is(err, errPCRDigest) {
		t.Errorf("an approval of an earlier state: %v, want a refusal by PolicyPCR", err)
	}
	current := r.sign(t, r.now(t))
	if err := attempt(current, nil); err != nil {
		t.Fatalf("the approval of this state: %v", err)
	}
	if _, err := r.Increment(t.Context(), r.boot.Counter, current.Sequence); err != nil {
		t.Fatal(err)
	}
	if err := attempt(current, nil); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "PolicyNV") {
		t.Errorf("a revoked approval: %v, want a refusal by PolicyNV", err)
	}
	// Neither its auth value alone nor an empty policy opens it.
	err = r.do(t.Context(), func(turn *turn) error {
		return r.auth.lend(roleSeal, func(auth []byte) error {
			_, err := turn.unseal(auth, o)
			return err
		})
	})
	if !errors.Is(err, seal.ErrPolicy) {
		t.Errorf("unsealing by the auth value alone: %v, want ErrPolicy", err)
	}
}

// A PCR changes between PolicyPCR and Unseal.
func TestPCRsChangeUnderASession(t *testing.T) {
	r, b := bootedBusRig(t)
	blob := r.sealed(t, "x")
	extending := func(pcr, times int) func(tpm2.TPMCC, []byte) []byte {
		return changing(tpm2.TPMCCPolicyNV, func(a []byte) []byte {
			if times > 0 {
				times--
				b.inject(t, extendCommand(pcr))
			}
			return a
		})
	}
	b.set(nil, extending(3, 3)) // of no concern, but the TPM says so only by its values
	r.opened(t, blob, "x")
	b.set(nil, extending(3, 1<<30))
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "keep changing") {
		t.Errorf("PCRs that keep changing: %v, want ErrPolicy", err)
	}
	b.set(nil, extending(7, 1))
	var e *PCRError
	if err := r.refused(t, blob); !errors.As(err, &e) || len(e.Is) != 1 {
		t.Errorf("a PCR that changed in the session: %v, want a PCRError", err)
	}
	// Before PolicyPCR: the digest that is expected no longer fits.
	b.set(nil, nil)
	r.put(t, "second.json", r.sign(t, r.now(t)))
	r.opened(t, blob, "x")
	once := true
	b.set(nil, changing(tpm2.TPMCCVerifySignature, func(a []byte) []byte {
		if once {
			b.inject(t, extendCommand(16))
		}
		once = false
		return a
	}))
	if err := r.refused(t, blob); !errors.As(err, &e) || once {
		t.Errorf("a PCR that changed before the session: %v, want a PCRError", err)
	}
}

func TestBlobAndConfigurationAgreeOnThePolicy(t *testing.T) {
	r := newBootedRig(t)
	bound := r.sealed(t, "x")
	policy := r.cfg.PCR
	r.reopen(t, func(c *Config) { c.PCR = nil })
	if err := r.refused(t, bound); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "the configuration has none") {
		t.Errorf("a bound blob without the policy: %v, want ErrPolicy", err)
	}
	free := r.sealed(t, "y")
	r.reopen(t, func(c *Config) { c.PCR = policy })
	if err := r.refused(t, free); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "without a PCR policy") {
		t.Errorf("a free blob under the policy: %v, want ErrPolicy", err)
	}
	r.reopen(t, func(c *Config) {
		c.PCR = &PCRPolicy{Approver: &newApprover(t).key.PublicKey, Counter: policy.Counter, Dir: policy.Dir}
	})
	if err := r.refused(t, bound); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "another PCR policy") {
		t.Errorf("another approver: %v, want ErrPolicy", err)
	}
	r.reopen(t, func(c *Config) { c.PCR = policy })
	r.opened(t, bound, "x")
	// Another secret: the policy fits, the auth value doesn't, and the counter's neither.
	r.reopen(t, func(c *Config) { c.SecretFile = secretFile(t) })
	if err := r.refused(t, bound); !errors.Is(err, seal.ErrAuth) {
		t.Errorf("another outside secret: %v, want ErrAuth", err)
	}
}

func TestPCRPolicyIsChecked(t *testing.T) {
	a := newApprover(t)
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	counter := makeRef(counterAt(firstNV).name.Buffer)
	for name, c := range map[string]PCRPolicy{
		"no approver":       {Counter: counter, Dir: "/d"},
		"another curve":     {Approver: &other.PublicKey, Counter: counter, Dir: "/d"},
		"no folder":         {Approver: &a.key.PublicKey, Counter: counter},
		"a relative folder": {Approver: &a.key.PublicKey, Counter: counter, Dir: "d"},
		"no counter":        {Approver: &a.key.PublicKey, Dir: "/d"},
	} {
		if _, err := Open(t.Context(), Config{Path: "/dev/null", PCR: &c}); err == nil || !strings.Contains(err.Error(), "checking the TPM configuration") {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	r := newRig(t)
	for _, indexes := range [][]int{nil, {-1}, {24}, {7, 7}, {7, 0}} {
		if _, err := r.ReadPCRs(t.Context(), indexes); err == nil {
			t.Errorf("the PCRs %v were read", indexes)
		}
	}
	all := make([]int, pcrCount)
	for i := range all {
		all[i] = i
	}
	pcrs, err := r.ReadPCRs(t.Context(), all) // more than the TPM tells at once
	if err != nil || len(pcrs) != pcrCount || pcrs[17] == pcrs[7] {
		t.Errorf("reading all PCRs: %d, %v, want %d", len(pcrs), err, pcrCount)
	}
	r.Close()
	if out := string(r.tpm.Run(t, "tpm2_pcrread", "sha256:17")); !strings.Contains(out, strings.Repeat("F", 64)) || pcrs[17] != [32]byte([]byte(strings.Repeat("\xff", 32))) {
		t.Errorf("PCR 17 is %x, tpm2_pcrread says %s", pcrs[17], out)
	}
}

// A listener can't lie about PCRs to those who approve them.
func TestChangedPCRsAreNotBelieved(t *testing.T) {
	r, b := busRig(t)
	b.set(nil, changing(tpm2.TPMCCPCRRead, func(a []byte) []byte { a[len(a)-60] ^= 1; return a }))
	if got, err := r.ReadPCRs(t.Context(), measured); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("changed PCRs were read: %x, %v, want ErrUnavailable", got, err)
	}
}

// With the policy, too, nothing secret is on the bus, and all sessions are salted.
func TestBusShowsNoSecretOfABootedHost(t *testing.T) {
	r, b := bootedBusRig(t)
	b.capture()
	plain := make([]byte, 64)
	rand.Read(plain)
	blob := r.sealed(t, string(plain))
	sessions, unsalted := 0, 0
	root := r.root.handle
	b.set(only(tpm2.TPMCCStartAuthSession, func(command []byte) []byte {
		sessions++
		if binary.BigEndian.Uint32(command[headerLen:]) != uint32(root) {
			unsalted++
		}
		return nil
	}), nil)
	r.opened(t, blob, string(plain))
	b.set(nil, nil)
	if sessions == 0 || unsalted != 0 {
		t.Errorf("%d of %d sessions are not salted to the SRK", unsalted, sessions)
	}
	o, _, _, err := decodeBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	seen := b.capture()
	secrets := [][]byte{plain}
	if err := r.withKey(t.Context(), o, func(key []byte) error { secrets = append(secrets, append([]byte{}, key...)); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, role := range []role{roleSeal, roleCount} {
		if err := r.auth.lend(role, func(auth []byte) error { secrets = append(secrets, append([]byte{}, auth...)); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for i, secret := range secrets {
		for n := 0; n+8 <= len(secret); n += 8 {
			if strings.Contains(string(seen), string(secret[n:n+8])) {
				t.Errorf("secret %d crossed the bus in clear", i)
			}
		}
	}
}

func TestTPMThatMayBeAChipNeedsASecret(t *testing.T) {
	makers := integratedMakers
	t.Cleanup(func() { integratedMakers = makers })
	tpm := testtpm.New(t)
	b := newDevice(t, tpm) // not an emulator's socket: as if it had a bus
	open := func(c Config) error {
		c.Path = b.path
		p, err := Open(t.Context(), c)
		if err == nil {
			err = p.Close()
		}
		return err
	}
	if err := open(Config{}); err != nil {
		t.Errorf("swtpm, which is none: %v", err)
	}
	integratedMakers = nil
	if err := open(Config{}); !errors.Is(err, seal.ErrPolicy) || !strings.Contains(err.Error(), "trust_bus") || !strings.Contains(err.Error(), "secret_file") {
		t.Errorf("a chip without a secret: %v, want ErrPolicy and what to do", err)
	}
	if err := open(Config{TrustBus: true}); err != nil {
		t.Errorf("with trust_bus: %v", err)
	}
	if err := open(Config{SecretFile: secretFile(t)}); err != nil {
		t.Errorf("with a secret: %v", err)
	}
}

func TestLockoutIsTold(t *testing.T) {
	r := newRig(t)
	l, err := r.Lockout(t.Context())
	if err != nil || l.Locked || l.Tries != 0 || l.MaxTries == 0 || l.Recovery == 0 {
		t.Fatalf("the lockout state is %+v, %v", l, err)
	}
	blob := r.sealed(t, "x")
	r.Close()
	// Somebody else guesses at an object that counts.
	context := filepath.Join(r.tpm.Dir, "guess")
	r.tpm.Run(t, "tpm2_createprimary", "-Q", "-C", "o", "-p", "right", "-c", context)
	for range l.MaxTries {
		out, err := r.tpm.Try("tpm2_create", "-Q", "-C", context, "-P", "wrong", "-u", context+".pub", "-r", context+".priv")
		if err == nil {
			t.Fatalf("a wrong password was taken: %s", out)
		}
		r.tpm.Run(t, "tpm2_flushcontext", "-t") // the tool leaves behind what failed
	}
	r.reopen(t)
	if l, err = r.Lockout(t.Context()); err != nil || !l.Locked || l.Tries != l.MaxTries || !strings.Contains(l.String(), "locked") {
		t.Errorf("after %d wrong tries the lockout state is %+v, %v", l.MaxTries, l, err)
	}
	r.opened(t, blob, "x") // ours don't count, and are not locked
	r.worked(t)
}

func TestCancelledWhileChoosing(t *testing.T) {
	r, b := bootedBusRig(t)
	blob := r.sealed(t, "x")
	for _, cc := range []tpm2.TPMCC{tpm2.TPMCCPCRRead, tpm2.TPMCCNVRead, tpm2.TPMCCVerifySignature, tpm2.TPMCCPolicyPCR, tpm2.TPMCCPolicyNV, tpm2.TPMCCPolicyAuthorize, tpm2.TPMCCUnseal} {
		ctx, cancel := context.WithCancel(t.Context())
		b.set(nil, changing(cc, func([]byte) []byte { cancel(); return nil }))
		if err := r.Unseal(ctx, r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("the caller leaves during %v: %v, want context.Canceled", cc, err)
		}
		b.set(nil, nil)
		r.opened(t, blob, "x")
	}
}
