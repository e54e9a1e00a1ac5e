package mpc_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	ethcrypto "github.com/ethereum/go-ethereum/crypto"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

func digestInput(text string) chains.SignInput {
	return chains.SignInput{Scheme: chains.ECDSASecp256k1, Digest: sha256.Sum256([]byte(text))}
}

func messageInput(msg []byte) chains.SignInput {
	return chains.SignInput{Scheme: chains.EdDSAEd25519, Message: msg}
}

// verifies checks a signature with libraries other than the ones that made it.
func verifies(t testing.TB, pub []byte, in chains.SignInput, sig mpc.Signature) {
	t.Helper()
	b := sig.Bytes()
	if in.Scheme == chains.EdDSAEd25519 {
		if !ed25519.Verify(pub, in.Message, b) {
			t.Errorf("crypto/ed25519 refuses %x over %x by %x", b, in.Message, pub)
		}
		return
	}
	got, err := ethcrypto.SigToPub(in.Digest[:], b)
	if err != nil || !bytes.Equal(ethcrypto.CompressPubkey(got), pub) {
		t.Errorf("%x over %x does not recover %x: %v", b, in.Digest, pub, err)
	}
	if !ethcrypto.VerifySignature(pub, in.Digest[:], b[:64]) { // refuses a high s
		t.Errorf("libsecp256k1 refuses %x over %x by %x", b, in.Digest, pub)
	}
}

// leavesNothing fails the test if goroutines that it started are left at its end.
func leavesNothing(t *testing.T) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(end) {
				buf := make([]byte, 1<<16)
				t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
				return
			}
		}
	})
}

func asError(t testing.TB, err error) *mpc.Error {
	t.Helper()
	var e *mpc.Error
	if !errors.As(err, &e) {
		t.Fatalf("got error %v, want *mpc.Error", err)
	}
	return e
}

func encodedShares(t testing.TB, shares []*mpc.Share) map[mpc.Party][]byte {
	t.Helper()
	m := map[mpc.Party][]byte{}
	for _, s := range shares {
		if err := s.Lend(func(b []byte) error { m[s.Party()] = bytes.Clone(b); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestECDSAKeygenMakesAKeyEveryQuorumSignsWith(t *testing.T) {
	leavesNothing(t)
	var stages []string
	set, shares, err := mpc.Keygen(t.Context(), mpc.KeygenRequest{SetID: "k1-root", Scheme: chains.ECDSASecp256k1,
		Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2, PreParams: mpctest.PreParams(t),
		Progress: func(stage string, done, total int) {
			stages = append(stages, fmt.Sprintf("%s %d/%d", stage, done, total))
		}})
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Validate(); err != nil {
		t.Errorf("set: %v", err)
	}
	want := []string{"pre-parameters 0/3", "pre-parameters 1/3", "pre-parameters 2/3", "pre-parameters 3/3",
		"rounds 1/3", "rounds 2/3", "rounds 3/3",
		"test signatures 0/3", "test signatures 1/3", "test signatures 2/3", "test signatures 3/3"}
	if !slices.Equal(stages, want) {
		t.Errorf("progress %q, want %q", stages, want)
	}
	enc := encodedShares(t, shares)
	in := digestInput("keygen")
	sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set, Shares: [][]byte{enc[mpc.Recovery], enc[mpc.User]}, Input: in})
	if err != nil {
		t.Fatal(err)
	}
	verifies(t, set.PublicKey, in, sig)
}

func TestEd25519KeygenMakesAKeyEveryQuorumSignsWith(t *testing.T) {
	leavesNothing(t)
	set, shares, err := mpc.Keygen(t.Context(), mpc.KeygenRequest{SetID: "k2-root", Scheme: chains.EdDSAEd25519,
		Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	enc := encodedShares(t, shares)
	for _, q := range [][]mpc.Party{{mpc.User, mpc.Server}, {mpc.Server, mpc.Recovery}, {mpc.Recovery, mpc.User}, {mpc.User, mpc.Server, mpc.Recovery}} {
		in := messageInput(fmt.Appendf(nil, "signed by %v", q))
		var lent [][]byte
		for _, p := range q {
			lent = append(lent, enc[p])
		}
		sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set, Shares: lent, Input: in})
		if err != nil {
			t.Fatalf("%v: %v", q, err)
		}
		verifies(t, set.PublicKey, in, sig)
	}
}

func TestEveryQuorumOfARootSetSigns(t *testing.T) {
	set := mpctest.ECDSARootSet(t)
	for _, q := range [][]mpc.Party{{mpc.User, mpc.Server}, {mpc.Server, mpc.Recovery}, {mpc.Recovery, mpc.User}} {
		in := digestInput(fmt.Sprint(q))
		lent := set.Shares(t, q...)
		before := slices.Clone(lent[0])
		sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: lent, Input: in})
		if err != nil {
			t.Fatalf("%v: %v", q, err)
		}
		if !bytes.Equal(before, lent[0]) {
			t.Errorf("signing changed a lent share")
		}
		verifies(t, set.PublicKey, in, sig)
	}
}

