package delegation

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// Issues and rotations with a device that end early, at each frame: by the end of the
// connection, and by a SIGKILL of the process, in which the device then dies, too.
// Whatever the moment, the key has exactly one root set, of which the shares here and
// the one on the device sign, and a delegation is there with its set or not at all.

// joining is the part of a child that runs a ceremony with a device, beside it.
type joining struct {
	Device, Ceremony string
	// Dir has the device's shares, a file for each.
	Dir string
	// KillFrame is the frame, of either direction, at which the process dies.
	KillFrame int
	// At is the time of the house: the ceremony waits by it.
	At time.Time
}

func (c joining) act(ctx context.Context, s *Service) error {
	p := &phone{id: c.Device}
	if err := p.onDisk(c.Dir); err != nil {
		return err
	}
	a, b := mpc.Pipe()
	var device sync.WaitGroup
	defer device.Wait()
	defer a.Close()
	device.Go(func() { _ = p.accept(ctx, b) })
	return s.Join(ctx, p.id, c.Ceremony, &cutter{Conn: a, left: c.KillFrame, cut: func() {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}})
}

// onDisk has the phone keep its shares in a directory, from where it takes what is there.
func (p *phone) onDisk(dir string) error {
	p.shares = map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		set, err := hex.DecodeString(e.Name())
		if err != nil {
			return err
		}
		if p.shares[string(set)], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	p.kept = func(set string, encoded []byte) error {
		return os.WriteFile(filepath.Join(dir, hex.EncodeToString([]byte(set))), encoded, 0o600)
	}
	return nil
}

// wantOneWithPhone insists on exactly one valid root set of a wallet made with the phone, and
// that there is no share of another set.
func (h *house) wantOneWithPhone(p *phone, wallet, what string) {
	h.t.Helper()
	h.wantShares(what)
	k := h.keyOfWallet(wallet)
	if k.Status != statusActive || p.shares[k.Root.ID] == nil || !slices.Equal(k.Here, []mpc.Party{mpc.Server}) {
		h.t.Errorf("%s: the key is %s with shares of %v here, and the device has one of the root set: %v", what, k.Status, k.Here, p.shares[k.Root.ID] != nil)
		return
	}
	in := chains.SignInput{Scheme: k.Scheme, Message: []byte(what)}
	err := h.cfg.Vault.With(context.Background(), vault.TypeShare, ShareID(k.Root.ID, mpc.Server), func(here []byte) error {
		_, err := mpc.Sign(context.Background(), mpc.SignRequest{Set: k.Root, Shares: [][]byte{here, p.shares[k.Root.ID]}, Input: in})
		return err
	})
	if err != nil {
		h.t.Errorf("%s: the shares here and on the device do not sign: %v", what, err)
	}
}

// begun is a rotation or an issue that waits for the phone.
type begun struct{ ceremony, delegation, root string }

func (h *house) begin(verb, wallet, id string) begun {
	h.t.Helper()
	root := h.keyOfWallet(wallet).Root.ID
	if verb == "rotate" {
		r, err := h.rotate(id, wallet, site.dana.holder)
		if err != nil {
			h.t.Fatal(err)
		}
		return begun{r.CeremonyID, "", root}
	}
	n := newDelegation(id, wallet)
	d, err := h.CreateDelegation(context.Background(), stamped(site.acme, n, site.dana.holder), n)
	if err != nil {
		h.t.Fatal(err)
	}
	return begun{d.CeremonyID, d.DelegationID, root}
}

// wantEither insists that a ceremony has done all or nothing, and says which.
func (h *house) wantEither(p *phone, wallet string, b begun, what string) (done bool) {
	h.t.Helper()
	h.wantOneWithPhone(p, wallet, what)
	c := find(h.book, h.book.ceremonies, b.ceremony)
	done = c.Status == statusDone
	changed := h.keyOfWallet(wallet).Root.ID != b.root
	if b.delegation != "" {
		d := find(h.book, h.book.delegations, b.delegation)
		changed = d.Status == statusActive && h.book.apiKeys[d.APIKey] == d.ID
	}
	if changed != done || !done && c.Status != statusWaiting {
		h.t.Errorf("%s: the ceremony is %s, and what it makes is there: %v", what, c.Status, changed)
	}
	return done
}

