package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// daemon is a sigild process of ours.
type daemon struct {
	cmd *exec.Cmd
	log *os.File
	// ended is closed when the process is gone; err is set then.
	ended chan struct{}
	err   error
}

// startDaemon starts sigild and waits for its READY=1, as systemd would.
func startDaemon(dir string) (*daemon, error) {
	notify := filepath.Join(dir, "notify.sock")
	if err := os.Remove(notify); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("listening for readiness: %w", err)
	}
	defer l.Close()
	log, err := os.OpenFile(filepath.Join(dir, "sigild.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	c := exec.Command(filepath.Join(dir, "sigild"), "--config", filepath.Join(dir, "sigild.yaml"))
	c.Stdout, c.Stderr = log, log
	c.Env = []string{"NOTIFY_SOCKET=" + notify, "PATH=/usr/bin:/bin"}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("starting sigild: %w", err)
	}
	d := &daemon{cmd: c, log: log, ended: make(chan struct{})}
	go func() {
		d.err = c.Wait()
		close(d.ended)
	}()
	if err := l.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := l.Read(buf)
			if err != nil {
				ready <- fmt.Errorf("waiting for readiness: %w", err)
				return
			}
			if bytes.Contains(buf[:n], []byte("READY=1")) {
				ready <- nil
				return
			}
		}
	}()
	select {
	case err := <-ready:
		if err != nil {
			return nil, errors.Join(err, d.kill())
		}
		return d, nil
	case <-d.ended:
		text, err := os.ReadFile(log.Name())
		if err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("sigild ended before it was ready (%v):\n%s", d.err, text)
	}
}

// kill ends the process with SIGKILL and waits.
func (d *daemon) kill() error {
	if err := d.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-d.ended
	return d.log.Close()
}

// stop ends the process with SIGTERM; it must exit by itself with 0.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.ended:
	case <-time.After(time.Minute):
		return errors.Join(errors.New("sigild did not stop within a minute"), d.kill())
	}
	if d.err != nil {
		return fmt.Errorf("stopping sigild: %w", d.err)
	}
	return d.log.Close()
}

// sigilctl runs the tool and returns its output; the error holds what it said.
func sigilctl(ctx context.Context, dir string, args ...string) (string, error) {
	args = append([]string{"--config", filepath.Join(dir, "sigild.yaml")}, args...)
	c := exec.CommandContext(ctx, filepath.Join(dir, "sigilctl"), args...)
	c.Env = []string{"PATH=/usr/bin:/bin"}
	out, err := c.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("sigilctl %s: %w: %s", strings.Join(args[2:], " "), err, text)
	}
	return text, nil
}

func copyFile(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
