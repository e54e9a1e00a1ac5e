package main_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/internal/testhsm"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// place is a directory with all that one sigild needs: token/, sigild.yaml and,
// once it is initialised, state/ and store.pin.
type place struct{ dir string }

// template is made once: a token before init, and an initialised appliance with
// one Solana wallet and a delegation, for the program bot. Places are copies.
type template struct {
	token       testhsm.Token
	blank       string // a token directory
	initialised place
}

var makeTemplate = sync.OnceValues(func() (t template, err error) {
	t.initialised = place{filepath.Join(base, "work", "template")}
	if t.token, err = testhsm.Make(t.initialised.path("token")); err != nil {
		return t, err
	}
	t.blank = filepath.Join(base, "work", "blank")
	if err = copyTree(t.initialised.path("token"), t.blank); err != nil {
		return t, err
	}
	if err = t.initialised.configure(t.token); err != nil {
		return t, err
	}
	return t, t.initialised.populate()
})

func (p place) path(name string) string { return filepath.Join(p.dir, name) }

// addToken puts a token and the configuration that leads to it into the place.
func (p place) addToken() error {
	t, err := makeTemplate()
	if err != nil {
		return err
	}
	if err := copyToken(t.blank, p.path("token")); err != nil {
		return err
	}
	return p.configure(t.token)
}

// addAppliance puts an initialised appliance into the place, its token too.
func (p place) addAppliance() error {
	t, err := makeTemplate()
	if err != nil {
		return err
	}
	if err := copyToken(t.initialised.path("token"), p.path("token")); err != nil {
		return err
	}
	if err := os.Mkdir(p.path("state"), 0o700); err != nil {
		return err
	}
	for _, name := range []string{"state/vault.db", "store.pin", "bot.json", "treasurer.key", "owner.key", "alice.key", "owner.age"} {
		if err := copyFile(t.initialised.path(name), p.path(name)); err != nil {
			return err
		}
	}
	return p.configure(t.token)
}

// copyToken copies a token; SoftHSM's configuration names its new directory.
func copyToken(from, to string) error {
	if err := copyTree(from, to); err != nil {
		return err
	}
	conf := filepath.Join(to, "softhsm2.conf")
	b, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	var text strings.Builder
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "directories.tokendir") {
			line = "directories.tokendir = " + filepath.Join(to, "tokens") + "\n"
		}
		text.WriteString(line)
	}
	return os.WriteFile(conf, []byte(text.String()), 0o600)
}

// configure writes sigild.yaml. No pre-parameters: they would keep a core busy.
func (p place) configure(token testhsm.Token) error {
	return os.WriteFile(p.path("sigild.yaml"), fmt.Appendf(nil, `state_dir: %[1]s/state
pin_file: %[1]s/store.pin
sockets:
  app: {path: %[1]s/app.sock}
  admin: {path: %[1]s/admin.sock}
roles:
  app: {uids: [%[2]d]}
  operator: {uids: [%[2]d]}
provider:
  pkcs11:
    module: %[3]s
    token_label: %[4]s
    pin_file: %[1]s/token/pin
    env: {SOFTHSM2_CONF: %[1]s/token/softhsm2.conf}
pre_parameters: {target: 0}
presignatures: {max: 2, cpu: 1}
`, p.dir, os.Geteuid(), token.Module, token.Label), 0o600)
}

// sigilctl runs the tool; the error holds what it said.
func (p place) sigilctl(args ...string) (string, error) {
	out, err := command(p.dir, "sigilctl", append([]string{"--config", "sigild.yaml"}, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("sigilctl %s: %w\n%s", args[0], err, out)
	}
	return string(out), nil
}

// daemon is a running sigild.
type daemon struct {
	cmd *exec.Cmd
	log *bytes.Buffer
}

// forker is the thread that starts what must not outlive this process: a child that is
// bound to its parent's end is bound to the thread's that forked it, and threads end.
var forker = sync.OnceValue(func() chan<- func() {
	forks := make(chan func())
	go func() {
		runtime.LockOSThread()
		for fork := range forks {
			fork()
		}
	}()
	return forks
})

// startMortal starts a process that is killed when this one ends, however it ends.
func startMortal(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	forker() <- func() { done <- cmd.Start() }
	return <-done
}

// start starts sigild and waits until it answers as serving.
func (p place) start() (*daemon, error) {
	d := &daemon{cmd: command(p.dir, "sigild", "--config", "sigild.yaml"), log: new(bytes.Buffer)}
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	if err := startMortal(d.cmd); err != nil {
		return nil, err
	}
	c, err := client.Dial(p.path("admin.sock"))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	err = poll(20*time.Second, func(ctx context.Context) error {
		st, err := c.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
		if err == nil && st.GetSealed() {
			err = fmt.Errorf("sealed: %s", st.GetSealedReason())
		}
		return err
	})
	if err != nil {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		return nil, fmt.Errorf("waiting for sigild: %w\n%s", err, d.log)
	}
	return d, nil
}

// stop ends sigild with SIGTERM; it must exit with 0.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := d.cmd.Wait(); err != nil {
		return fmt.Errorf("stopping sigild: %w\n%s", err, d.log)
	}
	return nil
}

// newPlace is an initialised appliance for a Go test.
func newPlace(t testing.TB) place {
	t.Helper()
	dir, err := os.MkdirTemp(filepath.Join(base, "work"), "")
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir}
	if err := p.addAppliance(); err != nil {
		t.Fatal(err)
	}
	return p
}

// poll calls f every 20 ms until it returns nil, at most for so long.
func poll(limit time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("not within %s", limit), err)
		case <-tick.C:
		}
	}
}