func TestCampaignCutsAndKillsInIssuesAndRotations(t *testing.T) {
	for _, verb := range []string{"rotate", "issue"} {
		t.Run(verb, func(t *testing.T) {
			h := newHouse(t)
			p := h.withPhone(t)
			wallet := h.deviceWallet(t, p, "main", cluster, false)
			if err := errors.Join(h.join(p, wallet.CeremonyID, nil)); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for set, share := range p.shares {
				if err := os.WriteFile(filepath.Join(dir, hex.EncodeToString([]byte(set))), share, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.onDisk(dir); err != nil {
				t.Fatal(err)
			}
			again := func(b begun, what string) {
				if err := errors.Join(h.join(p, b.ceremony, nil)); err != nil {
					t.Fatalf("%s: joining again: %v", what, err)
				}
				if !h.wantEither(p, wallet.WalletID, b, what+", then joined again") {
					t.Errorf("%s: joined again, and it is not done", what)
				}
			}

			// Step 1: the connection ends at each frame.
			frames, late := 0, 0
			for cut := 1; frames == 0; cut++ {
				what := fmt.Sprintf("%s cut at frame %d", verb, cut)
				b := h.begin(verb, wallet.WalletID, fmt.Sprint(verb, "-cut-", cut))
				var c *cutter
				_, _ = h.join(p, b.ceremony, func(conn mpc.Conn) mpc.Conn {
					c = &cutter{Conn: conn, left: cut, cut: conn.(*mpc.PipeEnd).Close}
					return c
				})
				done := h.wantEither(p, wallet.WalletID, b, what)
				switch {
				case c.left > 0:
					frames = c.total
				case done:
					late++ // the device did not hear that it counts
				}
				if !done {
					again(b, what)
				}
			}

			// Step 2: the processes die at a frame.
			at := []int{1, frames / 2, frames - 2, frames - 1, frames}
			if times(t, 0, frames) > 0 {
				at = at[:0]
				for i := range frames {
					at = append(at, i+1)
				}
			}
			for _, frame := range at {
				what := fmt.Sprintf("%s killed at frame %d of %d", verb, frame, frames)
				b := h.begin(verb, wallet.WalletID, fmt.Sprint(verb, "-kill-", frame))
				if h.killedIn(child{Verb: "join", Joined: joining{p.id, b.ceremony, dir, frame, h.clock.now()}}, 0) {
					t.Errorf("%s: it came to its end", what)
				}
				if err := p.onDisk(dir); err != nil {
					t.Fatal(err)
				}
				if h.wantEither(p, wallet.WalletID, b, what) {
					late++
					continue
				}
				again(b, what)
			}
			if late == 0 {
				t.Error("no end came after the commit")
			}
			t.Logf("%d frames, %d processes killed, %d ends after the commit", frames, len(at), late)
		})
	}
}

// An issue of three processes, this host, the device and a co-signer, is refused, and
// nothing waits for it.
func TestIssueWithADeviceAndACosignerIsRefused(t *testing.T) {
	h := newHouse(t, func(h *house) { h.cfg.Peers = map[string]string{"desk": strings.Replace(phonePin, "1", "2", 1)} })
	p := h.withPhone(t)
	wallet := h.deviceWallet(t, p, "main", cluster, false)
	if err := errors.Join(h.join(p, wallet.CeremonyID, nil)); err != nil {
		t.Fatal(err)
	}
	n := newDelegation("three", wallet.WalletID)
	n.Peer, n.Invitation = "desk", "cer_desk"
	h.unchanged("an issue of three processes", func() {
		_, err := h.CreateDelegation(t.Context(), stamped(site.acme, n, site.dana.holder), n)
		if no := wantRefusal(t, "an issue of three processes", err, refusal.NotActive); !strings.Contains(no.Message, "a co-signer is not possible") {
			t.Errorf("refused with %q", no.Message)
		}
	})
	if waiting, _, err := h.Pending(p.id); err != nil || len(waiting) != 0 {
		t.Errorf("waiting %+v, error %v, want nothing", waiting, err)
	}
}
