//go:build cgo

package hsm

import "time"

// This file is what the worker remembers of keys. Finding a key and reading all
// of its attributes takes several times as long as using it, so that is done
//
//   - at the first use after the worker started, and so after each respawn;
//   - when a module said no to a handle (the ladder's second step);
//   - at each Health and Check;
//   - when the last time is checkEvery ago.
//
// In between, each use relies on the object handle: it names the object that was
// checked, and a module refuses it once the object is gone. For at most checkEvery
// can go unnoticed: a second key with the same id beside ours, which is still the
// one in use; an attribute that a token let somebody change in spite of
// CKA_MODIFIABLE=0; and, where a token gives a new object the handle of one that
// was destroyed, a key put in the place of ours. Reading even one attribute at
// each use would double the time of a call on SoftHSM.

// checkEvery is the longest time between two complete checks of a key in use.
const checkEvery = 10 * time.Second

// maxKnown bounds the memory; a worker serves a few keys.
const maxKnown = 64

// knownID is a whole reference: what a key may lack is part of what was checked.
type knownID struct {
	kind    byte // kindKEK, kindCheckpoint, kindRSA
	wrap    wrapping
	without protection
	id      string
}

// knownKey is a key that was checked.
type knownKey struct {
	kek     kek
	key     key           // of a checkpoint key
	point   []byte        // likewise
	rsa     decryptionKey // of a decryption key
	checked time.Time
}

// recall returns the key if it was checked lately, else what find finds and checks.
func (t *token) recall(kind byte, r keyRef, find func() (knownKey, error)) (knownKey, error) {
	name := knownID{kind, r.wrap, r.without, string(r.id)}
	if k, ok := t.known[name]; ok && time.Since(k.checked) < checkEvery {
		return k, nil
	}
	delete(t.known, name)
	k, err := find()
	if err != nil {
		return knownKey{}, err
	}
	if t.known == nil || len(t.known) >= maxKnown {
		t.known = map[knownID]knownKey{}
	}
	k.checked = time.Now()
	t.known[name] = k
	return k, nil
}

// forget makes the next use of a key check it again.
func (t *token) forget(id []byte) {
	for name := range t.known {
		if name.id == string(id) {
			delete(t.known, name)
		}
	}
}
