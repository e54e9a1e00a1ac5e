package main

import (
	"strings"
	"testing"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

func TestStatusShowsWhatIsNotProtected(t *testing.T) {
	c := statusCommand()
	var out strings.Builder
	c.SetOut(&out)
	printStatus(c, &sigilv1.GetStatusResponse{Providers: []string{"pkcs11:1"}, MissingProtections: []string{"KEK: CKA_COPYABLE", "checkpoint key: CKA_MODIFIABLE"}})
	for _, want := range []string{"not protected", "KEK: CKA_COPYABLE", "checkpoint key: CKA_MODIFIABLE"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("status prints no %q:\n%s", want, out.String())
		}
	}
}
