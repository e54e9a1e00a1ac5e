package hsm

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"strings"

	"github.com/sigild/sigild/seal"
)

// Attest gives evidence of this token: what it and its module call themselves, the
// attributes of the keys in keks, of the checkpoint key whose public half is
// checkpoint, and of the delivery keys labelled as ours, read now, all signed by that
// checkpoint key over nonce (16 to 64 bytes, the verifier's). A weak sealing or
// delivery key is told as it is: the verifier refuses it. A weak checkpoint key signs
// nothing: [seal.ErrPolicy]. Without the checkpoint key: [seal.ErrNotFound].
func (p *Provider) Attest(ctx context.Context, nonce []byte, keks []seal.KeyRef, checkpoint *ecdsa.PublicKey) (Evidence, error) {
	if err := checkNonce(nonce); err != nil {
		return Evidence{}, err
	}
	e, err := p.attest(ctx, nonce, keks, checkpoint)
	if err != nil {
		return Evidence{}, fmt.Errorf("attesting with token %s: %w", p.id, err)
	}
	return e, nil
}

func (p *Provider) attest(ctx context.Context, nonce []byte, keks []seal.KeyRef, checkpoint *ecdsa.PublicKey) (e Evidence, err error) {
	e.Nonce = nonce
	// Step 1: the token and its module.
	if e.Token, err = p.Info(ctx); err != nil {
		return Evidence{}, err
	}
	e.Token.PINCountLow = false
	err = p.sup.call(ctx, opModule, func(f [][]byte) error {
		e.Module = Module{printable(f[0]), printable(f[1]), printable(f[2])}
		return nil
	})
	if err != nil {
		return Evidence{}, err
	}
	// Step 2: the keys, as they are.
	signer, err := p.findCheckpoint(ctx, checkpoint)
	if err != nil {
		return Evidence{}, err
	}
	add := func(use string, r keyRef) error {
		k, err := p.describe(ctx, use, r)
		e.Keys = append(e.Keys, k)
		return err
	}
	for _, ref := range keks {
		r, err := parseRef(ref)
		if err != nil {
			return Evidence{}, err
		}
		if err := add(UseKEK, r); err != nil {
			return Evidence{}, err
		}
		if r.wrap < wrapOAEP {
			continue
		}
		if err := add(UseKEKMAC, keyRef{id: macID(r.id)}); err != nil {
			return Evidence{}, err
		}
	}
	if err := add(UseCheckpoint, keyRef{id: signer.id}); err != nil {
		return Evidence{}, err
	}
	deliveries, err := p.ids(ctx, opListRSA)
	if err != nil {
		return Evidence{}, err
	}
	for _, id := range deliveries {
		if err := add(UseDelivery, keyRef{id: id}); err != nil {
			return Evidence{}, err
		}
	}
	// Step 3: the signature, verified before it is returned (SignP256).
	digest, err := e.digest()
	if err != nil {
		return Evidence{}, err
	}
	e.Signature, err = p.SignP256(ctx, signer.text(), digest)
	return e, err
}

// describe reads what the token says of one key.
func (p *Provider) describe(ctx context.Context, use string, r keyRef) (DescribedKey, error) {
	k := DescribedKey{Use: use, ID: r.id, Attributes: map[string]string{}}
	if use == UseKEK {
		k.Wrapping = wrappingNames[r.wrap]
	}
	err := p.sup.call(ctx, opDescribe, func(f [][]byte) error {
		for line := range strings.Lines(printableLines(f[0])) {
			name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
			if !ok {
				return fmt.Errorf("%w: the description of a key has the wrong form", seal.ErrUnavailable)
			}
			k.Attributes[name] = value
		}
		return nil
	}, []byte{kinds[use]}, r.wire())
	if err != nil {
		return DescribedKey{}, fmt.Errorf("describing the %s key: %w", use, err)
	}
	return k, nil
}

// printableLines is printable, with the ends of lines kept.
func printableLines(b []byte) string {
	lines := strings.Split(string(b), "\n")
	for i, l := range lines {
		lines[i] = printable([]byte(l))
	}
	return strings.Join(lines, "\n")
}

// findCheckpoint is the reference of the checkpoint key with this public half.
func (p *Provider) findCheckpoint(ctx context.Context, public *ecdsa.PublicKey) (keyRef, error) {
	ids, err := p.ids(ctx, opListP256)
	if err != nil {
		return keyRef{}, err
	}
	var others []error
	for _, id := range ids {
		// What it lacks of what may be lacking is the verifier's to judge.
		r := keyRef{without: lackAll &^ bornLacks, id: id}
		got, err := p.PublicP256(ctx, r.text())
		switch {
		case errors.Is(err, seal.ErrPolicy), errors.Is(err, seal.ErrAmbiguous), errors.Is(err, seal.ErrNotFound):
			others = append(others, err)
		case err != nil:
			return keyRef{}, err
		case got.Equal(public):
			return r, nil
		}
	}
	if len(others) > 0 {
		return keyRef{}, fmt.Errorf("%w: no usable checkpoint key of this appliance: %w", seal.ErrPolicy, errors.Join(others...))
	}
	return keyRef{}, fmt.Errorf("%w: the token has no checkpoint key of this appliance", seal.ErrNotFound)
}
