package tpm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// A PCRPolicy binds what is sealed to boot states that a person approved. The object
// in a blob opens by TPM2_PolicyAuthorize for the approver's key alone, and what the
// approver signs is PolicyPCR (these values) and PolicyNV (the counter is at most
// this sequence). So new values need a new signature and no sealing anew, and
// counting one on makes void all that was signed before; without the counter each
// state ever approved would stay good, also that of a boot loader found broken since.
type PCRPolicy struct {
	// Approver is the P-256 key whose signature approves. Its private half belongs on
	// no host that it approves.
	Approver *ecdsa.PublicKey
	// Counter revokes: made by [Provider.MakeCounter] with the same outside secret.
	Counter seal.KeyRef
	// Dir holds the approvals, files that end in .json; they are read at each unsealing.
	Dir string
}

func (c *PCRPolicy) check() error {
	switch {
	case c == nil:
		return nil
	case c.Approver == nil || c.Approver.Curve != elliptic.P256():
		return errors.New("checking the TPM configuration: the PCR policy's approver is not a P-256 key")
	case !filepath.IsAbs(c.Dir):
		return fmt.Errorf("checking the TPM configuration: the folder of PCR approvals %q is not an absolute path", c.Dir)
	}
	if _, err := parseRef(c.Counter); err != nil {
		return fmt.Errorf("checking the TPM configuration: the PCR policy's counter: %w", err)
	}
	return nil
}

// approverArea is the approver's key as the TPM takes it. Its Name stands in the
// policy of every object, so it must never change.
func approverArea(pub *ecdsa.PublicKey) (tpm2.TPMTPublic, error) {
	point, err := pub.Bytes() // 4, X, Y
	if err != nil {
		return tpm2.TPMTPublic{}, fmt.Errorf("reading the approver's key: %w", err)
	}
	return tpm2.TPMTPublic{
		Type:             tpm2.TPMAlgECC,
		NameAlg:          tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{UserWithAuth: true, SignEncrypt: true},
		Parameters:       ecdsaP256(),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1:33]}, Y: tpm2.TPM2BECCParameter{Buffer: point[33:]},
		}),
	}, nil
}

// objectPolicy is the authPolicy of objects: PolicyAuthorize, then PolicyAuthValue
// where they have an auth value, too.
func objectPolicy(approver tpm2.TPM2BName, srkName []byte, withAuth bool) ([]byte, error) {
	pc, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	if err := (tpm2.PolicyAuthorize{KeySign: approver, PolicyRef: tpm2.TPM2BDigest{Buffer: approvalRef(srkName)}}).Update(pc); err != nil {
		return nil, err
	}
	if withAuth {
		if err := (tpm2.PolicyAuthValue{}).Update(pc); err != nil {
			return nil, err
		}
	}
	return pc.Hash().Digest, nil
}

// boot is a PCRPolicy ready for use.
type boot struct {
	PCRPolicy
	area tpm2.TPMTPublic // the approver's key
	name tpm2.TPM2BName  // its Name
}

func newBoot(c *PCRPolicy) (*boot, error) {
	if c == nil {
		return nil, nil
	}
	area, err := approverArea(c.Approver)
	if err != nil {
		return nil, err
	}
	return &boot{*c, area, tpm2.TPM2BName{Buffer: nameOf(tpm2.Marshal(area))}}, nil
}

// BootState asks the TPM what an approval of this moment would say: these registers
// as they are, and the counter's value. It has no signature.
func (p *Provider) BootState(ctx context.Context, counter seal.KeyRef, indexes []int) (Approval, error) {
	pcrs, err := p.ReadPCRs(ctx, indexes)
	if err != nil {
		return Approval{}, err
	}
	n, err := p.ReadCounter(ctx, counter)
	if err != nil {
		return Approval{}, err
	}
	return Approval{SRKName: p.SRKName(), Counter: counter, Sequence: n, PCRs: pcrs}, nil
}

