package hsm

import (
	"errors"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

// Every code that the bindings know stands in the table, under its own name,
// with a sentinel.
func TestEveryCKRHasARow(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(gotoken.NewFileSet(), filepath.Join(strings.TrimSpace(string(dir)), "zconst.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || !strings.HasPrefix(spec.Names[0].Name, "CKR_") || spec.Names[0].Name == "CKR_OK" {
			return true
		}
		name, lit := spec.Names[0].Name, spec.Values[0].(*ast.BasicLit).Value
		code, err := strconv.ParseUint(lit, 0, 32)
		if err != nil {
			t.Fatalf("%s = %s: %v", name, lit, err)
		}
		seen++
		row, ok := ckrTable[uint(code)]
		if !ok || row.name != name {
			t.Errorf("%s (%s) has the row %+v", name, lit, row)
		}
		return true
	})
	if seen < 90 {
		t.Errorf("found %d codes in the bindings, want at least 90", seen)
	}
	for code, row := range ckrTable {
		if f := newFault(row.err, "x"); f.Unwrap() != row.err {
			t.Errorf("%s (0x%X) means %v, which does not cross to the parent", row.name, code, row.err)
		}
	}
}

func TestCKRMeaning(t *testing.T) {
	for name, want := range map[string]error{
		"CKR_ENCRYPTED_DATA_INVALID":     seal.ErrTampered,
		"CKR_AEAD_DECRYPT_FAILED":        seal.ErrTampered,
		"CKR_PIN_INCORRECT":              seal.ErrAuth,
		"CKR_PIN_EXPIRED":                seal.ErrAuth,
		"CKR_PIN_LOCKED":                 seal.ErrLocked,
		"CKR_GENERAL_ERROR":              seal.ErrUnavailable,
		"CKR_DEVICE_REMOVED":             seal.ErrUnavailable,
		"CKR_OBJECT_HANDLE_INVALID":      seal.ErrUnavailable,
		"CKR_USER_NOT_LOGGED_IN":         seal.ErrUnavailable,
		"CKR_ACTION_PROHIBITED":          seal.ErrPolicy,
		"CKR_KEY_FUNCTION_NOT_PERMITTED": seal.ErrPolicy,
		"CKR_MECHANISM_INVALID":          seal.ErrUnsupported,
		"CKR 0x80000042":                 seal.ErrUnavailable,
		"CKR 0x00000999":                 seal.ErrUnavailable,
	} {
		code := uint64(0)
		for c, row := range ckrTable {
			if row.name == name {
				code = uint64(c)
			}
		}
		if hex, ok := strings.CutPrefix(name, "CKR 0x"); ok {
			code, _ = strconv.ParseUint(hex, 16, 32)
		}
		got, err := lookupCKR(uint(code))
		if got != name || err != want {
			t.Errorf("0x%X is %s and means %v, want %s and %v", code, got, err, name, want)
		}
	}
}

func TestFaultClasses(t *testing.T) {
	for c, err := range classErrors {
		if c == int(classOK) {
			continue
		}
		f := newFault(err, "trying")
		if f.class != class(c) || f.Unwrap() != err || !errors.Is(f, err) {
			t.Errorf("the fault of %v has class %d and means %v", err, f.class, f.Unwrap())
		}
	}
	for _, f := range []*fault{{class: classOK}, {class: 200}, newFault(errors.New("other"), "x")} {
		if !errors.Is(f, seal.ErrUnavailable) {
			t.Errorf("a fault of no known class means %v, want ErrUnavailable", f.Unwrap())
		}
	}
	if got := printable([]byte("a\x1b[31m\n\xffé")); got != "a?[31m??é" {
		t.Errorf("printable made %q", got)
	}
	f := &fault{class: classAuth, code: 0xA0, text: "C_Login"}
	if got, want := f.Error(), "C_Login: CKR_PIN_INCORRECT: "+seal.ErrAuth.Error(); got != want {
		t.Errorf("the fault says %q, want %q", got, want)
	}
}
