package mpc

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

func testSet() ShareSet {
	return ShareSet{ID: "set-1", Scheme: chains.EdDSAEd25519, Parties: []Party{Recovery, Server, User}, Threshold: 2,
		Epoch: 3, Engine: "engine", PublicKey: bytes.Repeat([]byte{9}, 32)}
}

func encodeShare(set ShareSet, p Party, body []byte) []byte {
	return opened{set: set, party: p, body: body}.encode()
}

func TestShareWithChainCode(t *testing.T) {
	set := testSet()
	set.Scheme, set.PublicKey = chains.ECDSASecp256k1, bytes.Repeat([]byte{2}, 33)
	b := opened{set, Server, bytes.Repeat([]byte{7}, 32), []byte("body")}.encode()
	got, err := decodeShare(b)
	if err != nil || !bytes.Equal(got.chainCode, bytes.Repeat([]byte{7}, 32)) || string(got.body) != "body" {
		t.Errorf("decoded %+v, error %v", got, err)
	}
	if _, err := decodeShare(opened{testSet(), Server, bytes.Repeat([]byte{7}, 32), []byte("body")}.encode()); !errors.Is(err, ErrShare) {
		t.Errorf("an Ed25519 share with a chain code: error %v, want ErrShare", err)
	}
	other := opened{set, User, bytes.Repeat([]byte{8}, 32), []byte("body")}.encode()
	if _, err := openShares(set, [][]byte{b, other}); !errors.Is(err, ErrShare) {
		t.Errorf("two chain codes: error %v, want ErrShare", err)
	}
}

func TestShareRoundTrip(t *testing.T) {
	set := testSet()
	got, err := decodeShare(encodeShare(set, Server, []byte("secret body")))
	if err != nil || !got.set.equal(set) || got.party != Server || string(got.body) != "secret body" || got.chainCode != nil {
		t.Errorf("decoded %+v, error %v", got, err)
	}
}

func TestShareRefusesHeadersThatAreNotValid(t *testing.T) {
	for name, change := range map[string]func(*ShareSet){
		"unsorted parties": func(s *ShareSet) { slices.Reverse(s.Parties) },
		"threshold 1":      func(s *ShareSet) { s.Threshold = 1 },
		"threshold 4":      func(s *ShareSet) { s.Threshold = 4 },
		"epoch 0":          func(s *ShareSet) { s.Epoch = 0 },
		"no engine":        func(s *ShareSet) { s.Engine = "" },
		"short key":        func(s *ShareSet) { s.PublicKey = s.PublicKey[1:] },
		"unknown scheme":   func(s *ShareSet) { s.Scheme = "none" },
		"no id":            func(s *ShareSet) { s.ID = "" },
		"not of the set":   func(s *ShareSet) { s.Parties = []Party{Recovery, User} },
	} {
		set := testSet()
		set.Parties = slices.Clone(set.Parties)
		change(&set)
		if _, _, err := DescribeShare(encodeShare(set, Server, []byte("b"))); !errors.Is(err, ErrShare) {
			t.Errorf("%s: error %v, want ErrShare", name, err)
		}
	}
	if _, _, err := DescribeShare(encodeShare(testSet(), Server, nil)); !errors.Is(err, ErrShare) {
		t.Errorf("empty body: error %v, want ErrShare", err)
	}
}

func mustShare(t *testing.T, body string) *Share {
	t.Helper()
	s, err := newShare(opened{set: testSet(), party: User, body: []byte(body)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDestroyedShareLendsNothing(t *testing.T) {
	s := mustShare(t, "body")
	if err := s.Lend(func(b []byte) error { _, _, err := DescribeShare(b); return err }); err != nil {
		t.Fatal(err)
	}
	s.Destroy()
	s.Destroy()
	if err := s.Lend(func([]byte) error { return nil }); !errors.Is(err, ErrDestroyed) {
		t.Errorf("error %v, want ErrDestroyed", err)
	}
}

func TestSecretsPrintAndEncodeAsNothing(t *testing.T) {
	const text = "very secret"
	share := mustShare(t, text)
	pre, err := newPreParams([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	// fmt looks into unexported fields without calling methods.
	type holder struct {
		share *Share
		pre   *PreParams
	}
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%x", "%d"} {
		out := fmt.Sprintf(verb, holder{share, pre}) + fmt.Sprintf(verb, &holder{share, pre})
		for _, form := range []string{"%s", "%x", "%d", "%#v"} {
			if strings.Contains(out, strings.Trim(fmt.Sprintf(form, []byte(text)), "[]")) {
				t.Errorf("a struct that holds secrets prints %q for %s", out, verb)
			}
		}
	}
	for _, v := range []any{share, pre, PreParamNumbers{}, &PreParamNumbers{}} {
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("m", "v", v)
		for _, out := range []string{fmt.Sprint(v), fmt.Sprintf("%v %+v %#v %s %q %x %d", v, v, v, v, v, v, v), log.String()} {
			if strings.Contains(out, text) || strings.Contains(out, fmt.Sprintf("%x", text)) || !strings.Contains(out, "[redacted]") {
				t.Errorf("%T prints %q", v, out)
			}
		}
		if b, err := json.Marshal(v); err == nil {
			t.Errorf("%T is encoded as JSON %q", v, b)
		}
		if b, err := json.Marshal(map[string]any{"v": v}); err == nil {
			t.Errorf("%T is encoded inside JSON %q", v, b)
		}
		if err := gob.NewEncoder(new(bytes.Buffer)).Encode(v); err == nil {
			t.Errorf("%T is encoded as gob", v)
		}
	}
}

func TestQuorums(t *testing.T) {
	got := fmt.Sprint(quorums([]Party{Recovery, Server, User}, 2))
	if want := "[[recovery server] [recovery user] [server user]]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTestInputIsNoTransaction(t *testing.T) {
	in := testInput(chains.EdDSAEd25519)
	// Solana: the first byte of a message is a signature count below 0x80 or a
	// version with the top bit, of which only 0x80 exists.
	if in.Message[0] != 0xff || !bytes.Contains(in.Message, []byte("not a transaction")) {
		t.Errorf("message %q", in.Message)
	}
	if err := checkInput(chains.ECDSASecp256k1, testInput(chains.ECDSASecp256k1)); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeShare(f *testing.F) {
	good := encodeShare(testSet(), Server, []byte("body"))
	f.Add(good)
	f.Add(good[:len(good)-1])
	set := testSet()
	set.Scheme, set.PublicKey = chains.ECDSASecp256k1, bytes.Repeat([]byte{2}, 33)
	f.Add(opened{set, Server, bytes.Repeat([]byte{7}, 32), []byte("body")}.encode())
	f.Add([]byte{1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := decodeShare(b)
		if err != nil {
			if !errors.Is(err, ErrShare) {
				t.Errorf("error %v, want ErrShare", err)
			}
			return
		}
		if again := o.encode(); !bytes.Equal(again, b) {
			t.Errorf("%x decodes, but encodes as %x", b, again)
		}
	})
}
