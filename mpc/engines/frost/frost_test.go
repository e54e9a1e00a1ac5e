package frost_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/frost"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

func sign(t testing.TB, set mpctest.Set, msg []byte, quorum ...mpc.Party) {
	t.Helper()
	sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t, quorum...),
		Input: chains.SignInput{Scheme: set.Scheme, Message: msg}})
	if err != nil {
		t.Fatalf("%s, %v: %v", set.ID, quorum, err)
	}
	if !ed25519.Verify(set.PublicKey, msg, sig.Bytes()) {
		t.Errorf("%s, %v: crypto/ed25519 refuses %x", set.ID, quorum, sig.Bytes())
	}
}

func TestEveryQuorumOfEverySetSigns(t *testing.T) {
	own := rootSet(t)
	for _, set := range []mpctest.Set{own, own.Issue(t, "d1", mpc.Server, mpc.Delegate), own.Issue(t, "d2", mpc.Server, mpc.Delegate, mpc.Recovery),
		mpctest.Ed25519RootSet(t), mpctest.Ed25519DelegateSet(t)} {
		all := set.Parties
		sign(t, set, []byte{0, 0, 1}, all...)
		if set.Threshold == len(all) {
			continue
		}
		for i := range all {
			sign(t, set, bytes.Repeat([]byte{0}, 1+i), all[i], all[(i+1)%len(all)])
		}
	}
	four := mpctest.Keygen(t, mpc.KeygenRequest{SetID: "four", Scheme: chains.EdDSAEd25519,
		Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery, mpc.Delegate}, Threshold: 3})
	sign(t, four, []byte("three of four"), mpc.Delegate, mpc.User, mpc.Recovery)
}

func TestNewKeysNameTheirEngine(t *testing.T) {
	if set := rootSet(t); set.Engine != frost.ID {
		t.Errorf("engine %q, want %q", set.Engine, frost.ID)
	}
}

// tss-lib's sets sign and are issued from by this engine: the key stays, the new
// set is of this engine.
func TestSetsOfTSSLibLiveOn(t *testing.T) {
	root := mpctest.Ed25519RootSet(t)
	if root.Engine != gg18.ID {
		t.Fatalf("engine of the stored set %q, want %q", root.Engine, gg18.ID)
	}
	issued := root.Issue(t, "from-tss-lib", mpc.Server, mpc.Delegate)
	if issued.Engine != frost.ID || !bytes.Equal(issued.PublicKey, root.PublicKey) {
		t.Errorf("issued by %q with key %x, want %q and %x", issued.Engine, issued.PublicKey, frost.ID, root.PublicKey)
	}
	sign(t, issued, []byte("message"), mpc.Server, mpc.Delegate)
}

// The identifiers are tss-lib's party keys: 256-bit hashes modulo the group order.
func TestIdentifierIsPinned(t *testing.T) {
	// Computed with Python's hashlib, big-endian.
	const want = "020ebcf7e3bd154d144e480bb244c5b193b0db70712c772667a4d4b5bd704cdf"
	b := frost.Identifier(mpc.Member{SetID: "set-1", Party: mpc.Server}).Bytes()
	slices.Reverse(b)
	if got := fmt.Sprintf("%064x", new(big.Int).SetBytes(b)); got != want {
		t.Errorf("identifier %s, want %s", got, want)
	}
}

func TestBodyRefusesWhatDoesNotFit(t *testing.T) {
	root := rootSet(t)
	good := root.Body(t, mpc.Server)
	other := mpctest.Keygen(t, mpc.KeygenRequest{SetID: "other", Scheme: chains.EdDSAEd25519,
		Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2})
	c := root.Committee()
	if len(good) != 1+32+3*32 {
		t.Errorf("body of %d bytes", len(good))
	}
	for name, tc := range map[string]struct {
		body []byte
		c    mpc.Committee
		self mpc.Party
		pub  []byte
		want string
	}{
		"empty":             {nil, c, mpc.Server, root.PublicKey, "unknown version"},
		"another version":   {put(0, []byte{2})(slices.Clone(good)), c, mpc.Server, root.PublicKey, "unknown version"},
		"short":             {good[:len(good)-1], c, mpc.Server, root.PublicKey, "bytes, want"},
		"long":              {append(slices.Clone(good), 0), c, mpc.Server, root.PublicKey, "bytes, want"},
		"zero secret":       {put(1, make([]byte, 32))(slices.Clone(good)), c, mpc.Server, root.PublicKey, "does not fit its public share"},
		"another secret":    {put(1, smallScalar)(slices.Clone(good)), c, mpc.Server, root.PublicKey, "does not fit its public share"},
		"big secret":        {put(1, bigScalar)(slices.Clone(good)), c, mpc.Server, root.PublicKey, "not canonical"},
		"no point":          {put(33, noPoint)(slices.Clone(good)), c, mpc.Server, root.PublicKey, "not on the curve"},
		"identity":          {put(33, identityPoint)(slices.Clone(good)), c, mpc.Server, root.PublicKey, "identity"},
		"first public":      {put(33, otherPoint)(slices.Clone(good)), c, mpc.Server, root.PublicKey, "not of this set"},
		"third public":      {put(97, otherPoint)(slices.Clone(good)), c, mpc.Server, root.PublicKey, "does not fit the others"},
		"another party's":   {good, c, mpc.User, root.PublicKey, "does not fit its public share"},
		"another set's":     {good, mpc.Committee{SetID: "x", Scheme: c.Scheme, Parties: c.Parties, Threshold: 2}, mpc.Server, root.PublicKey, "not of this set"},
		"another key's":     {good, c, mpc.Server, other.PublicKey, "not of this set"},
		"another threshold": {good, mpc.Committee{SetID: c.SetID, Scheme: c.Scheme, Parties: c.Parties, Threshold: 3}, mpc.Server, root.PublicKey, ""},
		"not of the set":    {good, c, mpc.Delegate, root.PublicKey, "not of the committee"},
	} {
		_, err := frost.DecodeBody(tc.body, tc.c, tc.self, tc.pub)
		if name == "another threshold" { // three points of a line are on a parabola, too: the key is the same
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, mpc.ErrShare) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want ErrShare with %q", name, err, tc.want)
		}
	}
}

