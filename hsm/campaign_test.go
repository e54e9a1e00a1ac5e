//go:build cgo

package hsm

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// This file is the matrix of faults: each function of the module that we call, each
// return code, once and for good. In make test it runs over a sample of the codes.

// campaign says whether the whole matrix is wanted: make campaign-providers.
func campaign() bool { return os.Getenv("CAMPAIGN") == "1" }

// codes are what a function is made to return: at least one of each meaning, and
// with the whole matrix all that PKCS#11 has, a vendor's own and one from nowhere.
func codes() []uint {
	if !campaign() {
		return []uint{
			pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED,
			pkcs11.CKR_MECHANISM_INVALID, pkcs11.CKR_ENCRYPTED_DATA_INVALID, pkcs11.CKR_PIN_INCORRECT,
		}
	}
	return append(slices.Sorted(maps.Keys(ckrTable)), pkcs11.CKR_VENDOR_DEFINED+1, 0x7777)
}

// opened is a provider of its own on r's token, with a count of its workers.
func (r *rig) opened(t *testing.T) (p *rig, workers func() int64, end func()) {
	t.Helper()
	provider, _, starts := openWatched(t, r.cfg)
	return &rig{Provider: provider, tok: r.tok, cfg: r.cfg, keys: r.keys, webhook: r.webhook, log: r.log}, starts.Load, func() { provider.Close() }
}

// wantFault is what everyOp answers while fn returns code, once or always.
func wantFault(fn string, code uint, always bool) error {
	err := meaning(fn, code)
	opens := fn == "C_Decrypt" || fn == "C_UnwrapKey"
	switch {
	case fn == "C_CloseSession":
		return nil // called for sessions that are given up: what it says changes nothing
	case opens && err == seal.ErrTampered && always:
		return seal.ErrUnavailable // the canary doesn't open either
	case !always && (err == seal.ErrUnavailable || opens && err == seal.ErrTampered):
		return nil // the ladder, or the second try
	case fn == "C_GetAttributeValue" && !always && unknownAttribute(pkcs11.Error(code)):
		return nil // asked again one by one, all are known
	}
	return err
}

// matrix runs everyOp with each function returning each code.
func matrix(t *testing.T, s *shim, r *rig, functions []string) {
	n := 0
	for _, fn := range functions {
		for _, code := range codes() {
			for _, always := range []bool{false, true} {
				n++
				name, _ := lookupCKR(code)
				action, cell := "once", fmt.Sprintf("%s returns %s once", fn, name)
				if always {
					action, cell = "rv", fmt.Sprintf("%s always returns %s", fn, name)
				}
				p, workers, end := r.opened(t)
				s.order(t, fmt.Sprintf("%s %s %X", fn, action, code))
				began := time.Now()
				err := p.everyOp(t)
				if took := time.Since(began); took > 3*defaultCallTimeout {
					t.Errorf("%s: took %v", cell, took)
				}
				s.behave(t)
				if want := wantFault(fn, code, always); !errors.Is(err, want) || want != seal.ErrTampered && errors.Is(err, seal.ErrTampered) {
					t.Errorf("%s: %v, want %v", cell, err, want)
				}
				if got := workers(); got > 2 {
					t.Errorf("%s: %d workers were started, want at most 2", cell, got)
				}
				if _, latched, err := seal.ReadLatch(p.cfg.LatchFile); latched || err != nil {
					t.Fatalf("%s: latched: %v, %v", cell, latched, err)
				}
				end()
			}
		}
	}
	if err := r.everyOp(t); err != nil {
		t.Errorf("after %d faults: %v", n, err)
	}
	t.Logf("%d functions × %d codes × once and always: %d cells", len(functions), len(codes()), n)
}

func TestCampaignEveryFunctionReturnsEveryCode(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	r.webhook = r.newRSA(t, 2048)
	matrix(t, s, r, opFunctions)
}

// The same for the calls that only key wrapping needs.
func TestCampaignEveryFunctionOfKeyWrapping(t *testing.T) {
	s, through := shimmed(t)
	s.order(t, nomech(pkcs11.CKM_AES_GCM)...)
	r := newRig(t, through)
	s.behave(t)
	matrix(t, s, r, []string{"C_CreateObject", "C_WrapKey", "C_UnwrapKey", "C_DestroyObject"})
}

