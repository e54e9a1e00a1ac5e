package sigild_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// docs/request.md and the numbered comments of the two long functions say the
// same ten steps in the same words.
func TestRequestPageSaysTheStepsOfTheCode(t *testing.T) {
	page, err := os.ReadFile("docs/request.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (\d+) \| ([^|]+) \|`).FindAllStringSubmatch(string(page), -1) {
		rows[m[1]] = m[2]
	}
	if len(rows) != 10 {
		t.Fatalf("the page has %d steps, want 10", len(rows))
	}
	seen := map[string]bool{}
	step := regexp.MustCompile(`// Step (\d+): ([^.;,:]+)`)
	for _, file := range []string{"server/call.go", "signing/service.go", "signing/release.go"} {
		code, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range step.FindAllStringSubmatch(string(code), -1) {
			seen[m[1]] = true
			if !strings.Contains(rows[m[1]], strings.TrimSpace(m[2])) {
				t.Errorf("%s: step %s is %q, the page says %q", file, m[1], m[2], rows[m[1]])
			}
		}
	}
	if len(seen) != 10 {
		t.Errorf("the code numbers %d steps, want 10: %v", len(seen), seen)
	}
}
