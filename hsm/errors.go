package hsm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// ErrFinalTry means that the token says one PIN try is left. It is not used. It
// is a [seal.ErrLocked].
var ErrFinalTry = fmt.Errorf("%w: one try is left and it is kept for a human", seal.ErrLocked)

// ErrPoisoned means that this very request has ended two workers. It is refused for
// ten minutes without being tried. It is a [seal.ErrUnavailable].
var ErrPoisoned = fmt.Errorf("%w: this request has ended two HSM workers and is not tried again", seal.ErrUnavailable)

// errRefused is the worker's answer to a request it can't make sense of.
var errRefused = errors.New("hsm worker refused the request")

// class is the kind of a fault on the wire.
type class uint8

const (
	classOK class = iota
	classTampered
	classUnavailable
	classAuth
	classLocked
	classFinalTry
	classNotFound
	classAmbiguous
	classPolicy
	classUnsupported
	classRefused
)

// classErrors has the error of each class.
var classErrors = [...]error{
	classTampered:    seal.ErrTampered,
	classUnavailable: seal.ErrUnavailable,
	classAuth:        seal.ErrAuth,
	classLocked:      seal.ErrLocked,
	classFinalTry:    ErrFinalTry,
	classNotFound:    seal.ErrNotFound,
	classAmbiguous:   seal.ErrAmbiguous,
	classPolicy:      seal.ErrPolicy,
	classUnsupported: seal.ErrUnsupported,
	classRefused:     errRefused,
}

func (c class) known() bool { return int(c) < len(classErrors) }

// fault is an error that crossed, or will cross, from the worker.
type fault struct {
	class class
	code  uint32 // CKR code; 0: the fault is ours
	text  string // what was tried; never holds a secret
}

// newFault makes a fault that has no CKR code. err is one of classErrors.
func newFault(err error, format string, args ...any) *fault {
	for c, e := range classErrors {
		if e == err && e != nil { // identity: ErrFinalTry is also an ErrLocked
			return &fault{class: class(c), text: fmt.Sprintf(format, args...)}
		}
	}
	return &fault{class: classUnavailable, text: fmt.Sprintf(format, args...)}
}

// blamesInput says that the code of a failed opening may be about what was to be
// opened: SoftHSM 2.6 says CKR_GENERAL_ERROR for a wrong tag.
func (f *fault) blamesInput() bool { return f.class == classTampered || f.class == classUnavailable }

// Error is the text, the CKR name if there is one, and the sentinel's words.
func (f *fault) Error() string {
	// A hint, which says what to do, stays last.
	s, hint, hinted := strings.Cut(f.text, "; hint: ")
	if f.code != 0 {
		name, _ := lookupCKR(uint(f.code))
		s += ": " + name
	}
	s += ": " + f.Unwrap().Error()
	if hinted {
		s += "; hint: " + hint
	}
	return s
}

// Unwrap is the sentinel.
func (f *fault) Unwrap() error {
	if f.class == classOK || !f.class.known() {
		return seal.ErrUnavailable
	}
	return classErrors[f.class]
}

// printable makes a text from the worker fit for a log line.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, string(b))
}

// ckr is a return code of PKCS#11 v2.40 / v3.1 §6.1.
type ckr struct {
	name string
	err  error // the sentinel it means to a caller, whatever call gave it
}

// lookupCKR names a code and says what it means. Codes we don't know, and the
// vendor's own, are a device that doesn't answer as it should.
func lookupCKR(code uint) (name string, err error) {
	if c, ok := ckrTable[code]; ok {
		return c.name, c.err
	}
	return fmt.Sprintf("CKR 0x%08X", code), seal.ErrUnavailable
}