func TestTSSLibBodyRefusesWhatDoesNotFit(t *testing.T) {
	set := mpctest.Ed25519DelegateSet(t)
	good := set.Body(t, mpc.Server)
	c := set.Committee()
	if _, err := frost.DecodeBody(good, c, mpc.Server, set.PublicKey); err != nil {
		t.Fatal(err)
	}
	between := func(b []byte, from, to string) string {
		i := bytes.Index(b, []byte(from)) + len(from)
		return string(b[i : i+bytes.Index(b[i:], []byte(to))])
	}
	xi, id := between(good, `"Xi":`, ","), between(good, `"ShareID":`, ",")
	x := between(good, `"Coords":[`, ",")
	for name, tc := range map[string]struct{ old, new, want string }{
		"another secret":  {xi, "7", "does not fit its public share"},
		"negative secret": {xi, "-" + xi, "out of range"},
		"huge secret":     {xi, xi + xi, "out of range"},
		"no secret":       {xi, "null", "out of range"},
		"a string":        {xi, `"` + xi + `"`, "not save data"},
		"another party":   {`"ShareID":` + id, `"ShareID":5`, "another party"},
		"another curve":   {`"Curve":"ed25519"`, `"Curve":"secp256k1"`, "not on the curve"},
		"another point":   {x, "12345", "not on the curve"},
		"negative point":  {x, "-" + x, "not on the curve"},
		"unknown field":   {`{"Xi"`, `{"More":1,"Xi"`, "canonical"},
		"a space":         {`,"ShareID"`, `, "ShareID"`, "canonical"},
		"party keys":      {`"Ks":[`, `"Ks":[5,`, "another number"},
		"another key":     {`"EDDSAPub":{"Curve":"ed25519","Coords":[`, `"EDDSAPub":{"Curve":"ed25519","Coords":[1`, "another public key"},
		"lower case":      {`"EDDSAPub"`, `"eddsapub"`, "canonical"},
	} {
		_, err := frost.DecodeBody(bytes.Replace(good, []byte(tc.old), []byte(tc.new), 1), c, mpc.Server, set.PublicKey)
		if !errors.Is(err, mpc.ErrShare) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want ErrShare with %q", name, err, tc.want)
		}
		if err != nil && strings.Contains(err.Error(), xi[:12]) {
			t.Errorf("%s: error %v quotes the secret", name, err)
		}
	}
	c.SetID = "another"
	if _, err := frost.DecodeBody(good, c, mpc.Server, set.PublicKey); !errors.Is(err, mpc.ErrShare) || !strings.Contains(err.Error(), "not of this set") {
		t.Errorf("another set's: error %v, want ErrShare", err)
	}
}

func TestEngineRefusesOtherSchemes(t *testing.T) {
	e, c := frost.Engine{}, mpc.Committee{SetID: "s", Scheme: chains.ECDSASecp256k1, Parties: []mpc.Party{mpc.Server, mpc.User}, Threshold: 2}
	ctx := context.Background()
	if _, _, err := e.Keygen(ctx, nil, mpc.KeygenParams{Self: mpc.Server, Committee: c}); err == nil {
		t.Error("keygen took secp256k1")
	}
	if _, _, err := e.Reshare(ctx, nil, mpc.ReshareParams{From: c, To: c}); err == nil {
		t.Error("reshare took secp256k1")
	}
	if _, err := e.Sign(ctx, nil, mpc.SignParams{Committee: c}); err == nil {
		t.Error("sign took secp256k1")
	}
}

