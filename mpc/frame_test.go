package mpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
)

func someFrames() []frame {
	return []frame{
		{typ: frameProposal, body: []byte(`{}`)},
		{typ: frameAcceptance, body: bytes.Repeat([]byte{7}, nonceBytes)},
		{typ: frameRefusal, body: []byte("no policy allows it")},
		{typ: frameMessage, env: Envelope{Session: [32]byte{1}, From: alice, To: []Member{bob}, Kind: "round1", Broadcast: true, Payload: []byte("payload")}},
		{typ: frameMessage, env: Envelope{Session: [32]byte{2}, From: bob, Kind: "round2", Payload: []byte{}}},
		{typ: frameAgreement, what: "new set", hash: [32]byte{9}},
		{typ: frameEnd, body: []byte("it failed here")},
	}
}

func TestFramesAreReadAsTheyWereWritten(t *testing.T) {
	for i, f := range someFrames() {
		b := f.encode(uint64(i))
		seq, got, err := decodeFrame(b)
		if err != nil || seq != uint64(i) || !reflect.DeepEqual(got, f) {
			t.Errorf("frame %d: number %d, %+v, error %v, want %+v", i, seq, got, err, f)
		}
		for n := range b {
			// A proposal, a refusal and an end are as long as they are.
			if _, cut, err := decodeFrame(b[:n]); err == nil && cut.typ != frameProposal && cut.typ != frameRefusal && cut.typ != frameEnd {
				t.Errorf("frame %d cut to %d of %d bytes was read as %+v", i, n, len(b), cut)
			}
		}
	}
}

func TestFramesThatAreNone(t *testing.T) {
	message := frame{typ: frameMessage, env: Envelope{From: alice, To: []Member{bob}, Kind: "k", Payload: []byte("p")}}.encode(1)
	flags := bytes.Clone(message)
	flags[len(flags)-6] = 2
	for name, b := range map[string][]byte{
		"empty":              nil,
		"another version":    append([]byte{2}, message[1:]...),
		"another type":       append([]byte{1, 99}, message[2:]...),
		"something follows":  append(bytes.Clone(message), 0),
		"unknown flags":      flags,
		"too long":           make([]byte, MaxFrame+1),
		"a novel as refusal": frame{typ: frameRefusal, body: make([]byte, maxText+1)}.encode(0),
	} {
		if _, f, err := decodeFrame(b); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: read as %+v, error %v, want ErrFrame", name, f, err)
		}
	}
}

