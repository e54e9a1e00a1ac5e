package oracles

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/frost"
	"github.com/sigild/sigild/mpc/mpctest"
)

// frostID is a member's identifier: the hash modulo L, little-endian.
func frostID(m mpc.Member) string {
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	h := m.Hash()
	b := new(big.Int).Mod(new(big.Int).SetBytes(h[:]), order).FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return hex.EncodeToString(b)
}

// frostShare is the secret in a share body of either kind, little-endian.
func frostShare(t *testing.T, body []byte) string {
	t.Helper()
	if body[0] == 1 {
		return hex.EncodeToString(body[1:33])
	}
	var save struct{ Xi *big.Int }
	if err := json.Unmarshal(body, &save); err != nil {
		t.Fatal(err)
	}
	b := save.Xi.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return hex.EncodeToString(b)
}

// frostCase is one signature of our server with a delegate or user that is noble.
type frostCase struct {
	name          string
	set           mpctest.Set
	server, noble mpc.Member
	quorum        []mpc.Party
	msg           []byte
	end, peer     *mpctest.End
	ours          []byte // round one of the server, without the version
	result        chan []byte
}

func (c *frostCase) start(t *testing.T) {
	ends := mpctest.Wire(c.server, c.noble)
	c.end, c.peer, c.result = ends[c.server], ends[c.noble], make(chan []byte, 1)
	go func() {
		sig, err := frost.Engine{}.Sign(t.Context(), c.end, mpc.SignParams{Self: c.server.Party, Committee: c.set.Committee(), Quorum: c.quorum,
			PublicKey: c.set.PublicKey, Body: c.set.Body(t, c.server.Party), Input: chains.SignInput{Scheme: c.set.Scheme, Message: c.msg}})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		c.result <- sig
	}()
	c.ours = c.next(t)
}

// next is what our party sent next, without its version.
func (c *frostCase) next(t *testing.T) []byte {
	t.Helper()
	e, err := c.peer.Recv(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return e.Payload[1:]
}

// describe is the set for noble. The public shares come from its own arithmetic
// over all secrets, which a test has.
func (c *frostCase) describe(t *testing.T) map[string]any {
	publics := map[string]string{}
	for i, m := range c.set.Committee().Members() {
		var raw []byte
		if b := c.set.Body(t, m.Party); b[0] == 1 {
			raw = b[33+32*i:][:32]
		} else {
			raw = tssLibPublic(t, b)[frostID(m)]
		}
		publics[frostID(m)] = hex.EncodeToString(raw)
	}
	return map[string]any{"key": hex.EncodeToString(c.set.PublicKey), "threshold": c.set.Threshold, "publics": publics}
}

// tssLibPublic are the public shares in tss-lib's save data, by identifier.
func tssLibPublic(t *testing.T, body []byte) map[string][]byte {
	t.Helper()
	var save struct {
		Ks    []*big.Int
		BigXj []struct{ Coords [2]*big.Int }
	}
	if err := json.Unmarshal(body, &save); err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for i, k := range save.Ks {
		id, y := k.FillBytes(make([]byte, 32)), save.BigXj[i].Coords[1].FillBytes(make([]byte, 32))
		slices.Reverse(id)
		slices.Reverse(y)
		y[31] |= byte(save.BigXj[i].Coords[0].Bit(0)) << 7
		out[hex.EncodeToString(id)] = y
	}
	return out
}

func commitmentOf(m mpc.Member, b []byte) map[string]string {
	return map[string]string{"identifier": frostID(m), "hiding": hex.EncodeToString(b[:32]), "binding": hex.EncodeToString(b[32:])}
}

// TestFROSTWithNoble signs with one party of ours and one of @noble/curves, over
// sets of our own and of tss-lib, and has noble verify and aggregate the shares.
func TestFROSTWithNoble(t *testing.T) {
	root := mpctest.Keygen(t, mpc.KeygenRequest{SetID: "noble-root", Scheme: chains.EdDSAEd25519,
		Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2})
	issued := root.Issue(t, "noble-delegate", mpc.Server, mpc.Delegate)
	fromTSSLib := mpctest.Ed25519RootSet(t).Issue(t, "noble-adopted", mpc.Server, mpc.Delegate)
	var cases []*frostCase
	for _, set := range []mpctest.Set{root, issued, fromTSSLib, mpctest.Ed25519RootSet(t), mpctest.Ed25519DelegateSet(t)} {
		other := mpc.Delegate
		if set.Threshold < len(set.Parties) {
			other = mpc.User
		}
		for n := range 6 {
			quorum := slices.Sorted(slices.Values([]mpc.Party{mpc.Server, other}))
			cases = append(cases, &frostCase{name: fmt.Sprintf("%s/%d", set.ID, n), set: set, quorum: quorum,
				server: mpc.Member{SetID: set.ID, Party: mpc.Server}, noble: mpc.Member{SetID: set.ID, Party: other}, msg: make([]byte, 1+n*n*40)})
		}
	}

	// Noble hears our round one and answers with both of its rounds.
	var rows []members
	for _, c := range cases {
		c.start(t)
		rows = append(rows, members{"id": c.name, "set": c.describe(t), "sign": members{"identifier": frostID(c.noble),
			"share": frostShare(t, c.set.Body(t, c.noble.Party)), "theirs": []any{commitmentOf(c.server, c.ours)}, "message": hex.EncodeToString(c.msg)}})
	}
	answers := accept(t, "frost.mjs", rows)

	// Our party takes them, and both make the same signature.
	var checks []members
	for i, c := range cases {
		field := func(name string) []byte {
			b, err := hex.DecodeString(answers[i][name].(string))
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		theirs := slices.Concat(field("hiding"), field("binding"))
		id, seen := c.end.ID(), map[mpc.Member][]byte{c.server: c.ours, c.noble: theirs}
		h := sha256.New()
		h.Write(id[:])
		for _, p := range c.quorum {
			h.Write(seen[mpc.Member{SetID: c.set.ID, Party: p}])
		}
		c.end.Put(mpc.Envelope{From: c.noble, Kind: "frost/sign/1", Payload: append([]byte{1}, theirs...)})
		c.end.Put(mpc.Envelope{From: c.noble, Kind: "frost/sign/2", Payload: slices.Concat([]byte{1}, h.Sum(nil), field("share"))})
		share := c.next(t)[32:]
		checks = append(checks, members{"id": c.name, "set": c.describe(t), "check": members{
			"commitments": []any{commitmentOf(c.server, c.ours), commitmentOf(c.noble, theirs)},
			"shares":      members{frostID(c.server): hex.EncodeToString(share), frostID(c.noble): answers[i]["share"]},
			"message":     hex.EncodeToString(c.msg), "signature": hex.EncodeToString(<-c.result)}})
	}
	accept(t, "frost.mjs", checks)

	// A share that is not of this signature is seen.
	wrong := maps.Clone(checks[0]["check"].(members))
	wrong["message"] = "00ff"
	refuse(t, "frost.mjs", []members{{"id": "another message", "set": checks[0]["set"], "check": wrong}})
}