// FuzzSignMessages feeds a signer whatever bytes as its peer's two messages: it
// may fail, it must not crash and must not sign.
func FuzzSignMessages(f *testing.F) {
	set := mpctest.Ed25519DelegateSet(f)
	good := bytes.Repeat(otherPoint, 2)
	f.Add(append([]byte{1}, good...), append([]byte{1}, good...))
	f.Add(append([]byte{1}, bytes.Repeat(identityPoint, 2)...), []byte{1})
	f.Add([]byte{}, []byte{2})
	p := mpc.SignParams{Self: mpc.Server, Committee: set.Committee(), Quorum: set.Parties, PublicKey: set.PublicKey,
		Body: set.Body(f, mpc.Server), Input: chains.SignInput{Scheme: set.Scheme, Message: []byte("m")}}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		feed(t, p.Committee, "frost/sign/", [][]byte{first, second}, func(s mpc.Session) error { _, err := frost.Engine{}.Sign(t.Context(), s, p); return err })
	})
}

// FuzzKeygenMessages does the same to a keygen.
func FuzzKeygenMessages(f *testing.F) {
	c := mpc.Committee{SetID: "fuzz", Scheme: chains.EdDSAEd25519, Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2}
	hash, opening := append([]byte{1}, bigScalar...), append([]byte{1}, bytes.Repeat(otherPoint, 4)...)
	f.Add(hash, opening, append([]byte{1}, smallScalar...), hash)
	f.Add([]byte{1}, []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, a, b, c2, d []byte) {
		feed(t, c, "frost/keygen/", [][]byte{a, b, c2, d}, func(s mpc.Session) error {
			_, _, err := frost.Engine{}.Keygen(t.Context(), s, mpc.KeygenParams{Self: mpc.Server, Committee: c})
			return err
		})
	})
}

// FuzzReshareMessages does the same to a new member.
func FuzzReshareMessages(f *testing.F) {
	root := mpctest.Ed25519RootSet(f)
	to := mpc.Committee{SetID: "fuzz", Scheme: chains.EdDSAEd25519, Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2}
	self := mpc.Member{SetID: to.SetID, Party: mpc.Server}
	f.Add(append([]byte{1}, bytes.Repeat(otherPoint, 2)...), append([]byte{1}, smallScalar...))
	f.Add([]byte{}, []byte{})
	quorum := []mpc.Party{mpc.Server, mpc.User}
	from := root.Committee()
	from.Parties = quorum
	f.Fuzz(func(t *testing.T, open, share []byte) {
		ends := mpctest.Wire(append(from.Members(), to.Members()...)...)
		end := ends[self]
		for _, m := range from.Members() {
			end.Put(mpc.Envelope{From: m, Kind: "frost/reshare/1", Broadcast: true, Payload: open})
			end.Put(mpc.Envelope{From: m, Kind: "frost/reshare/2", Payload: share})
		}
		end.Patience = time.Nanosecond
		_, _, err := frost.Engine{}.Reshare(t.Context(), end, mpc.ReshareParams{Self: self, From: root.Committee(), Quorum: quorum, To: to, PublicKey: root.PublicKey})
		if err == nil {
			t.Errorf("a share of %x and %x", open, share)
		}
	})
}

// feed runs the server's part against messages of the delegate that are all there
// from the start, and wants it to fail.
func feed(t *testing.T, c mpc.Committee, kind string, payloads [][]byte, part func(mpc.Session) error) {
	t.Helper()
	server, delegate := mpc.Member{SetID: c.SetID, Party: mpc.Server}, mpc.Member{SetID: c.SetID, Party: mpc.Delegate}
	end := mpctest.Wire(server, delegate)[server]
	for i, b := range payloads {
		end.Put(mpc.Envelope{From: delegate, Kind: fmt.Sprint(kind, i+1), Broadcast: true, Payload: b})
	}
	end.Patience = time.Nanosecond
	if part(end) == nil {
		t.Errorf("a result with %x", payloads)
	}
}

func FuzzDecodeBody(f *testing.F) {
	own, old := rootSet(f), mpctest.Ed25519RootSet(f)
	f.Add(own.Body(f, mpc.Server), true)
	f.Add(old.Body(f, mpc.Server), false)
	f.Add([]byte(`{"Xi":1,"ShareID":null,"Ks":[],"BigXj":[null],"EDDSAPub":{"Curve":"ed25519","Coords":[null,null]}}`), false)
	f.Add([]byte(`{}`), false)
	f.Add([]byte{1}, true)
	f.Fuzz(func(t *testing.T, b []byte, isOwn bool) {
		set := old
		if isOwn {
			set = own
		}
		_, err := frost.DecodeBody(b, set.Committee(), mpc.Server, set.PublicKey)
		if err == nil && !bytes.Equal(b, set.Body(t, mpc.Server)) && b[0] != '{' {
			t.Errorf("decoded %x", b)
		}
		if err != nil && !errors.Is(err, mpc.ErrShare) {
			t.Errorf("error %v, want ErrShare", err)
		}
	})
}
