package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Every package is tested once: under the race detector if its room is listed
// there, alone at the end if its room is listed as last, else in the plain step.

func (r *runner) plainTests(ctx context.Context) error {
	pkgs, err := r.packages(ctx)
	if err != nil {
		return err
	}
	pkgs = slices.DeleteFunc(pkgs, func(p string) bool { return r.in(p, r.race) || r.in(p, r.last) })
	return r.test(ctx, pkgs)
}

func (r *runner) raceTests(ctx context.Context) error { return r.rooms(ctx, r.race, "-race") }

func (r *runner) lastTests(ctx context.Context) error { return r.rooms(ctx, r.last) }

// rooms tests the packages of the rooms; a room without a package is an error,
// so that a list which no longer fits is noticed.
func (r *runner) rooms(ctx context.Context, rooms []string, flags ...string) error {
	if len(rooms) == 0 {
		return nil
	}
	pkgs, err := r.packages(ctx)
	if err != nil {
		return err
	}
	for _, room := range rooms {
		if !slices.ContainsFunc(pkgs, func(p string) bool { return r.in(p, []string{room}) }) {
			return fmt.Errorf("no package in room %s", room)
		}
	}
	pkgs = slices.DeleteFunc(pkgs, func(p string) bool { return !r.in(p, rooms) })
	return r.test(ctx, pkgs, flags...)
}

// in says whether the import path lies in one of the rooms.
func (r *runner) in(pkg string, rooms []string) bool {
	rel := r.relative(pkg)
	return slices.ContainsFunc(rooms, func(room string) bool { return rel == room || strings.HasPrefix(rel, room+"/") })
}

func (r *runner) relative(pkg string) string {
	if pkg == r.module {
		return "."
	}
	return strings.TrimPrefix(pkg, r.module+"/")
}

// packages lists the import paths of the module.
func (r *runner) packages(ctx context.Context) ([]string, error) {
	list := func(args ...string) ([]string, error) {
		var stderr bytes.Buffer
		cmd := r.command(ctx, "go", append([]string{"list"}, args...)...)
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%sgo list: %w", stderr.Bytes(), err)
		}
		return strings.Fields(string(out)), nil
	}
	module, err := list("-m")
	if err != nil {
		return nil, err
	}
	if len(module) != 1 {
		return nil, fmt.Errorf("go list -m names %d modules, want 1", len(module))
	}
	r.module = module[0]
	return list("./...")
}

// test runs go test over pkgs and folds its events into the tally. Nothing is
// taken from the test cache: the parts that are tested with are not its inputs.
func (r *runner) test(ctx context.Context, pkgs []string, flags ...string) error {
	if len(pkgs) == 0 {
		return nil
	}
	args := []string{"test", "-json", "-count=1", fmt.Sprintf("-p=%d", r.parallel), fmt.Sprintf("-timeout=%v", r.timeout)}
	cmd := r.command(ctx, "go", slices.Concat(args, flags, pkgs)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("piping go test: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting go test: %w", err)
	}
	failed := r.tally.failed
	readErr := r.tally.read(stdout, r.out)
	if readErr != nil {
		// Whatever is left has no meaning to us, but go test must not block on it.
		if _, err := io.Copy(io.Discard, stdout); err != nil {
			readErr = errors.Join(readErr, err)
		}
	}
	err = cmd.Wait()
	r.out.Write(stderr.Bytes())
	var exit *exec.ExitError
	switch {
	case readErr != nil:
		return fmt.Errorf("reading go test: %w", readErr)
	case err == nil, errors.As(err, &exit) && r.tally.failed > failed:
		return nil // the tally has it
	default:
		return fmt.Errorf("running go test: %w", err)
	}
}

// fuzz runs every fuzz target of the module for so long; each is one check.
func (r *runner) fuzz(ctx context.Context, each time.Duration) {
	out, err := r.command(ctx, "go", "test", "-list", "^Fuzz", "./...").Output()
	if err != nil {
		r.checks = append(r.checks, check{"listing fuzz targets", err})
		fmt.Fprintf(r.out, "%sgo test -list: %v\n", out, err)
		return
	}
	targets := fuzzTargets(out)
	fmt.Fprintf(r.out, "%d targets, %v each\n", len(targets), each)
	for _, t := range targets {
		if ctx.Err() != nil {
			r.checks = append(r.checks, check{"interrupted", ctx.Err()})
			return
		}
		fmt.Fprintf(r.out, "== %s %s\n", t.pkg, t.name)
		cmd := r.command(ctx, "go", "test", "-run=^$", "-fuzz=^"+t.name+"$", "-fuzztime="+each.String(), "-fuzzminimizetime=1s", t.pkg)
		cmd.Stdout, cmd.Stderr = r.out, r.out
		start := time.Now()
		err := cmd.Run()
		r.spent = append(r.spent, spent{step: t.name, wall: time.Since(start)})
		r.checks = append(r.checks, check{t.name, err})
	}
}

