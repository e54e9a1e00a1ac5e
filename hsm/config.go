package hsm

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// Config says which token, and how to reach it.
type Config struct {
	// Module is the absolute path of the PKCS#11 module.
	Module string
	// TokenLabel and TokenSerial select the token, or URI does; together they must
	// match exactly one. Slot numbers are never used.
	TokenLabel  string
	TokenSerial string
	// URI is a PKCS#11 URI (RFC 7512) of a token, in place of label and serial:
	// "pkcs11:token=sigild;serial=1234". [CheckURI] says what it may hold.
	URI string
	// AllowImportedKEK accepts a KEK that was, or may have been, outside the token.
	AllowImportedKEK bool
	// PINFile holds the user PIN; one newline at its end is not part of it. A
	// regular file that others can't read, at most 256 bytes.
	PINFile string
	// LatchFile remembers a refused PIN. Its directory exists and is ours.
	LatchFile string
	// CallTimeout bounds every call, and how long a worker may be silent; 0: 5 s.
	CallTimeout time.Duration
	// EnvAllow are names of variables that the worker gets from our environment,
	// besides those of well-known modules; a name ending in _ is a prefix, and
	// "NAME=value" sets one for the worker alone.
	EnvAllow []string
	// Worker is the argv of the worker; empty: {"/proc/self/exe", "hsm-worker"}.
	Worker []string
	// Log gets starts and losses of workers; nil: nothing is logged.
	Log *slog.Logger
}

const defaultCallTimeout = 5 * time.Second

// complete checks c and fills in the defaults.
func (c Config) complete() (Config, error) {
	switch {
	case !filepath.IsAbs(c.Module):
		return c, fmt.Errorf("checking the HSM configuration: module %q is not an absolute path", c.Module)
	case c.URI != "" && (c.TokenLabel != "" || c.TokenSerial != ""):
		return c, errors.New("checking the HSM configuration: a URI and a token label or serial exclude each other")
	case c.URI == "" && c.TokenLabel == "" && c.TokenSerial == "":
		return c, errors.New("checking the HSM configuration: neither token label nor serial nor URI is set")
	case len(c.TokenLabel) > 32 || len(c.TokenSerial) > 16:
		return c, errors.New("checking the HSM configuration: a label has at most 32 bytes and a serial 16")
	case c.PINFile == "":
		return c, errors.New("checking the HSM configuration: no PIN file")
	case c.LatchFile == "":
		return c, errors.New("checking the HSM configuration: no latch file")
	case c.CallTimeout < 0:
		return c, errors.New("checking the HSM configuration: negative call timeout")
	}
	if c.URI != "" {
		if err := CheckURI(c.URI); err != nil {
			return c, fmt.Errorf("checking the HSM configuration: %w", err)
		}
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = defaultCallTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// selection is what a token must be; an empty text says nothing.
type selection struct{ label, serial, manufacturer, model string }

// selection is what c says of the token. c is complete.
func (c Config) selection() selection {
	if c.URI != "" {
		who, _ := parseURI(c.URI) // complete has seen to it
		return who
	}
	return selection{label: c.TokenLabel, serial: c.TokenSerial}
}

// String names what is selected, for errors.
func (who selection) String() string {
	s := fmt.Sprintf("%q serial %q", who.label, who.serial)
	if who.manufacturer != "" || who.model != "" {
		s += fmt.Sprintf(" manufacturer %q model %q", who.manufacturer, who.model)
	}
	return s
}
