// Package testcost says what an operation costs, for benchmarks: the median of its
// time, and the processor time of all processes that serve it, which a machine that is
// busy with other things moves less.
package testcost

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// tick is the unit of processor time in /proc on Linux.
const tick = 10 * time.Millisecond

// Meter times operations. Its methods are safe for concurrent use.
type Meter struct {
	b      *testing.B
	others []int
	before time.Duration

	mu   sync.Mutex // guards took
	took []time.Duration
}

// New begins to count. others are processes beside this one; the children of all are
// counted, too, while they live.
func New(b *testing.B, others ...int) *Meter {
	b.Helper()
	m := &Meter{b: b, others: others}
	m.before = m.processors()
	return m
}

// Time runs f and notes how long it took.
func (m *Meter) Time(f func()) {
	start := time.Now()
	f()
	d := time.Since(start)
	m.mu.Lock()
	m.took = append(m.took, d)
	m.mu.Unlock()
}

// Report reports the median as p50-ms and the processor time of one operation as
// cpu-ms, and the operations in a second of elapsed as op/s; elapsed 0: not.
func (m *Meter) Report(elapsed time.Duration) {
	m.b.Helper()
	if len(m.took) == 0 {
		m.b.Fatal("nothing was timed")
	}
	slices.Sort(m.took)
	n := float64(len(m.took))
	m.b.ReportMetric(float64(m.took[len(m.took)/2].Microseconds())/1000, "p50-ms")
	m.b.ReportMetric(float64((m.processors()-m.before).Microseconds())/1000/n, "cpu-ms")
	if elapsed > 0 {
		m.b.ReportMetric(n/elapsed.Seconds(), "op/s")
	}
}

// processors is the processor time that was used until now.
func (m *Meter) processors() (sum time.Duration) {
	for _, pid := range append([]int{os.Getpid()}, m.others...) {
		d, err := ofTree(pid)
		if err != nil {
			m.b.Fatal(err)
		}
		sum += d
	}
	return sum
}

// ofTree is the processor time of a process and its children.
func ofTree(pid int) (time.Duration, error) {
	sum, err := of(pid)
	if err != nil {
		return 0, err
	}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, t := range tasks {
		text, _ := os.ReadFile(t) // a thread that ended meanwhile has none
		for _, child := range strings.Fields(string(text)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				return 0, fmt.Errorf("reading %s: %w", t, err)
			}
			more, err := ofTree(n)
			if err != nil {
				return 0, err
			}
			sum += more
		}
	}
	return sum, nil
}

// of is the processor time of one process: user and system, proc_pid_stat(5).
func of(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; behind it comes field 3.
	_, rest, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("reading /proc/%d/stat: %d fields", pid, len(fields))
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading /proc/%d/stat: %w", pid, err)
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading /proc/%d/stat: %w", pid, err)
	}
	return time.Duration(user+system) * tick, nil
}
