package main_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	chainsolana "github.com/sigild/sigild/chains/solana"
)

// kill -9 of the device or of the daemon, at random moments of a keygen, a signature, an
// issue and a rotation. Afterwards the ceremony has ended or waits, and what waits can be
// joined; then the device has one share that counts, and it signs. Package delegation
// has a kill at each frame.
func TestCampaignKillsOfDeviceAndDaemon(t *testing.T) {
	becomeScratch(t)
	rounds, seed := 2, uint64(1)
	if os.Getenv("CAMPAIGN") != "" {
		rounds, seed = 60, uint64(time.Now().Unix())
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	p := newPlace(t)
	b := mustBot(t, p)
	p.withPeers(t, "")
	d := startFor(t, p)
	p.allowOwner(t, b.Organization)
	ctl := func(verb string, args ...string) []string {
		return append([]string{"device", verb, "--file", "phone.age", "--identity", "owner.age"}, args...)
	}
	device := p.newPhone(t, b)

	// killed runs the tool and kills it, or the daemon, on the way; the daemon is there again after it.
	killed := func(stdin string, args ...string) {
		cmd := command(p.dir, "sigilctl", append([]string{"--config", "sigild.yaml"}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rng.IntN(120)) * time.Millisecond)
		victim := cmd.Process
		if rng.IntN(2) == 0 {
			victim = d.cmd.Process
		}
		_ = victim.Kill() // it may have ended
		start := time.Now()
		_ = cmd.Wait()
		if took := time.Since(start); took > time.Minute {
			t.Errorf("the tool hung for %v", took)
		}
		if victim == d.cmd.Process {
			_ = d.cmd.Wait()
			d = startFor(t, p)
		}
	}
	// settled joins what waits until nothing does.
	settled := func(ceremony string) {
		for range 5 {
			if out := p.mustCtl(t, ctl("pending")...); !strings.Contains(out, ceremony) {
				return
			}
			p.mustCtl(t, ctl("join", "--ceremony", ceremony, "--yes")...)
		}
		t.Fatalf("ceremony %s waits for ever", ceremony)
	}
	for i := range rounds {
		made := p.mustCtl(t, "device", "wallet", "--organization", b.Organization, "--owner", b.Owner, "--device", device, "--chain", solana, "--name", fmt.Sprint("own ", i), "--key", "treasurer.key")
		wallet, ceremony := field(t, made, "wallet"), field(t, made, "ceremony")
		killed("", ctl("join", "--ceremony", ceremony, "--yes")...)
		settled(ceremony)
		show := func() string {
			return p.mustCtl(t, "wallet", "show", "--organization", b.Organization, "--wallet", wallet, "--key", "owner.key")
		}
		key, err := chainsolana.ParseAddress(field(t, show(), "address"))
		if err != nil {
			t.Fatal(err)
		}
		message := transfer(key, uint64(i+1))
		id := fmt.Sprint("kill-", i)
		killed(hex.EncodeToString(message), ctl("sign", "--wallet", wallet, "--kind", "solana.message", "--request-id", id, "--yes")...)
		signs := func(id string) {
			t.Helper()
			out, err := p.deviceSign(wallet, id, message)
			if err != nil { // its outcome was unknown: once more, as a person would
				out, err = p.deviceSign(wallet, id, message)
			}
			if err != nil {
				t.Fatal(i, err, d.log)
			}
			if sig, err := hex.DecodeString(field(t, out, "signature")); err != nil || !ed25519.Verify(key[:], message, sig) {
				t.Errorf("round %d: the signature does not verify: %v", i, err)
			}
		}
		signs(id)

		issued := p.mustCtl(t, "delegation", "create", "--organization", b.Organization, "--wallet", wallet, "--user", b.User, "--recipient", b.Recipient, "--rules", "rules.json", "--key", "owner.key")
		killed("", ctl("join", "--ceremony", field(t, issued, "ceremony"), "--yes")...)
		settled(field(t, issued, "ceremony"))
		if out := p.mustCtl(t, "delegation", "list", "--organization", b.Organization, "--wallet", wallet, "--key", "owner.key"); !regexp.MustCompile(field(t, issued, "delegation") + `\s+active`).MatchString(out) {
			t.Errorf("round %d: after the issue the delegations are\n%s", i, out)
		}

		rotated := p.mustCtl(t, "wallet", "rotate", "--organization", b.Organization, "--wallet", wallet, "--key", "owner.key")
		killed("", ctl("join", "--ceremony", field(t, rotated, "ceremony"), "--yes")...)
		settled(field(t, rotated, "ceremony"))
		if out := p.mustCtl(t, ctl("show")...); strings.Count(out, "live of wallet "+wallet) != 1 {
			t.Errorf("round %d: after the rotation the device has\n%s", i, out)
		}
		if out := show(); !strings.Contains(out, "epoch 2") {
			t.Errorf("round %d: after the rotation wallet show says\n%s", i, out)
		}
		signs(id + "-rotated")
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	p.mustCtl(t, "audit", "verify")
}
