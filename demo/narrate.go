package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"google.golang.org/grpc/status"

	"github.com/sigild/sigild/client"
)

// step starts a numbered step.
func step(n int, title string) { fmt.Printf("\n%d. %s\n", n, title) }

// say prints one line of what was done and seen.
func say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

// terminal reports whether progress lines may be rewritten in place.
func terminal() bool {
	info, err := os.Stdout.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// expectRefusal holds an error to the reason that was announced, and says it.
func expectRefusal(what, reason string, err error) error {
	if err == nil {
		return fmt.Errorf("%s: it was allowed", what)
	}
	if got := client.Reason(err); got != reason {
		return fmt.Errorf("%s: want %s, got %q: %w", what, reason, got, err)
	}
	line := reason
	if rule := ruleOf(err); rule != "" {
		line += ", decided by " + rule
	}
	say("refused  %-34s %s", what, line)
	say("         %s", status.Convert(err).Message())
	return nil
}

// ruleOf names the policy or limit that decided, as the error's details say it.
func ruleOf(err error) string {
	d := client.Details(err)
	for _, key := range []string{"limit", "policy", "rule"} {
		if d[key] != "" {
			return key + " " + fmt.Sprintf("%q", d[key])
		}
	}
	return ""
}

// check turns a false condition into an error with a sentence.
func check(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return errors.New(strings.TrimSpace(fmt.Sprintf(format, args...)))
}
