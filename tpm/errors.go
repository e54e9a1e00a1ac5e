package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// meaning is what a response code (TPM 2.0 Library Part 2 §6.6) means to a caller.
type meaning struct {
	code tpm2.TPMRC
	err  error // the sentinel
	// again: what was loaded is gone or in the way; starting over on a fresh
	// connection, once, may cure it.
	again bool
	hint  string // what to do, may be empty
}

// meanings is the one place where a TPM's code becomes an error of ours. A code
// that is not here is a TPM that doesn't answer as it should. Format-1 codes carry
// the number of the handle, parameter or session: they are compared with errors.Is.
var meanings = []meaning{
	// The blob, not the TPM. Load also calls every other complaint about its
	// parameters tampered (sealed.go).
	{tpm2.TPMRCIntegrity, seal.ErrTampered, false, "the blob was changed, or another TPM made it; if the SRK is the pinned one, find out who wrote to the store"},

	// The auth value. Objects of ours are noDA: a wrong one costs no tries.
	{tpm2.TPMRCBadAuth, seal.ErrAuth, false, wrongSecret},
	{tpm2.TPMRCAuthFail, seal.ErrAuth, false, wrongSecret},
	{tpm2.TPMRCLockout, seal.ErrLocked, false,
		"the TPM counts wrong tries and waits; tpm2_getcap properties-variable shows LOCKOUT_COUNTER and LOCKOUT_INTERVAL, the owner of the lockout password can reset it"},

	// The object or the TPM's state forbids it.
	{tpm2.TPMRCPolicyFail, seal.ErrPolicy, false, notApproved},
	{tpm2.TPMRCPolicy, seal.ErrPolicy, false, notApproved},
	{tpm2.TPMRCPolicyCC, seal.ErrPolicy, false, ourMistake},
	{tpm2.TPMRCPCR, seal.ErrPolicy, false, notApproved},
	{tpm2.TPMRCPCRChanged, seal.ErrPolicy, false, "something extends PCRs all the time; find out what"},
	{tpm2.TPMRCValue, seal.ErrPolicy, false, ourMistake},
	{tpm2.TPMRCTicket, seal.ErrPolicy, false, notApproved},
	{tpm2.TPMRCSignature, seal.ErrPolicy, false, "an approval is not signed by its approver; sigilctl pcr show tells which"},
	{tpm2.TPMRCAuthUnavailable, seal.ErrPolicy, false, ourMistake},
	{tpm2.TPMRCAuthType, seal.ErrPolicy, false, ourMistake},
	{tpm2.TPMRCAttributes, seal.ErrPolicy, false, ourMistake},
	{tpm2.TPMRCNVAuthorization, seal.ErrPolicy, false, "somebody put another NV index in the place of our counter"},
	{tpm2.TPMRCNVLocked, seal.ErrPolicy, false, "somebody locked our counter until the next restart of the host"},
	{tpm2.TPMRCHierarchy, seal.ErrPolicy, false, "the owner hierarchy is disabled; enable it in the firmware and restart the host"},
	{tpm2.TPMRCDisabled, seal.ErrPolicy, false, "the command is disabled in this TPM"},

	// The TPM can't do it.
	{tpm2.TPMRCCommandCode, seal.ErrUnsupported, false, "the TPM is older than the PC Client profile 1.03, or its firmware needs an update"},
	{tpm2.TPMRCAsymmetric, seal.ErrUnsupported, false, "the TPM must have RSA with 2048 bits and ECC"},
	{tpm2.TPMRCKeySize, seal.ErrUnsupported, false, "the TPM must have RSA with 2048 bits and AES-128"},
	{tpm2.TPMRCCurve, seal.ErrUnsupported, false, "the TPM must have NIST P-256"},
	{tpm2.TPMRCScheme, seal.ErrUnsupported, false, "the TPM must have ECDSA with SHA-256"},
	{tpm2.TPMRCSymmetric, seal.ErrUnsupported, false, "the TPM must have AES-128"},
	{tpm2.TPMRCMode, seal.ErrUnsupported, false, "the TPM must have CFB"},
	{tpm2.TPMRCHash, seal.ErrUnsupported, false, "the TPM must have SHA-256"},

	// What was loaded is gone: a reset, a resume, a power loss.
	{tpm2.TPMRCHandle, seal.ErrUnavailable, true, wasReset},
	{tpm2.TPMRCReferenceH0, seal.ErrUnavailable, true, wasReset},
	{tpm2.TPMRCReferenceH1, seal.ErrUnavailable, true, wasReset},
	{tpm2.TPMRCReferenceH2, seal.ErrUnavailable, true, wasReset},
	{tpm2.TPMRCReferenceS0, seal.ErrUnavailable, true, wasReset},
	{tpm2.TPMRCReferenceS1, seal.ErrUnavailable, true, wasReset},
	{tpm2.TPMRCReferenceS2, seal.ErrUnavailable, true, wasReset},
	{tpm2.TPMRCInitialize, seal.ErrUnavailable, true, "nobody sent TPM2_Startup: the firmware left the TPM alone; restart the host"},
	{tpm2.TPMRCReboot, seal.ErrUnavailable, false, "the TPM wants a restart of the host"},

	// No room for what we load.
	{tpm2.TPMRCObjectMemory, seal.ErrUnavailable, true, fullOfOthers},
	{tpm2.TPMRCSessionMemory, seal.ErrUnavailable, true, fullOfOthers},
	{tpm2.TPMRCMemory, seal.ErrUnavailable, true, fullOfOthers},
	{tpm2.TPMRCObjectHandles, seal.ErrUnavailable, true, fullOfOthers},
	{tpm2.TPMRCSessionHandles, seal.ErrUnavailable, true, fullOfOthers},
	{tpm2.TPMRCContextGap, seal.ErrUnavailable, true, fullOfOthers},
	{tpm2.TPMRCTooManyContexts, seal.ErrUnavailable, true, fullOfOthers},
	{tpm2.TPMRCNVSpace, seal.ErrUnavailable, false,
		"no room for another persistent object; tpm2_getcap handles-persistent lists them, tpm2_evictcontrol -C o -c HANDLE removes one that nobody needs"},
	{tpm2.TPMRCNVDefined, seal.ErrUnavailable, true, "another program took the persistent handle"},

	// Not now, or not any more. FAILURE is looked into first (turn.go).
	{tpm2.TPMRCRetry, seal.ErrUnavailable, false, tooBusy},
	{tpm2.TPMRCYielded, seal.ErrUnavailable, false, tooBusy},
	{tpm2.TPMRCTesting, seal.ErrUnavailable, false, tooBusy},
	{tpm2.TPMRCCanceled, seal.ErrUnavailable, false, "the kernel or another program cancelled the command"},
	{tpm2.TPMRCNVRate, seal.ErrUnavailable, false, "the TPM protects its memory from wear; wait"},
	{tpm2.TPMRCNVUnavailable, seal.ErrUnavailable, false, "the TPM's non-volatile memory is busy or worn out; if it stays so, the TPM has to be replaced"},
	{tpm2.TPMRCNVUninitialized, seal.ErrUnavailable, false, "a counter that was never counted; make it anew (sigilctl pcr prepare)"},
	{tpm2.TPMRCLocality, seal.ErrUnavailable, false, "another program uses the TPM at another locality"},
	{tpm2.TPMRCNeedsTest, seal.ErrUnavailable, false, "the TPM wants its self-test; restart the host"},
	{tpm2.TPMRCFailure, seal.ErrUnavailable, false, "power the host off and on; if it stays so, the TPM has to be replaced"},
}

