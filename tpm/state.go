package tpm

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// Lockout is the TPM's defence against guessing: it counts wrong tries at objects
// that are not ours (ours are exempt, their auth values can't be guessed), forgets
// one each Recovery, and refuses when Tries reaches MaxTries (Part 1 §19.8).
type Lockout struct {
	Locked          bool
	Tries, MaxTries uint32
	Recovery        time.Duration // until one try is forgotten
	LockoutRecovery time.Duration // until a wrong lockout password is forgiven; 0: at the next restart
}

func (l Lockout) String() string {
	if l.Locked {
		return fmt.Sprintf("locked: %d of %d wrong tries were made, one is forgotten every %s", l.Tries, l.MaxTries, l.Recovery)
	}
	return fmt.Sprintf("%d of %d wrong tries", l.Tries, l.MaxTries)
}

// Lockout asks the TPM.
func (p *Provider) Lockout(ctx context.Context) (l Lockout, err error) {
	err = p.do(ctx, func(t *turn) error {
		l, err = t.lockout()
		return err
	})
	if err != nil {
		return Lockout{}, fmt.Errorf("reading the lockout state of TPM %s: %w", p.id, err)
	}
	return l, nil
}

func (t *turn) lockout() (Lockout, error) {
	values, err := t.properties(tpm2.TPMPTPermanent, tpm2.TPMPTLockoutCounter, tpm2.TPMPTMaxAuthFail, tpm2.TPMPTLockoutInterval, tpm2.TPMPTLockoutRecovery)
	if err != nil {
		return Lockout{}, err
	}
	const inLockout = 1 << 9 // TPMA_PERMANENT (Part 2 §8.6)
	return Lockout{
		Locked: values[0]&inLockout != 0, Tries: values[1], MaxTries: values[2],
		Recovery: time.Duration(values[3]) * time.Second, LockoutRecovery: time.Duration(values[4]) * time.Second,
	}, nil
}

// properties reads fixed or variable properties in a session that proves who answers.
func (t *turn) properties(wanted ...tpm2.TPMPT) ([]uint32, error) {
	values := make([]uint32, len(wanted))
	err := t.audited(func(s tpm2.Session) error {
		for i, property := range wanted {
			rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(property), PropertyCount: 1}.Execute(t, s)
			if err != nil {
				return fmt.Errorf("TPM2_GetCapability: %w", err)
			}
			list, err := rsp.CapabilityData.Data.TPMProperties()
			if err != nil {
				return fmt.Errorf("TPM2_GetCapability: %w", err)
			}
			if len(list.TPMProperty) != 1 || list.TPMProperty[0].Property != property {
				return fmt.Errorf("%w: the TPM does not tell property %#x", seal.ErrUnsupported, uint32(property))
			}
			values[i] = list.TPMProperty[0].Value
		}
		return nil
	})
	return values, err
}

// integratedMakers make TPMs that run in a processor or a hypervisor, and no chips:
// their names in the TCG's registry of vendors.
var integratedMakers = []string{"AMD", "INTC", "MSFT", "IBM", "QCOM"}

// checkIntegrated refuses a TPM that may be a chip of its own: on its bus somebody
// could sit who answers in our place.
func (t *turn) checkIntegrated() error {
	values, err := t.properties(tpm2.TPMPTManufacturer)
	if err != nil {
		return err
	}
	maker := strings.TrimRight(string(binary.BigEndian.AppendUint32(nil, values[0])), "\x00 ")
	for _, m := range integratedMakers {
		if m == maker {
			return nil
		}
	}
	return fmt.Errorf("%w: a TPM of %q may be a chip of its own, and who is on its bus would open what is sealed; hint: give it an outside secret (secret_file), or say trust_bus: true if it is none",
		seal.ErrPolicy, maker)
}
