package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// A ceremony that needs minutes does not hold up SIGTERM; it ends as failed.
func TestStopDuringACeremony(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	b, err := readBot(p.path("bot.json"))
	if err != nil {
		t.Fatal(err)
	}
	treasurer, err := credential.LoadKey(p.path("treasurer.key"))
	if err != nil {
		t.Fatal(err)
	}
	d := startFor(t, p)
	c, err := client.Dial(p.path("app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c = c.WithStamps(b.Organization, treasurer)
	made, err := c.Wallets().CreateWallet(t.Context(), &sigilv1.CreateWalletRequest{
		RequestId: "slow", OrganizationId: b.Organization, OwnerUserId: b.Owner, Chain: "eip155", Name: "ether",
	})
	if err != nil {
		t.Fatal(err)
	}
	look := func(want sigilv1.CeremonyStatus, stage string) func(context.Context) error {
		return func(ctx context.Context) error {
			answer, err := c.Wallets().GetCeremony(ctx, &sigilv1.GetCeremonyRequest{OrganizationId: b.Organization, CeremonyId: made.GetCeremonyId()})
			if got := answer.GetCeremony(); err == nil && (got.GetStatus() != want || got.GetStage() != stage) {
				err = fmt.Errorf("the ceremony is %s in stage %q, want %s in %q", got.GetStatus(), got.GetStage(), want, stage)
			}
			return err
		}
	}
	if err := poll(20*time.Second, look(sigilv1.CeremonyStatus_CEREMONY_STATUS_RUNNING, "pre-parameters")); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the stop took %s", took)
	}
	startFor(t, p)
	if err := poll(20*time.Second, look(sigilv1.CeremonyStatus_CEREMONY_STATUS_FAILED, "pre-parameters")); err != nil {
		t.Error(err)
	}
	if out, err := p.sigilctl("audit", "verify"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// startFor starts sigild until the end of t, or until the test stops it.
func startFor(t testing.TB, p place) *daemon {
	t.Helper()
	d, err := p.start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			if err := d.stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return d
}

// Several inits at the same moment: one makes the appliance, and it is whole.
func TestInitsAtOnce(t *testing.T) {
	becomeScratch(t)
	dir, err := os.MkdirTemp(filepath.Join(base, "work"), "")
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir}
	if err := p.addToken(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.sigilctl("credential", "create", "--name", "alice", "--out", "alice"); err != nil {
		t.Fatal(err)
	}
	errs := make([]error, 4)
	var all sync.WaitGroup
	for i := range errs {
		all.Go(func() { _, errs[i] = p.sigilctl("init", "--operator", "alice.json", "--quorum", "1") })
	}
	all.Wait()
	done := 0
	refused := regexp.MustCompile(`another init works in|exists\nhint: `)
	for _, err := range errs {
		var exit *exec.ExitError
		switch {
		case err == nil:
			done++
		case !errors.As(err, &exit) || exit.ExitCode() != 1 || !refused.MatchString(err.Error()):
			t.Errorf("an init failed otherwise: %v", err)
		}
	}
	if done != 1 {
		t.Fatalf("%d inits made an appliance, want 1: %v", done, errs)
	}
	left, err := os.ReadDir(p.path("state"))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 1 || left[0].Name() != "vault.db" {
		t.Errorf("state holds %v, want vault.db alone", left)
	}
	startFor(t, p)
}
