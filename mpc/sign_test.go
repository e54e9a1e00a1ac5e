package mpc_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

func TestBeforeReleaseAbortsBeforeAnyLastShare(t *testing.T) {
	leavesNothing(t)
	refused := errors.New("paused")
	for _, tc := range []struct {
		set mpctest.Set
		in  chains.SignInput
	}{
		{mpctest.ECDSADelegateSet(t), digestInput("no")},
		{mpctest.Ed25519DelegateSet(t), messageInput([]byte("no"))},
	} {
		var calls atomic.Int32
		sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: tc.set.ShareSet, Shares: tc.set.Shares(t), Input: tc.in,
			BeforeRelease: func() error { calls.Add(1); return refused }})
		if !errors.Is(err, mpc.ErrAborted) || !errors.Is(err, refused) {
			t.Errorf("error %v, want ErrAborted that wraps the refusal", err)
		}
		if asError(t, err).LastShareSent || sig != (mpc.Signature{}) || calls.Load() != 1 {
			t.Errorf("last share sent %v, signature %x, %d calls; want false, none, 1", asError(t, err).LastShareSent, sig.Bytes(), calls.Load())
		}
	}
}

func TestBeforeReleaseIsCalledOnceOnSuccess(t *testing.T) {
	set := mpctest.Ed25519RootSet(t)
	var calls atomic.Int32
	in := messageInput([]byte("yes"))
	sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t), Input: in,
		BeforeRelease: func() error { calls.Add(1); return nil }})
	if err != nil || calls.Load() != 1 {
		t.Fatalf("error %v, %d calls, want none and 1", err, calls.Load())
	}
	verifies(t, set.PublicKey, in, sig)
}

func TestErrorAfterReleaseSaysSo(t *testing.T) {
	leavesNothing(t)
	set := mpctest.Ed25519DelegateSet(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("caller is gone")
	_, err := mpc.Sign(ctx, mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t), Input: messageInput([]byte("m")),
		BeforeRelease: func() error { cancel(gone); return nil }})
	// Both parties still have to receive the other's last share.
	if e := asError(t, err); !e.LastShareSent || !errors.Is(err, gone) {
		t.Errorf("last share sent %v, error %v; want true and the cause", e.LastShareSent, err)
	}
}

func TestExpiredContextSignsNothing(t *testing.T) {
	leavesNothing(t)
	set := mpctest.ECDSADelegateSet(t)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now())
	defer cancel()
	_, err := mpc.Sign(ctx, mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t), Input: digestInput("late"),
		BeforeRelease: func() error { t.Error("BeforeRelease was called"); return nil }})
	if !errors.Is(err, context.DeadlineExceeded) || asError(t, err).LastShareSent {
		t.Errorf("error %v, want a deadline before any last share", err)
	}
}

func TestSignRefusesInputsOutOfRange(t *testing.T) {
	ec, ed := mpctest.ECDSADelegateSet(t), mpctest.Ed25519DelegateSet(t)
	order := [32]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
		0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41}
	for name, tc := range map[string]struct {
		set mpctest.Set
		in  chains.SignInput
	}{
		"digest zero":          {ec, chains.SignInput{Scheme: chains.ECDSASecp256k1}},
		"digest n":             {ec, chains.SignInput{Scheme: chains.ECDSASecp256k1, Digest: order}},
		"digest above n":       {ec, chains.SignInput{Scheme: chains.ECDSASecp256k1, Digest: [32]byte(bytes.Repeat([]byte{0xff}, 32))}},
		"message for ECDSA":    {ec, chains.SignInput{Scheme: chains.ECDSASecp256k1, Digest: [32]byte{1}, Message: []byte("m")}},
		"other scheme":         {ec, messageInput([]byte("m"))},
		"empty message":        {ed, messageInput(nil)},
		"long message":         {ed, messageInput(make([]byte, mpc.MaxMessage+1))},
		"digest for Ed25519":   {ed, chains.SignInput{Scheme: chains.EdDSAEd25519, Digest: [32]byte{1}, Message: []byte("m")}},
		"scheme left out":      {ed, chains.SignInput{Message: []byte("m")}},
		"ECDSA on Ed25519 key": {ed, digestInput("d")},
	} {
		_, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: tc.set.ShareSet, Shares: tc.set.Shares(t), Input: tc.in})
		if !errors.Is(err, mpc.ErrInput) || asError(t, err).LastShareSent {
			t.Errorf("%s: error %v, want ErrInput", name, err)
		}
	}
}

func TestEd25519SignsLeadingZeroBytes(t *testing.T) {
	set := mpctest.Ed25519DelegateSet(t)
	for _, msg := range [][]byte{{0}, {0, 0, 0, 0}, append([]byte{0, 0}, "after zeros"...), bytes.Repeat([]byte{0x80}, 1232)} {
		in := messageInput(msg)
		sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t), Input: in})
		if err != nil {
			t.Fatalf("%x: %v", msg, err)
		}
		verifies(t, set.PublicKey, in, sig)
	}
}

func TestSignRefusesDamagedShares(t *testing.T) {
	set := mpctest.Ed25519DelegateSet(t)
	sign := func(shares ...[]byte) error {
		_, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: shares, Input: messageInput([]byte("m"))})
		return err
	}
	good := set.Shares(t)
	for i := range good[0] {
		bad := slices.Clone(good[0])
		bad[i] ^= 1
		if err := sign(bad, good[1]); !errors.Is(err, mpc.ErrShare) {
			t.Errorf("bit of byte %d flipped (%q): error %v, want ErrShare", i, good[0][i], err)
		}
	}
	for name, shares := range map[string][][]byte{
		"none":           nil,
		"one of two":     good[:1],
		"the same twice": {good[0], good[0]},
		"cut short":      {good[0][:len(good[0])-1], good[1]},
		"longer":         {append(slices.Clone(good[0]), 0), good[1]},
		"empty":          {{}, good[1]},
	} {
		if err := sign(shares...); !errors.Is(err, mpc.ErrShare) {
			t.Errorf("%s: error %v, want ErrShare", name, err)
		}
	}
}

func TestSignRefusesAnEngineThatIsNotBuiltIn(t *testing.T) {
	set := mpctest.Ed25519DelegateSet(t)
	set.Engine = "frost-of-tomorrow"
	_, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t), Input: messageInput([]byte("m"))})
	if !errors.Is(err, mpc.ErrEngine) {
		t.Errorf("error %v, want ErrEngine", err)
	}
}

// BenchmarkSignAdoptedEd25519 signs with a set that tss-lib made; the benchmarks
// beside a peer are in engines/gg18.
func BenchmarkSignAdoptedEd25519(b *testing.B) {
	set, in := mpctest.Ed25519DelegateSet(b), messageInput(make([]byte, 200))
	shares := set.Shares(b)
	for b.Loop() {
		if _, err := mpc.Sign(b.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: shares, Input: in}); err != nil {
			b.Fatal(err)
		}
	}
}
