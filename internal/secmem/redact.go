package secmem

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a Buf prints as, whatever the verb.
const Redacted = "[redacted]"

// errEncode is what every encoder gets.
var errEncode = errors.New("refusing to encode secret memory")

// Format prints [Redacted] for every verb and flag.
func (Buf) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, Redacted) }

// String returns [Redacted].
func (Buf) String() string { return Redacted }

// GoString returns [Redacted].
func (Buf) GoString() string { return Redacted }

// LogValue returns [Redacted].
func (Buf) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON fails.
func (Buf) MarshalJSON() ([]byte, error) { return nil, errEncode }

// MarshalText fails.
func (Buf) MarshalText() ([]byte, error) { return nil, errEncode }

// MarshalBinary fails.
func (Buf) MarshalBinary() ([]byte, error) { return nil, errEncode }

// GobEncode fails.
func (Buf) GobEncode() ([]byte, error) { return nil, errEncode }

// MarshalYAML fails.
func (Buf) MarshalYAML() (any, error) { return nil, errEncode }
