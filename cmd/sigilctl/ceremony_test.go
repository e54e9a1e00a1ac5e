package main_test

import (
	"strings"
	"testing"
)

// A keygen that waits for a device is seen, aborted by a command, and made again.
func TestCeremoniesAreShownAndAborted(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b := mustBot(t, p)
	p.withPeers(t, "")
	d := startFor(t, p)
	device := p.newPhone(t, b)
	made := p.mustCtl(t, "device", "wallet", "--organization", b.Organization, "--owner", b.Owner, "--device", device, "--chain", solana, "--name", "own", "--key", "treasurer.key")
	ceremony := field(t, made, "ceremony")
	if out := p.must(t, b, "ceremony list", "--key", "owner.key"); strings.Count(out, "\n") != 2 || !strings.Contains(out, ceremony) || !strings.Contains(out, "waits for a device") {
		t.Errorf("the list of what goes on is\n%s", out)
	}
	if out := p.must(t, b, "ceremony show "+ceremony, "--key", "treasurer.key"); field(t, out, "wallet") != field(t, made, "wallet") || !strings.Contains(out, "waits until") {
		t.Errorf("it is shown as\n%s", out)
	}
	p.must(t, b, "ceremony abort "+ceremony, "--reason", "wrong wallet", "--key", "owner.key")
	if out := p.must(t, b, "ceremony list", "--key", "owner.key"); strings.Contains(out, ceremony) {
		t.Errorf("after the abort there goes on\n%s", out)
	}
	if out := p.must(t, b, "ceremony list", "--all", "--key", "owner.key"); !strings.Contains(out, "failed: aborted: wrong wallet") || !strings.Contains(out, "done") {
		t.Errorf("the list of all is\n%s", out)
	}
	if out := p.device(t, "pending"); strings.Contains(out, ceremony) {
		t.Errorf("the device is asked for\n%s", out)
	}
	for _, args := range [][]string{{"device", "join", "--file", "phone.age", "--identity", "owner.age", "--ceremony", ceremony, "--yes"},
		{"ceremony", "abort", ceremony, "--organization", b.Organization, "--reason", "again", "--key", "owner.key"}} {
		if _, err := p.sigilctl(args...); err == nil || !strings.Contains(err.Error(), "NOT_ACTIVE") {
			t.Errorf("%s %s: error %v, want NOT_ACTIVE", args[0], args[1], err)
		}
	}
	p.phoneWallet(t, b, device, solana)
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	p.mustCtl(t, "audit", "verify")
}
