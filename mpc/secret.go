package mpc

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// errSecret is what every encoder gets from a type that holds secrets.
var errSecret = errors.New("refusing to encode a secret")

// secret is embedded by types that hold secrets: it makes them print as
// "[redacted]" with every verb and fail every standard encoder.
type secret struct{}

func (secret) String() string               { return "[redacted]" }
func (secret) GoString() string             { return "[redacted]" }
func (secret) Format(f fmt.State, _ rune)   { _, _ = io.WriteString(f, "[redacted]") }
func (secret) LogValue() slog.Value         { return slog.StringValue("[redacted]") }
func (secret) MarshalJSON() ([]byte, error) { return nil, errSecret }
func (secret) MarshalText() ([]byte, error) { return nil, errSecret }
func (secret) GobEncode() ([]byte, error)   { return nil, errSecret }
