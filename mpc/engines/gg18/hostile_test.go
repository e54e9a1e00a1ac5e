package gg18_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/bnb-chain/tss-lib/v2/crypto/commitments"
	"github.com/bnb-chain/tss-lib/v2/crypto/schnorr"
	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecsigning "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	edkeygen "github.com/bnb-chain/tss-lib/v2/eddsa/keygen"
	edsigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"
	"github.com/bnb-chain/tss-lib/v2/tss"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

// The tests play the delegate against an honest server: what the library does
// with hostile messages is known from its source and from the exploits of its
// forks; here each must end as blame of the delegate, with the process alive.

func members(setID string) (server, delegate mpc.Member) {
	return mpc.Member{SetID: setID, Party: mpc.Server}, mpc.Member{SetID: setID, Party: mpc.Delegate}
}

func pipe(setID string) (server, delegate *mpctest.End) {
	s, d := members(setID)
	ends := mpctest.Wire(s, d)
	return ends[s], ends[d]
}

// changing is what one end does to its messages, whoever gets them.
func changing(change func(mpc.Envelope) mpc.Envelope) func(mpc.Envelope, mpc.Member) mpc.Envelope {
	if change == nil {
		return nil
	}
	return func(e mpc.Envelope, _ mpc.Member) mpc.Envelope { return change(e) }
}

func signParams(t testing.TB, set mpctest.Set, self mpc.Party) mpc.SignParams {
	in := chains.SignInput{Scheme: set.Scheme, Message: []byte("message")}
	if set.Scheme == chains.ECDSASecp256k1 {
		in = chains.SignInput{Scheme: set.Scheme, Digest: [32]byte{1}}
	}
	return mpc.SignParams{Self: self, Committee: set.Committee(), Quorum: set.Parties, PublicKey: set.PublicKey,
		Body: set.Body(t, self), Input: in}
}

// against runs an honest server and a delegate whose messages change alters, once
// through a session with another process and once on a wire without a session's
// rules, and returns the server's error of the latter.
func against(t *testing.T, set mpctest.Set, change func(mpc.Envelope) mpc.Envelope, seen func(mpc.Envelope) mpc.Envelope) error {
	t.Helper()
	throughSession(t, set, change, seen)
	return onWire(t, set, change, seen)
}

func onWire(t *testing.T, set mpctest.Set, change func(mpc.Envelope) mpc.Envelope, seen func(mpc.Envelope) mpc.Envelope) error {
	t.Helper()
	server, delegate := pipe(set.ID)
	server.Change, delegate.Change = changing(seen), changing(change)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = gg18.Engine{}.Sign(ctx, delegate, signParams(t, set, mpc.Delegate))
	}()
	sig, err := gg18.Engine{}.Sign(ctx, server, signParams(t, set, mpc.Server))
	cancel()
	<-done
	if err == nil {
		t.Fatalf("the server has a signature: %x", sig)
	}
	return err
}

func blamesDelegate(t *testing.T, err error) {
	t.Helper()
	var b *mpc.Blame
	if !errors.As(err, &b) || !errors.Is(err, mpc.ErrProtocol) || len(b.Culprits) != 1 || b.Culprits[0].Party != mpc.Delegate {
		t.Errorf("error %v, want a protocol failure blamed on the delegate", err)
	}
}

