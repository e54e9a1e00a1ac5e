package delivery

import "github.com/sigild/sigild/internal/secmem"

// secret is embedded by what carries a secret for the length of a call; it prints as
// "[redacted]" and refuses to be encoded.
type secret = secmem.Secret
