package mpc

import "github.com/sigild/sigild/internal/secmem"

// secret is embedded by types that hold secrets; they print as "[redacted]".
type secret = secmem.Secret
