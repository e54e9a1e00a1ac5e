// Package main is the runner behind `make test`, `make lint` and `make fuzz`:
// for whoever wants to know, from one command, whether this tree is good and
// where the minutes went. It runs the steps in order, times each, shows what
// failed as it fails, and ends with the lines go test prints and one line of counts.
//
// It refuses to call a run good that ran no test, that left a test unfinished,
// or, with HARDWARE_TESTS=required, that skipped one.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command(ctx, os.Args[1:], os.Getenv("HARDWARE_TESTS"), os.Stdout)
	stop()
	os.Exit(code)
}

// command reads the arguments and runs. It returns the exit code: 0 good, 1 not
// good, 2 wrong usage.
func command(ctx context.Context, args []string, hardware string, out io.Writer) int {
	r := &runner{dir: ".", out: out}
	fs := flag.NewFlagSet("testrun", flag.ContinueOnError)
	fs.SetOutput(out)
	only := fs.String("steps", "", "run only these steps, comma-separated: "+stepNames())
	race := fs.String("race", "", "rooms whose tests run under the race detector, space-separated")
	last := fs.String("last", "", "rooms whose tests run alone, after all others, space-separated")
	fuzz := fs.Duration("fuzz", 0, "instead of the steps: fuzz each target for so long")
	fs.IntVar(&r.parallel, "p", 2, "packages tested at once")
	fs.DurationVar(&r.timeout, "timeout", 15*time.Minute, "the longest one package may take")
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if fs.NArg() > 0 {
		fmt.Fprintf(out, "testrun: unexpected argument %q\n", fs.Arg(0))
		return 2
	}
	switch hardware {
	case "", "required":
		r.noSkips = hardware == "required"
	default:
		fmt.Fprintf(out, "testrun: HARDWARE_TESTS=%s: want \"required\" or nothing\n", hardware)
		return 2
	}
	r.race, r.last = strings.Fields(*race), strings.Fields(*last)

	if *fuzz > 0 {
		r.fuzz(ctx, *fuzz)
		return r.finish()
	}
	chosen, err := choose(*only)
	if err != nil {
		fmt.Fprintf(out, "testrun: %v\n", err)
		return 2
	}
	r.run(ctx, chosen)
	return r.finish()
}