// TestCampaignEveryFunctionCrashes has each function end its worker by SIGSEGV, once
// and each time. Once is survived; each time costs two workers and says so.
func TestCampaignEveryFunctionCrashes(t *testing.T) {
	for name, tt := range map[string]struct{ orders, functions []string }{
		"gcm":   {nil, opFunctions},
		"kwpad": {nomech(pkcs11.CKM_AES_GCM), []string{"C_CreateObject", "C_WrapKey", "C_UnwrapKey", "C_DestroyObject"}},
	} {
		s, through := shimmed(t)
		s.order(t, tt.orders...)
		r := newRig(t, through)
		s.behave(t)
		for _, fn := range tt.functions {
			for action, want := range map[string]error{"crash 1": nil, "crash 0": seal.ErrUnavailable} {
				p, workers, end := r.opened(t)
				s.order(t, fn+" "+action)
				if err := p.everyOp(t); !errors.Is(err, want) || errors.Is(err, seal.ErrTampered) {
					t.Errorf("%s: %s %s: %v, want %v", name, fn, action, err, want)
				}
				s.behave(t)
				if got := workers(); got > 3 { // the first, and one for each that was lost
					t.Errorf("%s: %s %s: %d workers were started", name, fn, action, got)
				}
				end()
			}
		}
	}
}

