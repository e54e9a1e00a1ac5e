package secmem

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a Buf and a Secret print as, whatever the verb.
const Redacted = "[redacted]"

// errEncode and errSecret are what every encoder gets.
var (
	errEncode = errors.New("refusing to encode secret memory")
	errSecret = errors.New("refusing to encode a secret")
)

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

// Secret is embedded by types that hold secrets for a while: it makes them print as
// [Redacted] with every verb and fail every standard encoder.
type Secret struct{}

// Format prints [Redacted] for every verb and flag.
func (Secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, Redacted) }

// String returns [Redacted].
func (Secret) String() string { return Redacted }

// GoString returns [Redacted].
func (Secret) GoString() string { return Redacted }

// LogValue returns [Redacted].
func (Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalJSON fails.
func (Secret) MarshalJSON() ([]byte, error) { return nil, errSecret }

// MarshalText fails.
func (Secret) MarshalText() ([]byte, error) { return nil, errSecret }

// MarshalBinary fails.
func (Secret) MarshalBinary() ([]byte, error) { return nil, errSecret }

// GobEncode fails.
func (Secret) GobEncode() ([]byte, error) { return nil, errSecret }

// MarshalYAML fails.
func (Secret) MarshalYAML() (any, error) { return nil, errSecret }
