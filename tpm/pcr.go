package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// pcrCount is how many PCRs every TPM of a PC has (PTP §5.6.1).
const pcrCount = 24

// PCRs are values of platform configuration registers in the SHA-256 bank, by
// index, 0 to 23: what the firmware and the boot loader measured.
type PCRs map[int][sha256.Size]byte

// Indexes are the registers, ascending.
func (p PCRs) Indexes() []int { return slices.Sorted(maps.Keys(p)) }

// digest is what TPM2_PolicyPCR and TPM2_Quote compare: the hash of all values in
// ascending order.
func (p PCRs) digest() []byte {
	h := sha256.New()
	for _, i := range p.Indexes() {
		v := p[i]
		h.Write(v[:]) // a hash never fails
	}
	return h.Sum(nil)
}

// selection names the registers to a TPM.
func selection(indexes []int) tpm2.TPMLPCRSelection {
	wanted := make([]uint, len(indexes))
	for i, n := range indexes {
		wanted[i] = uint(n)
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{
		Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(wanted...),
	}}}
}

// checkIndexes wants 1 to 24 registers, ascending and none twice.
func checkIndexes(indexes []int) error {
	if len(indexes) == 0 {
		return errors.New("no PCR is named")
	}
	for i, n := range indexes {
		if n < 0 || n >= pcrCount || i > 0 && n <= indexes[i-1] {
			return fmt.Errorf("the PCRs %v are not 0 to %d, ascending, each once", indexes, pcrCount-1)
		}
	}
	return nil
}

// audited lends use a session that proves, by its HMAC, that the TPM with the pinned
// SRK answers commands that need no authorization.
func (t *turn) audited(use func(s tpm2.Session) error) error {
	return t.session(nil, tpm2.Audit(), func(_ storageKey, s tpm2.Session) error { return use(s) })
}

// readPCRs reads registers. A TPM tells at most eight at a time; when a register
// changes in between, it is read again.
func (t *turn) readPCRs(indexes []int) (PCRs, error) {
	var out PCRs
	err := t.audited(func(s tpm2.Session) error {
		var err error
		for range maxPCRTries {
			var same bool
			if out, same, err = t.readPCRsOnce(indexes, s); err != nil || same {
				return err
			}
		}
		return errPCRsMove
	})
	return out, err
}

// maxPCRTries bounds how often something starts over because a PCR changed.
const maxPCRTries = 30

var errPCRsMove = fmt.Errorf("%w: the PCRs keep changing; hint: something extends them all the time", seal.ErrPolicy)

func (t *turn) readPCRsOnce(indexes []int, s tpm2.Session) (out PCRs, same bool, err error) {
	out = PCRs{}
	var update uint32
	for len(out) < len(indexes) {
		rest := slices.DeleteFunc(slices.Clone(indexes), func(i int) bool { _, have := out[i]; return have })
		rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(rest)}.Execute(t, s)
		if err != nil {
			return nil, false, fmt.Errorf("TPM2_PCR_Read: %w", err)
		}
		if len(out) > 0 && rsp.PCRUpdateCounter != update {
			return nil, false, nil
		}
		update = rsp.PCRUpdateCounter
		got, values := selected(rsp.PCRSelectionOut), rsp.PCRValues.Digests
		if len(got) == 0 || len(got) != len(values) {
			return nil, false, fmt.Errorf("%w: the TPM tells no PCRs of its SHA-256 bank; hint: switch that bank on in the firmware", seal.ErrUnsupported)
		}
		for i, n := range got {
			if !slices.Contains(rest, n) || len(values[i].Buffer) != sha256.Size {
				return nil, false, fmt.Errorf("TPM2_PCR_Read: PCR %d with %d bytes", n, len(values[i].Buffer))
			}
			out[n] = [sha256.Size]byte(values[i].Buffer)
		}
	}
	return out, true, nil
}

// selected are the registers of the SHA-256 bank in a selection.
func selected(l tpm2.TPMLPCRSelection) (indexes []int) {
	for _, s := range l.PCRSelections {
		if s.Hash != tpm2.TPMAlgSHA256 {
			continue
		}
		for i := range 8 * len(s.PCRSelect) {
			if s.PCRSelect[i/8]&(1<<(i%8)) != 0 {
				indexes = append(indexes, i)
			}
		}
	}
	return indexes
}

// ReadPCRs reads registers of the SHA-256 bank: ascending, each once.
func (p *Provider) ReadPCRs(ctx context.Context, indexes []int) (out PCRs, err error) {
	if err := checkIndexes(indexes); err != nil {
		return nil, fmt.Errorf("reading PCRs: %w", err)
	}
	err = p.do(ctx, func(t *turn) error {
		out, err = t.readPCRs(indexes)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading the PCRs of TPM %s: %w", p.id, err)
	}
	return out, nil
}

// A PCRError says that the host booted into a state that nobody approved. It is a
// [seal.ErrPolicy].
type PCRError struct {
	// Is and Approved are the registers that differ from the closest approval.
	Is, Approved PCRs
	// Name of that approval; empty when there is none at all.
	Name string
}

func (e *PCRError) Error() string {
	if e.Name == "" {
		return "no boot state is approved"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "this boot state is not approved; closest is %s, where", e.Name)
	for i, n := range e.Is.Indexes() {
		is, approved := e.Is[n], e.Approved[n]
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, " PCR %d is %x instead of %x", n, is, approved)
	}
	return b.String()
}

// Unwrap is [seal.ErrPolicy].
func (e *PCRError) Unwrap() error { return seal.ErrPolicy }

// differ are the registers of want that have another value in is.
func (want PCRs) differ(is PCRs) (indexes []int) {
	for _, n := range want.Indexes() {
		if a, b := want[n], is[n]; !bytes.Equal(a[:], b[:]) {
			indexes = append(indexes, n)
		}
	}
	return indexes
}
