package hsm

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sigild/sigild/seal"
)

func TestReferencesHaveOneSpelling(t *testing.T) {
	for text, want := range map[seal.KeyRef]keyRef{
		"00ff":                            {wrap: wrapGCM, id: []byte{0, 255}},
		"00ff;kwp":                        {wrap: wrapKWP, id: []byte{0, 255}},
		"00ff;kwpad":                      {wrap: wrapPad, id: []byte{0, 255}},
		"00ff;rawoaep;without=modifiable": {wrap: wrapRawOAEP, without: lackModifiable, id: []byte{0, 255}},
		"00ff;without=copyable,local":     {wrap: wrapGCM, without: lackCopyable | lackLocal, id: []byte{0, 255}},
	} {
		got, err := parseRef(text)
		if err != nil || got.wrap != want.wrap || got.without != want.without || !bytes.Equal(got.id, want.id) {
			t.Errorf("parsing %q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	longest := keyRef{wrap: wrapRawOAEP, without: lackAll, id: make([]byte, 16)}.text()
	if _, err := parseRef(longest); err != nil || len(longest) > maxRef {
		t.Errorf("parsing the longest reference of ours, %d bytes: %v", len(longest), err)
	}
	for _, bad := range []seal.KeyRef{
		"", "0", "00FF", "zz", ";kwp", "00ff;", "00ff;gcm", "00ff;KWP", "00ff;kwp;kwp", "00ff;without=", "00ff;without=secret",
		"00ff;without=local,copyable", "00ff;without=copyable,copyable", "00ff;without=copyable;kwp", "00ff;without=Copyable", " 00ff", "00ff\n",
		seal.KeyRef(strings.Repeat("ab", 65)), seal.KeyRef(strings.Repeat("ab", 4096)),
	} {
		if r, err := parseRef(bad); !errors.Is(err, seal.ErrNotFound) {
			t.Errorf("parsing %.40q: %+v, %v, want ErrNotFound", bad, r, err)
		}
	}
	// Decryption keys are told apart by their references alone, so they have no more.
	if _, err := plainID("00ff;without=copyable"); !errors.Is(err, seal.ErrNotFound) {
		t.Errorf("a decryption key with options: %v, want ErrNotFound", err)
	}
	if id, err := plainID("00ff"); err != nil || !bytes.Equal(id, []byte{0, 255}) {
		t.Errorf("a decryption key: %x, %v", id, err)
	}
}

func TestProtectionNamesFitTheBits(t *testing.T) {
	if got := len(lackAll.names()); got != len(protectionNames) || lackLocal.names()[0] != "CKA_LOCAL" {
		t.Errorf("%d names for all bits, the last is %v", got, lackLocal.names())
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"00ff", "00ff;kwp;without=copyable,local", "00ff;rawoaep", "00ff;;", "00ff;without=", ";", strings.Repeat("ab", 64)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRef(seal.KeyRef(s))
		if err != nil {
			return
		}
		if r.text() != seal.KeyRef(s) {
			t.Errorf("%q is written again as %q", s, r.text())
		}
		again, err := readWire(r.wire())
		if err != nil || again.text() != r.text() {
			t.Errorf("%q crosses the wire as %q, %v", s, again.text(), err)
		}
	})
}

func FuzzReadWire(f *testing.F) {
	f.Add([]byte{1, 0, 0, 7})
	f.Add([]byte{5, 0x0f, 0xff, 7, 8})
	f.Add([]byte{9, 0xff, 0xff, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < boundKey.min || len(b) > boundKey.max {
			return // the codec refuses it before
		}
		if r, err := readWire(b); err == nil && !bytes.Equal(r.wire(), b) {
			t.Errorf("%x is written again as %x", b, r.wire())
		}
	})
}