type fuzzTarget struct{ pkg, name string }

// fuzzTargets reads what go test -list prints: names, then the line of their package.
func fuzzTargets(out []byte) (targets []fuzzTarget) {
	var names []string
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 1 && strings.HasPrefix(f[0], "Fuzz"):
			names = append(names, f[0])
		case len(f) >= 2 && f[0] == "ok":
			for _, n := range names {
				targets = append(targets, fuzzTarget{f[1], n})
			}
			names = nil
		}
	}
	return targets
}

// event is one line of go test -json (go doc test2json), build lines included.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of build events
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// tally is what all go test runs together said. Its zero value is empty.
type tally struct {
	passed, failed, skipped int
	skips                   []string
	lines                   []string // go test's own line of each package, in order
	done                    []pkgTime

	running map[string]*pkgRun
	builds  map[string]*bytes.Buffer
}

type pkgTime struct {
	pkg     string
	seconds float64
}

// pkgRun is a package under test: the output of what has not ended yet.
type pkgRun struct {
	own    bytes.Buffer
	tests  map[string]*bytes.Buffer
	failed int
}

// seconds returns go test's own time of each package.
func (t *tally) seconds() map[string]float64 {
	m := map[string]float64{}
	for _, d := range t.done {
		m[d.pkg] += d.seconds
	}
	return m
}

// maxEvent bounds one line of go test -json, in bytes.
const maxEvent = 16 << 20

// read folds the events of one go test run and shows failures on out as they
// come. Lines that are no events are shown as they are. What had begun and not
// ended when the stream ends counts as failed.
func (t *tally) read(stream io.Reader, out io.Writer) error {
	t.running, t.builds = map[string]*pkgRun{}, map[string]*bytes.Buffer{}
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 0, 64<<10), maxEvent)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			fmt.Fprintf(out, "%s\n", lines.Bytes())
			continue
		}
		t.fold(e, out)
	}
	for _, pkg := range sortedKeys(t.running) {
		fmt.Fprintf(out, "%s did not end\n", pkg)
		t.endPackage(pkg, "fail", 0, "", out)
	}
	return lines.Err()
}

func (t *tally) fold(e event, out io.Writer) {
	if e.ImportPath != "" {
		switch e.Action {
		case "build-output":
			if t.builds[e.ImportPath] == nil {
				t.builds[e.ImportPath] = &bytes.Buffer{}
			}
			t.builds[e.ImportPath].WriteString(e.Output)
		case "build-fail":
			if b := t.builds[e.ImportPath]; b != nil {
				out.Write(b.Bytes())
				b.Reset()
			}
		}
		return
	}
	if e.Package == "" {
		return
	}
	p := t.running[e.Package]
	if p == nil {
		p = &pkgRun{tests: map[string]*bytes.Buffer{}}
		t.running[e.Package] = p
	}
	if e.Test == "" {
		switch e.Action {
		case "output":
			p.own.WriteString(e.Output)
		case "pass", "fail", "skip":
			t.endPackage(e.Package, e.Action, e.Elapsed, e.FailedBuild, out)
		}
		return
	}
	buf := p.tests[e.Test]
	if buf == nil {
		buf = &bytes.Buffer{}
		p.tests[e.Test] = buf
	}
	switch e.Action {
	case "output":
		buf.WriteString(e.Output)
	case "pass":
		t.passed++
		delete(p.tests, e.Test)
	case "skip":
		t.skipped++
		t.skips = append(t.skips, e.Package+" "+e.Test)
		delete(p.tests, e.Test)
	case "fail":
		t.failed++
		p.failed++
		fmt.Fprintf(out, "--- %s %s\n%s", e.Package, e.Test, buf.Bytes())
		delete(p.tests, e.Test)
	}
}

// endPackage closes a package: tests that never ended, and a failure that no
// test explains, count as failed.
func (t *tally) endPackage(pkg, action string, seconds float64, failedBuild string, out io.Writer) {
	p := t.running[pkg]
	delete(t.running, pkg)
	for _, name := range sortedKeys(p.tests) {
		t.failed++
		p.failed++
		fmt.Fprintf(out, "--- %s %s did not end\n%s", pkg, name, p.tests[name].Bytes())
	}
	if action == "fail" && p.failed == 0 {
		t.failed++
		fmt.Fprintf(out, "--- %s\n%s", pkg, p.own.Bytes())
	}
	t.done = append(t.done, pkgTime{pkg, seconds})
	line := "FAIL\t" + pkg
	if failedBuild != "" {
		line += " [build failed]"
	}
	for l := range strings.Lines(p.own.String()) {
		if strings.HasPrefix(l, "ok  \t") || strings.HasPrefix(l, "FAIL\t") || strings.HasPrefix(l, "?   \t") {
			line = strings.TrimRight(l, "\n")
		}
	}
	t.lines = append(t.lines, line)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
