package tpm

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// MakeKEK implements [seal.KEKMaker]. A TPM seals everything under its SRK: nothing is made.
func (p *Provider) MakeKEK(context.Context) (seal.KeyRef, error) { return makeRef(p.srk), nil }

// Seal implements [seal.Sealer]. ref is the SRK's. plaintext has 1 to
// [seal.MaxSealed] bytes, aad at most 4096. The blob is described in blob.go; it is
// some 280 bytes more than plaintext.
func (p *Provider) Seal(ctx context.Context, ref seal.KeyRef, plaintext, aad []byte) ([]byte, error) {
	if err := p.checkKEK(ref); err != nil {
		return nil, err
	}
	if len(plaintext) < 1 || len(plaintext) > seal.MaxSealed || len(aad) > maxAAD {
		return nil, fmt.Errorf("sealing with TPM %s: %d bytes with %d bytes of aad, want 1 to %d and at most %d", p.id, len(plaintext), len(aad), seal.MaxSealed, maxAAD)
	}
	key := make([]byte, sealedLen)
	defer clear(key)
	rand.Read(key) // never fails since Go 1.24
	var o object
	err := p.do(ctx, func(t *turn) error {
		return p.auth.lend(roleSeal, func(auth []byte) (err error) {
			o, err = t.create(auth, key)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("sealing with TPM %s: %w", p.id, err)
	}
	return closeBox(o, key, p.srk, plaintext, aad)
}

// Unseal implements [seal.Sealer].
func (p *Provider) Unseal(ctx context.Context, ref seal.KeyRef, blob, aad []byte, use func(plaintext []byte) error) error {
	if err := p.checkKEK(ref); err != nil {
		return err
	}
	if len(aad) > maxAAD {
		return fmt.Errorf("unsealing with TPM %s: %w: nothing is bound to %d bytes of aad", p.id, seal.ErrTampered, len(aad))
	}
	o, header, sealed, err := decodeBlob(blob)
	if err != nil {
		return fmt.Errorf("unsealing with TPM %s: %w", p.id, err)
	}
	if err := p.checkForm(o); err != nil {
		return fmt.Errorf("unsealing with TPM %s: %w", p.id, err)
	}
	var plain []byte
	defer func() { clear(plain) }()
	err = p.withKey(ctx, o, func(key []byte) (err error) {
		plain, err = openBox(header, sealed, key, p.srk, aad)
		return err
	})
	if err != nil {
		return fmt.Errorf("unsealing with TPM %s: %w", p.id, err)
	}
	return use(plain)
}

// checkKEK refuses every ref but the SRK's.
func (p *Provider) checkKEK(ref seal.KeyRef) error {
	name, err := parseRef(ref)
	if err != nil {
		return err
	}
	if !bytes.Equal(name, p.srk) {
		return fmt.Errorf("%w: sealing key %s is not this TPM's SRK, which is %x; hint: it is another TPM, or it was cleared", seal.ErrNotFound, ref, p.srk)
	}
	return nil
}

// checkForm refuses an object that is guarded otherwise than the configuration says:
// nobody should believe in a PCR policy or a PIN that a blob doesn't have.
func (p *Provider) checkForm(o object) error {
	have, want := o.form(), p.form
	switch {
	case have.pin && !want.pin:
		return fmt.Errorf("%w: it was sealed with a PIN, and the configuration has none; hint: provider.tpm.pin_file", seal.ErrPolicy)
	case !have.pin && want.pin:
		return fmt.Errorf("%w: it was sealed without a PIN, and the configuration has one; hint: a PIN is chosen at sigilctl init", seal.ErrPolicy)
	case bytes.Equal(have.policy, want.policy):
		return nil
	case have.policy == nil:
		return fmt.Errorf("%w: it was sealed without a PCR policy, and the configuration has one; hint: a PCR policy is chosen at sigilctl init", seal.ErrPolicy)
	case want.policy == nil:
		return fmt.Errorf("%w: it was sealed under a PCR policy, and the configuration has none; hint: provider.tpm.pcr_policy", seal.ErrPolicy)
	}
	return fmt.Errorf("%w: it was sealed under another PCR policy; hint: provider.tpm.pcr_policy.approver is not the one of sigilctl init, or secret_file was added or removed since", seal.ErrPolicy)
}

// withKey lends use the key in o, after the turn is over, and wipes it.
func (p *Provider) withKey(ctx context.Context, o object, use func(key []byte) error) error {
	if err := p.checkLatch(); err != nil {
		return err
	}
	var key []byte
	defer func() { clear(key) }()
	err := p.do(ctx, func(t *turn) error {
		return p.auth.lend(roleSeal, func(auth []byte) (err error) {
			if p.form.policy != nil {
				key, err = t.unsealBooted(auth, o)
			} else {
				key, err = t.unseal(auth, o)
			}
			return err
		})
	})
	if err != nil {
		return p.latch(ctx, err)
	}
	return use(key)
}

// create makes the object that holds key.
func (t *turn) create(auth, key []byte) (o object, err error) {
	err = t.session(nil, encryptBoth, func(root storageKey, s tpm2.Session) error {
		o, err = t.createUnder(root, s, sealedTemplate(t.p.form), tpm2.TPMSSensitiveCreate{
			UserAuth: tpm2.TPM2BAuth{Buffer: auth},
			Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: key}),
		})
		return err
	})
	if err != nil {
		return object{}, err
	}
	if err := o.check(); err != nil {
		return object{}, fmt.Errorf("TPM2_Create: %w", err)
	}
	return o, nil
}

// createUnder runs TPM2_Create under the SRK.
func (t *turn) createUnder(root storageKey, s tpm2.Session, template tpm2.TPMTPublic, sensitive tpm2.TPMSSensitiveCreate) (object, error) {
	rsp, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: root.handle, Name: root.name, Auth: s},
		InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &sensitive},
		InPublic:     tpm2.New2B(template),
	}.Execute(t)
	if err != nil {
		return object{}, parentError("TPM2_Create", err)
	}
	return object{public: rsp.OutPublic.Bytes(), private: rsp.OutPrivate.Buffer}, nil
}

