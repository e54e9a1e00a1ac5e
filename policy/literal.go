package policy

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/solana"
)

// A string literal means what the other side of its comparison is: an address,
// a public key, hexadecimal text, or plain text. It becomes that value once,
// when the policy is compiled.

// literalProblem says why a literal cannot be what it is compared with.
type literalProblem struct{ code, message, suggestion string }

// literal turns text into a value of type t.
func literal(text string, t *chains.Type) (chains.Value, *literalProblem) {
	switch t.Kind {
	case chains.KindString:
		return chains.StringValue(text), nil
	case chains.KindAddress:
		return addressLiteral(text)
	case chains.KindPubkey:
		return pubkeyLiteral(text)
	case kindAccount:
		if strings.HasPrefix(text, "0x") {
			return addressLiteral(text)
		}
		return pubkeyLiteral(text)
	case chains.KindHex:
		return hexLiteral(text)
	case kindHexText:
		return hexTextLiteral(text)
	case kindAny:
		return anyLiteral(text)
	}
	p := &literalProblem{code: CodeType, message: fmt.Sprintf("a string is compared with %s", typeName(t))}
	if t.Kind == chains.KindInt && text != "" && strings.Trim(text, "0123456789") == "" {
		p.suggestion = fmt.Sprintf("write %s without quotes", text)
	}
	if t.Kind == kindTime {
		p.suggestion = fmt.Sprintf("write Timestamp('%s')", text)
	}
	return chains.Value{}, p
}

// addressLiteral reads an EVM address; empty text stands for no address.
func addressLiteral(text string) (chains.Value, *literalProblem) {
	if text == "" {
		return chains.Value{Kind: chains.KindAddress}, nil
	}
	a, err := evm.ParseAddress(text)
	switch {
	case errors.Is(err, evm.ErrChecksum):
		raw, _ := evm.ParseAddress(strings.ToLower(text))
		return chains.Value{}, &literalProblem{CodeBadAddress, "the address has a wrong checksum (EIP-55): a digit is wrong or the case is",
			fmt.Sprintf("if every digit is right, write %s", evm.Checksum(raw))}
	case err != nil:
		return chains.Value{}, &literalProblem{code: CodeBadAddress, message: "an address is 0x and 40 hexadecimal digits"}
	}
	return chains.AddressValue(a), nil
}

// pubkeyLiteral reads a Solana account; empty text stands for none, and the word for an
// account behind an unresolved lookup table for itself.
func pubkeyLiteral(text string) (chains.Value, *literalProblem) {
	switch text {
	case "":
		return chains.Value{Kind: chains.KindPubkey}, nil
	case chains.AddressTableLookup:
		return chains.UnresolvedPubkey(), nil
	}
	k, err := solana.ParseAddress(text)
	if err != nil {
		return chains.Value{}, &literalProblem{code: CodeBadPubkey, message: "a public key is 32 bytes in base58; upper and lower case differ"}
	}
	return chains.PubkeyValue(k), nil
}

func hexLiteral(text string) (chains.Value, *literalProblem) {
	digits := strings.TrimPrefix(text, "0x")
	if len(digits)%2 != 0 {
		return chains.Value{}, &literalProblem{code: CodeBadHex, message: "hexadecimal text has two digits a byte; this has an odd number"}
	}
	for i := range len(digits) {
		if !isHexDigit(digits[i]) {
			return chains.Value{}, &literalProblem{code: CodeBadHex, message: fmt.Sprintf("%q is no hexadecimal digit", digits[i])}
		}
	}
	return chains.HexValue("0x" + strings.ToLower(digits)), nil
}

// hexTextLiteral is compared with a slice, which may start in the "0x".
func hexTextLiteral(text string) (chains.Value, *literalProblem) {
	lower := strings.ToLower(text)
	digits := lower
	if i := strings.IndexByte(lower, 'x'); i == 0 || i == 1 && lower[0] == '0' {
		digits = lower[i+1:]
	}
	for i := range len(digits) {
		if !isHexDigit(digits[i]) {
			return chains.Value{}, &literalProblem{code: CodeBadHex, message: fmt.Sprintf("%q is no hexadecimal digit", digits[i])}
		}
	}
	return chains.StringValue(lower), nil
}

// anyLiteral keeps the text and, where it spells an account, its bytes: which of
// them counts is known when the value it is compared with is.
func anyLiteral(text string) (chains.Value, *literalProblem) {
	v := chains.StringValue(text)
	if len(text) == 42 && strings.HasPrefix(text, "0x") {
		a, p := addressLiteral(text)
		if p != nil {
			return v, p
		}
		v.Raw = a.Raw
	} else if k, err := solana.ParseAddress(text); err == nil {
		v.Raw = k[:]
	}
	return v, nil
}

const timestampForm = "2006-01-02T15:04:05.999999999Z07:00"

// timestampLiteral reads RFC 3339 with zero offset, which has four spellings, to
// the nanosecond.
func timestampLiteral(text string) (chains.Value, *literalProblem) {
	bad := &literalProblem{code: CodeBadTimestamp, message: "a timestamp is RFC 3339 with zero offset", suggestion: "write it as 2026-04-01T00:00:00Z"}
	rest, zero := text, false
	for _, offset := range [...]string{"Z", "z", "+00:00", "-00:00"} {
		if before, ok := strings.CutSuffix(text, offset); ok {
			rest, zero = before, true
		}
	}
	if !zero {
		return chains.Value{}, bad
	}
	// time.Parse is lenient about the width of hours and about commas.
	whole, fraction, dotted := strings.Cut(rest, ".")
	if len(whole) != len("2006-01-02T15:04:05") || dotted && (fraction == "" || len(fraction) > 9 || strings.Trim(fraction, "0123456789") != "") {
		return chains.Value{}, bad
	}
	t, err := time.Parse(timestampForm, rest+"Z")
	if err != nil || t.Format("2006-01-02T15:04:05") != whole {
		return chains.Value{}, bad
	}
	return instant(t), nil
}
