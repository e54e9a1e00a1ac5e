//go:build cgo

package hsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// maxPIN is the longest PIN in bytes.
const maxPIN = 256

// token is the token that the worker is logged in to.
type token struct {
	mod  *pkcs11.Ctx // nil until start has succeeded
	slot uint
	// login is never used for work: when the last session of a process closes,
	// every private object handle dies (PKCS#11 v3.1 §5.6).
	login pkcs11.SessionHandle
	// work is what operations share; no operation is active on it between them.
	// Zero: there is none. A network HSM answers to few sessions opened in a row.
	work pkcs11.SessionHandle
	// allowImported: a KEK may have been outside the token.
	allowImported bool
	// known holds the keys that were found and checked; known.go.
	known map[knownID]knownKey
}

// start loads the module, finds the token and logs in. After an error the worker
// is of no use.
func (t *token) start(module string, who selection, pinFile string) error {
	if t.mod != nil {
		return newFault(errRefused, "started twice")
	}
	mod, err := loadModule(module)
	if err != nil {
		return err
	}
	slot, flags, err := findToken(mod, who)
	if err != nil {
		return err
	}
	if err := checkPINFlags(flags); err != nil {
		return err
	}
	login, err := mod.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return p11Fault("C_OpenSession", err)
	}
	err = withPIN(pinFile, func(pin string) error { return mod.Login(login, pkcs11.CKU_USER, pin) })
	if err != nil && !errors.Is(err, pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)) {
		var f *fault
		if errors.As(err, &f) { // the file, not the token
			return f
		}
		return p11Fault("C_Login", err)
	}
	t.mod, t.slot, t.login = mod, slot, login
	return nil
}

// close ends everything in order; a killed worker never gets here.
func (t *token) close() {
	if t.mod == nil {
		return
	}
	_ = t.mod.Finalize() // also logs out and closes sessions; we exit either way
	t.mod = nil
}

// matches says whether the token is one of those selected.
func (who selection) matches(ti pkcs11.TokenInfo) bool {
	for _, is := range []struct{ want, have string }{
		{who.label, ti.Label}, {who.serial, ti.SerialNumber}, {who.manufacturer, ti.ManufacturerID}, {who.model, ti.Model},
	} {
		if is.want != "" && is.want != is.have {
			return false
		}
	}
	return true
}

// findToken returns the slot and flags of the only token that matches.
func findToken(mod *pkcs11.Ctx, who selection) (slot, flags uint, err error) {
	if who == (selection{}) {
		return 0, 0, newFault(errRefused, "nothing selects the token")
	}
	slots, err := mod.GetSlotList(true)
	if err != nil {
		return 0, 0, p11Fault("C_GetSlotList", err)
	}
	matches := 0
	var seen []string
	silent := 0 // slots that tell nothing; ours may be among them
	for _, s := range slots {
		ti, err := mod.GetTokenInfo(s)
		if err != nil {
			seen = append(seen, "one that gives no information ("+p11Fault("C_GetTokenInfo", err).Error()+")")
			silent++
			continue
		}
		if ti.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue
		}
		seen = append(seen, strconv.Quote(ti.Label)+" serial "+strconv.Quote(ti.SerialNumber))
		if who.matches(ti) {
			matches++
			slot, flags = s, ti.Flags
		}
	}
	switch {
	case matches == 1:
		return slot, flags, nil
	case matches > 1:
		return 0, 0, newFault(seal.ErrAmbiguous, "finding token %s: %d match; hint: set the token's serial; there are %s",
			who, matches, strings.Join(seen, ", "))
	case silent > 0:
		return 0, 0, newFault(seal.ErrUnavailable, "finding token %s: no match; there are %s", who, strings.Join(seen, ", "))
	case len(seen) == 0:
		return 0, 0, newFault(seal.ErrNotFound, "finding token %s: the module shows no initialised token; hint: check the module's own configuration and that the worker may read it (EnvAllow)",
			who)
	}
	return 0, 0, newFault(seal.ErrNotFound, "finding token %s: no match; hint: there are %s", who, strings.Join(seen, ", "))
}

