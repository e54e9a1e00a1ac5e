package systemd

import (
	"context"
	"encoding"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
)

// fieldPrefix keeps our fields apart from journald's own, systemd.journal-fields(7).
const fieldPrefix = "SIGILD_"

// Journal returns a handler that writes to journald in its own protocol, each
// attribute a field: "wallet" is SIGILD_WALLET, "b" in group "a" is SIGILD_A_B.
// MESSAGE is the message and the attributes, for people. What to keep is asked of
// next, and what journald doesn't take goes there. If standard error is not the
// journal, JOURNAL_STREAM says so, next itself is returned.
func Journal(next slog.Handler) slog.Handler {
	if ok, err := journal.StderrIsJournalStream(); err != nil || !ok {
		return next
	}
	return journald{next: next, send: journal.Send}
}

// journald is immutable; WithAttrs and WithGroup return others.
type journald struct {
	next   slog.Handler
	send   func(message string, priority journal.Priority, fields map[string]string) error
	prefix string // of later attributes, "a.b."
	attrs  []attr // of WithAttrs
}

// attr is one flat attribute: its dotted key and its text.
type attr struct{ key, value string }

// Enabled implements [slog.Handler].
func (h journald) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs implements [slog.Handler].
func (h journald) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.next = h.next.WithAttrs(attrs)
	h.attrs = h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range attrs {
		h.attrs = flatten(h.attrs, h.prefix, a)
	}
	return h
}

// WithGroup implements [slog.Handler].
func (h journald) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	h.next = h.next.WithGroup(name)
	h.prefix += name + "."
	return h
}

// Handle implements [slog.Handler].
func (h journald) Handle(ctx context.Context, r slog.Record) error {
	attrs := h.attrs[:len(h.attrs):len(h.attrs)]
	r.Attrs(func(a slog.Attr) bool {
		attrs = flatten(attrs, h.prefix, a)
		return true
	})
	message := new(strings.Builder)
	message.WriteString(r.Message)
	fields := make(map[string]string, len(attrs)+1)
	fields["SYSLOG_IDENTIFIER"] = "sigild" // journalctl -t
	for _, a := range attrs {
		fmt.Fprintf(message, " %s=%s", a.key, quoted(a.value))
		fields[fieldName(a.key)] = a.value
	}
	if err := h.send(message.String(), priority(r.Level), fields); err != nil {
		return h.next.Handle(ctx, r)
	}
	return nil
}

// flatten appends a, or what is in it if it is a group, under its dotted key.
func flatten(to []attr, prefix string, a slog.Attr) []attr {
	value := a.Value.Resolve() // a secret resolves to [redacted]
	if value.Kind() != slog.KindGroup {
		if a.Equal(slog.Attr{}) {
			return to
		}
		return append(to, attr{prefix + a.Key, text(value)})
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, inner := range value.Group() {
		to = flatten(to, prefix, inner)
	}
	return to
}

// text writes a value as slog's own text handler does.
func text(v slog.Value) string {
	if v.Kind() != slog.KindAny {
		return v.String()
	}
	if m, ok := v.Any().(encoding.TextMarshaler); ok {
		b, err := m.MarshalText()
		if err != nil {
			return "!ERROR: " + err.Error()
		}
		return string(b)
	}
	return fmt.Sprintf("%+v", v.Any())
}

// quoted keeps MESSAGE one line that can be told apart again.
func quoted(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r == '"' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}) < 0
	if plain {
		return s
	}
	return strconv.Quote(s)
}

// fieldName makes a field of a key: upper case letters, digits and underscores,
// at most 64 bytes, which is what journald takes.
func fieldName(key string) string {
	name := fieldPrefix + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), 64)]
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
