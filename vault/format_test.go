package vault

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/seal"
)

// fixedKeyring has a root key that never changes, for vectors.
func fixedKeyring(t testing.TB) *keyring {
	t.Helper()
	k, err := newKeyring(bytes.Repeat([]byte{0x42}, 32), fixedStoreID, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.destroy)
	lasting, err := k.lastingOfV1()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.hold(lasting); err != nil {
		t.Fatal(err)
	}
	return k
}

var fixedStoreID = [16]byte([]byte("store-id-fixed-1"))

func fixedMeta(t testing.TB, k *keyring) recordMeta {
	t.Helper()
	key, err := k.recordKey(TypeWallet, "wallet-1")
	if err != nil {
		t.Fatal(err)
	}
	return recordMeta{Type: TypeWallet, Key: key, Version: 9, Created: 1_772_366_400}
}

func openText(k *keyring, m recordMeta, env []byte) (text string, err error) {
	err = k.open(m, nil, bytes.Clone(env), func(id string, p []byte) error { text = id + "=" + string(p); return nil })
	return text, err
}

// eachFlip calls fn with every one-bit change of b.
func eachFlip(b []byte, fn func(bit int, changed []byte)) {
	c := bytes.Clone(b)
	for bit := range 8 * len(b) {
		c[bit/8] ^= 1 << (bit % 8)
		fn(bit, c)
		c[bit/8] ^= 1 << (bit % 8)
	}
}

