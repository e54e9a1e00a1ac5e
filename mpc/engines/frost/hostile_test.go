package frost_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"filippo.io/edwards25519"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/frost"
	"github.com/sigild/sigild/mpc/mpctest"
)

// In these tests the user lies to two honest parties. Each party goes on to its
// own end: nobody hears of another's failure. An honest party may name the liar,
// or nobody where its view can't tell, but never another honest party.

var liar = mpc.User

// outcome is how one member's part ended.
type outcome struct {
	out []byte
	err error
}

// play runs each member's part to its end.
func play(t *testing.T, ends map[mpc.Member]*mpctest.End, part func(ctx context.Context, s mpc.Session, m mpc.Member) ([]byte, error)) map[mpc.Member]outcome {
	t.Helper()
	var mu sync.Mutex
	outcomes := map[mpc.Member]outcome{}
	var wg sync.WaitGroup
	for m, end := range ends {
		end.Patience = time.Minute
		wg.Go(func() {
			out, err := part(t.Context(), end, m)
			mu.Lock()
			defer mu.Unlock()
			outcomes[m] = outcome{out, err}
		})
	}
	wg.Wait()
	return outcomes
}

// whom says what an honest party must find out.
type whom int

const (
	named   whom = iota // the liar, and nobody else
	unnamed             // that something is wrong; nobody can be named
	unharmed
)

func check(t *testing.T, outcomes map[mpc.Member]outcome, want whom) {
	t.Helper()
	for m, o := range outcomes {
		if m.Party == liar {
			continue
		}
		var b *mpc.Blame
		var culprits []mpc.Party
		if errors.As(o.err, &b) {
			for _, c := range b.Culprits {
				culprits = append(culprits, c.Party)
			}
		}
		switch {
		case want == unharmed && o.err != nil:
			t.Errorf("%s: %v, want no error", m, o.err)
		case want == unharmed:
		case o.err == nil:
			t.Errorf("%s has a result: %x", m, o.out)
		case want == named && !slices.Equal(culprits, []mpc.Party{liar}):
			t.Errorf("%s names %v for %v, want the liar", m, culprits, o.err)
		case want == unnamed && len(culprits) > 0:
			t.Errorf("%s names %v for %v, want nobody", m, culprits, o.err)
		}
	}
}

// A hostile is what the liar does to one of its messages on the way to one receiver.
type hostile func(e mpc.Envelope, to mpc.Member) mpc.Envelope

// on applies change to the payload of one kind, for the receivers only says, or all.
func on(kind string, change func(b []byte) []byte, only ...mpc.Party) hostile {
	return func(e mpc.Envelope, to mpc.Member) mpc.Envelope {
		if e.Kind == kind && (len(only) == 0 || slices.Contains(only, to.Party)) {
			e.Payload = change(e.Payload)
		}
		return e
	}
}

func put(at int, with []byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[at:], with); return b }
}

var (
	identityPoint = append([]byte{1}, make([]byte, 31)...)
	noPoint       = append([]byte{2}, make([]byte, 31)...)
	otherPoint    = edwards25519.NewGeneratorPoint().Bytes()
	smallPoint    = []byte("\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a")
	bigScalar     = bytes.Repeat([]byte{0xff}, 32)
	smallScalar   = append([]byte{9}, make([]byte, 31)...)
)

// malformed are lies about the form of a message, which are told at once.
func malformed(kind string) map[string]hostile {
	return map[string]hostile{
		kind + " of another version": on(kind, put(0, []byte{2})),
		kind + " cut short":          on(kind, func(b []byte) []byte { return b[:len(b)-1] }),
		kind + " longer":             on(kind, func(b []byte) []byte { return append(b, 0) }),
		kind + " empty":              on(kind, func([]byte) []byte { return nil }),
		kind + " under another name": func(e mpc.Envelope, _ mpc.Member) mpc.Envelope {
			if e.Kind == kind {
				e.Kind = "frost/unheard/of"
			}
			return e
		},
	}
}

func rootSet(t testing.TB) mpctest.Set {
	return mpctest.Keygen(t, mpc.KeygenRequest{SetID: "hostile-root", Scheme: chains.EdDSAEd25519,
		Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2})
}

func signPart(t testing.TB, set mpctest.Set, msg string) func(context.Context, mpc.Session, mpc.Member) ([]byte, error) {
	return func(ctx context.Context, s mpc.Session, m mpc.Member) ([]byte, error) {
		sig, err := frost.Engine{}.Sign(ctx, s, mpc.SignParams{Self: m.Party, Committee: set.Committee(), Quorum: set.Parties,
			PublicKey: set.PublicKey, Body: set.Body(t, m.Party), Input: chains.SignInput{Scheme: set.Scheme, Message: []byte(msg)}})
		if err == nil && !ed25519.Verify(set.PublicKey, []byte(msg), sig) {
			t.Errorf("%s returned %x, which is no signature", m, sig)
		}
		return sig, err
	}
}

