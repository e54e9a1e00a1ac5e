package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

func TestMeaningsHaveOneRowACode(t *testing.T) {
	seen := map[tpm2.TPMRC]bool{}
	for _, m := range meanings {
		if seen[m.code] {
			t.Errorf("%v has two rows", m.code)
		}
		seen[m.code] = true
		if !ours(m.err) || m.hint == "" {
			t.Errorf("%v has no sentinel of ours, or does not say what to do", m.code)
		}
		// As the TPM sends it: about parameter 1, or as it is.
		sent := m.code
		if m.code&0x080 != 0 {
			sent |= 0x140
		}
		err := explain(fmt.Errorf("TPM2_X: %w", sent))
		if !errors.Is(err, m.err) || !strings.Contains(err.Error(), "TPM_RC_") || !strings.Contains(err.Error(), m.hint) {
			t.Errorf("%v is explained as %v", m.code, err)
		}
		if ours(explain(errors.New("another"))) {
			t.Error("an error without a code got a sentinel")
		}
	}
	if err := explain(tpm2.TPMRC(0x7ff)); !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("an unknown code is %v, want ErrUnavailable", err)
	}
}

// Each code as the TPM answers it to a command of Unseal or SignP256: what the
// caller gets, and how often the command was tried.
func TestCodesOfCommands(t *testing.T) {
	r, b := busRig(t)
	blob := r.sealed(t, "x")
	unseal := func() error {
		return r.Unseal(t.Context(), r.keys.KEK, blob, []byte("aad"), func([]byte) error { return nil })
	}
	sign := func() error {
		_, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1})
		return err
	}
	for _, row := range []struct {
		name  string
		call  func() error
		cc    tpm2.TPMCC
		rc    tpm2.TPMRC
		want  error
		tries int
		text  string
	}{
		{"wrong auth", unseal, tpm2.TPMCCUnseal, 0x9a2, seal.ErrAuth, 1, "outside secret"},
		{"wrong auth, counted", unseal, tpm2.TPMCCUnseal, 0x98e, seal.ErrAuth, 1, "outside secret"},
		{"wrong auth of the key", sign, tpm2.TPMCCSign, 0x9a2, seal.ErrAuth, 1, "outside secret"},
		{"auth of the SRK", unseal, tpm2.TPMCCLoad, 0x9a2, seal.ErrPolicy, 1, "SRK has a password"},
		{"lockout", unseal, tpm2.TPMCCUnseal, 0x921, seal.ErrLocked, 1, "LOCKOUT_INTERVAL"},
		{"policy", unseal, tpm2.TPMCCUnseal, 0x99d, seal.ErrPolicy, 1, ""},
		{"policy needed", unseal, tpm2.TPMCCUnseal, 0x12f, seal.ErrPolicy, 1, ""},
		{"integrity", unseal, tpm2.TPMCCLoad, 0x1df, seal.ErrTampered, 1, "SRK is the pinned one"},
		{"a parameter's size", unseal, tpm2.TPMCCLoad, 0x1d5, seal.ErrTampered, 1, "SRK is the pinned one"},
		{"no object slots", unseal, tpm2.TPMCCLoad, 0x902, seal.ErrUnavailable, 2, "tpmrm0"},
		{"no session slots", unseal, tpm2.TPMCCStartAuthSession, 0x903, seal.ErrUnavailable, 2, "tpmrm0"},
		{"transient handle gone", unseal, tpm2.TPMCCUnseal, 0x910, seal.ErrUnavailable, 2, ""},
		{"persistent handle gone", sign, tpm2.TPMCCSign, 0x18b, seal.ErrUnavailable, 2, ""},
		{"not started", unseal, tpm2.TPMCCLoad, 0x100, seal.ErrUnavailable, 2, "TPM2_Startup"},
		{"failure of one command", unseal, tpm2.TPMCCUnseal, 0x101, seal.ErrUnavailable, 1, "answers other commands"},
		{"no such command", sign, tpm2.TPMCCSign, 0x143, seal.ErrUnsupported, 1, ""},
		{"no such curve", sign, tpm2.TPMCCSign, 0x1e6, seal.ErrUnsupported, 1, "P-256"},
		{"worn memory", unseal, tpm2.TPMCCUnseal, 0x920, seal.ErrUnavailable, 1, "wait"},
		{"vendor's own", unseal, tpm2.TPMCCUnseal, 0x5ff, seal.ErrUnavailable, 1, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			b.capture()
			b.set(only(row.cc, func([]byte) []byte { return refusal(row.rc) }), nil)
			err := row.call()
			if !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) {
				t.Errorf("got %v, want %v and %q", err, row.want, row.text)
			}
			for _, s := range sentinels {
				if s != row.want && errors.Is(err, s) {
					t.Errorf("%v is also %v", err, s)
				}
			}
			if n := b.asked(row.cc); n != row.tries {
				t.Errorf("%v was sent %d times, want %d", row.cc, n, row.tries)
			}
			b.set(nil, nil)
			if err := row.call(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if row.tries < 2 {
				return
			}
			// Once only: the second try succeeds and the caller sees nothing.
			once := true
			b.set(only(row.cc, func([]byte) []byte {
				if !once {
					return nil
				}
				once = false
				return refusal(row.rc)
			}), nil)
			if err := row.call(); err != nil {
				t.Errorf("once: %v, want success", err)
			}
			b.set(nil, nil)
		})
	}
}

// An object that does not load is the blob's fault only while the SRK is the
// pinned one.
func TestIntegrityErrorUnderAnotherSRK(t *testing.T) {
	r, b := busRig(t)
	blob := r.sealed(t, "x")
	b.set(only(tpm2.TPMCCLoad, func([]byte) []byte { return refusal(0x1df) }),
		changing(tpm2.TPMCCReadPublic, func(a []byte) []byte { a[headerLen+8] ^= 1; return a }))
	if err := r.refused(t, blob); !errors.Is(err, seal.ErrNotFound) || errors.Is(err, seal.ErrTampered) || !strings.Contains(err.Error(), "another TPM") {
		t.Errorf("unsealing: %v, want ErrNotFound", err)
	}
	b.set(nil, nil)
	r.opened(t, blob, "x")
}

// A list of handles that never ends, or is of another kind, is not believed.
func TestHandleListsAreChecked(t *testing.T) {
	r, b := busRig(t)
	for name, h := range map[string]uint32{"another kind": 0x80000000, "beyond all": 0xffffffff} {
		list := binary.BigEndian.AppendUint32([]byte{1, 0, 0, 0, 1, 0, 0, 0, 1}, h) // more data, handles, 1
		b.set(only(tpm2.TPMCCGetCapability, func([]byte) []byte { return refit(append(refusal(0), list...)) }), nil)
		r.link.drop()
		r.root = storageKey{}
		if _, err := r.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}); !errors.Is(err, seal.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable", name, err)
		}
		b.set(nil, nil)
	}
	r.worked(t)
}

// TPM_RC_FAILURE to everything: the TPM has given up.
func TestTPMInFailureMode(t *testing.T) {
	r, b := busRig(t)
	b.set(func(tpm2.TPMCC, []byte) []byte { return refusal(tpm2.TPMRCFailure) }, nil)
	if err := r.Health(t.Context()); !errors.Is(err, seal.ErrUnavailable) || !strings.Contains(err.Error(), "power the host off") {
		t.Errorf("Health in failure mode: %v, want ErrUnavailable and what to do", err)
	}
	b.set(nil, nil)
	r.worked(t)
}
