package main

import (
	"fmt"
	"slices"
	"strings"
)

// issues says which issue's share of `make test` a room's minutes belong to,
// and how many minutes, warm on 2 cores, that issue may take. The longest room
// wins; the steps before the tests belong to the first issue.
var issues = []issue{
	{name: "A1", minutes: 4, rooms: []string{
		".", "api", "client", "cmd", "credential", "delegation", "demo", "internal", "refusal", "seal", "server", "signing",
	}},
	{name: "A2", minutes: 4, rooms: []string{"systemd", "packaging", "examples", "metrics"}},
	{name: "B1", minutes: 3, rooms: []string{"hsm", "tpm", "internal/testhsm", "internal/testtpm"}},
	{name: "B2", minutes: 4, rooms: []string{"vault", "journal", "internal/testdisk"}},
	{name: "C", minutes: 4, rooms: []string{"chains", "oracles"}},
	{name: "D1", minutes: 3, rooms: []string{"policy", "bundle"}},
	{name: "D2", minutes: 3, rooms: []string{"clock"}},
	{name: "E", minutes: 4, rooms: []string{"mpc", "link", "device"}},
	{name: "F1", minutes: 2, rooms: []string{"delivery", "outbox", "courier", "runner", "internal/testvendor"}},
	{name: "F2", minutes: 3, rooms: []string{"airgap", "credential/authenticator"}},
}

type issue struct {
	name    string
	minutes float64
	rooms   []string
}

// issueOf returns the issue a package (relative path) belongs to, "none" if no
// row has it.
func issueOf(table []issue, rel string) string {
	name, longest := "none", ""
	for _, is := range table {
		for _, room := range is.rooms {
			if (rel == room || strings.HasPrefix(rel, room+"/")) && len(room) > len(longest) {
				name, longest = is.name, room
			}
		}
	}
	return name
}

// shares divides the wall time of each step among the issues, in minutes:
// packages run side by side, so each gets the part of the wall time that its
// own seconds are of all seconds.
func shares(table []issue, steps []spent, relative func(string) string) map[string]float64 {
	minutes := map[string]float64{}
	for _, s := range steps {
		var sum float64
		for _, sec := range s.seconds {
			sum += sec
		}
		if sum == 0 {
			minutes[table[0].name] += s.wall.Minutes()
			continue
		}
		for pkg, sec := range s.seconds {
			minutes[issueOf(table, relative(pkg))] += s.wall.Minutes() * sec / sum
		}
	}
	return minutes
}

// finish prints the summary and returns the exit code.
func (r *runner) finish() int {
	passed, failed, skipped := r.tally.passed, r.tally.failed, r.tally.skipped
	var bad []string
	for _, c := range r.checks {
		if c.err != nil {
			failed++
			bad = append(bad, c.name)
		} else {
			passed++
		}
	}
	if passed+failed+skipped == 0 {
		failed++
		bad = append(bad, "nothing ran")
	}

	fmt.Fprintln(r.out, "\nminutes by step")
	for _, s := range r.spent {
		fmt.Fprintf(r.out, "  %-14s %6.2f\n", s.step, s.wall.Minutes())
	}
	slowest := slices.Clone(r.tally.done)
	slices.SortStableFunc(slowest, func(a, b pkgTime) int {
		switch {
		case a.seconds > b.seconds:
			return -1
		case a.seconds < b.seconds:
			return 1
		}
		return 0
	})
	if len(slowest) > 0 {
		fmt.Fprintln(r.out, "seconds by package")
	}
	for _, d := range slowest {
		fmt.Fprintf(r.out, "  %7.2f %s\n", d.seconds, r.relative(d.pkg))
	}
	if len(r.tally.done) > 0 {
		minutes := shares(issues, r.spent, r.relative)
		fmt.Fprintln(r.out, "minutes by issue")
		for _, is := range issues {
			note := ""
			if minutes[is.name] > is.minutes {
				note = "  over its share"
			}
			fmt.Fprintf(r.out, "  %-4s %6.2f of %g%s\n", is.name, minutes[is.name], is.minutes, note)
		}
		if m := minutes["none"]; m > 0 {
			fmt.Fprintf(r.out, "  none %6.2f: give these rooms a row in internal/testrun/report.go\n", m)
		}
	}
	if len(bad) > 0 {
		fmt.Fprintf(r.out, "failed checks: %s\n", strings.Join(bad, ", "))
	}
	if skipped > 0 {
		what := "skipped"
		if r.noSkips {
			what = "skipped, and HARDWARE_TESTS=required forbids it"
		}
		fmt.Fprintf(r.out, "%s:\n  %s\n", what, strings.Join(r.tally.skips, "\n  "))
	}

	fmt.Fprintln(r.out)
	for _, l := range r.tally.lines {
		if !strings.HasPrefix(l, "?") {
			fmt.Fprintln(r.out, l)
		}
	}
	fmt.Fprintf(r.out, "%d passed, %d failed", passed, failed)
	if skipped > 0 {
		fmt.Fprintf(r.out, ", %d skipped", skipped)
	}
	fmt.Fprintln(r.out)
	if failed > 0 || skipped > 0 && r.noSkips {
		return 1
	}
	return 0
}