// Judge says why the approval does not open this TPM now, nil when it does: pcrs must
// have all its registers and count be the counter's value. It is for choosing and
// for people; the TPM judges for itself.
func (p *Provider) Judge(a NamedApproval, pcrs PCRs, count uint64) error {
	b := p.boot
	switch {
	case b == nil:
		return fmt.Errorf("%w: there is no PCR policy", seal.ErrPolicy)
	case makeRef(a.SRKName) != makeRef(p.srk):
		return fmt.Errorf("%w: it is for the TPM whose SRK is %x, this one's is %x", seal.ErrPolicy, a.SRKName, p.srk)
	case a.Counter != b.Counter:
		return fmt.Errorf("%w: it names another counter, %s", seal.ErrPolicy, a.Counter)
	}
	if err := a.Verify(b.Approver); err != nil {
		return err
	}
	if count > a.Sequence {
		return fmt.Errorf("%w: it was revoked: its sequence is %d, the counter is %d", seal.ErrPolicy, a.Sequence, count)
	}
	if differ := a.PCRs.differ(pcrs); len(differ) > 0 {
		e := &PCRError{Is: PCRs{}, Approved: PCRs{}, Name: a.Name}
		for _, n := range differ {
			e.Is[n], e.Approved[n] = pcrs[n], a.PCRs[n]
		}
		return e
	}
	return nil
}

// choose finds an approval for the boot state that the TPM is in.
func (t *turn) choose() (NamedApproval, error) {
	b := t.p.boot
	all, err := ReadApprovals(b.Dir)
	if err != nil {
		return NamedApproval{}, err
	}
	wanted := PCRs{}
	for _, a := range all {
		for n := range a.PCRs {
			wanted[n] = [32]byte{}
		}
	}
	none := fmt.Errorf("%w: %s holds no approval of a boot state; hint: sigilctl pcr show, and have it approved", seal.ErrPolicy, b.Dir)
	if len(all) == 0 {
		return NamedApproval{}, none
	}
	pcrs, err := t.readPCRs(wanted.Indexes())
	if err != nil {
		return NamedApproval{}, err
	}
	count, err := t.count(b.Counter)
	if err != nil {
		return NamedApproval{}, err
	}
	var closest *PCRError
	for _, a := range all {
		why := t.p.Judge(a, pcrs, count)
		if why == nil {
			return a, nil
		}
		var e *PCRError
		if errors.As(why, &e) && (closest == nil || len(e.Is) < len(closest.Is)) {
			closest = e
		} else if e == nil {
			none = fmt.Errorf("approval %s: %w", a.Name, why)
		}
	}
	if closest != nil {
		return NamedApproval{}, fmt.Errorf("%w; hint: if that is what you booted, sigilctl pcr show and have it approved; if not, find out who changed it", closest)
	}
	return NamedApproval{}, none
}

// count reads a counter.
func (t *turn) count(ref seal.KeyRef) (n uint64, err error) {
	x, err := t.knownCounter(ref)
	if err != nil {
		return 0, err
	}
	err = t.p.auth.lend(roleCount, func(auth []byte) error {
		return t.session(auth, encryptNone, func(_ storageKey, s tpm2.Session) error {
			n, err = t.readCounter(x, s)
			return err
		})
	})
	return n, err
}

// unsealBooted gives the key in o, for the caller to wipe, when the boot state is
// approved. A PCR that changes in between makes it begin again.
func (t *turn) unsealBooted(auth []byte, o object) (key []byte, err error) {
	for range maxPCRTries {
		key, err = t.unsealOnce(auth, o)
		if !errors.Is(err, tpm2.TPMRCPCRChanged) && !errors.Is(err, errPCRDigest) {
			return key, err
		}
	}
	return nil, errPCRsMove
}

func (t *turn) unsealOnce(auth []byte, o object) (key []byte, err error) {
	a, err := t.choose()
	if err != nil {
		return nil, err
	}
	ticket, err := t.ticket(a.Approval)
	if err != nil {
		return nil, err
	}
	place := len(t.loaded)
	defer t.flush(place)
	h, err := t.loadSealed(o)
	if err != nil {
		return nil, err
	}
	return t.unsealApproved(auth, o, h, a, ticket)
}