// attack runs a ceremony for each lie, in time that costs nothing.
func attack(t *testing.T, want whom, members []mpc.Member, lies map[string]hostile, part func(context.Context, mpc.Session, mpc.Member) ([]byte, error)) {
	t.Helper()
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ends := mpctest.Wire(members...)
				for m, end := range ends {
					if m.Party == liar {
						end.Change = lie
					}
				}
				check(t, play(t, ends, part), want)
			})
		})
	}
}

func TestLiarInASignatureIsNamed(t *testing.T) {
	set := rootSet(t)
	c1, c2 := "frost/sign/1", "frost/sign/2"
	lies := map[string]hostile{
		"identity as hiding commitment":  on(c1, put(1, identityPoint)),
		"identity as binding commitment": on(c1, put(33, identityPoint)),
		"no point":                       on(c1, put(1, noPoint)),
		"a point of small order":         on(c1, put(33, smallPoint)),
		"share of zero":                  on(c2, put(33, make([]byte, 32))),
		"another share":                  on(c2, put(33, smallScalar)),
		"share that is not canonical":    on(c2, put(33, bigScalar)),
	}
	for _, kind := range []string{c1, c2} {
		for name, lie := range malformed(kind) {
			lies[name] = lie
		}
	}
	attack(t, named, set.Committee().Members(), lies, signPart(t, set, "message"))
}

func TestTwoStoriesInASignatureAccuseNobodyHonest(t *testing.T) {
	set := rootSet(t)
	attack(t, unnamed, set.Committee().Members(), map[string]hostile{
		"another commitment for one":  on("frost/sign/1", put(1, otherPoint), mpc.Server),
		"another commitment for all":  on("frost/sign/1", put(1, otherPoint)), // the liar's own account differs
		"another account for all":     on("frost/sign/2", put(1, make([]byte, 32))),
		"account and share are wrong": on("frost/sign/2", put(1, bytes.Repeat(smallScalar, 2))),
	}, signPart(t, set, "message"))
}

func TestLiarAmongTwoIsNamed(t *testing.T) {
	root := rootSet(t)
	set := root.Issue(t, "hostile-two", mpc.User, mpc.Server)
	attack(t, named, set.Committee().Members(), map[string]hostile{
		"another commitment": on("frost/sign/1", put(1, otherPoint)),
		"another account":    on("frost/sign/2", put(1, make([]byte, 32))),
		"another share":      on("frost/sign/2", put(33, smallScalar)),
		"nothing":            func(mpc.Envelope, mpc.Member) mpc.Envelope { return mpc.Envelope{} },
		"nothing in round 2": func(e mpc.Envelope, _ mpc.Member) mpc.Envelope {
			if e.Final {
				e.Kind = ""
			}
			return e
		},
	}, signPart(t, set, "message"))
}

func TestLiarInAKeygenIsNamed(t *testing.T) {
	c := mpc.Committee{SetID: "k", Scheme: chains.EdDSAEd25519, Parties: []mpc.Party{mpc.Recovery, mpc.Server, mpc.User}, Threshold: 2}
	part := func(ctx context.Context, s mpc.Session, m mpc.Member) ([]byte, error) {
		_, pub, err := frost.Engine{}.Keygen(ctx, s, mpc.KeygenParams{Self: m.Party, Committee: c})
		return pub, err
	}
	lies := map[string]hostile{
		"an opening of something else":  on("frost/keygen/1", put(1, bigScalar)),
		"another constant":              on("frost/keygen/2", put(1, otherPoint)),
		"another coefficient":           on("frost/keygen/2", put(33, otherPoint)),
		"no proof":                      on("frost/keygen/2", put(97, smallScalar)),
		"nothing":                       func(mpc.Envelope, mpc.Member) mpc.Envelope { return mpc.Envelope{} },
		"a share that does not fit":     on("frost/keygen/3", put(1, smallScalar)),
		"a share that is not canonical": on("frost/keygen/3", put(1, bigScalar)),
	}
	for _, kind := range []string{"frost/keygen/1", "frost/keygen/2", "frost/keygen/3", "frost/keygen/4"} {
		for name, lie := range malformed(kind) {
			lies[name] = lie
		}
	}
	attack(t, named, c.Members(), lies, part)
	attack(t, unnamed, c.Members(), map[string]hostile{
		"another account": on("frost/keygen/4", put(1, bigScalar)),
	}, part)
}

// Nobody can choose the key after having seen the others' parts: an opening is
// bound before any is shown, and proves that its constant is known.
func TestKeygenTakesNoOpeningWithoutItsSecret(t *testing.T) {
	c := mpc.Committee{SetID: "k", Scheme: chains.EdDSAEd25519, Parties: []mpc.Party{mpc.Server, mpc.User}, Threshold: 2}
	synctest.Test(t, func(t *testing.T) {
		s, u := c.Members()[0], c.Members()[1]
		ends := mpctest.Wire(s, u)
		// The user repeats whatever the server says: its parts would cancel or double.
		heard := make(chan mpc.Envelope, 8)
		ends[s].Change = func(e mpc.Envelope, _ mpc.Member) mpc.Envelope { heard <- e; return e }
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e := range heard {
				e.From = u
				ends[s].Put(e)
			}
		}()
		ends[s].Patience = time.Minute
		_, _, err := frost.Engine{}.Keygen(t.Context(), ends[s], mpc.KeygenParams{Self: mpc.Server, Committee: c})
		close(heard)
		<-done
		var b *mpc.Blame
		if !errors.As(err, &b) || b.Culprits[0] != u {
			t.Errorf("error %v, want blame of the one who repeats", err)
		}
	})
}

