package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// runPage runs the commands of a page of docs/ as they stand, every ```sh block of it in
// its order, in one shell in the place; the shell ends at the first that fails. The
// programs are the built ones, env has further NAME=value. It returns what was printed.
func runPage(t *testing.T, name string, p place, env ...string) string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for i, part := range strings.Split(string(page), "\n```") {
		if block, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			script.WriteString(block + "\n")
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-eux")
	cmd.Dir, cmd.Stdin = p.path("."), strings.NewReader(script.String())
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(base, "bin")+":/usr/bin:/bin")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("docs/%s failed: %v\n%s", name, err, out)
	}
	return string(out)
}