// ticket has the TPM check the approver's signature, and gives its word for it.
func (t *turn) ticket(a Approval) (tpm2.TPMTTKVerified, error) {
	message, err := a.Message()
	if err != nil {
		return tpm2.TPMTTKVerified{}, err
	}
	r, s, err := a.halves()
	if err != nil {
		return tpm2.TPMTTKVerified{}, err
	}
	place := len(t.loaded)
	defer t.flush(place)
	var out tpm2.TPMTTKVerified
	err = t.audited(func(session tpm2.Session) error {
		// The owner hierarchy: in the null hierarchy a ticket is empty (Part 3 §12.3).
		key, err := tpm2.LoadExternal{InPublic: tpm2.New2B(t.p.boot.area), Hierarchy: tpm2.TPMRHOwner}.Execute(t, session)
		if err != nil {
			return fmt.Errorf("TPM2_LoadExternal: %w", err)
		}
		t.keep(key.ObjectHandle)
		verified, err := tpm2.VerifySignature{
			KeyHandle: tpm2.NamedHandle{Handle: key.ObjectHandle, Name: t.p.boot.name},
			Digest:    tpm2.TPM2BDigest{Buffer: sum256(message)},
			Signature: tpm2.TPMTSignature{
				SigAlg: tpm2.TPMAlgECDSA,
				Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA, &tpm2.TPMSSignatureECC{
					Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r}, SignatureS: tpm2.TPM2BECCParameter{Buffer: s},
				}),
			},
		}.Execute(t, session)
		if err != nil {
			return fmt.Errorf("TPM2_VerifySignature: %w", err)
		}
		out = verified.Validation
		return nil
	})
	return out, err
}

// errPCRDigest: a PCR changed between our look and PolicyPCR.
var errPCRDigest = errors.New("the PCRs are no longer what they were")

// unsealApproved satisfies the object's policy command by command, and unseals.
func (t *turn) unsealApproved(auth []byte, o object, h tpm2.TPMHandle, a NamedApproval, ticket tpm2.TPMTTKVerified) (key []byte, err error) {
	root, err := t.root()
	if err != nil {
		return nil, err
	}
	policy, _, err := tpm2.PolicySession(t, tpm2.TPMAlgSHA256, nonceLen, tpm2.Salted(root.handle, root.public), tpm2.Auth(auth), encryptOut)
	if err != nil {
		return nil, fmt.Errorf("TPM2_StartAuthSession: %w", err)
	}
	place := t.keep(policy.Handle())
	defer t.flush(place)

	// Step 1: the PCRs are those of the approval.
	_, err = tpm2.PolicyPCR{
		PolicySession: policy.Handle(), Pcrs: selection(a.PCRs.Indexes()), PcrDigest: tpm2.TPM2BDigest{Buffer: a.PCRs.digest()},
	}.Execute(t)
	if errors.Is(err, tpm2.TPMRCValue) {
		return nil, errPCRDigest
	}
	if err != nil {
		return nil, fmt.Errorf("TPM2_PolicyPCR: %w", err)
	}
	// Step 2: it was not revoked.
	if err := t.policyNV(policy.Handle(), a.Approval); err != nil {
		return nil, err
	}
	// Step 3: the approver signed both.
	digest, err := a.policy()
	if err != nil {
		return nil, err
	}
	_, err = tpm2.PolicyAuthorize{
		PolicySession: policy.Handle(), ApprovedPolicy: tpm2.TPM2BDigest{Buffer: digest},
		PolicyRef: tpm2.TPM2BDigest{Buffer: approvalRef(t.p.srk)}, KeySign: t.p.boot.name, CheckTicket: ticket,
	}.Execute(t)
	if errors.Is(err, tpm2.TPMRCValue) || errors.Is(err, tpm2.TPMRCTicket) {
		return nil, fmt.Errorf("%w: TPM2_PolicyAuthorize: %v: the approval is not for this state", seal.ErrPolicy, err)
	}
	if err != nil {
		return nil, fmt.Errorf("TPM2_PolicyAuthorize: %w", err)
	}
	// Step 4: we know the auth value.
	if auth != nil {
		if _, err := (tpm2.PolicyAuthValue{PolicySession: policy.Handle()}).Execute(t); err != nil {
			return nil, fmt.Errorf("TPM2_PolicyAuthValue: %w", err)
		}
	}
	return t.unsealWith(o, h, policy)
}

func (t *turn) policyNV(policy tpm2.TPMHandle, a Approval) error {
	x, err := t.knownCounter(a.Counter)
	if err != nil {
		return err
	}
	return t.p.auth.lend(roleCount, func(auth []byte) error {
		return t.session(auth, encryptIn, func(_ storageKey, s tpm2.Session) error {
			_, err := tpm2.PolicyNV{
				AuthHandle: x.auth(s), NVIndex: x.named(), PolicySession: policy, OperandB: a.operand(), Operation: tpm2.TPMEOUnsignedLE,
			}.Execute(t)
			if errors.Is(err, tpm2.TPMRCPolicy) {
				return fmt.Errorf("%w: TPM2_PolicyNV: %v; hint: the approval was revoked: have this boot state approved anew", seal.ErrPolicy, err)
			}
			if err != nil {
				return counterError("TPM2_PolicyNV", err)
			}
			return nil
		})
	})
}
