package main_test

import (
	"encoding/hex"
	"strings"
	"testing"
	"time"
)

// joinAll has the owner's device join whatever waits until stop is called, as somebody
// with the device at hand would.
func (p place) joinAll(t testing.TB) (stop func()) {
	t.Helper()
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			out, err := p.sigilctl("device", "pending", "--file", "phone.age", "--identity", "owner.age")
			if ceremony, _, ok := strings.Cut(out, "  "); err == nil && ok {
				if _, err := p.sigilctl("device", "join", "--file", "phone.age", "--identity", "owner.age", "--ceremony", ceremony, "--yes"); err != nil {
					t.Error(err)
				}
			}
			select {
			case <-over:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	return func() { close(over); <-done }
}

// An ECDSA key with a device, from its making to a rotation: two processes run
// tss-lib's protocols over TLS, and go-ethereum recovers the wallet's address from
// what each of its sets signed.
func TestDeviceAndAnECDSAKey(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b := mustBot(t, p)
	p.withPeers(t, "  semi_trusted: true\n")
	d := startFor(t, p)
	p.allow(t, b.Organization, "eth.tx.value <= 1000 && eth.tx.data == '0x' && eth.tx.chain_id == 1")
	wallet, shown := p.phoneWallet(t, b, p.newPhone(t, b), "eip155")
	address := field(t, shown, "address")
	sign := func(id string, nonce uint64) {
		t.Helper()
		out, err := p.deviceSignKind("evm.transaction", wallet, id, sendEther(t, nonce, 7))
		if err != nil {
			t.Fatal(err, d.log)
		}
		signed, err := hex.DecodeString(field(t, out, "signed"))
		if err != nil {
			t.Fatal(err)
		}
		wantFrom(t, signed, address)
	}
	sign("by-device", 0)

	// A delegation: the device takes part in the issue and has no share of its set.
	stop := p.joinAll(t)
	w := p.delegateEther(t, b, wallet)
	stop()
	p.wantSender(t, w, 1, address)

	rotated := p.must(t, b, "wallet rotate", "--wallet", wallet, "--key", "owner.key")
	p.device(t, "join", "--ceremony", field(t, rotated, "ceremony"), "--yes")
	if out := p.device(t, "show"); strings.Count(out, "live of wallet") != 1 || strings.Count(out, "ended of wallet") != 1 {
		t.Errorf("after the rotation the device has\n%s", out)
	}
	if out := p.must(t, b, "wallet show", "--wallet", wallet, "--key", "owner.key"); field(t, out, "address") != address || !strings.Contains(out, "epoch 2") {
		t.Errorf("after the rotation wallet show says\n%s", out)
	}
	sign("after-the-rotation", 2)
	p.wantSender(t, w, 3, address)
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	p.mustCtl(t, "audit", "verify")
}
