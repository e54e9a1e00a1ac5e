package tpm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// The owner's persistent handles that we take from, the first free one first. They
// lie outside what the TCG's registry of reserved handles keeps for storage roots
// (81000000 to 810000FF) and endorsement keys (81010000 to 810100FF). A key is known
// by its Name, never by its handle.
const (
	firstPersistent tpm2.TPMHandle = 0x81020000
	lastPersistent  tpm2.TPMHandle = 0x8102ffff
)

// key is a persistent key of ours.
type key struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
}

func (k key) auth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: s}
}

// known is what was found in the TPM in one generation of the link.
type known struct {
	gen      uint64
	keys     map[seal.KeyRef]key
	counters map[seal.KeyRef]nvIndex
}

// found is what is known in this turn's generation.
func (t *turn) found() *known {
	if k := &t.p.known; k.gen != t.gen || k.keys == nil {
		*k = known{gen: t.gen, keys: map[seal.KeyRef]key{}, counters: map[seal.KeyRef]nvIndex{}}
	}
	return &t.p.known
}

// forget makes the next look-up ask the TPM.
func (t *turn) forget() { t.p.known = known{} }

// Provision makes a checkpoint key, puts it at a persistent handle of the owner
// hierarchy, and tries it and the SRK. The SRK itself is not made persistent: it
// needs no room. The key is in the TPM on return; after an error it is not, unless
// the TPM no longer answers.
func (p *Provider) Provision(ctx context.Context) (Keys, error) {
	o, err := p.makeKey(ctx, checkpointTemplate, roleSign)
	if err != nil {
		return Keys{}, fmt.Errorf("making keys in TPM %s: %w", p.id, err)
	}
	keys := Keys{KEK: makeRef(p.srk), Checkpoint: makeRef(o.name().Buffer)}
	if err := p.persist(ctx, o, checkpointTemplate); err != nil {
		return Keys{}, fmt.Errorf("making keys in TPM %s: %w", p.id, err)
	}
	if err := p.try(ctx, keys); err != nil {
		if e := p.remove(context.WithoutCancel(ctx), keys.Checkpoint, checkpointTemplate); e != nil {
			err = fmt.Errorf("%w; removing the new checkpoint key %s: %v", err, keys.Checkpoint, e)
		}
		return Keys{}, fmt.Errorf("trying the new keys: %w", err)
	}
	return keys, nil
}

// try uses both keys once.
func (p *Provider) try(ctx context.Context, keys Keys) error {
	if _, err := p.SignP256(ctx, keys.Checkpoint, [32]byte{}); err != nil {
		return err
	}
	canary, aad := []byte("canary"), []byte("provision")
	blob, err := p.Seal(ctx, keys.KEK, canary, aad)
	if err != nil {
		return err
	}
	return p.Unseal(ctx, keys.KEK, blob, aad, func(b []byte) error {
		if !bytes.Equal(b, canary) {
			return fmt.Errorf("%w: the TPM unsealed something else", seal.ErrUnavailable)
		}
		return nil
	})
}

// makeKey makes a key under the SRK, with the auth value of r; the TPM keeps
// nothing of it.
func (p *Provider) makeKey(ctx context.Context, template tpm2.TPMTPublic, r role) (o object, err error) {
	err = p.do(ctx, func(t *turn) error {
		if template.Type == tpm2.TPMAlgRSA {
			t.timeout = makeRSATimeout
		}
		return p.auth.lend(r, func(auth []byte) error {
			return t.session(nil, encryptBoth, func(root storageKey, s tpm2.Session) error {
				o, err = t.createUnder(root, s, template, tpm2.TPMSSensitiveCreate{
					UserAuth: tpm2.TPM2BAuth{Buffer: auth},
					Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{}),
				})
				return err
			})
		})
	})
	return o, err
}

// persist puts the key at the first free handle, unless it is at one already.
func (p *Provider) persist(ctx context.Context, o object, template tpm2.TPMTPublic) error {
	return p.do(ctx, func(t *turn) error {
		t.forget()
		_, err := t.find(makeRef(o.name().Buffer), template)
		if !errors.Is(err, seal.ErrNotFound) {
			return err
		}
		taken, err := t.handles(tpm2.TPMHTPersistent)
		if err != nil {
			return err
		}
		free, ok := firstFree(taken, firstPersistent, lastPersistent)
		if !ok {
			return fmt.Errorf("TPM2_EvictControl: %w", tpm2.TPMRCNVSpace)
		}
		h, err := t.load(o)
		if err != nil {
			return err
		}
		t.forget()
		return t.evict(h, o.name(), free)
	})
}

// firstFree is the first handle from first to last that is not taken.
func firstFree(taken []tpm2.TPMHandle, first, last tpm2.TPMHandle) (free tpm2.TPMHandle, ok bool) {
	for free = first; slices.Contains(taken, free); {
		free++
	}
	return free, free <= last
}

// remove takes a key out of the TPM.
func (p *Provider) remove(ctx context.Context, ref seal.KeyRef, template tpm2.TPMTPublic) error {
	return p.do(ctx, func(t *turn) error {
		k, err := t.find(ref, template)
		if errors.Is(err, seal.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		t.forget()
		return t.evict(k.handle, k.name, k.handle)
	})
}

// evict makes a loaded object persistent, or a persistent one no more (Part 3 §28.5).
func (t *turn) evict(h tpm2.TPMHandle, name tpm2.TPM2BName, at tpm2.TPMHandle) error {
	return t.asOwner("TPM2_EvictControl", encryptNone, func(owner tpm2.AuthHandle) error {
		_, err := tpm2.EvictControl{Auth: owner, ObjectHandle: tpm2.NamedHandle{Handle: h, Name: name}, PersistentHandle: at}.Execute(t)
		return err
	})
}

// find finds the key whose Name is ref among the persistent objects of our range,
// and holds it against the template it was made from.
func (t *turn) find(ref seal.KeyRef, template tpm2.TPMTPublic) (key, error) {
	k, err := t.persistent(ref)
	if err != nil {
		return key{}, err
	}
	if !likeTemplate(k.public, template) {
		return key{}, fmt.Errorf("%w: object %#x is not a key as we make them for this", seal.ErrPolicy, uint32(k.handle))
	}
	return k, nil
}

func (t *turn) persistent(ref seal.KeyRef) (key, error) {
	found := t.found()
	if k, ok := found.keys[ref]; ok {
		return k, nil
	}
	handles, err := t.handles(tpm2.TPMHTPersistent)
	if err != nil {
		return key{}, err
	}
	for _, h := range handles {
		if h < firstPersistent || h > lastPersistent {
			continue
		}
		public, name, err := t.readPublic(h)
		if err != nil {
			return key{}, err
		}
		if makeRef(name) != ref {
			continue
		}
		k := key{handle: h, name: tpm2.TPM2BName{Buffer: name}, public: public}
		found.keys[ref] = k
		return k, nil
	}
	return key{}, fmt.Errorf("%w: no object at the persistent handles %#x to %#x has the Name %s; hint: tpm2_getcap handles-persistent lists them; the TPM may be another one, or was cleared",
		seal.ErrNotFound, uint32(firstPersistent), uint32(lastPersistent), ref)
}
