package main

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// made is a small module, one package a story.
var made = map[string]string{
	"go.mod":         "module made.test/m\n\ngo 1.26.0\n",
	"good/a_test.go": "package good\n\nimport \"testing\"\n\nfunc TestOne(t *testing.T) { t.Run(\"sub\", func(t *testing.T) {}) }\n\nfunc FuzzOne(f *testing.F) { f.Fuzz(func(*testing.T, []byte) {}) }\n",
	"quiet/a.go":     "package quiet\n",
	"skips/a_test.go": `package skips

import "testing"

func TestSkipped(t *testing.T) { t.Skip("no token") }

func TestFine(t *testing.T) {}
`,
	"fails/a_test.go": `package fails

import "testing"

func TestWrong(t *testing.T) {
	t.Run("deep", func(t *testing.T) { t.Error("got 3, want 4") })
	t.Run("fine", func(t *testing.T) { t.Log("not shown") })
}

func FuzzWrong(f *testing.F) {
	f.Add([]byte("seed"))
	f.Fuzz(func(t *testing.T, b []byte) { t.Error("always") })
}
`,
	"panics/a_test.go": "package panics\n\nimport \"testing\"\n\nfunc TestFalls(t *testing.T) { panic(\"off the roof\") }\n",
	"exits/a_test.go":  "package exits\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestLeaves(t *testing.T) { os.Exit(3) }\n",
	"main/a_test.go":   "package main\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nfunc TestMain(m *testing.M) { println(\"no token here\"); os.Exit(1) }\n",
	"broken/a_test.go": "package broken\n\nvar x int = \"text\"\n",
	"racy/a_test.go": `package racy

import "testing"

func TestRaces(t *testing.T) {
	n, done := 0, make(chan bool)
	go func() { n++; close(done) }()
	n++
	<-done
}
`,
}

// module writes the named packages of made and returns a runner on it.
func module(t *testing.T, out io.Writer, packages ...string) *runner {
	t.Helper()
	dir := t.TempDir()
	for name, body := range made {
		if pkg := filepath.Dir(name); pkg != "." && !slices.Contains(packages, pkg) {
			continue
		}
		write(t, filepath.Join(dir, name), body)
	}
	return &runner{dir: dir, out: out, parallel: 2, timeout: time.Minute}
}

func write(t *testing.T, name, body string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
}

func runSteps(t *testing.T, r *runner, only string) int {
	t.Helper()
	chosen, err := choose(only)
	if err != nil {
		t.Fatal(err)
	}
	r.run(t.Context(), chosen)
	return r.finish()
}

func wantText(t *testing.T, out string, pieces ...string) {
	t.Helper()
	for _, p := range pieces {
		if !strings.Contains(out, p) {
			t.Errorf("output lacks %q:\n%s", p, out)
		}
	}
}

func wantEnd(t *testing.T, out string, code, wantCode int, end string) {
	t.Helper()
	if code != wantCode || !strings.HasSuffix(out, "\n"+end+"\n") {
		t.Errorf("exit code %d, want %d, and last line %q, in:\n%s", code, wantCode, end, out)
	}
}

func TestRunnerCountsAGoodRun(t *testing.T) {
	var out bytes.Buffer
	code := runSteps(t, module(t, &out, "good", "quiet"), "gofmt,vet,tests")
	// gofmt, vet, TestOne, TestOne/sub, FuzzOne.
	wantEnd(t, out.String(), code, 0, "5 passed, 0 failed")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if before := lines[len(lines)-2]; !strings.HasPrefix(before, "ok  \tmade.test/m/good\t") {
		t.Errorf("the line before the counts is %q, want go test's own", before)
	}
	wantText(t, out.String(), "== tests: ok, ", "minutes by step", "seconds by package", "minutes by issue")
}

func TestRunnerForbidsSkips(t *testing.T) {
	var out bytes.Buffer
	r := module(t, &out, "skips")
	code := runSteps(t, r, "tests")
	wantEnd(t, out.String(), code, 0, "1 passed, 0 failed, 1 skipped")
	out.Reset()
	r.noSkips = true
	code = r.finish() // the same counts, judged again
	wantEnd(t, out.String(), code, 1, "1 passed, 0 failed, 1 skipped")
	wantText(t, out.String(), "HARDWARE_TESTS=required forbids it:\n  made.test/m/skips TestSkipped")
}

func TestRunnerShowsFailures(t *testing.T) {
	var out bytes.Buffer
	r := module(t, &out, "good", "fails", "panics", "exits", "main", "broken")
	code := runSteps(t, r, "tests")
	// Passed: good's three, fails' fine. Failed: deep and its parent, FuzzWrong
	// and its seed, one each of panics, exits, main and broken.
	wantEnd(t, out.String(), code, 1, "4 passed, 8 failed")
	wantText(t, out.String(),
		"--- made.test/m/fails TestWrong/deep", "got 3, want 4",
		"off the roof", "made.test/m/exits TestLeaves", "no token here", "cannot use \"text\"",
		"FAIL\tmade.test/m/fails\t", "FAIL\tmade.test/m/broken [build failed]", "== tests: FAILED")
	if strings.Contains(out.String(), "not shown") {
		t.Error("shows the log of a test that passed")
	}
}

func TestRunnerFindsRacesInItsRooms(t *testing.T) {
	var out bytes.Buffer
	r := module(t, &out, "good", "racy")
	r.race = []string{"racy"}
	code := runSteps(t, r, "tests,race")
	wantEnd(t, out.String(), code, 1, "3 passed, 1 failed")
	wantText(t, out.String(), "DATA RACE", "== tests: ok", "== race: FAILED")
}

