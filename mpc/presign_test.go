package mpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/engines/gg18"
	"github.com/sigild/sigild/mpc/mpctest"
)

func presign(t testing.TB, set mpctest.Set, path ...uint32) *mpc.Presignature {
	t.Helper()
	p, err := mpc.Presign(t.Context(), mpc.PresignRequest{Set: set.ShareSet, Shares: set.Shares(t), Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPresignedSignatures(t *testing.T) {
	leavesNothing(t)
	set := mpctest.ECDSADelegateSet(t).WithChainCode(t, bytes.Repeat([]byte{3}, 32))
	shares := set.Shares(t)
	r := mpc.PresignRequest{Set: set.ShareSet, Shares: shares, Path: []uint32{0, 7}}
	p, err := mpc.Presign(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range set.Shares(t) {
		if !bytes.Equal(b, shares[i]) {
			t.Error("presigning changed a lent share")
		}
		clear(shares[i]) // the presignature needs them no more
	}
	child, err := mpc.DerivedKey(set.Shares(t)[0], r.Path)
	if err != nil {
		t.Fatal(err)
	}
	in, asked := digestInput("presigned"), 0
	sig, err := p.Sign(t.Context(), in, func() error { asked++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	verifies(t, child, in, sig)
	if asked != 1 {
		t.Errorf("the release was asked %d times, want once", asked)
	}
	if _, err := p.Sign(t.Context(), digestInput("another"), nil); !errors.Is(err, mpc.ErrUsed) {
		t.Errorf("a second signature: %v, want ErrUsed", err)
	}
	p.Destroy()
	other := presign(t, set, r.Path...)
	again, err := other.Sign(t.Context(), in, nil)
	if err != nil || again.R == sig.R || p.ID() == other.ID() {
		t.Errorf("another presignature: %v, R %x and %x", err, again.R, sig.R)
	}
	if text := fmt.Sprintf("%v %+v %#v", p, p, p); text != "[redacted] [redacted] [redacted]" {
		t.Errorf("it prints as %q", text)
	}
	if b, err := json.Marshal(p); err == nil {
		t.Errorf("it was encoded: %s", b)
	}
}

// Whatever ends the call, the presignature is gone.
func TestAPresignatureIsTakenWhateverComes(t *testing.T) {
	set := mpctest.ECDSADelegateSet(t)
	good, no := digestInput("m"), errors.New("revoked meanwhile")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx    context.Context
		in     chains.SignInput
		before func() error
		want   error
	}{
		"refused release":   {t.Context(), good, func() error { return no }, mpc.ErrAborted},
		"digest of zero":    {t.Context(), chains.SignInput{Scheme: chains.ECDSASecp256k1}, nil, mpc.ErrInput},
		"another scheme":    {t.Context(), messageInput([]byte("m")), nil, mpc.ErrInput},
		"a caller who left": {gone, good, nil, context.Canceled},
	} {
		p := presign(t, set)
		_, err := p.Sign(tc.ctx, tc.in, tc.before)
		if e := asError(t, err); !errors.Is(err, tc.want) || e.LastShareSent {
			t.Errorf("%s: %v, sent %v, want %v", name, err, e.LastShareSent, tc.want)
		}
		if _, err := p.Sign(t.Context(), good, nil); !errors.Is(err, mpc.ErrUsed) {
			t.Errorf("%s, then again: %v, want ErrUsed", name, err)
		}
	}
	p := presign(t, set)
	p.Destroy()
	if _, err := p.Sign(t.Context(), good, nil); !errors.Is(err, mpc.ErrUsed) {
		t.Errorf("destroyed: %v, want ErrUsed", err)
	}
}

func TestOneOfManyGetsThePresignature(t *testing.T) {
	p := presign(t, mpctest.ECDSADelegateSet(t))
	var signed, used atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			switch _, err := p.Sign(t.Context(), digestInput(fmt.Sprint(i)), nil); {
			case err == nil:
				signed.Add(1)
			case errors.Is(err, mpc.ErrUsed):
				used.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if signed.Load() != 1 || used.Load() != 7 {
		t.Errorf("%d signed and %d were told it was used, want 1 and 7", signed.Load(), used.Load())
	}
}

func TestPresigningIsRefused(t *testing.T) {
	ed, ec := mpctest.Ed25519DelegateSet(t), mpctest.ECDSADelegateSet(t)
	for name, tc := range map[string]struct {
		r    mpc.PresignRequest
		want error
	}{
		"FROST needs none":  {mpc.PresignRequest{Set: ed.ShareSet, Shares: ed.Shares(t)}, mpc.ErrEngine},
		"one share":         {mpc.PresignRequest{Set: ec.ShareSet, Shares: ec.Shares(t)[:1]}, mpc.ErrShare},
		"another set":       {mpc.PresignRequest{Set: ec.ShareSet, Shares: ed.Shares(t)}, mpc.ErrShare},
		"no chain code":     {mpc.PresignRequest{Set: ec.ShareSet, Shares: ec.Shares(t), Path: []uint32{1}}, mpc.ErrPath},
		"an unknown engine": {mpc.PresignRequest{Set: ec.WithEngine(t, "nobody").ShareSet, Shares: ec.Shares(t)}, mpc.ErrEngine},
	} {
		if _, err := mpc.Presign(t.Context(), tc.r); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	// tss-lib's own EdDSA has no binding factor: it must never be presigned.
	if _, err := (gg18.Engine{}).Presign(t.Context(), nil, mpc.SignParams{Committee: ed.Committee()}); err == nil {
		t.Error("tss-lib presigned EdDSA")
	}
}

// copies is an engine whose library has copied the digest before it was known.
type copies struct{ mpc.Engine }

type copied struct{ mpc.Presigned }

func (c copies) Presign(ctx context.Context, s mpc.Session, p mpc.SignParams) (mpc.Presigned, error) {
	inner, err := gg18.Engine{}.Presign(ctx, s, p)
	return copied{inner}, err
}

func (c copied) Sign(ctx context.Context, s mpc.Session, in chains.SignInput) ([]byte, error) {
	in.Digest = [32]byte{31: 1}
	return c.Presigned.Sign(ctx, s, in)
}

func init() { mpc.Register("test-copies", copies{gg18.Engine{}}) }

func TestPresignaturesAreProvedFirst(t *testing.T) {
	set := mpctest.ECDSADelegateSet(t)
	r := mpc.PresignRequest{Set: set.ShareSet, Shares: set.Shares(t)}
	if err := mpc.ProvePresignatures(t.Context(), r); err != nil {
		t.Errorf("the pinned library: %v", err)
	}
	bad := set.WithEngine(t, "test-copies")
	r = mpc.PresignRequest{Set: bad.ShareSet, Shares: bad.Shares(t)}
	if err := mpc.ProvePresignatures(t.Context(), r); !errors.Is(err, mpc.ErrSignature) {
		t.Errorf("a library that behaves otherwise: %v, want ErrSignature", err)
	}
}
