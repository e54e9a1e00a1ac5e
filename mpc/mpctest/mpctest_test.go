package mpctest

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
)

var write = flag.Bool("write", false, "make testdata anew before checking it")

// TestTestdata checks that the sets are what their names say and still decode.
func TestTestdata(t *testing.T) {
	if *write {
		writeAll(t)
		t.Log("written; run again without -write: this build embeds what was there before")
		return
	}
	for i := range readyPreParams {
		if _, err := mpc.ParsePreParams(EncodedPreParams(t, i)); err != nil {
			t.Errorf("pre-parameters %d: %v", i, err)
		}
	}
	pairs := []struct{ root, delegate Set }{
		{ECDSARootSet(t), ECDSADelegateSet(t)},
		{Ed25519RootSet(t), Ed25519DelegateSet(t)},
	}
	for _, p := range pairs {
		if !bytes.Equal(p.root.PublicKey, p.delegate.PublicKey) {
			t.Errorf("%s and %s have different public keys", p.root.ID, p.delegate.ID)
		}
		for _, s := range []Set{p.root, p.delegate} {
			for i, b := range s.Shares(t) {
				set, party, err := mpc.DescribeShare(b)
				if err != nil || set.ID != s.ID || party != s.Parties[i] {
					t.Errorf("share %d of %s: set %s, party %s, error %v", i, s.ID, set.ID, party, err)
				}
			}
		}
	}
}

func writeAll(t *testing.T) {
	ctx := t.Context()
	for i := range readyPreParams {
		p, err := mpc.GeneratePreParams(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Lend(func(b []byte) error { return os.WriteFile(fmt.Sprintf("testdata/preparams-%d.bin", i), b, 0o644) }); err != nil {
			t.Fatal(err)
		}
	}
	next := 0
	take := func(context.Context) (*mpc.PreParams, error) {
		next++
		b, err := os.ReadFile(fmt.Sprintf("testdata/preparams-%d.bin", (next-1)%readyPreParams))
		if err != nil {
			return nil, err
		}
		return mpc.ParsePreParams(b)
	}
	for name, scheme := range map[string]chains.Scheme{"ecdsa": chains.ECDSASecp256k1, "ed25519": chains.EdDSAEd25519} {
		root, shares, err := mpc.Keygen(ctx, mpc.KeygenRequest{SetID: "test-" + name + "-root", Scheme: scheme,
			Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2, PreParams: take})
		if err != nil {
			t.Fatal(err)
		}
		rootFile := save(t, name+"-root", root, shares)
		quorum := [][]byte{rootFile.Shares[mpc.User], rootFile.Shares[mpc.Server]}
		issued, shares, err := mpc.Issue(ctx, mpc.IssueRequest{From: root, Quorum: quorum, SetID: "test-" + name + "-delegate",
			Parties: []mpc.Party{mpc.Server, mpc.Delegate}, Threshold: 2, PreParams: take})
		if err != nil {
			t.Fatal(err)
		}
		save(t, name+"-delegate", issued, shares)
	}
}

func save(t *testing.T, name string, set mpc.ShareSet, shares []*mpc.Share) file {
	f := file{Set: set, Shares: map[mpc.Party][]byte{}}
	for _, s := range shares {
		if err := s.Lend(func(b []byte) error { f.Shares[s.Party()] = bytes.Clone(b); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	b, err := json.MarshalIndent(f, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("testdata", name+".json"), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	return f
}