func TestLiarInAReshareIsNamed(t *testing.T) {
	root := rootSet(t)
	to := mpc.Committee{SetID: "hostile-new", Scheme: chains.EdDSAEd25519, Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2}
	quorum := []mpc.Party{mpc.Server, mpc.User}
	from := root.Committee()
	from.Parties = quorum
	members := append(from.Members(), to.Members()...)
	part := func(ctx context.Context, s mpc.Session, m mpc.Member) ([]byte, error) {
		p := mpc.ReshareParams{Self: m, From: root.Committee(), Quorum: quorum, To: to, PublicKey: root.PublicKey}
		if m.SetID == root.ID {
			p.Body = root.Body(t, m.Party)
		}
		body, pub, err := frost.Engine{}.Reshare(ctx, s, p)
		if err == nil && (!bytes.Equal(pub, root.PublicKey) || (body == nil) != (m.SetID == root.ID)) {
			t.Errorf("%s: body %v, key %x", m, body != nil, pub)
		}
		return body, err
	}
	k1, k2 := "frost/reshare/1", "frost/reshare/2"
	lies := map[string]hostile{}
	for name, lie := range malformed(k1) {
		lies[name] = lie
	}
	attack(t, named, members, lies, part)

	// Wrong secret shares are for the new members to see; the old server waits for
	// their echo in vain and can only say so.
	for name, lie := range map[string]hostile{
		"a share that does not fit":     on(k2, put(1, smallScalar)),
		"a share that is not canonical": on(k2, put(1, bigScalar)),
		"another coefficient":           on(k1, put(33, otherPoint)),
	} {
		synctest.Test(t, func(t *testing.T) {
			ends := mpctest.Wire(members...)
			ends[mpc.Member{SetID: root.ID, Party: liar}].Change = lie
			outcomes := play(t, ends, part)
			delete(outcomes, mpc.Member{SetID: root.ID, Party: mpc.Server})
			if check(t, outcomes, named); t.Failed() {
				t.Log(name)
			}
		})
	}
	// A commitment to something else than its share: the old server knows whose.
	synctest.Test(t, func(t *testing.T) {
		ends := mpctest.Wire(members...)
		ends[mpc.Member{SetID: root.ID, Party: liar}].Change = on(k1, put(1, otherPoint))
		for m, o := range play(t, ends, part) {
			var b *mpc.Blame
			if m == (mpc.Member{SetID: root.ID, Party: mpc.Server}) && (!errors.As(o.err, &b) || b.Culprits[0].Party != liar) {
				t.Errorf("old server: %v, want blame of the liar", o.err)
			}
			if m.SetID == to.SetID && (o.err == nil || errors.As(o.err, &b) && b.Culprits[0].Party != liar) {
				t.Errorf("new %s: %v, want an error that names nobody honest", m.Party, o.err)
			}
		}
	})
}

func TestSilenceNamesTheMissing(t *testing.T) {
	set := rootSet(t)
	for round := 1; round <= 2; round++ {
		synctest.Test(t, func(t *testing.T) {
			ends := mpctest.Wire(set.Committee().Members()...)
			ends[mpc.Member{SetID: set.ID, Party: liar}].Change = func(e mpc.Envelope, _ mpc.Member) mpc.Envelope {
				if e.Kind == fmt.Sprintf("frost/sign/%d", round) {
					e.Kind = ""
				}
				return e
			}
			outcomes := play(t, ends, signPart(t, set, "message"))
			check(t, outcomes, named)
			for m, o := range outcomes {
				if m.Party != liar && !errors.Is(o.err, mpc.ErrSilent) {
					t.Errorf("%s: %v, want ErrSilent", m, o.err)
				}
			}
		})
	}
}

func TestMessagesAheadOfTheirRoundWait(t *testing.T) {
	set := rootSet(t)
	synctest.Test(t, func(t *testing.T) {
		ends := mpctest.Wire(set.Committee().Members()...)
		// The user's first message to the server comes after its second.
		var late mpc.Envelope
		user, server := mpc.Member{SetID: set.ID, Party: mpc.User}, mpc.Member{SetID: set.ID, Party: mpc.Server}
		ends[user].Change = func(e mpc.Envelope, to mpc.Member) mpc.Envelope {
			if to == server && e.Kind == "frost/sign/1" {
				late, e.Kind = e, ""
			}
			if to == server && e.Kind == "frost/sign/2" {
				ends[server].Put(e)
				return late
			}
			return e
		}
		// The server's own first message does not depend on the user's.
		check(t, play(t, ends, signPart(t, set, "message")), unharmed)
	})
}
