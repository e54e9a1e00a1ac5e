package clock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sigild/sigild/vault"
)

// The newest anchor is one record of the vault.

// anchorID is the id of the only record of its type.
const anchorID = "anchor"

const anchorVersion = 1

// Kept reads the anchor; nil when there is none.
func Kept(ctx context.Context, v *vault.Vault) (*Anchor, error) {
	var a *Anchor
	err := v.With(ctx, vault.TypeClock, anchorID, func(b []byte) (err error) {
		a, err = decode(b)
		return err
	})
	if errors.Is(err, vault.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the clock's anchor: %w", err)
	}
	return a, nil
}

// decode reads exactly what Keep writes.
func decode(b []byte) (*Anchor, error) {
	a := new(Anchor)
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(a); err != nil {
		return nil, err
	}
	again, err := json.Marshal(a)
	if err != nil || !bytes.Equal(again, b) || a.V != anchorVersion || a.WallMS < 0 || a.SinceBootMS < 0 {
		return nil, errors.New("the record has a form that this build doesn't know")
	}
	return a, nil
}

// Keep writes the anchor as part of tx.
func Keep(tx *vault.Tx, a Anchor) error {
	b, err := json.Marshal(a)
	if err == nil {
		err = tx.Put(vault.TypeClock, anchorID, b)
	}
	if err != nil {
		return fmt.Errorf("keeping the clock's anchor: %w", err)
	}
	return nil
}

// Init is the first anchor, by the operators' word: they look at the clock when they
// make the store.
func Init(source Source) Anchor {
	return Anchor{V: anchorVersion, BootID: source.BootID(), WallMS: source.Wall().UnixMilli(), SinceBootMS: source.SinceBoot().Milliseconds(), By: "init"}
}