// wire returns the payload of a hand-made message.
func wire(t *testing.T, m tss.ParsedMessage) []byte {
	t.Helper()
	b, _, err := m.WireBytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// content reads a message of tss-lib; others, such as those of a chain code, are none.
func content[T any](t *testing.T, e mpc.Envelope) (T, bool) {
	if !strings.HasPrefix(e.Kind, "binance.tsslib") {
		return *new(T), false
	}
	m, err := tss.ParseWireMessage(e.Payload, somebody, e.Broadcast)
	if err != nil {
		t.Error(err)
		return *new(T), false
	}
	c, ok := m.Content().(T)
	return c, ok
}

var somebody = tss.NewPartyID("x", "x", big.NewInt(1))

func TestOffCurveNonceIsBlamed(t *testing.T) {
	set := mpctest.Ed25519DelegateSet(t)
	commitment := commitments.NewHashCommitment(rand.Reader, big.NewInt(5), big.NewInt(7)) // no point
	g := tss.Edwards().Params()
	err := against(t, set, func(e mpc.Envelope) mpc.Envelope {
		if strings.HasSuffix(e.Kind, "SignRound1Message") {
			e.Payload = wire(t, edsigning.NewSignRound1Message(somebody, commitment.C))
		}
		if strings.HasSuffix(e.Kind, "SignRound2Message") {
			proof := &schnorr.ZKProof{Alpha: pointOf(t, g.Gx, g.Gy), T: big.NewInt(9)}
			e.Payload = wire(t, edsigning.NewSignRound2Message(somebody, commitment.D, proof))
		}
		return e
	}, nil)
	blamesDelegate(t, err)
}

func TestThetaSumZeroIsBlamed(t *testing.T) {
	theta := make(chan *big.Int, 1)
	err := against(t, mpctest.ECDSADelegateSet(t),
		func(e mpc.Envelope) mpc.Envelope {
			if _, is := content[*ecsigning.SignRound3Message](t, e); is {
				n := tss.S256().Params().N
				e.Payload = wire(t, ecsigning.NewSignRound3Message(somebody, new(big.Int).Sub(n, <-theta)))
			}
			return e
		},
		func(e mpc.Envelope) mpc.Envelope {
			if m, is := content[*ecsigning.SignRound3Message](t, e); is {
				theta <- new(big.Int).SetBytes(m.GetTheta())
			}
			return e
		})
	blamesDelegate(t, err)
}

// tss-lib raises the ciphertext to a negative power in a goroutine of its own,
// whose panic nobody could recover.
func TestCiphertextWithoutInverseIsBlamed(t *testing.T) {
	set := mpctest.ECDSADelegateSet(t)
	save, err := gg18.DecodeECDSA(set.Body(t, mpc.Delegate), set.Committee(), mpc.Delegate, set.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	n := save.PaillierSK.N
	for name, c := range map[string]*big.Int{
		"n":         n,
		"a prime":   save.PaillierSK.P,
		"n squared": new(big.Int).Mul(n, n),
		"too large": new(big.Int).Add(new(big.Int).Mul(n, n), big.NewInt(1)),
	} {
		err := against(t, set, func(e mpc.Envelope) mpc.Envelope {
			if m, is := content[*ecsigning.SignRound1Message1](t, e); is {
				proof, err := m.UnmarshalRangeProofAlice()
				if err != nil {
					t.Error(err)
				}
				e.Payload = wire(t, ecsigning.NewSignRound1Message1(somebody, somebody, c, proof))
			}
			return e
		}, nil)
		if blamesDelegate(t, err); !strings.Contains(err.Error(), "ciphertext") {
			t.Errorf("%s: error %v, want that the ciphertext is refused", name, err)
		}
	}
}

// A commitment that opens to too few points is indexed in a goroutine, too.
func TestShortOpeningInKeygenIsBlamed(t *testing.T) {
	set := mpctest.Ed25519DelegateSet(t)
	c := set.Committee()
	server, delegate := pipe(c.SetID)
	commitment := commitments.NewHashCommitment(rand.Reader, tss.Edwards().Params().Gx, tss.Edwards().Params().Gy)
	delegate.Change = func(e mpc.Envelope, _ mpc.Member) mpc.Envelope {
		if strings.HasSuffix(e.Kind, "KGRound1Message") {
			e.Payload = wire(t, edkeygen.NewKGRound1Message(somebody, commitment.C))
		}
		if m, is := content[*edkeygen.KGRound2Message2](t, e); is {
			proof, err := m.UnmarshalZKProof(tss.Edwards())
			if err != nil {
				t.Error(err)
			}
			e.Payload = wire(t, edkeygen.NewKGRound2Message2(somebody, commitment.D, proof))
		}
		return e
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _, _ = gg18.Engine{}.Keygen(ctx, delegate, mpc.KeygenParams{Self: mpc.Delegate, Committee: c})
	}()
	_, _, err := gg18.Engine{}.Keygen(ctx, server, mpc.KeygenParams{Self: mpc.Server, Committee: c})
	cancel()
	<-done
	blamesDelegate(t, err)
}

func TestMislabelledAndMalformedMessagesAreBlamed(t *testing.T) {
	for name, change := range map[string]func(mpc.Envelope) mpc.Envelope{
		"another kind": func(e mpc.Envelope) mpc.Envelope { e.Kind += "x"; return e },
		"garbage":      func(e mpc.Envelope) mpc.Envelope { e.Payload = []byte("\xff\xff garbage"); return e },
		"empty any":    func(e mpc.Envelope) mpc.Envelope { e.Payload = []byte{}; return e },
		"of keygen": func(e mpc.Envelope) mpc.Envelope {
			e.Payload = wire(t, edkeygen.NewKGRound1Message(somebody, big.NewInt(3)))
			return e
		},
	} {
		t.Run(name, func(t *testing.T) { blamesDelegate(t, against(t, mpctest.Ed25519DelegateSet(t), change, nil)) })
	}
}

func TestStrangersMessageIsAnError(t *testing.T) {
	err := onWire(t, mpctest.Ed25519DelegateSet(t), func(e mpc.Envelope) mpc.Envelope {
		e.From = mpc.Member{SetID: "another", Party: mpc.Delegate}
		return e
	}, nil)
	if !errors.Is(err, mpc.ErrProtocol) {
		t.Errorf("error %v, want ErrProtocol", err)
	}
}

func TestWrongLastShareIsNoSignature(t *testing.T) {
	for _, tc := range []struct {
		set mpctest.Set
		bad func(mpc.Envelope) mpc.Envelope
	}{
		{mpctest.ECDSADelegateSet(t), func(e mpc.Envelope) mpc.Envelope {
			if _, is := content[*ecsigning.SignRound9Message](t, e); is {
				e.Payload = wire(t, ecsigning.NewSignRound9Message(somebody, big.NewInt(12345)))
			}
			return e
		}},
		{mpctest.Ed25519DelegateSet(t), func(e mpc.Envelope) mpc.Envelope {
			if _, is := content[*edsigning.SignRound3Message](t, e); is {
				e.Payload = wire(t, edsigning.NewSignRound3Message(somebody, big.NewInt(12345)))
			}
			return e
		}},
	} {
		blamesDelegate(t, against(t, tc.set, tc.bad, nil))
	}
}

// mute is a session on which nobody ever answers.
type mute struct{}

func (mute) ID() [32]byte                             { return [32]byte{} }
func (mute) Send(context.Context, mpc.Envelope) error { return nil }
func (mute) Recv(context.Context) (mpc.Envelope, error) {
	return mpc.Envelope{}, fmt.Errorf("%w of 1s", mpc.ErrSilent)
}

func TestSilenceIsBlamedOnTheMissing(t *testing.T) {
	_, err := gg18.Engine{}.Sign(t.Context(), mute{}, signParams(t, mpctest.Ed25519DelegateSet(t), mpc.Server))
	var b *mpc.Blame
	if !errors.As(err, &b) || !errors.Is(err, mpc.ErrSilent) || len(b.Culprits) != 1 || b.Culprits[0].Party != mpc.Delegate {
		t.Errorf("error %v, want ErrSilent blamed on the delegate", err)
	}
}

func TestDigestsOutOfRangeNeverReachTheLibrary(t *testing.T) {
	order := tss.S256().Params().N
	for _, m := range []*big.Int{new(big.Int), order, new(big.Int).Add(order, big.NewInt(1))} {
		p := signParams(t, mpctest.ECDSADelegateSet(t), mpc.Server)
		m.FillBytes(p.Input.Digest[:])
		if _, err := (gg18.Engine{}).Sign(t.Context(), mute{}, p); !errors.Is(err, mpc.ErrInput) {
			t.Errorf("digest %x: error %v, want ErrInput", p.Input.Digest, err)
		}
	}
	p := signParams(t, mpctest.Ed25519DelegateSet(t), mpc.Server)
	p.Input.Message = nil
	if _, err := (gg18.Engine{}).Sign(t.Context(), mute{}, p); !errors.Is(err, mpc.ErrInput) {
		t.Errorf("empty message: error %v, want ErrInput", err)
	}
}

// FuzzEdDSAMessage feeds a signing party whatever bytes as each of the peer's
// messages: it may fail, it must not crash and must not sign.
func FuzzEdDSAMessage(f *testing.F) {
	set := mpctest.Ed25519DelegateSet(f)
	kinds := []string{"binance.tsslib.eddsa.signing.SignRound1Message", "binance.tsslib.eddsa.signing.SignRound2Message", "binance.tsslib.eddsa.signing.SignRound3Message"}
	for i, m := range []tss.ParsedMessage{edsigning.NewSignRound1Message(somebody, big.NewInt(77)), edsigning.NewSignRound3Message(somebody, big.NewInt(77))} {
		b, _, err := m.WireBytes()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, []byte{}, byte(i))
	}
	f.Add([]byte("\x0a\x00"), []byte{0}, byte(2))
	p := signParams(f, set, mpc.Server)
	f.Fuzz(func(t *testing.T, first, second []byte, k byte) {
		server, delegate := pipe(set.ID)
		queue := []mpc.Envelope{{Kind: kinds[0], Payload: first}, {Kind: kinds[int(k)%3], Payload: second}}
		for _, e := range queue {
			e.From, e.Broadcast = delegate.Self, true
			server.Put(e)
		}
		server.Patience = time.Nanosecond // what is queued comes first, then nothing
		if sig, err := (gg18.Engine{}).Sign(t.Context(), deaf{server}, p); err == nil {
			t.Errorf("signed %x with %x and %x", sig, first, second)
		}
	})
}

// deaf sends nothing: the peer is not there.
type deaf struct{ *mpctest.End }

func (deaf) Send(context.Context, mpc.Envelope) error { return nil }

// BenchmarkPeerTSSLibPreParams is the named peer of mpc's BenchmarkPreParams:
// tss-lib's own generator, minutes for one run.
func BenchmarkPeerTSSLibPreParams(b *testing.B) {
	for b.Loop() {
		if _, err := eckeygen.GeneratePreParamsWithContext(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