func TestIssueKeepsKeyAndRootSet(t *testing.T) {
	leavesNothing(t)
	for _, tc := range []struct {
		root mpctest.Set
		in   chains.SignInput
	}{
		{mpctest.ECDSARootSet(t), digestInput("after issue")},
		{mpctest.Ed25519RootSet(t), messageInput([]byte("after issue"))},
	} {
		lent := tc.root.Shares(t, mpc.Server, mpc.Recovery)
		set, shares, err := mpc.Issue(t.Context(), mpc.IssueRequest{From: tc.root.ShareSet, Quorum: lent, SetID: "d7",
			Parties: []mpc.Party{mpc.Server, mpc.Delegate}, Threshold: 2, PreParams: mpctest.PreParams(t)})
		if err != nil {
			t.Fatal(err)
		}
		if want := tc.root.Shares(t, mpc.Server, mpc.Recovery); !bytes.Equal(lent[0], want[0]) || !bytes.Equal(lent[1], want[1]) {
			t.Error("issue changed the root shares it was lent")
		}
		if !bytes.Equal(set.PublicKey, tc.root.PublicKey) {
			t.Errorf("new set has key %x, want %x", set.PublicKey, tc.root.PublicKey)
		}
		if want := []mpc.Party{mpc.Delegate, mpc.Server}; !slices.Equal(set.Parties, want) || set.Threshold != 2 || set.Epoch != 2 {
			t.Errorf("new set %v, threshold %d, epoch %d, want %v, 2, 2", set.Parties, set.Threshold, set.Epoch, want)
		}
		enc := encodedShares(t, shares)
		sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set, Shares: [][]byte{enc[mpc.Server], enc[mpc.Delegate]}, Input: tc.in})
		if err != nil {
			t.Fatal(err)
		}
		verifies(t, tc.root.PublicKey, tc.in, sig)
		sig, err = mpc.Sign(t.Context(), mpc.SignRequest{Set: tc.root.ShareSet, Shares: lent, Input: tc.in})
		if err != nil {
			t.Fatalf("signing with the root set after issue: %v", err)
		}
		verifies(t, tc.root.PublicKey, tc.in, sig)
	}
}

func TestIssueRefusesTheOldSetID(t *testing.T) {
	root := mpctest.Ed25519RootSet(t)
	_, _, err := mpc.Issue(t.Context(), mpc.IssueRequest{From: root.ShareSet, Quorum: root.Shares(t, mpc.Server, mpc.User),
		SetID: root.ID, Parties: []mpc.Party{mpc.Server, mpc.Delegate}, Threshold: 2})
	if err == nil {
		t.Error("issue into the set it comes from succeeded")
	}
}