const (
	wrongSecret  = "the outside secret (secret_file), or the PIN, is not the one that was there at sigilctl init, or there was none then; only a wrong PIN costs tries"
	notApproved  = "sigilctl pcr show says which boot states are approved, and what differs"
	ourMistake   = "this should not happen with objects of sigild's: report it with the code"
	wasReset     = "the TPM was reset, or somebody removed what we had in it; if it stays so, sigilctl status says what is missing"
	tooBusy      = "another program keeps the TPM busy, or command_timeout is too short for it"
	fullOfOthers = "another program fills the TPM; on Linux it should use /dev/tpmrm0, never /dev/tpm0"
)

// lookup gives the meaning of the code in err; ok is false when there is none.
func lookup(err error) (m meaning, rc tpm2.TPMRC, ok bool) {
	if !errors.As(err, &rc) {
		return meaning{}, 0, false
	}
	for _, m := range meanings {
		if errors.Is(rc, m.code) {
			return m, rc, true
		}
	}
	return meaning{code: rc, err: seal.ErrUnavailable}, rc, true
}

// explain turns a code into an error of ours. Errors without a code stay.
func explain(err error) error {
	m, _, ok := lookup(err)
	if !ok || ours(err) {
		return err
	}
	if m.hint == "" {
		return fmt.Errorf("%w: %v", m.err, err)
	}
	return fmt.Errorf("%w: %v; hint: %s", m.err, err, m.hint)
}

// sentinels are the errors that a caller decides with.
var sentinels = []error{
	seal.ErrTampered, seal.ErrUnavailable, seal.ErrAuth, seal.ErrLocked, seal.ErrNotFound,
	seal.ErrAmbiguous, seal.ErrPolicy, seal.ErrCounterMoved, seal.ErrUnsupported,
}

// ours says whether err already has its sentinel.
func ours(err error) bool {
	for _, s := range sentinels {
		if errors.Is(err, s) {
			return true
		}
	}
	return false
}

// aboutParameter says whether the TPM complained about a parameter, rather than
// about a handle, a session or itself.
func aboutParameter(err error) bool {
	var f tpm2.TPMFmt1Error
	if !errors.As(err, &f) {
		return false
	}
	is, _ := f.Parameter()
	return is
}

// aboutAuth says whether an authorization was refused.
func aboutAuth(err error) bool {
	return errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail)
}