// load loads o under the SRK until the end of the attempt.
func (t *turn) load(o object) (h tpm2.TPMHandle, err error) {
	err = t.session(nil, encryptBoth, func(root storageKey, s tpm2.Session) error {
		rsp, err := tpm2.Load{
			ParentHandle: tpm2.AuthHandle{Handle: root.handle, Name: root.name, Auth: s},
			InPrivate:    tpm2.TPM2BPrivate{Buffer: o.private},
			InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](o.public),
		}.Execute(t)
		if err != nil {
			return parentError("TPM2_Load", err)
		}
		h = rsp.ObjectHandle
		return nil
	})
	if err == nil {
		t.keep(h)
	}
	return h, err
}

// parentError names the command. An authorization that the SRK refuses has
// nothing to do with the outside secret.
func parentError(command string, err error) error {
	if aboutAuth(err) {
		return fmt.Errorf("%w: %s: %v; hint: the SRK has a password, or the TPM does not hold the SRK it shows", seal.ErrPolicy, command, err)
	}
	return fmt.Errorf("%s: %w", command, err)
}

// unseal gives the key in o, for the caller to wipe.
func (t *turn) unseal(auth []byte, o object) (key []byte, err error) {
	h, err := t.loadSealed(o)
	if err != nil {
		return nil, err
	}
	err = t.session(auth, encryptOut, func(_ storageKey, s tpm2.Session) error {
		key, err = t.unsealWith(o, h, s)
		return err
	})
	return key, err
}

// loadSealed loads o; when the TPM doesn't take it, the blob was changed or the TPM is
// another one.
func (t *turn) loadSealed(o object) (tpm2.TPMHandle, error) {
	h, err := t.load(o)
	if aboutParameter(err) && !ours(err) {
		return 0, t.blame(err)
	}
	return h, err
}

// unsealWith gives the key in o, which is loaded at h, for the caller to wipe.
func (t *turn) unsealWith(o object, h tpm2.TPMHandle, s tpm2.Session) ([]byte, error) {
	rsp, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: h, Name: o.name(), Auth: s}}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("TPM2_Unseal: %w", err)
	}
	key := rsp.OutData.Buffer
	if len(key) != sealedLen { // not one of ours, though the TPM's own
		clear(key)
		return nil, fmt.Errorf("%w: the object holds %d bytes", seal.ErrTampered, len(key))
	}
	return key, nil
}

// blame says whose fault it is that the TPM does not load an object: the blob's,
// if the SRK is still the pinned one.
func (t *turn) blame(err error) error {
	if e := t.sameRoot(); errors.Is(e, seal.ErrNotFound) {
		return fmt.Errorf("%w (%v)", e, err)
	} else if e != nil {
		return e
	}
	return fmt.Errorf("%w: %v; the SRK is the pinned one, so the blob was changed or another TPM sealed it", seal.ErrTampered, err)
}
