package evm

import (
	"fmt"

	"github.com/ethereum/go-ethereum/crypto"
	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// decodeTransaction reads an unsigned transaction. What is signed is the
// Keccak-256 of the received bytes, which are the canonical ones.
func decodeTransaction(raw []byte, o Options) (*chains.Decoded, error) {
	if len(raw) == 0 {
		return nil, fail(chains.CodeForm, -1, "empty payload")
	}
	t, err := parse(raw, false)
	if err != nil {
		return nil, err
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	calls := t.flatten(o)
	auths, own := t.authorizationViews(o)
	d := &chains.Decoded{
		Chain:   calls.chain,
		Sign:    chains.SignInput{Digest: crypto.Keccak256Hash(raw)},
		View:    chains.View{Root: t.view(calls, auths)},
		Charges: t.charges(calls),
		Opaque:  calls.opaque || own || t.runsItself(o),
	}
	if own { // an authorization of the wallet's own, brought along
		d.Guards = append(d.Guards, Root+".authorization_list")
		d.Charges = append(d.Charges, unbounded(calls.chain, ""))
	}
	if calls.delegates {
		d.Guards = append(d.Guards, Root+".calls")
	}
	if o.walletKnown() {
		d.ReplayKeys = []string{fmt.Sprintf("evm-nonce:%s:0x%x:%d", t.chainID.Dec(), o.Wallet, t.nonce)}
		d.Bid = t.bid()
	}
	d.Summary = t.summary(calls, len(auths), own)
	return d, nil
}

// authorizationViews are the authorizations of a type 4 transaction for its view;
// own tells that one of them is of the wallet, or may be.
func (t *tx) authorizationViews(o Options) (views []chains.Value, own bool) {
	if t.typ != typeSetCode {
		return nil, false
	}
	for _, a := range t.authorizations() {
		var who chains.Value
		if authority, ok := a.authority(); ok {
			who = chains.AddressValue(authority)
			own = own || o.walletKnown() && authority == o.Wallet && !a.revokes()
		}
		views = append(views, chains.StructValue(chains.AddressValue(a.address), chains.IntValue(&a.chainID), chains.Uint64Value(a.nonce), who))
	}
	return views, own
}

// bid is what the transaction offers, for [chains.Decoded.Bid]; one gas price is both
// rates, as it is for nodes.
func (t *tx) bid() []uint256.Int {
	bid := []uint256.Int{t.price, t.tip}
	if t.typ < typeDynamic {
		bid[1] = t.price
	}
	if t.blobs > 0 {
		bid = append(bid, t.blobFee)
	}
	return bid
}
