package oracles

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// install puts the libraries of package-lock.json into node_modules, once.
var install = sync.OnceValue(func() error {
	done, err := os.Stat("node_modules/.package-lock.json") // written last
	lock, lockErr := os.Stat("package-lock.json")
	if err == nil && lockErr == nil && !done.ModTime().Before(lock.ModTime()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-progress")
	cmd.Stderr = os.Stderr
	return cmd.Run()
})

// ask runs a script over the rows. It returns the answers, one a row, and
// whether the script exited with 0.
func ask[Row any](t *testing.T, script string, rows []Row) (answers []map[string]any, accepted bool) {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not installed\nhint: the oracles need Node 20.19 or newer with npm", tool)
		}
	}
	if err := install(); err != nil {
		t.Fatalf("npm ci: %v\nhint: it needs the package registry, once", err)
	}
	var in, out bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, r := range rows {
		if err := enc.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, os.Stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s: %v", script, ctx.Err())
	}
	s := bufio.NewScanner(&out)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var a map[string]any
		if err := json.Unmarshal(s.Bytes(), &a); err != nil {
			t.Fatalf("%s answers %q: %v", script, s.Text(), err)
		}
		answers = append(answers, a)
	}
	if len(answers) != len(rows) {
		t.Fatalf("%s: %d answers to %d rows, %v", script, len(answers), len(rows), err)
	}
	return answers, err == nil
}

// accept fails the test unless every row is accepted.
func accept[Row any](t *testing.T, script string, rows []Row) []map[string]any {
	t.Helper()
	answers, accepted := ask(t, script, rows)
	for i, a := range answers {
		if a["ok"] != true {
			t.Errorf("row %d (%v): %v", i, a["id"], a["error"])
		}
	}
	if !accepted {
		t.Fatalf("%s did not accept everything", script)
	}
	return answers
}

// refuse fails the test unless every row is refused, and the script says so in its exit code.
func refuse[Row any](t *testing.T, script string, rows []Row) {
	t.Helper()
	answers, accepted := ask(t, script, rows)
	for _, a := range answers {
		if a["ok"] != false {
			t.Errorf("%v: accepted", a["id"])
		} else {
			t.Logf("%v: %v", a["id"], a["error"])
		}
	}
	if accepted {
		t.Errorf("%s exits with 0", script)
	}
}
