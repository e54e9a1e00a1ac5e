package airgap

import (
	"bytes"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// CBOR of a stranger is read with everything switched off that a request does not
// need; ours must besides be in the one canonical spelling, so that its digest is a
// digest of what it says.

var (
	canonical = must(cbor.CoreDetEncOptions().EncMode())
	strict    = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8RejectInvalid,
		TimeTag:           cbor.DecTagIgnored,
		MaxNestedLevels:   8,
		MaxArrayElements:  64,
		MaxMapPairs:       16,
	}.DecMode())
)

func must[M any](m M, err error) M {
	if err != nil {
		panic(err) // of our own options, when the program starts
	}
	return m
}

func encode(v any) ([]byte, error) { return canonical.Marshal(v) }

// decodeStrict reads one CBOR item into v, and nothing behind it.
func decodeStrict(b []byte, v any) error {
	if len(b) > MaxMessage {
		return fmt.Errorf("%w: %d bytes, at most %d are taken", ErrForm, len(b), MaxMessage)
	}
	if err := strict.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %v", ErrForm, err)
	}
	return nil
}

// decodeCanonical reads one CBOR item that is spelled as we would spell it.
func decodeCanonical(b []byte, v any) error {
	if err := decodeStrict(b, v); err != nil {
		return err
	}
	again, err := encode(v)
	if err != nil {
		return fmt.Errorf("%w: %v", ErrForm, err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%w: it is no canonical CBOR", ErrForm)
	}
	return nil
}
