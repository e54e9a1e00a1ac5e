package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A step is one line of the summary. Its error says why it failed; what the
// tool printed is part of it. Steps that run tests report these one by one
// through the tally, and are one more check only when go test itself went wrong.
type step struct {
	name  string
	do    func(*runner, context.Context) error
	tests bool
}

var steps = []step{
	{name: "gofmt", do: (*runner).gofmt},
	{name: "vet", do: tool("go", "vet", "./...")},
	{name: "staticcheck", do: tool("bin/staticcheck", "./...")},
	{name: "buf-lint", do: tool("bin/buf", "lint")},
	{name: "buf-breaking", do: (*runner).breaking},
	{name: "generated", do: (*runner).generated},
	{name: "tests", do: (*runner).plainTests, tests: true},
	{name: "race", do: (*runner).raceTests, tests: true},
	{name: "last", do: (*runner).lastTests, tests: true},
}

// runner holds one run. It is used by one goroutine.
type runner struct {
	dir      string // the module's root
	out      io.Writer
	race     []string
	last     []string
	parallel int
	timeout  time.Duration
	noSkips  bool

	checks []check // steps and fuzz targets that are one check each
	spent  []spent
	tally  tally
	module string // set by packages
}

type check struct {
	name string
	err  error
}

// spent is what one step took, and how it divides among packages.
type spent struct {
	step    string
	wall    time.Duration
	seconds map[string]float64 // by package, relative to the module; nil if it ran none
}

func stepNames() string {
	var names []string
	for _, s := range steps {
		names = append(names, s.name)
	}
	return strings.Join(names, ",")
}

// choose picks steps by name, in their own order; "" means all.
func choose(only string) ([]step, error) {
	if only == "" {
		return steps, nil
	}
	var chosen []step
	wanted := strings.Split(only, ",")
	for _, s := range steps {
		if slices.Contains(wanted, s.name) {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) != len(wanted) {
		return nil, fmt.Errorf("-steps %s: want some of %s, each once", only, stepNames())
	}
	return chosen, nil
}

// run goes through all steps, whatever fails: one run shows everything.
func (r *runner) run(ctx context.Context, chosen []step) {
	for _, s := range chosen {
		fmt.Fprintf(r.out, "== %s\n", s.name)
		before, failed := r.tally.seconds(), r.tally.failed
		start := time.Now()
		err := s.do(r, ctx)
		wall := time.Since(start)

		after := r.tally.seconds()
		for p := range before {
			delete(after, p)
		}
		r.spent = append(r.spent, spent{s.name, wall, after})
		if !s.tests || err != nil {
			r.checks = append(r.checks, check{s.name, err})
		}
		verdict := "ok"
		if err != nil || r.tally.failed > failed {
			verdict = "FAILED"
		}
		if err != nil {
			fmt.Fprintf(r.out, "%v\n", err)
		}
		fmt.Fprintf(r.out, "== %s: %s, %.1f s\n", s.name, verdict, wall.Seconds())
		if ctx.Err() != nil {
			r.checks = append(r.checks, check{"interrupted", ctx.Err()})
			return
		}
	}
	wantTests := slices.ContainsFunc(chosen, func(s step) bool { return s.tests })
	if t := r.tally; wantTests && t.passed+t.failed+t.skipped == 0 {
		r.checks = append(r.checks, check{"no test ran", errors.New("no test ran")})
	}
}

// tool makes a step of one command that succeeds or says what is wrong.
func tool(name string, args ...string) func(*runner, context.Context) error {
	return func(r *runner, ctx context.Context) error {
		out, err := r.command(ctx, name, args...).CombinedOutput()
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(name, "bin/") {
			return fmt.Errorf("%s is missing: run make tools", name)
		}
		if err != nil {
			return fmt.Errorf("%s%s %s: %w", out, name, strings.Join(args, " "), err)
		}
		return nil
	}
}

func (r *runner) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if strings.HasPrefix(name, "bin/") {
		if abs, err := filepath.Abs(filepath.Join(r.dir, name)); err == nil {
			name = abs
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = r.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // let go test end its children
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func (r *runner) gofmt(ctx context.Context) error {
	out, err := r.command(ctx, "gofmt", "-l", ".").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%sgofmt: %w", out, err)
	}
	if len(out) > 0 {
		return fmt.Errorf("%sgofmt: these files are not formatted; run gofmt -w", out)
	}
	return nil
}

// baseline is the committed image of the API as last released.
const baseline = "api/baseline.binpb"

func (r *runner) breaking(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(r.dir, baseline)); err != nil {
		return fmt.Errorf("looking for the released API: %w; run make api-baseline", err)
	}
	return tool("bin/buf", "breaking", "--against", baseline)(r, ctx)
}

// generated makes the Go of api/ again, aside, and compares.
func (r *runner) generated(ctx context.Context) error {
	aside, err := os.MkdirTemp("", "sigild-generated-")
	if err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer os.RemoveAll(aside)
	bin, err := filepath.Abs(filepath.Join(r.dir, "bin"))
	if err != nil {
		return fmt.Errorf("finding bin: %w", err)
	}
	cmd := r.command(ctx, "bin/buf", "generate", "-o", aside)
	cmd.Env = append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%sbuf generate: %w", out, err)
	}
	made, err := readTree(aside, ".pb.go")
	if err != nil {
		return err
	}
	committed, err := readTree(filepath.Join(r.dir, "api"), ".pb.go")
	if err != nil {
		return err
	}
	var differ []string
	for name, body := range made {
		inside, _ := filepath.Rel("api", name)
		if !bytes.Equal(body, committed[inside]) {
			differ = append(differ, name)
		}
		delete(committed, inside)
	}
	for name := range committed {
		differ = append(differ, filepath.Join("api", name)+" (no longer made)")
	}
	if len(differ) > 0 || len(made) == 0 {
		slices.Sort(differ)
		return fmt.Errorf("generated code differs from its source: %s; run make generate", strings.Join(differ, ", "))
	}
	return nil
}

// readTree reads the files under root whose names end so, by relative path.
func readTree(root, suffix string) (map[string][]byte, error) {
	found := map[string][]byte{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, suffix) {
			return err
		}
		body, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		found[rel] = body
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", root, err)
	}
	return found, nil
}
