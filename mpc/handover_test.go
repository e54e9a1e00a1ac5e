package mpc_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// issued is the share of a new set's delegate.
func issued(t testing.TB) *mpc.Share {
	t.Helper()
	root := mpctest.Ed25519RootSet(t)
	_, shares, err := mpc.Issue(t.Context(), mpc.IssueRequest{From: root.ShareSet, Quorum: root.Shares(t, mpc.Recovery, mpc.Server), SetID: "dlg_1/1",
		Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range shares {
		if s.Party() == mpc.Delegate {
			return s
		}
	}
	t.Fatal("the set has no delegate")
	return nil
}

func textOf(t testing.TB, s *mpc.Share, path []uint32) (text []byte) {
	t.Helper()
	if err := mpc.HandOver(s, path, "dlg_1", "app_1", func(b []byte) error { text = bytes.Clone(b); return nil }); err != nil {
		t.Fatal(err)
	}
	return text
}

// What comes out is what went in, and a share that was lent is wiped.
func TestHandoverCarriesAShare(t *testing.T) {
	s := issued(t)
	text := textOf(t, s, []uint32{0, 7})
	var kept []byte
	err := mpc.OpenHandover(text, func(h mpc.Handover, share []byte) error {
		kept = share
		if h.Party != mpc.Delegate || h.Set.ID != "dlg_1/1" || h.Delegation != "dlg_1" || h.Appliance != "app_1" || !slices.Equal(h.Path, []uint32{0, 7}) ||
			!slices.Equal(h.Others(), []mpc.Party{mpc.Server}) || !bytes.Equal(h.PublicKey, s.Set().PublicKey) {
			t.Errorf("opened as %+v", h)
		}
		return s.Lend(func(own []byte) error {
			if !bytes.Equal(own, share) {
				t.Error("another share came out")
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(kept, make([]byte, len(kept))) {
		t.Error("the share was not wiped")
	}
	own := errors.New("mine")
	if err := mpc.OpenHandover(text, func(mpc.Handover, []byte) error { return own }); err != own {
		t.Errorf("the error of use came back as %v", err)
	}
}

func TestHandoverHasOneForm(t *testing.T) {
	text := textOf(t, issued(t), nil)
	change := func(old, with string) []byte {
		changed := bytes.Replace(text, []byte(old), []byte(with), 1)
		if bytes.Equal(changed, text) {
			t.Fatalf("%q is not in the text", old)
		}
		return changed
	}
	for name, b := range map[string][]byte{
		"nothing":                 {},
		"a vendor's":              []byte(`{"pubkey":{},"secretShare":"AAAA"}`),
		"cut short":               text[:len(text)-1],
		"a byte more":             append(bytes.Clone(text), ' '),
		"an unknown member":       change(`"party"`, `"x":1,"party"`),
		"a member twice":          change(`"delegation":"dlg_1"`, `"delegation":"dlg_1","delegation":"dlg_1"`),
		"another party":           change(`"party":"delegate"`, `"party":"server"`),
		"another set":             change(`"id":"dlg_1/1"`, `"id":"dlg_2/1"`),
		"a line end in the share": change(`{"secretShare":"`, "{\"secretShare\":\"\n"),
		"no share":                append([]byte(`{"secretShare":"",`), text[bytes.Index(text, []byte(`"pubkey"`)):]...),
		"too long":                append([]byte(`{"secretShare":"`), bytes.Repeat([]byte{'A'}, 64<<10)...),
	} {
		err := mpc.OpenHandover(b, func(mpc.Handover, []byte) error { t.Errorf("%s was opened", name); return nil })
		if !errors.Is(err, mpc.ErrHandover) {
			t.Errorf("%s: %v, want ErrHandover", name, err)
		}
	}
}

// What opens has one encoding, and nothing panics.
func FuzzOpenHandover(f *testing.F) {
	f.Add(textOf(f, issued(f), nil))
	f.Add([]byte(`{"secretShare":"AA==","pubkey":null,"party":"","shareSet":{},"delegation":"","appliance":""}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		err := mpc.OpenHandover(text, func(h mpc.Handover, share []byte) error {
			set, party, err := mpc.DescribeShare(share)
			if err != nil || party != h.Party || set.ID != h.Set.ID {
				t.Errorf("lent a share of %s and %s, %v; described as of %s and %s", set.ID, party, err, h.Set.ID, h.Party)
			}
			return nil
		})
		if err != nil && !errors.Is(err, mpc.ErrHandover) {
			t.Errorf("refused with %v", err)
		}
	})
}