func TestRunnerRefusesAListThatNoLongerFits(t *testing.T) {
	var out bytes.Buffer
	r := module(t, &out, "good")
	r.race, r.last = []string{"attic"}, []string{"good"}
	code := runSteps(t, r, "race,last")
	wantEnd(t, out.String(), code, 1, "3 passed, 1 failed")
	wantText(t, out.String(), "no package in room attic", "failed checks: race")
}

func TestRunnerRefusesToRunNothing(t *testing.T) {
	var out bytes.Buffer
	code := runSteps(t, module(t, &out, "quiet"), "tests")
	wantEnd(t, out.String(), code, 1, "0 passed, 1 failed")
	wantText(t, out.String(), "failed checks: no test ran")
}

func TestRunnerSeesBadFormVetAndMissingTools(t *testing.T) {
	var out bytes.Buffer
	r := module(t, &out, "good")
	write(t, filepath.Join(r.dir, "ugly/a.go"), "package ugly\nimport \"fmt\"\nfunc f()  { fmt.Printf(\"%d\", \"x\") }\n")
	code := runSteps(t, r, "gofmt,vet,staticcheck,buf-breaking,generated")
	wantEnd(t, out.String(), code, 1, "0 passed, 5 failed")
	wantText(t, out.String(), "ugly/a.go", "not formatted", "wrong type string", "bin/staticcheck is missing: run make tools", "run make api-baseline",
		"failed checks: gofmt, vet, staticcheck, buf-breaking, generated")
}

func TestRunnerFuzzes(t *testing.T) {
	var out bytes.Buffer
	r := module(t, &out, "good", "fails")
	r.fuzz(t.Context(), time.Second)
	code := r.finish()
	wantEnd(t, out.String(), code, 1, "1 passed, 1 failed")
	wantText(t, out.String(), "2 targets", "== made.test/m/good FuzzOne", "failed checks: FuzzWrong")
}

func TestRunnerStopsWhenInterrupted(t *testing.T) {
	var out bytes.Buffer
	r := module(t, &out, "good")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	chosen, err := choose("gofmt,vet")
	if err != nil {
		t.Fatal(err)
	}
	r.run(ctx, chosen)
	code := r.finish()
	wantEnd(t, out.String(), code, 1, "0 passed, 2 failed")
	wantText(t, out.String(), "failed checks: gofmt, interrupted")
}

func TestRunnerRefusesWrongUsage(t *testing.T) {
	for _, tc := range []struct {
		args     []string
		hardware string
		want     string
	}{
		{[]string{"-steps", "vet,vet"}, "", "each once"},
		{[]string{"-steps", "lint"}, "", "want some of gofmt,vet,"},
		{[]string{"./..."}, "", "unexpected argument"},
		{[]string{"-fast"}, "", "not defined"},
		{nil, "yes", "want \"required\" or nothing"},
	} {
		var out bytes.Buffer
		if code := command(t.Context(), tc.args, tc.hardware, &out); code != 2 || !strings.Contains(out.String(), tc.want) {
			t.Errorf("testrun %q with HARDWARE_TESTS=%s: code %d, want 2 and %q, printed %s", tc.args, tc.hardware, code, tc.want, out.String())
		}
	}
}

func TestSharesDivideTheWallTime(t *testing.T) {
	table := []issue{{name: "A1", rooms: []string{"vault", "chains"}}, {name: "C", rooms: []string{"chains/evm"}}}
	steps := []spent{
		{step: "vet", wall: time.Minute},
		{step: "tests", wall: 4 * time.Minute, seconds: map[string]float64{"vault": 10, "chains/evm/x": 20, "attic": 10}},
	}
	got := shares(table, steps, func(p string) string { return p })
	if want := map[string]float64{"A1": 2, "C": 2, "none": 1}; !maps.Equal(got, want) {
		t.Errorf("shares %v, want %v", got, want)
	}
}

func TestTallyCountsWhatNeverEnded(t *testing.T) {
	var out bytes.Buffer
	var ta tally
	err := ta.read(strings.NewReader(`{"Action":"run","Package":"p","Test":"TestHangs"}
{"Action":"output","Package":"p","Test":"TestHangs","Output":"last words\n"}
not an event
`), &out)
	if err != nil || ta.failed != 1 || !strings.Contains(out.String(), "TestHangs did not end\nlast words") || !strings.Contains(out.String(), "not an event\n") {
		t.Errorf("failed %d, want 1; error %v; printed:\n%s", ta.failed, err, out.String())
	}
}

// FuzzTally: any stream is read to its end, and a package that fails is never lost.
func FuzzTally(f *testing.F) {
	f.Add([]byte(`{"Action":"fail","Package":"p","Test":"T"}` + "\n" + `{"Action":"fail","Package":"p","Elapsed":1}`))
	f.Add([]byte(`{"Action":"build-output","ImportPath":"p","Output":"x"}` + "\n" + `{"Action":"build-fail","ImportPath":"p"}`))
	f.Add([]byte(`{"Action":"fail","Package":"p","FailedBuild":"p"}`))
	f.Add([]byte("{}\nnull\n[]\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		var ta tally
		if err := ta.read(bytes.NewReader(stream), io.Discard); err != nil {
			t.Fatal(err)
		}
		if len(ta.lines) != len(ta.done) || slices.ContainsFunc(ta.lines, func(l string) bool { return strings.HasPrefix(l, "FAIL") }) && ta.failed == 0 {
			t.Errorf("lines %q, done %v, failed %d", ta.lines, ta.done, ta.failed)
		}
	})
}
