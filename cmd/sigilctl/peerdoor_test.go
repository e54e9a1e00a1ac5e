package main_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/device"
	"github.com/sigild/sigild/link"
)

// The peer door of a real daemon: a device has four sessions and no fifth, and loses
// them and its connection at the moment when it is removed.
func TestPeerDoorBoundsAndCutsItsParties(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b := mustBot(t, p)
	p.withPeers(t, "")
	d := startFor(t, p)
	id := p.newPhone(t, b)
	made := p.mustCtl(t, "device", "wallet", "--organization", b.Organization, "--owner", b.Owner, "--device", id, "--chain", solana, "--name", "own", "--key", "treasurer.key")
	ceremony := field(t, made, "ceremony")

	text, err := os.ReadFile(p.path("owner.age"))
	if err != nil {
		t.Fatal(err)
	}
	identity, err := device.ReadIdentity(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	file, err := device.Open(p.path("phone.age"), identity)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	own, err := file.Identity()
	if err != nil {
		t.Fatal(err)
	}
	_, appliance, _ := file.Where()
	pin, err := link.ParsePin(appliance)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := own.Dial(p.path("peer.sock"), pin)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	join := func() *link.Frames {
		t.Helper()
		f, err := link.Open(ctx, conn, &sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_Join{Join: &sigilv1.JoinCeremony{CeremonyId: ceremony}}})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	// The first gets the proposal and leaves it without an answer; the next three wait
	// behind it, whichever they are of these five.
	first := join()
	if _, err := first.Recv(ctx); err != nil {
		t.Fatal(err, d.log)
	}
	ends := make(chan error, 6)
	wait := func(f *link.Frames) { go func() { _, err := f.Recv(ctx); ends <- err }() }
	wait(first)
	for range 5 {
		wait(join())
	}
	for range 2 {
		if err := <-ends; client.Reason(err) != "RATE_LIMITED" {
			t.Errorf("one of six sessions ended with %v, want RATE_LIMITED", err)
		}
	}
	if _, err := sigilv1.NewPeerServiceClient(conn).ListPending(ctx, &sigilv1.ListPendingRequest{}); err != nil {
		t.Errorf("with four sessions open: %v", err)
	}

	p.mustCtl(t, "device", "remove", "--organization", b.Organization, "--device", id, "--key", "owner.key")
	for range 4 {
		if err := <-ends; err == nil || client.Reason(err) == "RATE_LIMITED" || ctx.Err() != nil {
			t.Errorf("a session goes on after the removal: %v", err)
		}
	}
	if _, err := sigilv1.NewPeerServiceClient(conn).ListPending(ctx, &sigilv1.ListPendingRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a call of the removed device: %v, want no connection", err)
	}
	file.Close()
	if _, err := p.sigilctl("device", "pending", "--file", "phone.age", "--identity", "owner.age"); err == nil {
		t.Error("the removed device is answered")
	}
	if out := p.must(t, b, "ceremony show "+ceremony, "--key", "owner.key"); !strings.Contains(out, "waits for a device") {
		t.Errorf("the ceremony that it had joined is shown as\n%s", out)
	}
	p.must(t, b, "ceremony abort "+ceremony, "--reason", "device removed", "--key", "owner.key")
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	p.mustCtl(t, "audit", "verify")
}
