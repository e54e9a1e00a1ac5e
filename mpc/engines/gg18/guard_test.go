package gg18_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"errors"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bnb-chain/tss-lib/v2/crypto"
	"github.com/bnb-chain/tss-lib/v2/crypto/dlnproof"
	"github.com/bnb-chain/tss-lib/v2/crypto/modproof"
	eckeygen "github.com/bnb-chain/tss-lib/v2/ecdsa/keygen"
	ecresharing "github.com/bnb-chain/tss-lib/v2/ecdsa/resharing"
	ecsigning "github.com/bnb-chain/tss-lib/v2/ecdsa/signing"
	edresharing "github.com/bnb-chain/tss-lib/v2/eddsa/resharing"
	edsigning "github.com/bnb-chain/tss-lib/v2/eddsa/signing"
	"github.com/bnb-chain/tss-lib/v2/tss"
	"google.golang.org/protobuf/proto"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

// The panics of tss-lib that no recover of ours could reach, because the library
// has them in goroutines of its own. They are why the guard exists.
func TestWhatTheGuardKeepsFromTheLibrary(t *testing.T) {
	q := tss.S256().Params().N
	for name, f := range map[string]func(){
		"a share or exponent that is a multiple of the order": func() { crypto.ScalarBaseMult(tss.S256(), q) },
		"an even modulus": func() {
			even := new(big.Int).Lsh(big.NewInt(1), 2047)
			pf := &modproof.ProofMod{W: big.NewInt(3), A: big.NewInt(1), B: big.NewInt(1)}
			for i := range pf.X {
				pf.X[i], pf.Z[i] = big.NewInt(3), big.NewInt(3)
			}
			pf.Verify(nil, even)
		},
		"a negative length in a proof of h1 and h2": func() {
			parts := make([][]byte, 258)
			for i := range parts {
				parts[i] = []byte{128}
			}
			parts[0] = bytes.Repeat([]byte{0xff}, 8)
			_, _ = dlnproof.UnmarshalDLNProof(parts)
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the library takes it now", name)
				}
			}()
			f()
		}()
	}
}

// rewire changes the content of a message of one type and leaves all others.
func rewire[T tss.MessageContent](t *testing.T, change func(m T)) func(mpc.Envelope) mpc.Envelope {
	return func(e mpc.Envelope) mpc.Envelope {
		m, is := content[T](t, e)
		if !is {
			return e
		}
		change(m)
		meta := tss.MessageRouting{From: somebody, IsBroadcast: e.Broadcast}
		e.Payload = wire(t, tss.NewMessage(meta, m, tss.NewMessageWrapper(meta, m)))
		return e
	}
}

// plus adds k times m to a number in place of b.
func plus(b []byte, m *big.Int, k int64) []byte {
	x := new(big.Int).SetBytes(b)
	return x.Add(x, new(big.Int).Mul(m, big.NewInt(k))).Bytes()
}

