package delegation

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/refusal"
)

// withChild gives dana an EVM wallet whose key has a chain code.
func withChild(h *house) {
	h.t.Helper()
	h.wallet(ethWallet, "eip155", mpctest.ECDSARootSet(h.t).WithChainCode(h.t, bytes.Repeat([]byte{9}, 32)))
}

func (h *house) derive(n NewDerived) (Wallet, error) {
	return h.DeriveWallet(context.Background(), stamped(site.acme, n, site.root...), n)
}

func TestDerivedWalletIsAnAddressOfTheSameKey(t *testing.T) {
	h := newHouse(t, withChild)
	n := NewDerived{RequestID: "d", Organization: site.acme, Wallet: ethWallet, Path: "0/7", Name: "seven"}
	w, err := h.derive(n)
	if err != nil {
		t.Fatal(err)
	}
	share := mpctest.ECDSARootSet(t).WithChainCode(t, bytes.Repeat([]byte{9}, 32)).Shares(t)[0]
	public, err := mpc.DerivedKey(share, []uint32{0, 7})
	if err != nil {
		t.Fatal(err)
	}
	address, err := evm.Address(public)
	if err != nil {
		t.Fatal(err)
	}
	if w.Address != evm.Checksum(address) || !bytes.Equal(w.PublicKey, public) || w.Path != "0/7" || w.Key != "key_"+ethWallet || w.Owner != site.dana.id || w.Status != statusActive {
		t.Errorf("wallet %+v, want %s of the same key", w, evm.Checksum(address))
	}
	if again, err := h.derive(n); err != nil || again.ID != w.ID {
		t.Errorf("the same request again: %+v, %v, want the same wallet", again, err)
	}

	// A delegation of it signs with the derived key, before and after a restart.
	d, _ := h.delegate("of-seven", w.ID)
	for range 2 {
		st, err := h.book.now(d)
		if err != nil || st == nil {
			t.Fatalf("standing %+v, %v", st, err)
		}
		if !slices.Equal(st.Wallet.Path, []uint32{0, 7}) || !bytes.Equal(st.Wallet.PublicKey, public) || st.Wallet.Address != w.Address {
			t.Fatalf("wallet %+v, want that of path 0/7", st.Wallet)
		}
		h.restart()
	}

	for name, c := range map[string]struct {
		change func(*NewDerived)
		reason refusal.Reason
		field  string
	}{
		"the same path":     {func(n *NewDerived) {}, refusal.RequestInvalid, "path"},
		"hardened":          {func(n *NewDerived) { n.Path = "0'" }, refusal.RequestInvalid, "path"},
		"no path":           {func(n *NewDerived) { n.Path = "" }, refusal.RequestInvalid, "path"},
		"no name":           {func(n *NewDerived) { n.Name = "" }, refusal.RequestInvalid, "name"},
		"an unknown wallet": {func(n *NewDerived) { n.Wallet = "wal_none" }, refusal.NotFound, ""},
	} {
		bad := n
		bad.RequestID = strings.ReplaceAll(name, " ", "-")
		c.change(&bad)
		_, err := h.derive(bad)
		if no := wantRefusal(t, name, err, c.reason); no.Details["field"] != c.field {
			t.Errorf("%s: field %q, want %q", name, no.Details["field"], c.field)
		}
	}
	owner := NewDerived{RequestID: "o", Organization: site.acme, Wallet: ethWallet, Path: "0/8", Name: "eight"}
	_, err = h.DeriveWallet(context.Background(), stamped(site.acme, owner, site.dana.holder), owner)
	wantRefusal(t, "the owner alone", err, refusal.QuorumMissing)
}

func TestKeysWithoutChainCodeDeriveNothing(t *testing.T) {
	h := newHouse(t, withEther, withWallet)
	for _, id := range []string{ethWallet, solWallet} {
		_, err := h.derive(NewDerived{RequestID: "d" + id, Organization: site.acme, Wallet: id, Path: "1", Name: "one"})
		wantRefusal(t, id, err, refusal.RequestInvalid)
	}
}

func TestImportedWalletSaysSo(t *testing.T) {
	h := newHouse(t)
	seed := bytes.Repeat([]byte{7}, 32)
	n := NewImport{NewWallet: newWallet("import"), Secret: seed}
	made, err := h.ImportWallet(context.Background(), stamped(site.acme, n, site.root...), n)
	if err != nil {
		t.Fatal(err)
	}
	h.wantCeremony(made.CeremonyID, statusDone)
	w, err := h.Wallet(look(site.acme, site.root[0]), site.acme, made.WalletID)
	want, _ := mpc.PublicKeyOf(chains.EdDSAEd25519, seed)
	if err != nil || w.Origin != "imported" || !bytes.Equal(w.PublicKey, want) {
		t.Errorf("wallet %+v, error %v, want key %x and origin imported", w, err, want)
	}
	h.restart()
	if w, err = h.Wallet(look(site.acme, site.root[0]), site.acme, made.WalletID); err != nil || w.Origin != "imported" {
		t.Errorf("after a restart: %+v, %v", w, err)
	}
	h.unchanged("refused imports", func() {
		for name, c := range map[string]struct {
			change func(*NewImport)
			reason refusal.Reason
		}{
			"no secret":     {func(n *NewImport) { n.Secret = nil }, refusal.RequestInvalid},
			"a keypair":     {func(n *NewImport) { n.Secret = make([]byte, 64) }, refusal.RequestInvalid},
			"zero for EVM":  {func(n *NewImport) { n.Chain, n.Secret = "eip155", make([]byte, 32) }, refusal.RequestInvalid},
			"no chain":      {func(n *NewImport) { n.Chain = "" }, refusal.RequestInvalid},
			"no owner":      {func(n *NewImport) { n.Owner = "" }, refusal.NotFound},
			"another's own": {func(n *NewImport) { n.Owner = site.gina.id }, refusal.NotFound},
		} {
			bad := NewImport{NewWallet: newWallet("bad-" + strings.NewReplacer(" ", "-", "'", "").Replace(name)), Secret: bytes.Clone(seed)}
			c.change(&bad)
			_, err := h.ImportWallet(context.Background(), stamped(site.acme, bad, site.root...), bad)
			wantRefusal(t, name, err, c.reason)
		}
	})
}
