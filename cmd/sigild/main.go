// Command sigild is the signing daemon: it reads one configuration file, opens
// the sealed store, and serves two unix sockets until it is told to stop. The
// same binary, started as `sigild hsm-worker`, is the process that loads the
// PKCS#11 module; nobody but the daemon starts it.
//
// It refuses to run as root, to create anything that sigilctl init makes, and to
// start on a configuration it does not wholly understand.
//
// Exit codes: 0 stopped as told, 1 refused to start or failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/systemd"
	"github.com/sigild/sigild/vault"
)

// version is set by the build.
var version = "0.1.0-dev"

func main() {
	if len(os.Args) > 1 && os.Args[1] == "hsm-worker" {
		os.Exit(hsm.WorkerMain())
	}
	if len(os.Args) > 1 {
		// The units beside the daemon, each a process and a user of its own.
		if beside := map[string]func([]string) error{"helper": helperMain, "receive": receiveMain, "deliver": deliverMain, "link": linkMain}[os.Args[1]]; beside != nil {
			if err := beside(os.Args[2:]); err != nil {
				complain(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	if err := run(os.Args[1:], os.Stdout); err != nil {
		complain(os.Stderr, err)
		os.Exit(1)
	}
}

// linkMain is `sigild link [--config FILE]`.
func linkMain(args []string) error {
	flags := flag.NewFlagSet("sigild link", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned
	path := flags.String("config", config.LinkPath, "the link's configuration `file`")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errors.New("usage: sigild link [--config FILE]; it relays bytes for the daemon, which has no network")
	}
	if os.Geteuid() == 0 {
		return errors.New("refusing to run as root; hint: start it under systemd")
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return runLink(ctx, *path, slog.New(systemd.Journal(slog.NewTextHandler(os.Stderr, nil))))
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("sigild", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are returned
	path := flags.String("config", config.DefaultPath, "configuration `file`")
	show := flags.Bool("version", false, "print the version and exit")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(out, "usage: sigild [--config FILE]\n\nThe signing daemon. It serves until SIGTERM; sigilctl init comes first.")
		flags.SetOutput(out)
		flags.PrintDefaults()
		return nil
	case err != nil:
		return fmt.Errorf("%w; hint: sigild --help", err)
	case flags.NArg() > 0:
		return fmt.Errorf("unknown argument %q; hint: sigild --help", flags.Arg(0))
	case *show:
		fmt.Fprintln(out, "sigild", version)
		return nil
	}
	return start(*path)
}

// complain prints what happened, each line under our name, then what to do.
func complain(w io.Writer, err error) {
	advice := hintFor(err)
	for line := range strings.Lines(err.Error()) {
		what, hint, hinted := strings.Cut(strings.TrimSpace(line), "; hint: ")
		fmt.Fprintln(w, "sigild:", what)
		if hinted {
			fmt.Fprintln(w, "hint:", hint)
			advice = ""
		}
	}
	if advice != "" {
		fmt.Fprintln(w, "hint:", advice)
	}
}

// hintFor says what to do where the error itself does not.
func hintFor(err error) string {
	switch {
	case errors.Is(err, vault.ErrTampered):
		return evidence
	case errors.Is(err, vault.ErrSchema):
		return "vault.db is empty, or another version of sigild made it; nothing was changed"
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("this is uid %d; start sigild as the user that owns its state", os.Geteuid())
	}
	return ""
}

// evidence is what to do with a store that was changed from outside.
const evidence = "copy the state directory aside and don't start sigild on it again before you know why: a bad disk, or a bad person"

func start(path string) error {
	if os.Geteuid() == 0 {
		return fmt.Errorf("refusing to run as root; hint: start it under systemd, or as the user that owns the state directory")
	}
	cfg, err := config.Load(path)
	if err != nil {
		return err
	}
	log, err := cfg.Log.Logger(os.Stderr)
	if err != nil {
		return err
	}
	if cfg.Log.Format == "text" {
		log = slog.New(systemd.Journal(log.Handler())) // native fields, where standard error is the journal
	}
	if err := secmem.HardenProcess(); err != nil {
		return fmt.Errorf("hardening the process: %w", err)
	}
	signal.Ignore(syscall.SIGUSR1) // until there is something to drop (copied.go); it would end us
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return serve(ctx, cfg, log)
}