// TestCampaignOpening is the matrix of the calls before and at the login.
func TestCampaignOpening(t *testing.T) {
	s, through := shimmed(t)
	cfg := config(testhsm.New(t))
	through(&cfg)
	mustOpen(t, cfg).Close()
	for _, fn := range []string{"C_Initialize", "C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_Login"} {
		for _, code := range codes() {
			name, _ := lookupCKR(code)
			cell := fmt.Sprintf("%s always returns %s", fn, name)
			before := s.calls(t, "C_Login")
			s.order(t, fmt.Sprintf("%s rv %X", fn, code))
			p, err := Open(t.Context(), cfg)
			s.behave(t)
			want := meaning(fn, code)
			switch {
			case fn == "C_GetTokenInfo":
				want = seal.ErrUnavailable // ours may be the token that says nothing
			case fn == "C_Login" && code == pkcs11.CKR_USER_ALREADY_LOGGED_IN:
				want = nil
			}
			if !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", cell, err, want)
			}
			if err == nil {
				p.Close()
			}
			// A PIN is tried once, whatever comes of it, and a refusal is remembered.
			if got := s.calls(t, "C_Login") - before; got > 1 {
				t.Errorf("%s: C_Login was called %d times", cell, got)
			}
			_, latched, lerr := seal.ReadLatch(cfg.LatchFile)
			if shall := fn == "C_Login" && (want == seal.ErrAuth || want == seal.ErrLocked); latched != shall || lerr != nil {
				t.Errorf("%s: latched %v, %v, want %v", cell, latched, lerr, shall)
			}
			if err := seal.ClearLatch(cfg.LatchFile); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCampaignMakingKeys is the matrix of the calls that make keys. Whatever happens,
// keys come out that work, or none and an error that blames nobody's PIN or blob.
func TestCampaignMakingKeys(t *testing.T) {
	s, through := shimmed(t)
	r := newRig(t, through)
	for _, fn := range []string{"C_GenerateKey", "C_GenerateKeyPair", "C_DestroyObject", "C_EncryptInit", "C_Decrypt", "C_Sign", "C_FindObjects", "C_GetAttributeValue"} {
		for _, code := range codes() {
			for _, action := range []string{"once", "rv"} {
				name, _ := lookupCKR(code)
				cell := fmt.Sprintf("%s %s %s", fn, action, name)
				p, _, end := r.opened(t)
				s.order(t, fmt.Sprintf("%s %s %X", fn, action, code))
				keys, err := p.Provision(t.Context())
				s.behave(t)
				switch {
				case err == nil:
					p.keys = keys
					p.worked(t)
				case errors.Is(err, seal.ErrAuth), errors.Is(err, seal.ErrLocked), errors.Is(err, seal.ErrTampered), errors.Is(err, seal.ErrAmbiguous):
					t.Errorf("%s: making keys: %v", cell, err)
				case !errors.Is(err, seal.ErrUnavailable) && !errors.Is(err, seal.ErrPolicy) && !errors.Is(err, seal.ErrUnsupported):
					t.Errorf("%s: making keys: %v, want one of the sentinels", cell, err)
				}
				if action == "rv" && fn == "C_GenerateKeyPair" && err == nil {
					t.Errorf("%s: a pair of keys was made without it", cell)
				}
				end()
			}
		}
	}
}

// TestCampaignWrongOutput has the module give more, less and other bytes than it
// should, in every call that gives bytes. Nothing wrong comes out of it, but for the
// one lie that nobody can tell here.
func TestCampaignWrongOutput(t *testing.T) {
	for name, orders := range map[string][]string{"gcm": nil, "kwpad": nomech(pkcs11.CKM_AES_GCM)} {
		s, through := shimmed(t)
		s.order(t, orders...)
		r := newRig(t, through)
		s.behave(t)
		r.webhook = r.newRSA(t, 2048)
		for _, fn := range []string{"C_Encrypt", "C_Decrypt", "C_Sign", "C_WrapKey", "C_GetAttributeValue"} {
			for _, action := range []string{"longer 0", "shorter 0", "wrong 0", "attr 162", "noattr 103", "attr 103"} {
				p, _, end := r.opened(t)
				before := s.calls(t, fn)
				s.order(t, fn+" "+action)
				blob, err := p.Seal(t.Context(), r.keys.KEK, []byte("a root key"), nil)
				if err == nil {
					err = p.Unseal(t.Context(), r.keys.KEK, blob, nil, func(got []byte) error {
						// Only the token knows what it decrypts to: the vault's commitment to
						// the root key, and the canary of Health, find that one.
						if string(got) != "a root key" && fn+action != "C_Decryptwrong 0" {
							t.Errorf("%s: %s %s: unsealed %q", name, fn, action, got)
						}
						return nil
					})
				}
				_, serr := p.SignP256(t.Context(), r.keys.Checkpoint, [32]byte{1}) // verified before it is returned
				s.behave(t)
				for _, err := range []error{err, serr} {
					if err != nil && !errors.Is(err, seal.ErrUnavailable) && !errors.Is(err, seal.ErrPolicy) && !errors.Is(err, seal.ErrTampered) {
						t.Errorf("%s: %s %s: %v", name, fn, action, err)
					}
				}
				if s.calls(t, fn) == before && (fn != "C_WrapKey" || name != "gcm") && (fn != "C_Encrypt" && fn != "C_Decrypt" || name != "kwpad") {
					t.Errorf("%s: %s was never called", name, fn)
				}
				end()
			}
		}
	}
}

// TestCampaignReplacedKey puts other keys in the place of the KEK, under the daemon.
func TestCampaignReplacedKey(t *testing.T) {
	for _, tt := range []struct {
		kind string
		want error
	}{
		{"imported", seal.ErrPolicy}, {"extractable", seal.ErrPolicy}, {"modifiable", seal.ErrPolicy}, {"wraps", seal.ErrPolicy},
		{"as ours", nil}, // another key made inside: only the blobs tell
	} {
		r := newRig(t)
		blob, err := r.Seal(t.Context(), r.keys.KEK, []byte("a root key"), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.tok.Run(t, "pkcs11-tool", "--module", r.tok.Module, "--token-label", r.tok.Label, "--login", "--pin", r.tok.PIN,
			"--delete-object", "--type", "secrkey", "--id", string(r.keys.KEK))
		makeWeak(t, r.tok, tt.kind, r.keys.KEK, "kek")
		if _, err := r.Seal(t.Context(), r.keys.KEK, []byte("x"), nil); !errors.Is(err, tt.want) {
			t.Errorf("sealing under a key that was replaced by one that is %q: %v, want %v", tt.kind, err, tt.want)
		}
		want := tt.want
		if want == nil {
			want = seal.ErrTampered
		}
		none := func([]byte) error { t.Error("the closure was called"); return nil }
		if err := r.Unseal(t.Context(), r.keys.KEK, blob, nil, none); !errors.Is(err, want) {
			t.Errorf("unsealing with a key that was replaced by one that is %q: %v, want %v", tt.kind, err, want)
		}
	}
}
