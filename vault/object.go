package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
)

// Objects: records that are one JSON object with a version in its member "v". The rooms
// above keep all that is no secret so: encoding/json keeps copies of what it encodes, so
// secrets are records of their bytes.

// EncodeObject is what [Tx.PutObject] stores.
func EncodeObject(rec any) ([]byte, error) {
	b, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("encoding record: %w", err)
	}
	return b, nil
}

// DecodeObject reads an object of this version into a struct, into which points and whose
// first field is the version. It refuses other versions, unknown members and bytes
// behind the object.
func DecodeObject(b []byte, version int, into any) error {
	other := func(v int64) error { return fmt.Errorf("decoding record: version %d is not %d", v, version) }
	// Our own encoder writes the version first. Whatever else comes is read for it.
	ours := append(strconv.AppendInt([]byte(`{"v":`), int64(version), 10), ',')
	if !bytes.HasPrefix(b, ours) {
		var head struct {
			V int `json:"v"`
		}
		if err := json.Unmarshal(b, &head); err != nil {
			return fmt.Errorf("decoding record: %w", err)
		}
		if head.V != version {
			return other(int64(head.V))
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("decoding record: %w", err)
	}
	if len(bytes.TrimSpace(b[d.InputOffset():])) > 0 {
		return errors.New("decoding record: bytes after the object")
	}
	if v := reflect.ValueOf(into).Elem().Field(0).Int(); v != int64(version) {
		return other(v)
	}
	return nil
}

// PutObject is [Tx.Put] of an object.
func (tx *Tx) PutObject(t Type, id string, rec any) error {
	b, err := EncodeObject(rec)
	if err != nil {
		return err
	}
	return tx.Put(t, id, b)
}

// EachObject decodes all objects of one type; keep says which id one belongs under. One
// that doesn't decode, or lies under another id, ends it.
func EachObject[T any](ctx context.Context, v *Vault, t Type, version int, keep func(*T) (id string)) error {
	err := v.Each(ctx, t, func(id string, plaintext []byte) error {
		rec := new(T)
		if err := DecodeObject(plaintext, version, rec); err != nil {
			return fmt.Errorf("record %s: %w", id, err)
		}
		if own := keep(rec); own != id {
			return fmt.Errorf("record %s calls itself %s", id, own)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("loading records of type %v: %w", t, err)
	}
	return nil
}
