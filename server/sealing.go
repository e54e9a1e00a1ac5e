package server

import (
	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/delegation"
)

// Messages of sealing.proto.

func keySealing(d *delegation.Service, key string) (*sigilv1.KeySealing, error) {
	k, err := d.KeySealing(key)
	if err != nil {
		return nil, err
	}
	out := &sigilv1.KeySealing{TheftOf: k.TheftOf}
	for _, s := range k.Shares {
		out.Shares = append(out.Shares, &sigilv1.ShareSealing{ShareSet: s.Set, Party: string(s.Party), Devices: s.Devices})
	}
	return out, nil
}
