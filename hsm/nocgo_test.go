//go:build !cgo

package hsm

import (
	"errors"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

func TestWithoutCgoNothingOpens(t *testing.T) {
	_, err := Open(t.Context(), Config{Module: "/m.so", TokenLabel: "l", PINFile: "/p", LatchFile: "/l"})
	if !errors.Is(err, seal.ErrUnsupported) || !strings.Contains(err.Error(), "built without cgo: no PKCS#11") {
		t.Errorf("opening without cgo: %v, want ErrUnsupported and why", err)
	}
	if code := WorkerMain(); code != 2 {
		t.Errorf("the worker returned %d, want 2", code)
	}
}