func TestEnvelopeRefusesEveryChange(t *testing.T) {
	k := fixedKeyring(t)
	m := fixedMeta(t, k)
	env, err := k.seal(m, nil, "wallet-1", []byte("some plaintext"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := openText(k, m, env); err != nil || got != "wallet-1=some plaintext" {
		t.Fatalf("opening = %q, %v", got, err)
	}
	eachFlip(env, func(bit int, changed []byte) {
		if bit/8 >= 66 && bit/8 < 74 {
			// The date is for people and not known to the reader: it's under the AAD only.
			if _, err := parseEnvelope(changed); err != nil {
				t.Errorf("bit %d: %v", bit, err)
			}
		}
		if _, err := openText(k, m, changed); !errors.Is(err, ErrTampered) {
			t.Errorf("bit %d of byte %d flipped: %v, want ErrTampered", bit%8, bit/8, err)
		}
	})
	for n := range env {
		if _, err := openText(k, m, env[:n]); !errors.Is(err, ErrTampered) {
			t.Errorf("cut to %d bytes: %v, want ErrTampered", n, err)
		}
	}
	if _, err := openText(k, m, append(bytes.Clone(env), 0)); !errors.Is(err, ErrTampered) {
		t.Errorf("extended: %v, want ErrTampered", err)
	}
}

func TestEnvelopeIsBoundToItsPlace(t *testing.T) {
	k := fixedKeyring(t)
	m := fixedMeta(t, k)
	env, err := k.seal(m, nil, "wallet-1", []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	other := m
	other.Version++
	if _, err := openText(k, other, env); !errors.Is(err, ErrTampered) {
		t.Errorf("as another version: %v", err)
	}
	other = m
	other.Type = TypeUser
	if _, err := openText(k, other, env); !errors.Is(err, ErrTampered) {
		t.Errorf("as another type: %v", err)
	}
	other = m
	other.Key[31]++
	if _, err := openText(k, other, env); !errors.Is(err, ErrTampered) {
		t.Errorf("as another record: %v", err)
	}
	for name, root := range map[string]byte{"another root key": 0x43} {
		k2, err := newKeyring(bytes.Repeat([]byte{root}, 32), fixedStoreID, 1)
		if err != nil {
			t.Fatal(err)
		}
		defer k2.destroy()
		if _, err := openText(k2, m, env); !errors.Is(err, ErrTampered) {
			t.Errorf("under %s: %v", name, err)
		}
	}
	k3, err := newKeyring(bytes.Repeat([]byte{0x42}, 32), fixedStoreID, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer k3.destroy()
	if _, err := openText(k3, m, env); !errors.Is(err, ErrTampered) {
		t.Errorf("under another generation: %v", err)
	}

	// A wrap moved from one record to another doesn't open it.
	m2 := m
	m2.Key[0]++
	env2, err := k.seal(m2, nil, "wallet-2", []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	mixed := bytes.Clone(env)
	copy(mixed[coreLen:], env2[coreLen:coreLen+wrapLen])
	if _, err := openText(k, m, mixed); !errors.Is(err, ErrTampered) {
		t.Errorf("with another record's wrap: %v", err)
	}
}

// The wrap is outside the payload's AAD, so that a new root key rewrites it alone.
func TestEnvelopeRewrapsWithoutItsPlaintext(t *testing.T) {
	k := fixedKeyring(t)
	m := fixedMeta(t, k)
	env, err := k.seal(m, nil, "wallet-1", []byte("text"))
	if err != nil {
		t.Fatal(err)
	}
	next, err := newKeyring(bytes.Repeat([]byte{0x55}, 32), fixedStoreID, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer next.destroy()
	before := bytes.Clone(env)
	err = k.use(func(old *subkeys) error {
		return next.use(func(s *subkeys) error { return rewrapEnvelope(old.wrap, s.wrap, 2, env) })
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(env[:coreLen], before[:coreLen]) || !bytes.Equal(env[coreLen+wrapLen:], before[coreLen+wrapLen:]) {
		t.Error("more than the wrap was rewritten")
	}
	if got, err := openText(next, m, env); err != nil || got != "wallet-1=text" {
		t.Errorf("after a new wrap: %q, %v", got, err)
	}
	if _, err := openText(k, m, env); !errors.Is(err, ErrTampered) {
		t.Errorf("under the old root key: %v", err)
	}
}

func TestKeyslotsRefuseEveryChange(t *testing.T) {
	ctx := context.Background()
	root := bytes.Repeat([]byte{9}, 32)
	commit := rootCommit(root, fixedStoreID)
	groups, err := sealGroups(ctx, root, slotGroup{generation: 1, store: fixedStoreID, commit: commit}, time.Unix(1_772_366_400, 0), []KeyHolder{softHolder()})
	if err != nil {
		t.Fatal(err)
	}
	groupBytes, slotBytes := groups[0].encode(), groups[0].slots[0].encode()
	try := func(g, s []byte) error {
		gr, err := parseGroup(g)
		if err != nil {
			return err
		}
		sl, err := parseSlot(s)
		if err != nil {
			return err
		}
		joined, err := joinSlots(fixedStoreID, []slotGroup{gr}, []slot{sl})
		if err != nil {
			return err
		}
		sealers := map[string]seal.Sealer{sl.info.Provider: softSealers[softID]}
		return joined[0].unsealGroup(ctx, sealers, func(got []byte) error {
			if !bytes.Equal(got, root) {
				t.Error("another root key came out")
			}
			return nil
		})
	}
	if err := try(groupBytes, slotBytes); err != nil {
		t.Fatal(err)
	}
	eachFlip(slotBytes, func(bit int, b []byte) {
		if err := try(groupBytes, b); !errors.Is(err, ErrTampered) {
			t.Errorf("slot bit %d flipped: %v, want ErrTampered", bit, err)
		}
	})
	eachFlip(groupBytes, func(bit int, b []byte) {
		if err := try(b, slotBytes); !errors.Is(err, ErrTampered) {
			t.Errorf("group bit %d flipped: %v, want ErrTampered", bit, err)
		}
	})
	for n := range slotBytes {
		if err := try(groupBytes, slotBytes[:n]); !errors.Is(err, ErrTampered) {
			t.Errorf("slot cut to %d: %v", n, err)
		}
	}
	for n := range groupBytes {
		if err := try(groupBytes[:n], slotBytes); !errors.Is(err, ErrTampered) {
			t.Errorf("group cut to %d: %v", n, err)
		}
	}
	if err := try(groupBytes, append(bytes.Clone(slotBytes), 0)); !errors.Is(err, ErrTampered) {
		t.Errorf("slot extended: %v", err)
	}
}

func TestStatementRefusesEveryChange(t *testing.T) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{3}, 32))
	pin := Pin{StoreID: fixedStoreID, StoreKey: [32]byte(key.Public().(ed25519.PublicKey))}
	b := statement{storeID: fixedStoreID, generation: 1, commit: [32]byte{1, 2, 3}, created: 5}.sign(key)
	if s, err := openStatement(pin, b); err != nil || s.generation != 1 || s.commit != [32]byte{1, 2, 3} {
		t.Fatalf("statement = %+v, %v", s, err)
	}
	eachFlip(b, func(bit int, b []byte) {
		if _, err := openStatement(pin, b); !errors.Is(err, ErrTampered) && !errors.Is(err, ErrPinMismatch) {
			t.Errorf("bit %d flipped: %v", bit, err)
		}
	})
	for n := range b {
		if _, err := openStatement(pin, b[:n]); !errors.Is(err, ErrTampered) {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
	other := pin
	other.StoreID[0]++
	if _, err := openStatement(other, b); !errors.Is(err, ErrPinMismatch) {
		t.Errorf("for another store: %v", err)
	}
}

func TestHeadReadsWhatItWrites(t *testing.T) {
	h := head{version: headVersion, storeID: fixedStoreID, generation: 2, previous: 1, keyslots: [32]byte{9}, epoch: 3, seq: 4, records: 5, setRoot: [32]byte{6}, journal: JournalHead{Seq: 7, Hash: [32]byte{8}}}
	got, err := parseHead(h.encode())
	if err != nil || got != h {
		t.Errorf("head = %+v, %v; want %+v", got, err, h)
	}
	for n := range h.encode() {
		if _, err := parseHead(h.encode()[:n]); !errors.Is(err, ErrTampered) {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
}

func TestHeadRefusesEveryChange(t *testing.T) {
	keys, err := newKeyring(bytes.Repeat([]byte{9}, 32), fixedStoreID, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.destroy()
	h := head{version: headVersion, storeID: fixedStoreID, generation: 2, previous: 1, keyslots: [32]byte{9}, epoch: 3, seq: 4, records: 5, setRoot: [32]byte{6}, journal: JournalHead{Seq: 7, Hash: [32]byte{8}}}
	body := h.encode()
	mac, err := keys.headMAC(body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.openHead(body, mac[:], fixedStoreID); err != nil || got != h {
		t.Fatalf("head = %+v, %v", got, err)
	}
	tried := 0
	refused := func(what string, n int, body, mac []byte) {
		tried++
		if _, err := keys.openHead(body, mac, fixedStoreID); !errors.Is(err, ErrTampered) {
			t.Errorf("%s %d: %v, want ErrTampered", what, n, err)
		}
	}
	eachFlip(body, func(bit int, b []byte) { refused("body bit flipped", bit, b, mac[:]) })
	eachFlip(mac[:], func(bit int, b []byte) { refused("MAC bit flipped", bit, body, b) })
	for n := range body {
		refused("body cut to", n, body[:n], mac[:])
	}
	for n := range mac {
		refused("MAC cut to", n, body, mac[:n])
	}
	refused("body longer by", 1, append(bytes.Clone(body), 0), mac[:])
	refused("MAC longer by", 1, body, append(bytes.Clone(mac[:]), 0))
	t.Logf("%d changed heads, none accepted", tried)
	other := fixedStoreID
	other[0]++
	if _, err := keys.openHead(body, mac[:], other); !errors.Is(err, ErrTampered) {
		t.Errorf("the head of another store: %v", err)
	}
}

func TestPinIsStrict(t *testing.T) {
	p := Pin{StoreID: fixedStoreID, StoreKey: [32]byte{0xab}}
	text, err := p.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParsePin(text); err != nil || got != p {
		t.Errorf("ParsePin = %+v, %v; want %+v", got, err, p)
	}
	s := string(text)
	for name, bad := range map[string]string{
		"empty": "", "no last newline": strings.TrimSuffix(s, "\n"), "fourth line": s + "x: y\n", "blank line": s + "\n",
		"version 2": strings.Replace(s, ": 1", ": 2", 1), "upper case": strings.Replace(s, "ab00", "AB00", 1), "not hex": strings.Replace(s, "ab00", "zz00", 1),
		"short": strings.Replace(s, "ab00", "ab", 1), "CRLF": strings.ReplaceAll(s, "\n", "\r\n"), "indented": " " + s,
		"other algorithm": strings.Replace(s, "ed25519", "rsa", 1),
	} {
		if _, err := ParsePin([]byte(bad)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func FuzzParsePin(f *testing.F) {
	text, err := Pin{StoreID: fixedStoreID}.MarshalText()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("sigild-store-pin: 1\nstore-id: \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePin(b)
		if err != nil {
			return
		}
		if again, err := p.MarshalText(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("accepted %q, which is written %q", b, again)
		}
	})
}

func FuzzParseEnvelope(f *testing.F) {
	k := fixedKeyring(f)
	m := fixedMeta(f, k)
	env, err := k.seal(m, nil, "wallet-1", []byte("text"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env)
	f.Add(env[:ctOffset])
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := openText(k, m, b)
		if err == nil && text != "wallet-1=text" {
			t.Errorf("opened %q", text)
		}
		if err != nil && !errors.Is(err, ErrTampered) {
			t.Errorf("error is not ErrTampered: %v", err)
		}
	})
}

func FuzzParseSlot(f *testing.F) {
	s := slot{info: SlotInfo{ID: 1, Provider: "p", Ref: "r", Generation: 1, Created: time.Unix(1, 0).UTC()}, scheme: schemeSealer, blob: []byte("blob")}
	s.header = s.encodeHeader()
	f.Add(s.encode())
	f.Add([]byte(slotMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSlot(b)
		if err != nil {
			return
		}
		if s.header = s.encodeHeader(); !bytes.Equal(s.encode(), b) {
			t.Errorf("accepted %x, which is written %x", b, s.encode())
		}
	})
}

func FuzzParseGroup(f *testing.F) {
	g := slotGroup{generation: 1, members: 1, nonce: make([]byte, nonceLen), wrapped: make([]byte, 48), slots: []slot{{}}}
	g.slots[0].info.Created = time.Unix(1, 0)
	g.header = g.encodeHeader()
	f.Add(g.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := parseGroup(b)
		if err == nil && !bytes.Equal(g.encode(), b) {
			t.Errorf("accepted %x, which is written %x", b, g.encode())
		}
	})
}

func FuzzParseHead(f *testing.F) {
	h := head{storeID: fixedStoreID, generation: 1}
	f.Add(h.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHead(b)
		if err == nil && h.version == headVersion && !bytes.Equal(h.encode(), b) {
			t.Errorf("accepted %x, which is written %x", b, h.encode())
		}
	})
}

func FuzzSplitFrame(f *testing.F) {
	f.Add([]byte{0, 1, 'x', 'y'})
	f.Add([]byte{255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, p, err := splitFrame(b)
		if err == nil && len(id)+len(p)+2 != len(b) {
			t.Errorf("%x gives %q and %x", b, id, p)
		}
	})
}
