package delivery

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Three types carry secrets for the length of a call. They print as [redacted] and
// refuse to be encoded.

const redacted = "[redacted]"

var errRedacted = errors.New("refusing to encode a secret")

// Format prints [redacted], whatever the verb.
func (NewWebhook) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue is [redacted].
func (NewWebhook) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON fails.
func (NewWebhook) MarshalJSON() ([]byte, error) { return nil, errRedacted }

func (opened) Format(s fmt.State, _ rune)   { _, _ = io.WriteString(s, redacted) }
func (opened) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (opened) MarshalJSON() ([]byte, error) { return nil, errRedacted }

// Format prints [redacted], whatever the verb.
func (NewToken) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue is [redacted].
func (NewToken) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON fails.
func (NewToken) MarshalJSON() ([]byte, error) { return nil, errRedacted }