// checkPINFlags looks at what the token says of its PIN before one is tried.
func checkPINFlags(flags uint) error {
	switch {
	case flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return newFault(seal.ErrLocked, "before login the token says CKF_USER_PIN_LOCKED; hint: the security officer must unlock it")
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return newFault(ErrFinalTry, "before login the token says CKF_USER_PIN_FINAL_TRY; hint: log in by hand with the right PIN once")
	case flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0:
		return newFault(seal.ErrPolicy, "before login the token says that no user PIN is set; hint: initialise it with the vendor's tool")
	case flags&pkcs11.CKF_USER_PIN_TO_BE_CHANGED != 0:
		return newFault(seal.ErrPolicy, "before login the token says CKF_USER_PIN_TO_BE_CHANGED; hint: change it with the vendor's tool")
	}
	return nil
}

// withPIN lends the PIN in the file at path. The string is a view of locked
// memory that is wiped on return: use must not keep it. An error of ours is a
// *fault.
func withPIN(path string, use func(pin string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return newFault(seal.ErrUnavailable, "opening the PIN file: %v", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return newFault(seal.ErrUnavailable, "reading the PIN file: %v", err)
	}
	// A group bit for reading is let through: systemd shows the ACL mask of a
	// credential there.
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o037 != 0 {
		return newFault(seal.ErrPolicy, "reading the PIN file %s: mode %s, want a regular file that others can't read (0400)", path, info.Mode())
	}
	buf, err := secmem.New(maxPIN + 2)
	if err != nil {
		return newFault(seal.ErrUnavailable, "reading the PIN file: %v", err)
	}
	defer buf.Destroy()
	return buf.Use(func(b []byte) error {
		n, err := io.ReadFull(f, b)
		if err == nil {
			return newFault(seal.ErrPolicy, "reading the PIN file %s: more than %d bytes", path, maxPIN)
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return newFault(seal.ErrUnavailable, "reading the PIN file: %v", err)
		}
		pin := bytes.TrimSuffix(b[:n], []byte{'\n'})
		if len(pin) == 0 || len(pin) > maxPIN {
			return newFault(seal.ErrPolicy, "reading the PIN file %s: %d bytes, want 1 to %d", path, len(pin), maxPIN)
		}
		return use(unsafe.String(&pin[0], len(pin)))
	})
}

// info is the reply of opInfo, see boundsToken.
func (t *token) info() ([][]byte, error) {
	ti, err := t.mod.GetTokenInfo(t.slot)
	if err != nil {
		return nil, p11Fault("C_GetTokenInfo", err)
	}
	var flags uint32
	if ti.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0 {
		flags |= flagPINCountLow
	}
	firmware := strconv.Itoa(int(ti.FirmwareVersion.Major)) + "." + strconv.Itoa(int(ti.FirmwareVersion.Minor))
	return [][]byte{
		[]byte(ti.Label), []byte(ti.SerialNumber), []byte(ti.ManufacturerID), []byte(ti.Model), []byte(firmware),
		binary.BigEndian.AppendUint32(nil, flags),
	}, nil
}

// session lends the work session to one operation, or with flags a session of its
// own. After an error the session is closed, whatever the error was: one that saw
// an error between Init and the last call stays busy for ever.
func (t *token) session(flags uint, use func(s pkcs11.SessionHandle) error) error {
	if flags != 0 {
		s, err := t.open(flags)
		if err != nil {
			return err
		}
		err = use(s)
		if cerr := t.mod.CloseSession(s); cerr != nil && err == nil {
			return p11Fault("C_CloseSession", cerr)
		}
		return err
	}
	if t.work == 0 {
		s, err := t.open(0)
		if err != nil {
			return err
		}
		t.work = s
	}
	s := t.work
	err := use(s)
	if err != nil && t.work == s { // not yet closed by an operation inside this one
		t.dropSession()
	}
	return err
}

func (t *token) open(flags uint) (pkcs11.SessionHandle, error) {
	s, err := t.mod.OpenSession(t.slot, pkcs11.CKF_SERIAL_SESSION|flags)
	if err != nil {
		return 0, p11Fault("C_OpenSession", err)
	}
	return s, nil
}

// dropSession closes the work session; the next operation opens another.
func (t *token) dropSession() {
	if t.work != 0 {
		_ = t.mod.CloseSession(t.work) // it is of no use either way
		t.work = 0
	}
}

// climb prepares a second try of a request; see the supervisor's ladder.
func (t *token) climb(r rung) {
	if r >= rungSession {
		t.dropSession()
	}
	if r >= rungFind {
		t.known = nil
	}
}
