package tpm

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// Config says which TPM, and how to reach it.
type Config struct {
	// Path is the device of the kernel's resource manager (empty: /dev/tpmrm0), or
	// "unix:" and the absolute path of an emulator's command socket. An emulator
	// protects nothing and must have no other client while it is ours.
	Path string
	// CommandTimeout bounds every TPM command; 0: 10 s. A call of ours is a few
	// commands. Discrete TPMs take up to a second for one that makes a key.
	CommandTimeout time.Duration
	// SRKName pins the storage root key: its TPM Name, 34 bytes (000b and a
	// SHA-256), as [Provider.SRKName] gave it at provisioning. Empty: the SRK that
	// answers is believed, which is right once, at the first provisioning.
	SRKName []byte
	// SecretFile holds 32 random bytes from outside the TPM (a systemd credential),
	// in a regular file that others can't read. Who has the TPM and its bus, but not
	// this file, opens nothing. Empty: no outside secret; see TrustBus.
	SecretFile string
	// TrustBus says that nobody can get at the TPM's bus, which then needs no outside
	// secret: a TPM in the processor, as firmware of the machine, or of the hypervisor.
	// Without SecretFile and without this, only TPMs whose maker makes no chips of their
	// own are used.
	TrustBus bool
	// PINFile holds a PIN of 1 to 256 bytes, in a regular file that others can't read; one
	// newline at its end is no part of it. It goes into the auth value of what is sealed,
	// and the TPM then counts wrong tries. Empty: no PIN.
	PINFile string
	// LatchFile remembers a refused PIN; needed with PINFile. Its directory exists and
	// is ours.
	LatchFile string
	// PCR binds what is sealed to approved boot states; nil: to none.
	PCR *PCRPolicy
	// Log gets the connections that were lost; nil: nothing is logged.
	Log *slog.Logger
}

const (
	defaultPath           = "/dev/tpmrm0"
	defaultCommandTimeout = 10 * time.Second
	emulatorPrefix        = "unix:"
)

// rawDevice is a TPM without the kernel's resource manager.
var rawDevice = regexp.MustCompile(`^/dev/tpm[0-9]+$`)

// complete checks c and fills in the defaults.
func (c Config) complete() (Config, error) {
	if c.Path == "" {
		c.Path = defaultPath
	}
	switch path := strings.TrimPrefix(c.Path, emulatorPrefix); {
	case !filepath.IsAbs(path) || strings.ContainsRune(path, 0):
		return c, fmt.Errorf("checking the TPM configuration: path %q is neither an absolute path nor unix: and one", c.Path)
	case rawDevice.MatchString(c.Path):
		return c, fmt.Errorf("checking the TPM configuration: %s has no resource manager; hint: use /dev/tpmrm%s", c.Path, strings.TrimPrefix(c.Path, "/dev/tpm"))
	case c.CommandTimeout < 0:
		return c, errors.New("checking the TPM configuration: negative command timeout")
	case len(c.SRKName) != 0 && !isName(c.SRKName):
		return c, fmt.Errorf("checking the TPM configuration: the pinned SRK name has %d bytes, want 34 that begin with 000b", len(c.SRKName))
	case c.PINFile != "" && (!filepath.IsAbs(c.PINFile) || !filepath.IsAbs(c.LatchFile)):
		return c, fmt.Errorf("checking the TPM configuration: PIN file %q and its latch %q are not absolute paths", c.PINFile, c.LatchFile)
	case c.SecretFile != "" && !filepath.IsAbs(c.SecretFile):
		return c, fmt.Errorf("checking the TPM configuration: secret file %q is not an absolute path", c.SecretFile)
	}
	if err := c.PCR.check(); err != nil {
		return c, err
	}
	if c.CommandTimeout == 0 {
		c.CommandTimeout = defaultCommandTimeout
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c, nil
}

// emulator says whether the path is a socket: no kernel looks after what we load.
func (c Config) emulator() bool { return strings.HasPrefix(c.Path, emulatorPrefix) }
