package vault

import (
	"crypto/cipher"

	"github.com/sigild/sigild/internal/secmem"
)

// opener opens envelopes while the keys are lent once, with one schedule of each
// wrapping key for all of them.
type opener struct {
	keys *keyring
	lent *subkeys
	// now and previous are ciphers under the wrapping keys, made when first needed.
	now, previous cipher.AEAD
}

// forget scrubs the ciphers.
func (o *opener) forget() {
	secmem.Scrub(o.now)
	secmem.Scrub(o.previous)
}

// open decrypts env in place and returns id and payload in their frame, which the
// caller wipes. m is the record that it must be, but for store and generation.
func (o *opener) open(m recordMeta, parts, env []byte) (framed []byte, err error) {
	m.StoreID, m.Generation = o.keys.storeID, o.keys.generation
	wrap, key := &o.now, o.lent.wrap
	if g, ok := generationOf(env); ok && o.keys.previous != 0 && g == o.keys.previous {
		m.Generation, wrap, key = g, &o.previous, o.lent.oldWrap
	}
	if *wrap == nil {
		if *wrap, err = newGCM(key); err != nil {
			return nil, err
		}
	}
	return openEnvelope(*wrap, parts, m, env)
}
