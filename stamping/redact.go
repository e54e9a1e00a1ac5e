package stamping

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// NewCredential carries a private key for the length of a call. It prints as
// [redacted] and refuses to be encoded.

const redacted = "[redacted]"

var errRedacted = errors.New("refusing to encode a secret")

// Format prints [redacted], whatever the verb.
func (NewCredential) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue is [redacted].
func (NewCredential) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON fails.
func (NewCredential) MarshalJSON() ([]byte, error) { return nil, errRedacted }
