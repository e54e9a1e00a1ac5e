//go:build cgo

package hsm

import (
	"bytes"

	"github.com/sigild/sigild/seal"

	"github.com/miekg/pkcs11"
)

// wrap is opWrap.
func (t *token) wrap(r keyRef, plain, aad []byte) (blob []byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		k, err := t.kek(s, r)
		if err != nil {
			return err
		}
		blob, err = t.seal(s, k, plain, aad)
		return err
	})
	return blob, err
}

// unwrap is opUnwrap. A blob that the module refuses is at fault only when the token
// can still open the canary, and refuses the blob again after that.
func (t *token) unwrap(r keyRef, blob, aad []byte) (plain []byte, err error) {
	try := func() (refused bool, err error) {
		err = t.session(0, func(s pkcs11.SessionHandle) error {
			k, err := t.kek(s, r)
			if err != nil {
				return err
			}
			plain, refused, err = t.unseal(s, k, blob, aad)
			return err
		})
		return refused, err
	}
	return plain, blame(try, func() error { return t.health(r) })
}

// blame finds out whether the input or the token is at fault when try is refused.
func blame(try func() (refused bool, err error), canary func() error) error {
	refused, err := try()
	if !refused {
		return err
	}
	if cerr := canary(); cerr != nil {
		return newFault(seal.ErrUnavailable, "%v; and so does the canary: %v", err, cerr)
	}
	if refused, err = try(); refused {
		return newFault(seal.ErrTampered, "%v, while the canary is good", err)
	}
	return err
}

// health is opHealth with a key: it is found, checked and used for the canary.
func (t *token) health(r keyRef) error {
	return t.session(0, func(s pkcs11.SessionHandle) error {
		t.forget(r.id)
		k, err := t.kek(s, r)
		if err != nil {
			return err
		}
		return t.canary(s, k)
	})
}

// alive is opHealth without a key: a session and random bytes.
func (t *token) alive() error {
	return t.session(0, func(s pkcs11.SessionHandle) error {
		if _, err := t.mod.GetTokenInfo(t.slot); err != nil {
			return p11Fault("C_GetTokenInfo", err)
		}
		if _, err := t.mod.GenerateRandom(s, 16); err != nil {
			return p11Fault("C_GenerateRandom", err)
		}
		return nil
	})
}

// sign is opSignP256: r ‖ s over a digest, and the public key to verify it with.
func (t *token) sign(r keyRef, digest []byte) (reply [][]byte, err error) {
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		k, point, err := t.checkpoint(s, r)
		if err != nil {
			return err
		}
		if err := t.mod.SignInit(s, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}, k.h); err != nil {
			return p11Fault("C_SignInit", err)
		}
		sig, err := t.mod.Sign(s, digest)
		if err != nil {
			return p11Fault("C_Sign", err)
		}
		if len(sig) != 64 {
			return newFault(seal.ErrUnavailable, "C_Sign gave %d bytes, want 64", len(sig))
		}
		reply = [][]byte{sig, bytes.Clone(point)} // the reply is wiped
		return nil
	})
	return reply, err
}

// random is opRandom.
func (t *token) random(n int) (b []byte, err error) {
	if n < 1 || n > maxRandom {
		return nil, newFault(errRefused, "asking for %d random bytes, want 1 to %d", n, maxRandom)
	}
	err = t.session(0, func(s pkcs11.SessionHandle) error {
		if b, err = t.mod.GenerateRandom(s, n); err != nil {
			return p11Fault("C_GenerateRandom", err)
		}
		return nil
	})
	return b, err
}
