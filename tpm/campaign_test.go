package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/internal/testtpm"
	"github.com/sigild/sigild/seal"
)

// campaign says whether the whole matrix is wanted: make campaign-providers.
func campaign() bool { return os.Getenv("CAMPAIGN") == "1" }

// loads are the objects and sessions that are loaded.
func (r *rig) loads(t testing.TB) (all []tpm2.TPMHandle) {
	t.Helper()
	err := r.do(t.Context(), func(turn *turn) error {
		all = nil
		for _, kind := range []tpm2.TPMHT{tpm2.TPMHTTransient, tpm2.TPMHTHMACSession} {
			h, err := turn.handles(kind)
			if err != nil {
				return err
			}
			all = append(all, h...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// What fails leaves nothing behind: neither objects nor sessions.
func TestCampaignFailuresLeakNothing(t *testing.T) {
	r, b := bootedBusRig(t)
	blob := r.sealed(t, "x")
	o, header, box, err := decodeBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	changed := blobOf(o, box, func(o *object) { o.private[20] ^= 1 })
	noVersion := append([]byte{header[0] ^ 1}, blob[1:]...)
	before := r.loads(t)
	if len(before) != 1 {
		t.Fatalf("%d handles are loaded, want the SRK alone", len(before))
	}
	codes := []tpm2.TPMRC{0x101, 0x9a2, 0x910, 0x902, 0x126}
	commands := []tpm2.TPMCC{
		tpm2.TPMCCStartAuthSession, tpm2.TPMCCLoad, tpm2.TPMCCUnseal, tpm2.TPMCCFlushContext, tpm2.TPMCCPCRRead, tpm2.TPMCCNVRead,
		tpm2.TPMCCLoadExternal, tpm2.TPMCCVerifySignature, tpm2.TPMCCPolicyPCR, tpm2.TPMCCPolicyNV, tpm2.TPMCCPolicyAuthorize, tpm2.TPMCCPolicyAuthValue,
	}
	failures := 500
	if campaign() {
		failures = 10_000
	}
	for i := range failures {
		switch i % 10 {
		case 0: // a code
			rc := codes[i/10%len(codes)]
			b.set(only(commands[i/50%len(commands)], func([]byte) []byte { return refusal(rc) }), nil)
			_ = r.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
			b.set(nil, nil)
		case 5: // an answer that can't be read
			b.set(nil, changing(commands[i/10%len(commands)], func(a []byte) []byte { return refit(append(a, 0)) }))
			_ = r.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
			b.set(nil, nil)
		case 3: // refused before the TPM is asked
			_ = r.refused(t, noVersion)
		case 7: // refused after
			err := r.Unseal(t.Context(), r.keys.KEK, blob, []byte("other"), func([]byte) error { return nil })
			if !errors.Is(err, seal.ErrTampered) {
				t.Fatalf("another aad: %v", err)
			}
		default:
			if err := r.refused(t, changed); !errors.Is(err, seal.ErrTampered) {
				t.Fatalf("a changed blob: %v", err)
			}
		}
	}
	if after := r.loads(t); len(after) != 1 {
		t.Errorf("%d handles are loaded after %d failures, want the SRK alone: %v", len(after), failures, after)
	}
	r.worked(t)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if out := string(r.tpm.Run(t, "tpm2_getcap", "handles-transient")) + string(r.tpm.Run(t, "tpm2_getcap", "handles-loaded-session")); strings.Contains(out, "0x") {
		t.Errorf("after Close the TPM still holds %s", out)
	}
}

// victim is a TPM that is hurt, with one of each of our keys, and what is done with them.
type victim struct {
	bootedRig
	*bus
	blob, ciphertext []byte
	delivery, anchor seal.KeyRef
}

// hurtTimeout is short, since some faults are a TPM that says nothing.
const hurtTimeout = 100 * time.Millisecond

func newVictim(t testing.TB) *victim {
	t.Helper()
	r, b := bootedBusRig(t)
	v := &victim{bootedRig: r, bus: b, blob: r.sealed(t, "a root key"), delivery: r.rsa(t), anchor: r.counter(t)}
	v.ciphertext = r.encrypted(t, v.delivery, []byte("a share"))
	return v
}

// impatient gives commands little time from here on.
func (v *victim) impatient() { v.link.timeout = hurtTimeout }

// op is something that is done with a TPM; it says when the outcome is a wrong one.
type op struct {
	name string
	run  func(context.Context) error
}

// errWrong: a fault made an operation give something that is not true.
var errWrong = errors.New("WRONG")

func (v *victim) ops() []op {
	return []op{
		{"seal and unseal", func(ctx context.Context) error {
			blob, err := v.Seal(ctx, v.keys.KEK, []byte("plain"), []byte("aad"))
			if err != nil {
				return err
			}
			return v.unsealed(ctx, blob, "plain")
		}},
		{"unseal", func(ctx context.Context) error { return v.unsealed(ctx, v.blob, "a root key") }},
		{"sign", func(ctx context.Context) error {
			_, err := v.SignP256(ctx, v.keys.Checkpoint, sha256.Sum256(nil)) // verified against the pinned Name's key inside
			return err
		}},
		{"decrypt", func(ctx context.Context) error {
			return v.DecryptOAEPSHA256(ctx, v.delivery, v.ciphertext, func(p []byte) error {
				if string(p) != "a share" {
					return errWrong
				}
				return nil
			})
		}},
		{"count", func(ctx context.Context) error {
			n, err := v.ReadCounter(ctx, v.anchor)
			if err != nil {
				return err
			}
			m, err := v.Increment(ctx, v.anchor, n)
			if err == nil && m != n+1 {
				return fmt.Errorf("%w: %d after %d", errWrong, m, n)
			}
			return err
		}},
		{"attest", func(ctx context.Context) error {
			e, err := v.Attest(ctx, nonce, measured)
			if err != nil {
				return err
			}
			if _, err := e.Verify(nonce); err != nil {
				return nil // what the verifier refuses is no lie
			}
			if len(e.PCRs) != len(measured) || e.PCRs[7] != [32]byte{} {
				return fmt.Errorf("%w: it attests %v", errWrong, e.PCRs)
			}
			return nil
		}},
		{"lockout", func(ctx context.Context) error {
			l, err := v.Lockout(ctx)
			if err == nil && (l.Locked || l.MaxTries != 3) {
				return fmt.Errorf("%w: %+v", errWrong, l)
			}
			return err
		}},
	}
}

func (v *victim) unsealed(ctx context.Context, blob []byte, want string) error {
	return v.Unseal(ctx, v.keys.KEK, blob, []byte("aad"), func(p []byte) error {
		if string(p) != want {
			return errWrong
		}
		return nil
	})
}

// operationLimit is far beyond what an operation may take: none reaches it.
const operationLimit = time.Minute

// try runs o and says what is wrong with how it ended: it must be right, or an error
// with a sentinel of ours, long before the limit.
func (v *victim) try(t testing.TB, o op, what string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), operationLimit)
	defer cancel()
	err := o.run(ctx)
	switch {
	case errors.Is(err, errWrong):
		t.Errorf("%s, %s: %v", o.name, what, err)
	case ctx.Err() != nil:
		t.Fatalf("%s, %s: it did not end by its deadline: %v", o.name, what, err)
	case err != nil && !ours(err):
		t.Errorf("%s, %s: %v has no sentinel", o.name, what, err)
	}
	return err
}

// well wants all operations to work, and nothing left behind.
func (v *victim) well(t testing.TB, after string) {
	t.Helper()
	for _, o := range v.ops() {
		if err := v.try(t, o, "after "+after); err != nil {
			t.Fatalf("%s after %s: %v", o.name, after, err)
		}
	}
	if left := v.loads(t); len(left) != 1 {
		t.Fatalf("after %s %d handles are loaded, want the SRK alone: %v", after, len(left), left)
	}
}

// commandsOf are the commands that o sends on a connection with the SRK loaded, or
// on a fresh one.
func (v *victim) commandsOf(t testing.TB, o op, fresh bool) []tpm2.TPMCC {
	t.Helper()
	if fresh {
		v.fresh()
	}
	v.capture()
	if err := v.try(t, o, "unhurt"); err != nil {
		t.Fatal(err)
	}
	v.bus.mu.Lock()
	defer v.bus.mu.Unlock()
	return append([]tpm2.TPMCC{}, v.bus.commands...)
}

// fresh drops the connection.
func (v *victim) fresh() {
	v.turns <- struct{}{}
	v.link.drop()
	<-v.turns
}

// at calls f once, before the command of that place reaches the TPM. What f returns,
// if anything, is the answer.
func (v *victim) at(place int, f func() []byte) {
	n := 0
	v.set(func(tpm2.TPMCC, []byte) []byte {
		if n++; n == place+1 {
			return f()
		}
		return nil
	}, nil)
}

// Each command of each operation is refused, with each code, once and always.
func TestCampaignCodes(t *testing.T) {
	v := newVictim(t)
	codes := []tpm2.TPMRC{0x101, 0x9a2, 0x902, 0x910, 0x1c4, 0x5ff}
	if campaign() {
		codes = []tpm2.TPMRC{0x5ff, 0x084, 0x184, 0x8ff}
		for _, m := range meanings {
			sent := m.code
			if sent&0x080 != 0 {
				sent |= 0x140 // about parameter 1
			}
			codes = append(codes, sent)
		}
	}
	for _, o := range v.ops() {
		seen := map[tpm2.TPMCC]bool{}
		for _, cc := range v.commandsOf(t, o, true) {
			if seen[cc] {
				continue
			}
			seen[cc] = true
			for _, rc := range codes {
				if rc == tpm2.TPMRCRetry || rc == tpm2.TPMRCYielded || rc == tpm2.TPMRCTesting {
					v.impatient() // it is asked again until its time is over
				} else {
					v.link.timeout = defaultCommandTimeout
				}
				what := fmt.Sprintf("%v answers %v", cc, rc)
				v.fresh()
				v.set(only(cc, func([]byte) []byte { return refusal(rc) }), nil)
				if err := v.try(t, o, what+" always"); err == nil && cc != tpm2.TPMCCFlushContext && cc != tpm2.TPMCCReadPublic && cc != tpm2.TPMCCNVReadPublic && cc != tpm2.TPMCCCertify {
					t.Errorf("%s, %s always: it succeeded", o.name, what)
				}
				once := true
				v.set(only(cc, func([]byte) []byte {
					if !once {
						return nil
					}
					once = false
					return refusal(rc)
				}), nil)
				_ = v.try(t, o, what+" once") // whether it is tried again is errors_test.go's matter
				v.set(nil, nil)
			}
			v.link.timeout = defaultCommandTimeout
		}
	}
	v.well(t, "all codes")
}

// Each byte of each answer is flipped.
func TestCampaignFlippedAnswers(t *testing.T) {
	v := newVictim(t)
	step := 61
	if campaign() {
		step = 1
	}
	runs := 0
	for _, o := range v.ops() {
		for place, cc := range v.commandsOf(t, o, true) {
			size := 0
			n := 0
			v.fresh()
			v.set(nil, func(_ tpm2.TPMCC, a []byte) []byte {
				if n++; n == place+1 {
					size = len(a)
				}
				return a
			})
			if err := v.try(t, o, "unhurt"); err != nil {
				t.Fatal(err)
			}
			for i := (place * 7) % step; i < size; i += step {
				n = 0
				v.set(nil, func(_ tpm2.TPMCC, a []byte) []byte {
					if n++; n == place+1 && i < len(a) {
						a = bytes.Clone(a)
						a[i] ^= 1 << (i % 8)
					}
					return a
				})
				runs++
				v.fresh()
				if i >= 2 && i < 6 {
					v.impatient() // a length: the rest never comes
				}
				_ = v.try(t, o, fmt.Sprintf("byte %d of the answer to %v (command %d) flipped", i, cc, place))
				v.link.timeout = defaultCommandTimeout
			}
			v.set(nil, nil)
		}
	}
	t.Logf("%d answers with a flipped bit", runs)
	v.well(t, "flipped answers")
}

// The TPM is killed, reset, halted, hangs, or is replaced, before each command of
// each operation.
func TestCampaignHurtTPM(t *testing.T) {
	v := newVictim(t)
	other := newRig(t)
	other.Close()
	own := &testtpm.TPM{Dir: v.tpmOf().Dir, Socket: v.tpmOf().Socket}
	must := func(err error) []byte {
		if err != nil {
			t.Error(err)
		}
		return nil
	}
	for _, fault := range []struct {
		name        string
		hurt, treat func() []byte
		// want are the sentinels an operation may end with; nil among them: it may work.
		want []error
	}{
		{"killed and started", func() []byte { return must(v.tpmOf().Restart()) }, nil, []error{nil, seal.ErrUnavailable}},
		{"reset", func() []byte { return must(v.tpmOf().Reset()) }, nil, []error{nil, seal.ErrUnavailable}},
		{"killed", func() []byte { return must(v.tpmOf().Kill()) }, func() []byte { return must(v.tpmOf().Start()) }, []error{seal.ErrUnavailable}},
		{"halted", func() []byte { return must(v.tpmOf().Halt()) }, func() []byte { return must(v.tpmOf().Restart()) }, []error{nil, seal.ErrUnavailable}},
		{"hung", func() []byte { return must(v.tpmOf().Stop()) }, func() []byte { return must(v.tpmOf().Cont()) }, []error{seal.ErrUnavailable}},
		{"replaced", func() []byte { v.lead(other.tpm); return nil }, func() []byte { v.lead(own); return nil }, []error{seal.ErrNotFound, seal.ErrUnavailable}},
	} {
		t.Run(fault.name, func(t *testing.T) {
			for _, o := range v.ops() {
				commands := v.commandsOf(t, o, true)
				step := max(1, len(commands)/2)
				if campaign() {
					step = 1
				}
				for place := 0; place < len(commands); place += step {
					what := fmt.Sprintf("%s before %v (command %d)", fault.name, commands[place], place)
					v.fresh()
					v.impatient()
					v.at(place, fault.hurt)
					err := v.try(t, o, what)
					allowed := false
					for _, w := range fault.want {
						allowed = allowed || errors.Is(err, w) && (w != nil || err == nil)
					}
					// What cleans up is no part of the operation's success.
					if !allowed && !(err == nil && commands[place] == tpm2.TPMCCFlushContext) {
						t.Errorf("%s, %s: %v, want one of %v", o.name, what, err, fault.want)
					}
					v.set(nil, nil)
					if fault.treat != nil {
						fault.treat()
					}
					v.fresh()
					v.link.timeout = defaultCommandTimeout
					if err := v.try(t, o, "after it was "+fault.name); err != nil {
						t.Fatalf("%s, after it was %s: %v", o.name, fault.name, err)
					}
				}
			}
			v.well(t, fault.name)
		})
	}
}

func (v *victim) tpmOf() *testtpm.TPM { return v.bootedRig.rig.tpm }

// The TPM is cleared before each command of each operation: all of it is gone, and
// nothing pretends to be it.
func TestCampaignClearedTPM(t *testing.T) {
	clearing := []byte{0x80, 0x02, 0, 0, 0, 27, 0, 0, 0x01, 0x26, 0x40, 0, 0, 0x0c, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0}
	first := newVictim(t)
	for i, o := range first.ops() {
		commands := first.commandsOf(t, o, true)
		step := len(commands)
		if campaign() {
			step = 1
		}
		for place := len(commands) / 2 % step; place < len(commands); place += step {
			v := newVictim(t)
			what := fmt.Sprintf("cleared before %v (command %d)", commands[place], place)
			v.fresh()
			v.at(place, func() []byte { v.inject(t, clearing); return nil })
			err := v.try(t, v.ops()[i], what)
			if err != nil && !errors.Is(err, seal.ErrNotFound) && !errors.Is(err, seal.ErrUnavailable) && !errors.Is(err, seal.ErrPolicy) {
				t.Errorf("%s, %s: %v, want ErrNotFound, ErrUnavailable or ErrPolicy", o.name, what, err)
			}
			v.set(nil, nil)
			v.fresh()
			if err := v.try(t, v.ops()[i], "after it was cleared"); !errors.Is(err, seal.ErrNotFound) || !strings.Contains(err.Error(), "cleared") {
				t.Errorf("%s, after it was cleared: %v, want ErrNotFound and why", o.name, err)
			}
			v.Provider.Close()
			if err := v.tpmOf().Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
