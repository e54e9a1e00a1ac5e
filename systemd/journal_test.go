package systemd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/journal"
)

// entry is what journald would get.
type entry struct {
	message  string
	priority journal.Priority
	fields   map[string]string
}

// record makes a logger and the place where its last entry lies.
func record(level slog.Level) (*slog.Logger, *entry) {
	var last entry
	next := slog.NewTextHandler(&bytes.Buffer{}, &slog.HandlerOptions{Level: level})
	return slog.New(journald{next: next, send: func(m string, p journal.Priority, f map[string]string) error {
		last = entry{m, p, f}
		return nil
	}}), &last
}

// share is a secret as ours are.
type share struct{ bytes string }

func (share) LogValue() slog.Value { return slog.StringValue("[redacted]") }

func TestJournalFields(t *testing.T) {
	log, got := record(slog.LevelInfo)
	for _, tc := range []struct {
		name string
		do   func()
		want entry
	}{
		{"attributes", func() { log.Info("signed", "wallet", "w1", "took", 20*time.Millisecond, "last_share_sent", true) },
			entry{"signed wallet=w1 took=20ms last_share_sent=true", journal.PriInfo, map[string]string{"SIGILD_WALLET": "w1", "SIGILD_TOOK": "20ms", "SIGILD_LAST_SHARE_SENT": "true"}}},
		{"quoted in the message, whole in the field", func() { log.Warn("refused", "why", "two words\nand a line", "empty", "") },
			entry{`refused why="two words\nand a line" empty=""`, journal.PriWarning, map[string]string{"SIGILD_WHY": "two words\nand a line", "SIGILD_EMPTY": ""}}},
		{"groups", func() {
			log.With("a", 1).WithGroup("g").With("b", 2).Error("x", "c", 3, slog.Group("h", "d", 4), slog.Group("", "e", 5))
		},
			entry{"x a=1 g.b=2 g.c=3 g.h.d=4 g.e=5", journal.PriErr, map[string]string{"SIGILD_A": "1", "SIGILD_G_B": "2", "SIGILD_G_C": "3", "SIGILD_G_H_D": "4", "SIGILD_G_E": "5"}}},
		{"a group without a name or an attribute", func() { log.WithGroup("").Info("x", slog.Attr{}) }, entry{"x", journal.PriInfo, nil}},
		{"secrets", func() { log.Info("x", "share", share{"5ec2e7"}) }, entry{"x share=[redacted]", journal.PriInfo, map[string]string{"SIGILD_SHARE": "[redacted]"}}},
		{"errors and texts", func() { log.Info("x", "error", errors.New("no"), "at", time.Unix(0, 0).UTC()) },
			entry{`x error=no at="1970-01-01 00:00:00 +0000 UTC"`, journal.PriInfo, map[string]string{"SIGILD_ERROR": "no", "SIGILD_AT": "1970-01-01 00:00:00 +0000 UTC"}}},
		{"a key that is no field name", func() { log.Info("x", "größe-1", 7) }, entry{"x größe-1=7", journal.PriInfo, map[string]string{"SIGILD_GR__E_1": "7"}}},
		{"a long key", func() { log.Info("x", strings.Repeat("k", 99), 7) }, entry{"x " + strings.Repeat("k", 99) + "=7", journal.PriInfo, map[string]string{"SIGILD_" + strings.Repeat("K", 57): "7"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.do()
			if id := got.fields["SYSLOG_IDENTIFIER"]; id != "sigild" {
				t.Errorf("SYSLOG_IDENTIFIER=%q", id)
			}
			delete(got.fields, "SYSLOG_IDENTIFIER")
			if got.message != tc.want.message || got.priority != tc.want.priority || !maps.Equal(got.fields, tc.want.fields) {
				t.Errorf("got  %+v\nwant %+v", *got, tc.want)
			}
		})
	}
}

// With and WithGroup leave the logger they are called on as it was.
func TestJournalLoggersDontShare(t *testing.T) {
	log, got := record(slog.LevelInfo)
	base := log.With("a", 1, "b", 2, "c", 3)
	left, right := base.With("left", 1), base.With("right", 1)
	left.Info("x")
	if _, leaked := got.fields["SIGILD_RIGHT"]; leaked || got.fields["SIGILD_LEFT"] != "1" {
		t.Errorf("left has %v", got.fields)
	}
	right.Info("x", "own", 1)
	left.Info("x")
	if len(got.fields) != 5 { // a, b, c, left, the identifier
		t.Errorf("left has %v", got.fields)
	}
}

func TestJournalKeepsTheLevel(t *testing.T) {
	log, got := record(slog.LevelWarn)
	log.Info("too small")
	if got.message != "" {
		t.Errorf("got %q below the level", got.message)
	}
	log, got = record(slog.LevelDebug)
	log.Debug("small")
	if got.priority != journal.PriDebug {
		t.Errorf("debug has priority %d, want %d", got.priority, journal.PriDebug)
	}
}

// What journald doesn't take is said on standard error instead.
func TestJournalFallsBack(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(journald{next: slog.NewTextHandler(&b, nil), send: func(string, journal.Priority, map[string]string) error { return errors.New("no journald") }})
	log.WithGroup("g").With("a", 1).Warn("refused", "b", 2)
	if got := b.String(); !strings.Contains(got, "level=WARN msg=refused g.a=1 g.b=2") {
		t.Errorf("standard error has %q", got)
	}
}

func TestJournalOnlyWhereStandardErrorIsTheJournal(t *testing.T) {
	next := slog.NewTextHandler(&bytes.Buffer{}, nil)
	t.Setenv("JOURNAL_STREAM", "")
	if got := Journal(next); got != slog.Handler(next) {
		t.Errorf("without JOURNAL_STREAM: %T", got)
	}
	for _, bad := range []string{"1:1", "text"} {
		t.Setenv("JOURNAL_STREAM", bad)
		if got := Journal(next); got != slog.Handler(next) {
			t.Errorf("JOURNAL_STREAM=%s, which is not standard error: %T", bad, got)
		}
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(os.Stderr.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	t.Setenv("JOURNAL_STREAM", fmt.Sprintf("%d:%d", st.Dev, st.Ino))
	if got, ok := Journal(next).(journald); !ok {
		t.Errorf("JOURNAL_STREAM is standard error: %T", got)
	}
}