// meaning is what a code means when this call gave it. Two kinds mean something from
// some calls alone, and from any other that the module is confused: that sealed bytes
// don't authenticate, from calls that open; that the PIN is wrong, from C_Login, which
// a new worker asks again, once.
func meaning(call string, code uint) error {
	function, _, _ := strings.Cut(call, " ")
	_, err := lookupCKR(code)
	switch {
	case err == seal.ErrTampered && function != "C_Decrypt" && function != "C_UnwrapKey":
		return seal.ErrUnavailable
	case (err == seal.ErrAuth || err == seal.ErrLocked) && function != "C_Login":
		return seal.ErrUnavailable
	}
	return err
}

// Codes of PKCS#11 v3.0 that the bindings don't have.
const (
	ckrAEADDecryptFailed     = 0x42
	ckrTokenResourceExceeded = 0x201
	ckrOperationCancelFailed = 0x202
	ckrKeyExhausted          = 0x203
)

// ckrTable and meaning are where a PKCS#11 code becomes an error of ours. A
// failed C_Decrypt is the exception: there the canary decides (wrap.go), because
// SoftHSM 2.6 says CKR_GENERAL_ERROR for a wrong tag.
var ckrTable = map[uint]ckr{
	// The blob, not the device.
	pkcs11.CKR_ENCRYPTED_DATA_INVALID:   {"CKR_ENCRYPTED_DATA_INVALID", seal.ErrTampered},
	pkcs11.CKR_ENCRYPTED_DATA_LEN_RANGE: {"CKR_ENCRYPTED_DATA_LEN_RANGE", seal.ErrTampered},
	pkcs11.CKR_SIGNATURE_INVALID:        {"CKR_SIGNATURE_INVALID", seal.ErrTampered},
	pkcs11.CKR_SIGNATURE_LEN_RANGE:      {"CKR_SIGNATURE_LEN_RANGE", seal.ErrTampered},
	pkcs11.CKR_WRAPPED_KEY_INVALID:      {"CKR_WRAPPED_KEY_INVALID", seal.ErrTampered},
	pkcs11.CKR_WRAPPED_KEY_LEN_RANGE:    {"CKR_WRAPPED_KEY_LEN_RANGE", seal.ErrTampered},

	ckrAEADDecryptFailed: {"CKR_AEAD_DECRYPT_FAILED", seal.ErrTampered},

	// The PIN. From C_Login all of these but the last are latched.
	pkcs11.CKR_PIN_INCORRECT:            {"CKR_PIN_INCORRECT", seal.ErrAuth},
	pkcs11.CKR_PIN_INVALID:              {"CKR_PIN_INVALID", seal.ErrAuth},
	pkcs11.CKR_PIN_LEN_RANGE:            {"CKR_PIN_LEN_RANGE", seal.ErrAuth},
	pkcs11.CKR_PIN_EXPIRED:              {"CKR_PIN_EXPIRED", seal.ErrAuth},
	pkcs11.CKR_PIN_TOO_WEAK:             {"CKR_PIN_TOO_WEAK", seal.ErrAuth},
	pkcs11.CKR_NEW_PIN_MODE:             {"CKR_NEW_PIN_MODE", seal.ErrAuth},
	pkcs11.CKR_NEXT_OTP:                 {"CKR_NEXT_OTP", seal.ErrAuth},
	pkcs11.CKR_PIN_LOCKED:               {"CKR_PIN_LOCKED", seal.ErrLocked},
	pkcs11.CKR_EXCEEDED_MAX_ITERATIONS:  {"CKR_EXCEEDED_MAX_ITERATIONS", seal.ErrLocked},
	pkcs11.CKR_USER_PIN_NOT_INITIALIZED: {"CKR_USER_PIN_NOT_INITIALIZED", seal.ErrPolicy},

	// The key is not what we insist on, or forbids what we asked.
	pkcs11.CKR_ACTION_PROHIBITED:                {"CKR_ACTION_PROHIBITED", seal.ErrPolicy},
	pkcs11.CKR_ATTRIBUTE_READ_ONLY:              {"CKR_ATTRIBUTE_READ_ONLY", seal.ErrPolicy},
	pkcs11.CKR_ATTRIBUTE_SENSITIVE:              {"CKR_ATTRIBUTE_SENSITIVE", seal.ErrPolicy},
	pkcs11.CKR_ATTRIBUTE_TYPE_INVALID:           {"CKR_ATTRIBUTE_TYPE_INVALID", seal.ErrPolicy},
	pkcs11.CKR_ATTRIBUTE_VALUE_INVALID:          {"CKR_ATTRIBUTE_VALUE_INVALID", seal.ErrPolicy},
	pkcs11.CKR_TEMPLATE_INCOMPLETE:              {"CKR_TEMPLATE_INCOMPLETE", seal.ErrPolicy},
	pkcs11.CKR_TEMPLATE_INCONSISTENT:            {"CKR_TEMPLATE_INCONSISTENT", seal.ErrPolicy},
	pkcs11.CKR_KEY_SIZE_RANGE:                   {"CKR_KEY_SIZE_RANGE", seal.ErrPolicy},
	pkcs11.CKR_KEY_TYPE_INCONSISTENT:            {"CKR_KEY_TYPE_INCONSISTENT", seal.ErrPolicy},
	pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED:       {"CKR_KEY_FUNCTION_NOT_PERMITTED", seal.ErrPolicy},
	pkcs11.CKR_KEY_NOT_WRAPPABLE:                {"CKR_KEY_NOT_WRAPPABLE", seal.ErrPolicy},
	pkcs11.CKR_KEY_UNEXTRACTABLE:                {"CKR_KEY_UNEXTRACTABLE", seal.ErrPolicy},
	pkcs11.CKR_KEY_CHANGED:                      {"CKR_KEY_CHANGED", seal.ErrPolicy},
	pkcs11.CKR_KEY_NEEDED:                       {"CKR_KEY_NEEDED", seal.ErrPolicy},
	pkcs11.CKR_KEY_NOT_NEEDED:                   {"CKR_KEY_NOT_NEEDED", seal.ErrPolicy},
	pkcs11.CKR_KEY_INDIGESTIBLE:                 {"CKR_KEY_INDIGESTIBLE", seal.ErrPolicy},
	pkcs11.CKR_PUBLIC_KEY_INVALID:               {"CKR_PUBLIC_KEY_INVALID", seal.ErrPolicy},
	ckrKeyExhausted:                             {"CKR_KEY_EXHAUSTED", seal.ErrPolicy},
	pkcs11.CKR_TOKEN_WRITE_PROTECTED:            {"CKR_TOKEN_WRITE_PROTECTED", seal.ErrPolicy},
	pkcs11.CKR_INFORMATION_SENSITIVE:            {"CKR_INFORMATION_SENSITIVE", seal.ErrPolicy},
	pkcs11.CKR_UNWRAPPING_KEY_SIZE_RANGE:        {"CKR_UNWRAPPING_KEY_SIZE_RANGE", seal.ErrPolicy},
	pkcs11.CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT: {"CKR_UNWRAPPING_KEY_TYPE_INCONSISTENT", seal.ErrPolicy},
	pkcs11.CKR_WRAPPING_KEY_SIZE_RANGE:          {"CKR_WRAPPING_KEY_SIZE_RANGE", seal.ErrPolicy},
	pkcs11.CKR_WRAPPING_KEY_TYPE_INCONSISTENT:   {"CKR_WRAPPING_KEY_TYPE_INCONSISTENT", seal.ErrPolicy},

	// The device or its module can't do it.
	pkcs11.CKR_FUNCTION_NOT_SUPPORTED:         {"CKR_FUNCTION_NOT_SUPPORTED", seal.ErrUnsupported},
	pkcs11.CKR_FUNCTION_NOT_PARALLEL:          {"CKR_FUNCTION_NOT_PARALLEL", seal.ErrUnsupported},
	pkcs11.CKR_MECHANISM_INVALID:              {"CKR_MECHANISM_INVALID", seal.ErrUnsupported},
	pkcs11.CKR_MECHANISM_PARAM_INVALID:        {"CKR_MECHANISM_PARAM_INVALID", seal.ErrUnsupported},
	pkcs11.CKR_CURVE_NOT_SUPPORTED:            {"CKR_CURVE_NOT_SUPPORTED", seal.ErrUnsupported},
	pkcs11.CKR_DOMAIN_PARAMS_INVALID:          {"CKR_DOMAIN_PARAMS_INVALID", seal.ErrUnsupported},
	pkcs11.CKR_RANDOM_NO_RNG:                  {"CKR_RANDOM_NO_RNG", seal.ErrUnsupported},
	pkcs11.CKR_RANDOM_SEED_NOT_SUPPORTED:      {"CKR_RANDOM_SEED_NOT_SUPPORTED", seal.ErrUnsupported},
	pkcs11.CKR_SESSION_PARALLEL_NOT_SUPPORTED: {"CKR_SESSION_PARALLEL_NOT_SUPPORTED", seal.ErrUnsupported},
	pkcs11.CKR_STATE_UNSAVEABLE:               {"CKR_STATE_UNSAVEABLE", seal.ErrUnsupported},
	pkcs11.CKR_NEED_TO_CREATE_THREADS:         {"CKR_NEED_TO_CREATE_THREADS", seal.ErrUnsupported},
	pkcs11.CKR_CANT_LOCK:                      {"CKR_CANT_LOCK", seal.ErrUnsupported},

	// The device, the module or our session is in a state that a fresh worker may
	// cure: the worker is replaced.
	pkcs11.CKR_CANCEL:                         {"CKR_CANCEL", seal.ErrUnavailable},
	pkcs11.CKR_HOST_MEMORY:                    {"CKR_HOST_MEMORY", seal.ErrUnavailable},
	pkcs11.CKR_SLOT_ID_INVALID:                {"CKR_SLOT_ID_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_GENERAL_ERROR:                  {"CKR_GENERAL_ERROR", seal.ErrUnavailable},
	pkcs11.CKR_FUNCTION_FAILED:                {"CKR_FUNCTION_FAILED", seal.ErrUnavailable},
	pkcs11.CKR_ARGUMENTS_BAD:                  {"CKR_ARGUMENTS_BAD", seal.ErrUnavailable},
	pkcs11.CKR_NO_EVENT:                       {"CKR_NO_EVENT", seal.ErrUnavailable},
	pkcs11.CKR_DATA_INVALID:                   {"CKR_DATA_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_DATA_LEN_RANGE:                 {"CKR_DATA_LEN_RANGE", seal.ErrUnavailable},
	pkcs11.CKR_DEVICE_ERROR:                   {"CKR_DEVICE_ERROR", seal.ErrUnavailable},
	pkcs11.CKR_DEVICE_MEMORY:                  {"CKR_DEVICE_MEMORY", seal.ErrUnavailable},
	pkcs11.CKR_DEVICE_REMOVED:                 {"CKR_DEVICE_REMOVED", seal.ErrUnavailable},
	pkcs11.CKR_FUNCTION_CANCELED:              {"CKR_FUNCTION_CANCELED", seal.ErrUnavailable},
	pkcs11.CKR_FUNCTION_REJECTED:              {"CKR_FUNCTION_REJECTED", seal.ErrUnavailable},
	pkcs11.CKR_KEY_HANDLE_INVALID:             {"CKR_KEY_HANDLE_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_OBJECT_HANDLE_INVALID:          {"CKR_OBJECT_HANDLE_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_UNWRAPPING_KEY_HANDLE_INVALID:  {"CKR_UNWRAPPING_KEY_HANDLE_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_WRAPPING_KEY_HANDLE_INVALID:    {"CKR_WRAPPING_KEY_HANDLE_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_OPERATION_ACTIVE:               {"CKR_OPERATION_ACTIVE", seal.ErrUnavailable},
	pkcs11.CKR_OPERATION_NOT_INITIALIZED:      {"CKR_OPERATION_NOT_INITIALIZED", seal.ErrUnavailable},
	pkcs11.CKR_SESSION_CLOSED:                 {"CKR_SESSION_CLOSED", seal.ErrUnavailable},
	pkcs11.CKR_SESSION_COUNT:                  {"CKR_SESSION_COUNT", seal.ErrUnavailable},
	pkcs11.CKR_SESSION_HANDLE_INVALID:         {"CKR_SESSION_HANDLE_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_SESSION_READ_ONLY:              {"CKR_SESSION_READ_ONLY", seal.ErrUnavailable},
	pkcs11.CKR_SESSION_EXISTS:                 {"CKR_SESSION_EXISTS", seal.ErrUnavailable},
	pkcs11.CKR_SESSION_READ_ONLY_EXISTS:       {"CKR_SESSION_READ_ONLY_EXISTS", seal.ErrUnavailable},
	pkcs11.CKR_SESSION_READ_WRITE_SO_EXISTS:   {"CKR_SESSION_READ_WRITE_SO_EXISTS", seal.ErrUnavailable},
	pkcs11.CKR_TOKEN_NOT_PRESENT:              {"CKR_TOKEN_NOT_PRESENT", seal.ErrUnavailable},
	pkcs11.CKR_TOKEN_NOT_RECOGNIZED:           {"CKR_TOKEN_NOT_RECOGNIZED", seal.ErrUnavailable},
	pkcs11.CKR_USER_ALREADY_LOGGED_IN:         {"CKR_USER_ALREADY_LOGGED_IN", seal.ErrUnavailable},
	pkcs11.CKR_USER_NOT_LOGGED_IN:             {"CKR_USER_NOT_LOGGED_IN", seal.ErrUnavailable},
	pkcs11.CKR_USER_TYPE_INVALID:              {"CKR_USER_TYPE_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN: {"CKR_USER_ANOTHER_ALREADY_LOGGED_IN", seal.ErrUnavailable},
	pkcs11.CKR_USER_TOO_MANY_TYPES:            {"CKR_USER_TOO_MANY_TYPES", seal.ErrUnavailable},
	pkcs11.CKR_BUFFER_TOO_SMALL:               {"CKR_BUFFER_TOO_SMALL", seal.ErrUnavailable},
	pkcs11.CKR_SAVED_STATE_INVALID:            {"CKR_SAVED_STATE_INVALID", seal.ErrUnavailable},
	pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED:       {"CKR_CRYPTOKI_NOT_INITIALIZED", seal.ErrUnavailable},
	pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED:   {"CKR_CRYPTOKI_ALREADY_INITIALIZED", seal.ErrUnavailable},
	pkcs11.CKR_MUTEX_BAD:                      {"CKR_MUTEX_BAD", seal.ErrUnavailable},
	pkcs11.CKR_MUTEX_NOT_LOCKED:               {"CKR_MUTEX_NOT_LOCKED", seal.ErrUnavailable},
	pkcs11.CKR_FIPS_SELF_TEST_FAILED:          {"CKR_FIPS_SELF_TEST_FAILED", seal.ErrUnavailable},
	pkcs11.CKR_LIBRARY_LOAD_FAILED:            {"CKR_LIBRARY_LOAD_FAILED", seal.ErrUnavailable},
	ckrTokenResourceExceeded:                  {"CKR_TOKEN_RESOURCE_EXCEEDED", seal.ErrUnavailable},
	ckrOperationCancelFailed:                  {"CKR_OPERATION_CANCEL_FAILED", seal.ErrUnavailable},
	pkcs11.CKR_VENDOR_DEFINED:                 {"CKR_VENDOR_DEFINED", seal.ErrUnavailable},
}