func TestGuardOfECDSASigning(t *testing.T) {
	set := mpctest.ECDSADelegateSet(t)
	save, err := gg18.DecodeECDSA(set.Body(t, mpc.Server), set.Committee(), mpc.Server, set.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	q, tilde, n := tss.S256().Params().N, save.NTildei, save.PaillierSK.N
	q3 := new(big.Int).Exp(q, big.NewInt(3), nil)
	high := new(big.Int).Lsh(tilde, 3*256+1) // more than (q³+q²)·NTilde
	members := set.Committee().Members()
	heard := record(t, members, members[1], func(ctx context.Context, s mpc.Session, m mpc.Member) error {
		_, err := gg18.Engine{}.Sign(ctx, s, signParams(t, set, m.Party))
		return err
	})
	judge(t, heard, func() func(*tss.PartyID, tss.MessageContent) error { return gg18.GuardSign(t, save) }, idsOf(t, tss.S256(), members), map[string]spoiler{
		"honest":                 {},
		"ciphertext of 1":        {spoil(func(m *ecsigning.SignRound1Message1) { m.C = []byte{1} }), "ciphertext"},
		"ciphertext with a zero": {spoil(func(m *ecsigning.SignRound1Message1) { m.C = append([]byte{0}, m.C...) }), "canonical"},
		"Alice: z of 1":          {spoil(func(m *ecsigning.SignRound1Message1) { m.RangeProofAlice[0] = []byte{1} }), "z is out of range"},
		"Alice: z not reduced":   {spoil(func(m *ecsigning.SignRound1Message1) { m.RangeProofAlice[0] = plus(m.RangeProofAlice[0], tilde, 1) }), "z is out of range"},
		"Alice: w of NTilde's factor": {spoil(func(m *ecsigning.SignRound1Message1) {
			m.RangeProofAlice[2] = new(big.Int).SetBit(new(big.Int).Lsh(save.P, 1), 0, 1).Bytes()
		}), "not of its group"},
		"Alice: s1 too large":    {spoil(func(m *ecsigning.SignRound1Message1) { m.RangeProofAlice[4] = plus(nil, q3, 2) }), "larger than an honest"},
		"Alice: s2 too large":    {spoil(func(m *ecsigning.SignRound1Message1) { m.RangeProofAlice[5] = high.Bytes() }), "larger than an honest"},
		"Alice: five parts":      {spoil(func(m *ecsigning.SignRound1Message1) { m.RangeProofAlice = m.RangeProofAlice[:5] }), "want 6"},
		"gamma: long commitment": {spoil(func(m *ecsigning.SignRound1Message2) { m.Commitment = bytes.Repeat([]byte{1}, 33) }), "at most 32"},
		"Bob: ciphertext of 1":   {spoil(func(m *ecsigning.SignRound2Message) { m.C1 = []byte{1} }), "ciphertext 1"},
		"Bob: ciphertext of n":   {spoil(func(m *ecsigning.SignRound2Message) { m.C2 = n.Bytes() }), "ciphertext 2"},
		"Bob: s1 too large":      {spoil(func(m *ecsigning.SignRound2Message) { m.ProofBob[6] = plus(nil, q3, 2) }), "s1 is larger"},
		"Bob: s1 a multiple of the order": {spoil(func(m *ecsigning.SignRound2Message) {
			m.ProofBobWc[6] = plus(nil, q, 1<<40)
		}), "multiple of the order"},
		"Bob: s2 too large":          {spoil(func(m *ecsigning.SignRound2Message) { m.ProofBob[7] = high.Bytes() }), "s2 is larger"},
		"Bob: t2 too large":          {spoil(func(m *ecsigning.SignRound2Message) { m.ProofBobWc[9] = high.Bytes() }), "t2 is larger"},
		"Bob: v of 1":                {spoil(func(m *ecsigning.SignRound2Message) { m.ProofBobWc[3] = []byte{1} }), "v is out of range"},
		"Bob: u off the curve":       {spoil(func(m *ecsigning.SignRound2Message) { m.ProofBobWc[11] = []byte{5} }), "u is not on the curve"},
		"theta zero":                 {spoil(func(m *ecsigning.SignRound3Message) { m.Theta = []byte{0} }), "canonical"},
		"theta of the order":         {spoil(func(m *ecsigning.SignRound3Message) { m.Theta = q.Bytes() }), "theta is out of range"},
		"gamma off the curve":        {spoil(func(m *ecsigning.SignRound4Message) { m.DeCommitment[2] = []byte{7} }), "not on the curve"},
		"gamma not committed to":     {spoil(func(m *ecsigning.SignRound4Message) { m.DeCommitment[0] = []byte{7} }), "committed to"},
		"gamma: proof of the order":  {spoil(func(m *ecsigning.SignRound4Message) { m.ProofT = q.Bytes() }), "out of range"},
		"V off the curve":            {spoil(func(m *ecsigning.SignRound6Message) { m.DeCommitment[1] = []byte{7} }), "not on the curve"},
		"V: proof of the order":      {spoil(func(m *ecsigning.SignRound6Message) { m.VProofU = q.Bytes() }), "out of range"},
		"U and T not committed to":   {spoil(func(m *ecsigning.SignRound8Message) { m.DeCommitment[0] = []byte{7} }), "committed to"},
		"T off the curve":            {spoil(func(m *ecsigning.SignRound8Message) { m.DeCommitment[4] = []byte{7} }), "not on the curve"},
		"share of s above the order": {spoil(func(m *ecsigning.SignRound9Message) { m.S = plus(m.S, q, 1) }), "share of s is out of range"},
	})
}

// The same from end to end, for a message of each kind of harm.
func TestHostileECDSAMessagesAreBlamed(t *testing.T) {
	q := tss.S256().Params().N
	for name, tc := range map[string]struct {
		change func(mpc.Envelope) mpc.Envelope
		want   string
	}{
		"Bob: s1 a multiple of the order": {rewire(t, func(m *ecsigning.SignRound2Message) { m.ProofBobWc[6] = plus(nil, q, 1<<40) }), "multiple of the order"},
		"theta of the order":              {rewire(t, func(m *ecsigning.SignRound3Message) { m.Theta = q.Bytes() }), "theta is out of range"},
		"T off the curve":                 {rewire(t, func(m *ecsigning.SignRound8Message) { m.DeCommitment[4] = []byte{7} }), "not on the curve"},
		"another U and T":                 {rewire(t, func(m *ecsigning.SignRound7Message) { m.Commitment = []byte{7} }), "committed to"},
		"share of s above the order":      {rewire(t, func(m *ecsigning.SignRound9Message) { m.S = plus(m.S, q, 1) }), "share of s is out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			err := against(t, mpctest.ECDSADelegateSet(t), tc.change, nil)
			if blamesDelegate(t, err); !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
}

func TestHostileEdDSAMessagesAreBlamed(t *testing.T) {
	q := tss.Edwards().Params().N
	for name, tc := range map[string]struct {
		change func(mpc.Envelope) mpc.Envelope
		want   string
	}{
		"R not committed to":         {rewire(t, func(m *edsigning.SignRound2Message) { m.DeCommitment[0] = []byte{7} }), "committed to"},
		"R: proof of the order":      {rewire(t, func(m *edsigning.SignRound2Message) { m.ProofT = q.Bytes() }), "out of range"},
		"share of s above the order": {rewire(t, func(m *edsigning.SignRound3Message) { m.S = plus(m.S, q, 1) }), "out of range"},
	} {
		err := against(t, mpctest.Ed25519DelegateSet(t), tc.change, nil)
		if blamesDelegate(t, err); !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", name, err, tc.want)
		}
	}
}

// recorded is a message as it came to one party.
type recorded struct {
	from    mpc.Member
	content tss.MessageContent
}

// record runs a ceremony and returns what came to self.
func record(t *testing.T, members []mpc.Member, self mpc.Member, part func(ctx context.Context, s mpc.Session, m mpc.Member) error) []recorded {
	t.Helper()
	ends := mpctest.Wire(members...)
	var mu sync.Mutex
	var heard []recorded
	var wg sync.WaitGroup
	for m, end := range ends {
		end.Change = func(e mpc.Envelope, to mpc.Member) mpc.Envelope {
			if to == self {
				mu.Lock()
				defer mu.Unlock()
				msg, err := tss.ParseWireMessage(e.Payload, somebody, e.Broadcast)
				if err != nil {
					t.Error(err)
					return e
				}
				heard = append(heard, recorded{m, msg.Content()})
			}
			return e
		}
		wg.Go(func() {
			if err := part(t.Context(), end, m); err != nil {
				t.Errorf("%s: %v", m, err)
			}
		})
	}
	wg.Wait()
	return heard
}

// A spoiler changes one message of a transcript and says what the guard finds.
type spoiler struct {
	change func(tss.MessageContent) bool // whether it was this one
	want   string
}

func spoil[T tss.MessageContent](f func(m T)) func(tss.MessageContent) bool {
	return func(c tss.MessageContent) bool {
		m, is := c.(T)
		if is {
			f(m)
		}
		return is
	}
}

// judge plays a transcript to a fresh guard, with what a spoiler changes in the
// first message it fits.
func judge(t *testing.T, heard []recorded, fresh func() func(*tss.PartyID, tss.MessageContent) error, ids map[mpc.Member]*tss.PartyID, spoilers map[string]spoiler) {
	t.Helper()
	for name, s := range spoilers {
		received, spoiled := fresh(), false
		var err error
		for _, h := range heard {
			c := proto.Clone(h.content.(proto.Message)).(tss.MessageContent)
			if !spoiled && s.change != nil {
				spoiled = s.change(c)
			}
			if err = received(ids[h.from], c); err != nil {
				break
			}
		}
		switch {
		case s.change == nil && err != nil:
			t.Errorf("%s: %v", name, err)
		case s.change != nil && !spoiled:
			t.Errorf("%s: no such message", name)
		case s.change != nil && (err == nil || !strings.Contains(err.Error(), s.want)):
			t.Errorf("%s: error %v, want %q", name, err, s.want)
		}
	}
}

func idsOf(t *testing.T, ec elliptic.Curve, members []mpc.Member) map[mpc.Member]*tss.PartyID {
	ids := map[mpc.Member]*tss.PartyID{}
	for _, m := range members {
		ids[m] = tss.NewPartyID(m.String(), "", gg18.PartyKey(ec, m))
	}
	return ids
}

func preParams(t *testing.T, i int) *mpc.PreParams {
	t.Helper()
	p, err := mpc.ParsePreParams(mpctest.EncodedPreParams(t, i))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGuardOfECDSAKeygen(t *testing.T) {
	c := mpc.Committee{SetID: "guarded", Scheme: chains.ECDSASecp256k1, Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2}
	members, q := c.Members(), tss.S256().Params().N
	server := members[1]
	heard := record(t, members, server, func(ctx context.Context, s mpc.Session, m mpc.Member) error {
		pre := preParams(t, slices.Index(members, m))
		defer pre.Destroy()
		_, _, err := gg18.Engine{}.Keygen(ctx, s, mpc.KeygenParams{Self: m.Party, Committee: c, PreParams: pre})
		return err
	})
	pre := preParams(t, 1)
	defer pre.Destroy()
	err := pre.Numbers(func(own *mpc.PreParamNumbers) error {
		type r1 = *eckeygen.KGRound1Message
		type r2 = *eckeygen.KGRound2Message2
		type p2 = *eckeygen.KGRound2Message1
		top := new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 2047), 0, 1)
		judge(t, heard, func() func(*tss.PartyID, tss.MessageContent) error {
			return gg18.GuardMake(tss.S256(), 2, own, nil)
		}, idsOf(t, tss.S256(), members), map[string]spoiler{
			"honest":                        {},
			"2047 bits":                     {spoil(func(m r1) { m.PaillierN = m.PaillierN[1:] }), "2048"},
			"2049 bits":                     {spoil(func(m r1) { m.NTilde = append([]byte{1}, m.NTilde...) }), "2048"},
			"even modulus":                  {spoil(func(m r1) { m.PaillierN[255] &^= 1 }), "even"},
			"prime modulus":                 {spoil(func(m r1) { m.NTilde = prime2048().Bytes() }), "is prime"},
			"small factor":                  {spoil(func(m r1) { m.PaillierN = multipleOf(top, 1999).Bytes() }), "small factor"},
			"one modulus for both":          {spoil(func(m r1) { m.NTilde = m.PaillierN }), "in common"},
			"our modulus":                   {spoil(func(m r1) { m.PaillierN = own.NTilde.Bytes() }), "in common"},
			"h1 of 1":                       {spoil(func(m r1) { m.H1 = []byte{1} }), "h1 is out of range"},
			"h1 above NTilde":               {spoil(func(m r1) { m.H1 = plus(m.H1, new(big.Int).SetBytes(m.NTilde), 1) }), "h1 is out of range"},
			"h1 is h2":                      {spoil(func(m r1) { m.H1 = m.H2 }), "generate"},
			"h1 no square":                  {spoil(func(m r1) { m.H1 = jacobiMinus(m.NTilde) }), "generate"},
			"proof with a negative length":  {spoil(func(m r1) { m.Dlnproof_1[0] = bytes.Repeat([]byte{0xff}, 8) }), "other lengths"},
			"proof with another length":     {spoil(func(m r1) { m.Dlnproof_2[129] = []byte{127} }), "other lengths"},
			"proof with a 1":                {spoil(func(m r1) { m.Dlnproof_1[5] = []byte{1} }), "out of range"},
			"proof too short":               {spoil(func(m r1) { m.Dlnproof_1 = m.Dlnproof_1[:200] }), "parts"},
			"long commitment":               {spoil(func(m r1) { m.Commitment = bytes.Repeat([]byte{1}, 33) }), "at most 32"},
			"share a multiple of the order": {spoil(func(m p2) { m.Share = q.Bytes() }), "share is out of range"},
			"no proof of factors":           {spoil(func(m p2) { m.FacProof = nil }), "proof of factors"},
			"factors: 1":                    {spoil(func(m p2) { m.FacProof[0] = []byte{1} }), "proof of factors"},
			"factors: z1 too large":         {spoil(func(m p2) { m.FacProof[6] = bytes.Repeat([]byte{255}, 300) }), "z1 is larger"},
			"factors: w1 too large":         {spoil(func(m p2) { m.FacProof[8] = bytes.Repeat([]byte{255}, 400) }), "w1 is larger"},
			"no proof of modulus":           {spoil(func(m r2) { m.ModProof = nil }), "proof of modulus"},
			"proof of modulus with a 1":     {spoil(func(m r2) { m.ModProof[3] = []byte{1} }), "proof of modulus"},
			"too few points":                {spoil(func(m r2) { m.DeCommitment = m.DeCommitment[:3] }), "parts"},
			"point off the curve":           {spoil(func(m r2) { m.DeCommitment[4] = []byte{7} }), "not on the curve"},
			"not what was committed to":     {spoil(func(m r2) { m.DeCommitment[0] = []byte{7} }), "committed to"},
			"Paillier proof with a 1":       {spoil(func(m *eckeygen.KGRound3Message) { m.PaillierProof[0] = []byte{1} }), "Paillier proof"},
			"a message of signing": {func(c tss.MessageContent) bool {
				m, is := c.(*eckeygen.KGRound3Message)
				if is {
					m.PaillierProof = m.PaillierProof[:1]
				}
				return is
			}, "parts"},
		})
		// A later message that overtakes waits; of another protocol it is refused.
		received := gg18.GuardMake(tss.S256(), 2, own, nil)
		for _, h := range heard {
			if m, is := h.content.(r2); is {
				if err := received(idsOf(t, tss.S256(), members)[h.from], m); !errors.Is(err, gg18.ErrEarly) {
					t.Errorf("round 2 before round 1: %v, want ErrEarly", err)
				}
			}
		}
		if err := received(somebody, &ecsigning.SignRound9Message{S: []byte{1}}); err == nil {
			t.Error("a message of signing was taken")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// prime2048 is 2^2048 - 1942289, the largest prime of its size.
func prime2048() *big.Int {
	p := new(big.Int).Lsh(big.NewInt(1), 2048)
	return p.Sub(p, big.NewInt(1942289))
}

func multipleOf(x *big.Int, p int64) *big.Int {
	m := new(big.Int).Mul(new(big.Int).Div(x, big.NewInt(p)), big.NewInt(p))
	if m.Add(m, big.NewInt(p)); m.Bit(0) == 0 {
		m.Add(m, big.NewInt(p))
	}
	return m
}

func jacobiMinus(n []byte) []byte {
	m := new(big.Int).SetBytes(n)
	for x := big.NewInt(2); ; x.Add(x, big.NewInt(1)) {
		if big.Jacobi(x, m) == -1 {
			return x.Bytes()
		}
	}
}

// reshareTranscript is what came to the new server in an issue by tss-lib.
func reshareTranscript(t *testing.T, ec elliptic.Curve, root mpctest.Set, to mpc.Committee) ([]recorded, map[mpc.Member]*tss.PartyID) {
	from := root.Committee()
	quorum := []mpc.Party{mpc.Server, mpc.User}
	from.Parties = quorum
	members := append(from.Members(), to.Members()...)
	heard := record(t, members, mpc.Member{SetID: to.SetID, Party: mpc.Server}, func(ctx context.Context, s mpc.Session, m mpc.Member) error {
		p := mpc.ReshareParams{Self: m, From: root.Committee(), Quorum: quorum, To: to, PublicKey: root.PublicKey}
		if m.SetID == root.ID {
			p.Body = root.Body(t, m.Party)
		} else if root.Scheme == chains.ECDSASecp256k1 {
			p.PreParams = preParams(t, slices.Index(to.Parties, m.Party))
			defer p.PreParams.Destroy()
		}
		_, _, err := gg18.Engine{}.Reshare(ctx, s, p)
		return err
	})
	return heard, idsOf(t, ec, members)
}

func TestGuardOfECDSAReshare(t *testing.T) {
	root := mpctest.ECDSARootSet(t)
	to := mpc.Committee{SetID: "guarded-issue", Scheme: root.Scheme, Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2}
	heard, ids := reshareTranscript(t, tss.S256(), root, to)
	pre, g := preParams(t, 1), tss.S256().Params()
	defer pre.Destroy()
	err := pre.Numbers(func(own *mpc.PreParamNumbers) error {
		judge(t, heard, func() func(*tss.PartyID, tss.MessageContent) error {
			return gg18.GuardMake(tss.S256(), 2, own, root.PublicKey)
		}, ids, map[string]spoiler{
			"honest": {},
			"another key": {spoil(func(m *ecresharing.DGRound1Message) { m.EcdsaPubX, m.EcdsaPubY = g.Gx.Bytes(), g.Gy.Bytes() }),
				"another one"},
			"key off the curve":     {spoil(func(m *ecresharing.DGRound1Message) { m.EcdsaPubX = []byte{5} }), "not on the curve"},
			"long session id":       {spoil(func(m *ecresharing.DGRound1Message) { m.Ssid = make([]byte, 33) }), "session id"},
			"2047 bits":             {spoil(func(m *ecresharing.DGRound2Message1) { m.PaillierN = m.PaillierN[1:] }), "2048"},
			"even NTilde":           {spoil(func(m *ecresharing.DGRound2Message1) { m.NTilde[255] &^= 1 }), "even"},
			"no proof of modulus":   {spoil(func(m *ecresharing.DGRound2Message1) { m.ModProof = nil }), "proof of modulus"},
			"share of the order":    {spoil(func(m *ecresharing.DGRound3Message1) { m.Share = g.N.Bytes() }), "out of range"},
			"point off the curve":   {spoil(func(m *ecresharing.DGRound3Message2) { m.VDecommitment[1] = []byte{5} }), "not on the curve"},
			"not committed to":      {spoil(func(m *ecresharing.DGRound3Message2) { m.VDecommitment[0] = []byte{5} }), "committed to"},
			"no proof of factors":   {spoil(func(m *ecresharing.DGRound4Message1) { m.FacProof = nil }), "proof of factors"},
			"factors: v too large":  {spoil(func(m *ecresharing.DGRound4Message1) { m.FacProof[10] = bytes.Repeat([]byte{255}, 900) }), "v is larger"},
			"factors: sigma's size": {spoil(func(m *ecresharing.DGRound4Message1) { m.FacProof[5] = bytes.Repeat([]byte{255}, 900) }), "sigma is larger"},
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestGuardOfEdDSAReshare(t *testing.T) {
	root := mpctest.Ed25519RootSet(t)
	to := mpc.Committee{SetID: "guarded-issue", Scheme: root.Scheme, Parties: []mpc.Party{mpc.Delegate, mpc.Server}, Threshold: 2}
	heard, ids := reshareTranscript(t, tss.Edwards(), root, to)
	g := tss.Edwards().Params()
	judge(t, heard, func() func(*tss.PartyID, tss.MessageContent) error {
		return gg18.GuardMake(tss.Edwards(), 2, nil, root.PublicKey)
	}, ids, map[string]spoiler{
		"honest":              {},
		"another key":         {spoil(func(m *edresharing.DGRound1Message) { m.EddsaPubX, m.EddsaPubY = g.Gx.Bytes(), g.Gy.Bytes() }), "another one"},
		"share of the order":  {spoil(func(m *edresharing.DGRound3Message1) { m.Share = g.N.Bytes() }), "out of range"},
		"point off the curve": {spoil(func(m *edresharing.DGRound3Message2) { m.VDecommitment[1] = []byte{5} }), "not on the curve"},
	})
}
