package mpc_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

func importRequest(t *testing.T, scheme chains.Scheme, secret []byte) mpc.ImportRequest {
	return mpc.ImportRequest{SetID: "imported", Scheme: scheme, Parties: []mpc.Party{mpc.User, mpc.Server, mpc.Recovery}, Threshold: 2,
		PreParams: mpctest.PreParams(t), Secret: secret}
}

func TestImportOfAnEd25519Seed(t *testing.T) {
	leavesNothing(t)
	seed := sha256.Sum256([]byte("seed"))
	key := ed25519.NewKeyFromSeed(seed[:])
	set, shares, err := mpc.Import(t.Context(), importRequest(t, chains.EdDSAEd25519, seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(set.PublicKey, key.Public().(ed25519.PublicKey)) || set.Epoch != 1 || set.ID != "imported" {
		t.Errorf("set %+v, want key %x", set, key.Public())
	}
	enc, in := encodedShares(t, shares), messageInput([]byte("imported"))
	sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set, Shares: [][]byte{enc[mpc.User], enc[mpc.Recovery]}, Input: in})
	if err != nil {
		t.Fatal(err)
	}
	verifies(t, key.Public().(ed25519.PublicKey), in, sig)
}

// An imported secp256k1 key signs, has a chain code, and its children sign.
func TestImportOfASecp256k1KeyAndItsChildren(t *testing.T) {
	leavesNothing(t)
	secret := sha256.Sum256([]byte("private key"))
	want := secp256k1.PrivKeyFromBytes(secret[:]).PubKey().SerializeCompressed()
	set, shares, err := mpc.Import(t.Context(), importRequest(t, chains.ECDSASecp256k1, secret[:]))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(set.PublicKey, want) {
		t.Errorf("key %x, want %x", set.PublicKey, want)
	}
	enc := encodedShares(t, shares)
	seen := [][]byte{set.PublicKey}
	for _, path := range [][]uint32{nil, {0, 7}} {
		in := digestInput(mpc.FormatPath(path) + "signed")
		child, err := mpc.DerivedKey(enc[mpc.User], path)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set, Shares: [][]byte{enc[mpc.Server], enc[mpc.User]}, Input: in, Path: path})
		if err != nil {
			t.Fatal(err)
		}
		verifies(t, child, in, sig)
		if len(path) > 0 && slices.ContainsFunc(seen, func(k []byte) bool { return bytes.Equal(k, child) }) {
			t.Errorf("child %v has a key that was there: %x", path, child)
		}
		seen = append(seen, child)
	}
}

// A set issued from one with a chain code has it, too: both sign for one child.
func TestChildrenSurviveAnIssueAndLeaveTheKeyAlone(t *testing.T) {
	code := bytes.Repeat([]byte{0x5c}, 32)
	root, del := mpctest.ECDSARootSet(t).WithChainCode(t, code), mpctest.ECDSADelegateSet(t).WithChainCode(t, code)
	path := []uint32{3, 1}
	a, err := mpc.DerivedKey(root.Shares(t)[0], path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := mpc.DerivedKey(del.Shares(t)[0], path); err != nil || !bytes.Equal(a, b) {
		t.Errorf("the delegate's child is %x, %v, want %x", b, err, a)
	}
	// Twice, and then the key itself: deriving changes nothing.
	lent := del.Shares(t)
	for _, p := range [][]uint32{path, path, nil} {
		in, want := digestInput("twice"), a
		if p == nil {
			want = del.PublicKey
		}
		sig, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: del.ShareSet, Shares: lent, Input: in, Path: p})
		if err != nil {
			t.Fatal(err)
		}
		verifies(t, want, in, sig)
	}
	issued := root.Issue(t, "with-code", mpc.Server, mpc.Delegate)
	if b, err := mpc.DerivedKey(issued.Shares(t)[1], path); err != nil || !bytes.Equal(a, b) {
		t.Errorf("the issued set's child is %x, %v, want %x", b, err, a)
	}
}

func TestImportAndPathsThatAreRefused(t *testing.T) {
	order := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
		0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41}
	for name, r := range map[string]mpc.ImportRequest{
		"no secret":       importRequest(t, chains.ECDSASecp256k1, nil),
		"zero":            importRequest(t, chains.ECDSASecp256k1, make([]byte, 32)),
		"the order":       importRequest(t, chains.ECDSASecp256k1, order),
		"33 bytes":        importRequest(t, chains.ECDSASecp256k1, make([]byte, 33)),
		"a short seed":    importRequest(t, chains.EdDSAEd25519, make([]byte, 31)),
		"a whole keypair": importRequest(t, chains.EdDSAEd25519, make([]byte, 64)),
	} {
		if _, _, err := mpc.Import(t.Context(), r); !errors.Is(err, mpc.ErrInput) {
			t.Errorf("%s: error %v, want ErrInput", name, err)
		}
	}
	ed, ec := mpctest.Ed25519DelegateSet(t), mpctest.ECDSADelegateSet(t)
	for _, set := range []mpctest.Set{ed, ec} {
		in := messageInput([]byte("m"))
		if set.Scheme == chains.ECDSASecp256k1 {
			in = digestInput("m")
		}
		_, err := mpc.Sign(t.Context(), mpc.SignRequest{Set: set.ShareSet, Shares: set.Shares(t), Input: in, Path: []uint32{1}})
		if !errors.Is(err, mpc.ErrPath) {
			t.Errorf("%s: a path without a chain code: error %v, want ErrPath", set.ID, err)
		}
	}
}