func TestKeygenRefusesBadRequests(t *testing.T) {
	good := mpc.KeygenRequest{SetID: "x", Scheme: chains.EdDSAEd25519, Parties: []mpc.Party{mpc.User, mpc.Server}, Threshold: 2}
	for name, change := range map[string]func(*mpc.KeygenRequest){
		"no id":             func(r *mpc.KeygenRequest) { r.SetID = "" },
		"id with a space":   func(r *mpc.KeygenRequest) { r.SetID = "a b" },
		"unknown scheme":    func(r *mpc.KeygenRequest) { r.Scheme = "rsa" },
		"one party":         func(r *mpc.KeygenRequest) { r.Parties = r.Parties[:1] },
		"party twice":       func(r *mpc.KeygenRequest) { r.Parties = []mpc.Party{mpc.User, mpc.User} },
		"unknown party":     func(r *mpc.KeygenRequest) { r.Parties = []mpc.Party{mpc.User, "mallory"} },
		"threshold 1":       func(r *mpc.KeygenRequest) { r.Threshold = 1 },
		"threshold too big": func(r *mpc.KeygenRequest) { r.Threshold = 3 },
		"same pre-parameters": func(r *mpc.KeygenRequest) {
			r.Scheme = chains.ECDSASecp256k1
			r.PreParams = func(context.Context) (*mpc.PreParams, error) {
				return mpc.ParsePreParams(mpctest.EncodedPreParams(t, 0))
			}
		},
		"no pre-parameters": func(r *mpc.KeygenRequest) {
			r.Scheme = chains.ECDSASecp256k1
			r.PreParams = func(context.Context) (*mpc.PreParams, error) { return nil, mpc.ErrEmpty }
		},
	} {
		r := good
		change(&r)
		if _, _, err := mpc.Keygen(t.Context(), r); err == nil {
			t.Errorf("%s: keygen succeeded", name)
		} else {
			asError(t, err)
		}
	}
}

func TestSharesOfDifferentSetsDoNotCombine(t *testing.T) {
	root, del := mpctest.Ed25519RootSet(t), mpctest.Ed25519DelegateSet(t)
	user, delegate := root.Shares(t, mpc.User)[0], del.Shares(t, mpc.Delegate)[0]
	for _, set := range []mpc.ShareSet{root.ShareSet, del.ShareSet} {
		_, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set, Shares: [][]byte{user, delegate}, Input: messageInput([]byte("m"))})
		if !errors.Is(err, mpc.ErrShare) {
			t.Errorf("set %s: error %v, want ErrShare", set.ID, err)
		}
	}
	// With the header of a set of the same key and parties around it, the body gives
	// it away: its party keys are derived from its own set's id.
	other, shares, err := mpc.Issue(t.Context(), mpc.IssueRequest{From: root.ShareSet, Quorum: root.Shares(t, mpc.Server, mpc.User),
		SetID: "d8", Parties: del.Parties, Threshold: 2})
	if err != nil {
		t.Fatal(err)
	}
	forged := splice(t, del.Shares(t, mpc.Server)[0], encodedShares(t, shares)[mpc.Server], other.PublicKey)
	_, err = mpc.Sign(t.Context(), mpc.SignRequest{Set: del.ShareSet, Shares: [][]byte{forged, delegate}, Input: messageInput([]byte("m"))})
	if !errors.Is(err, mpc.ErrShare) || !strings.Contains(err.Error(), "not of this set") {
		t.Errorf("spliced share: error %v, want ErrShare for its party keys", err)
	}
	if asError(t, err).LastShareSent {
		t.Error("spliced share: a last share was sent")
	}
}

// splice joins the header of one share and the body of another share of the same
// key, and makes the checksum fit.
func splice(t testing.TB, head, tail, publicKey []byte) []byte {
	t.Helper()
	i, j := bytes.Index(head, publicKey), bytes.Index(tail, publicKey)
	if i < 0 || j < 0 {
		t.Fatal("no public key in a share")
	}
	b := slices.Concat(head[:i], tail[j:len(tail)-sha256.Size])
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func TestCancelledKeygenLeavesNothing(t *testing.T) {
	leavesNothing(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	_, _, err := mpc.Keygen(ctx, mpc.KeygenRequest{SetID: "k3", Scheme: chains.EdDSAEd25519,
		Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2,
		Progress: func(stage string, done, _ int) {
			if stage == "rounds" && done == 2 {
				cancel(enough)
			}
		}})
	if !errors.Is(err, enough) {
		t.Errorf("error %v, want the cause of the cancel", err)
	}
}
