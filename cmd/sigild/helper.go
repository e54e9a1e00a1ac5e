package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/delivery"
	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/runner"
)

// helperMain is `sigild helper`: the unit that runs a vendor's program. With
// --connection it serves one connection, which it was given as that descriptor, and
// ends; with --listen it takes connections itself and starts one such process each.
func helperMain(args []string) error {
	flags := flag.NewFlagSet("sigild helper", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	path := flags.String("config", config.HelperPath, "configuration `file`")
	connection := flags.Int("connection", 0, "serve the connection that is this `descriptor`, and end")
	listen := flags.String("listen", "", "take connections on a unix socket at `path`, where there is no systemd")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 || (*connection == 0) == (*listen == "") {
		return errors.New("usage: sigild helper [--config FILE] --connection N | --listen PATH")
	}
	if os.Geteuid() == 0 {
		return errors.New("refusing to run as root; hint: start it under systemd, or as a user of its own")
	}
	if err := secmem.HardenProcess(); err != nil {
		return fmt.Errorf("hardening the process: %w", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	program, err := config.LoadHelper(*path)
	if err != nil {
		return err
	}
	if *listen != "" {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: *listen, Net: "unix"})
		if err != nil {
			return err
		}
		if err := os.Chmod(*listen, 0o660); err != nil {
			return err
		}
		return runner.Listen(ctx, l, slog.Default(), "helper", "--config", *path, "--connection", "3")
	}
	f := os.NewFile(uintptr(*connection), "connection "+strconv.Itoa(*connection))
	c, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("taking the connection: %w", err)
	}
	_ = f.Close() // the program must not inherit it
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("taking the connection: it is no unix socket")
	}
	return program.ServeOne(ctx, conn)
}

// vendorProgram is the daemon's way to that unit.
type vendorProgram struct{ *runner.Client }

func (p vendorProgram) Connect(ctx context.Context) (delivery.Run, error) {
	return p.Client.Connect(ctx)
}
