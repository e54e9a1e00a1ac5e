//go:build cgo

package hsm

import (
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// makeKeyArg makes this test binary a tool that makes keys we would not: the
// module is not loaded into the test itself.
const makeKeyArg = "make-weak-key"

// weaken changes a template of ours.
type weaken struct {
	name string
	// typ gets value, or is left out when value is nil.
	typ   uint
	value any
}

var weakened = []weaken{
	{"as ours", 0, nil},
	{"wraps", pkcs11.CKA_WRAP, true},
	{"unwraps", pkcs11.CKA_UNWRAP, true},
	{"signs", pkcs11.CKA_SIGN, true},
	{"derives", pkcs11.CKA_DERIVE, true},
	{"extractable", pkcs11.CKA_EXTRACTABLE, true},
	{"not sensitive", pkcs11.CKA_SENSITIVE, false},
	{"not private", pkcs11.CKA_PRIVATE, false},
	{"modifiable", pkcs11.CKA_MODIFIABLE, true},
	{"copyable", pkcs11.CKA_COPYABLE, true},
	{"any mechanism", pkcs11.CKA_ALLOWED_MECHANISMS, nil},
	{"also ECB", pkcs11.CKA_ALLOWED_MECHANISMS, mechanisms(pkcs11.CKM_AES_GCM, pkcs11.CKM_AES_ECB)},
	{"128 bits", pkcs11.CKA_VALUE_LEN, 16},
	{"imported", 0, nil}, // the value was known outside
}

// makeKeyMain is run as: <binary> make-weak-key module label pinfile name id kind
func makeKeyMain(args []string) int {
	if err := makeKey(args[0], args[1], args[2], args[3], args[4], args[5]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func makeKey(module, label, pinFile, name, idHex, kind string) error {
	var t token
	if err := t.start(module, selection{label: label}, pinFile); err != nil {
		return err
	}
	defer t.close()
	id, err := hex.DecodeString(idHex)
	if err != nil {
		return err
	}
	ours := gcmAttrs
	switch kind {
	case "checkpoint":
		ours = checkpointAttrs
	case "rsa":
		ours = append(slices.Clone(rsaAttrs), schemeRaw.allowed())
	}
	var tmpl []*pkcs11.Attribute
	for _, w := range weakened {
		if w.name != name {
			continue
		}
		for _, a := range template(ours, id, "weak", 0) {
			if a.Type != w.typ || w.typ == 0 {
				tmpl = append(tmpl, a)
			} else if w.value != nil {
				tmpl = append(tmpl, pkcs11.NewAttribute(w.typ, w.value))
			}
		}
	}
	return t.session(pkcs11.CKF_RW_SESSION, func(s pkcs11.SessionHandle) error {
		switch {
		case kind == "checkpoint":
			gen := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_EC_KEY_PAIR_GEN, nil)}
			_, _, err = t.mod.GenerateKeyPair(s, gen, template(publicAttrs, id, "weak", 0), tmpl)
		case kind == "rsa":
			_, err = t.generateRSAPair(s, 2048, id, tmpl)
		case name == "imported":
			var with []*pkcs11.Attribute
			for _, a := range tmpl {
				if a.Type != pkcs11.CKA_VALUE_LEN {
					with = append(with, a)
				}
			}
			_, err = t.mod.CreateObject(s, append(with, pkcs11.NewAttribute(pkcs11.CKA_VALUE, make([]byte, 32))))
		default:
			gen := []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}
			_, err = t.mod.GenerateKey(s, gen, tmpl)
		}
		return err
	})
}

// makeWeak makes a key in tok through a process of its own.
func makeWeak(t testing.TB, tok testhsm.Token, name string, ref seal.KeyRef, kind string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", makeKeyArg, tok.Module, tok.Label, tok.PINFile, name, string(ref), kind)
	cmd.Env = append(os.Environ(), tok.Env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("making a key that is %q: %v: %s", name, err, strings.TrimSpace(string(out)))
	}
}
