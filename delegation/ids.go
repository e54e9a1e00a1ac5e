package delegation

import (
	"crypto/rand"
	"strings"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
)

// newID makes an identifier: a prefix that names the noun and 26 base32
// characters, 130 bits of randomness.
func newID(prefix string) string {
	return prefix + "_" + strings.ToLower(rand.Text())
}

// checkName holds names to 1 to 64 printable ASCII characters: they are shown to
// people and written into logs.
func checkName(field, name string) error {
	if len(name) == 0 || len(name) > 64 {
		return refusal.New(refusal.RequestInvalid, "%s must have 1 to 64 characters", field).With("field", field)
	}
	for _, c := range []byte(name) {
		if c < 0x20 || c > 0x7e {
			return refusal.New(refusal.RequestInvalid, "%s must be printable ASCII", field).With("field", field)
		}
	}
	return nil
}

// CheckRequestID is [journal.CheckRequestID].
func CheckRequestID(id string) error { return journal.CheckRequestID(id) }