// FuzzFrame: what is read is written back as the same bytes, and nothing crashes.
func FuzzFrame(f *testing.F) {
	for i, fr := range someFrames() {
		f.Add(fr.encode(uint64(i)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		seq, fr, err := decodeFrame(b)
		if err != nil {
			return
		}
		if again := fr.encode(seq); !bytes.Equal(again, b) {
			t.Errorf("%x was read, and is written as %x", b, again)
		}
	})
}

func someProposal(op string) Proposal {
	from := ShareSet{ID: "key/root/1", Scheme: chains.EdDSAEd25519, Parties: []Party{Recovery, Server, User}, Threshold: 2, Epoch: 1, Engine: "e", PublicKey: make([]byte, 32)}
	p := Proposal{V: 1, Nonce: make([]byte, 32), Op: op, Engine: "e", Key: "key", Decision: "cer"}
	switch op {
	case OpKeygen:
		from.PublicKey = nil
		p.To, p.ToProposer, p.ToAcceptor = &from, []Party{Recovery, Server}, []Party{User}
	case OpIssue:
		to := from
		to.ID, to.Parties, to.Epoch = "dlg/1", []Party{Delegate, Server}, 2
		p.From, p.FromProposer, p.FromAcceptor, p.To, p.ToProposer, p.ToAcceptor = &from, []Party{Server}, []Party{User}, &to, []Party{Delegate, Server}, nil
	case OpSign:
		p.From, p.FromProposer, p.FromAcceptor = &from, []Party{Server}, []Party{User}
		p.Kind, p.Payload, p.Digest = chains.KindSolanaMessage, []byte("m"), make([]byte, 32)
	}
	return p
}

func encodeProposal(t testing.TB, p Proposal) []byte {
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProposalsAreReadStrictly(t *testing.T) {
	for _, op := range []string{OpKeygen, OpIssue, OpSign} {
		if _, err := decodeProposal(encodeProposal(t, someProposal(op))); err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
	for _, tc := range []struct {
		name, op string
		change   func(*Proposal)
	}{
		{"another version", OpSign, func(p *Proposal) { p.V = 2 }},
		{"no nonce", OpSign, func(p *Proposal) { p.Nonce = nil }},
		{"no key", OpSign, func(p *Proposal) { p.Key = "" }},
		{"a key with a newline", OpSign, func(p *Proposal) { p.Key = "a\nb" }},
		{"no decision", OpSign, func(p *Proposal) { p.Decision = "" }},
		{"an unknown operation", OpSign, func(p *Proposal) { p.Op = "export" }},
		{"a signature without digest", OpSign, func(p *Proposal) { p.Digest = nil }},
		{"a signature that makes a set", OpSign, func(p *Proposal) { p.To = p.From }},
		{"a keygen that knows its key", OpKeygen, func(p *Proposal) { p.To.PublicKey = make([]byte, 32) }},
		{"a keygen with a payload", OpKeygen, func(p *Proposal) { p.Payload = []byte("m") }},
		{"an issue to another key", OpIssue, func(p *Proposal) { p.To.PublicKey = bytes.Repeat([]byte{1}, 32) }},
		{"an issue to the same set", OpIssue, func(p *Proposal) { p.To.ID = p.From.ID }},
		{"a party played twice", OpSign, func(p *Proposal) { p.FromAcceptor = p.FromProposer }},
		{"a party of no set", OpSign, func(p *Proposal) { p.FromAcceptor = []Party{Delegate} }},
		{"too few parties", OpSign, func(p *Proposal) { p.FromAcceptor = nil }},
		{"a party of the new set missing", OpKeygen, func(p *Proposal) { p.ToProposer = []Party{Server} }},
		{"parties out of order", OpKeygen, func(p *Proposal) { p.ToProposer = []Party{Server, Recovery} }},
		{"nobody on one side", OpSign, func(p *Proposal) { p.FromAcceptor, p.FromProposer = nil, []Party{Server, User} }},
		{"a chain code to one who has it", OpIssue, func(p *Proposal) { p.ChainCode = make([]byte, 32) }},
		{"a long path", OpSign, func(p *Proposal) { p.Path = make([]uint32, maxPath+1) }},
	} {
		p := someProposal(tc.op)
		tc.change(&p)
		if _, err := decodeProposal(encodeProposal(t, p)); !errors.Is(err, errProposal) {
			t.Errorf("%s: error %v, want a refusal", tc.name, err)
		}
	}
	good := string(encodeProposal(t, someProposal(OpSign)))
	for name, text := range map[string]string{
		"an unknown member":     strings.Replace(good, `{`, `{"x":1,`, 1),
		"a member twice":        strings.Replace(good, `"op":"sign"`, `"op":"keygen","op":"sign"`, 1),
		"another case":          strings.Replace(good, `"op"`, `"OP"`, 1),
		"space":                 good + " ",
		"another object behind": good + good,
		"no object":             `[]`,
	} {
		if _, err := decodeProposal([]byte(text)); !errors.Is(err, errProposal) {
			t.Errorf("%s: error %v, want a refusal", name, err)
		}
	}
}

func FuzzProposal(f *testing.F) {
	for _, op := range []string{OpKeygen, OpIssue, OpSign} {
		f.Add(encodeProposal(f, someProposal(op)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeProposal(b)
		if err != nil {
			return
		}
		if again := encodeProposal(t, p); !bytes.Equal(again, b) {
			t.Errorf("%s was read, and is written as %s", b, again)
		}
	})
}
