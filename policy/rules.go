package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// ParseRules reads a file of rules, {"policies":[…],"limits":[…]}, in the forms
// above: what an organization sets, what a signed bundle carries and what lies in
// the appliance's directory. Either list may be missing. It is strict and
// compiles nothing.
func ParseRules(b []byte) ([]Policy, []Limit, error) {
	policies, limits, err := parseRules(b)
	if err != nil {
		return nil, nil, fmt.Errorf("reading rules: %w", err)
	}
	return policies, limits, nil
}

func parseRules(b []byte) (policies []Policy, limits []Limit, err error) {
	if !utf8.Valid(b) {
		return nil, nil, errors.New("not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := delimiter(d, '{'); err != nil {
		return nil, nil, err
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, nil, err
		}
		key, _ := t.(string)
		if seen[key] {
			return nil, nil, fmt.Errorf("key %q is given twice", key)
		}
		seen[key] = true
		switch key {
		case "policies":
			policies, err = items[Policy](d)
		case "limits":
			limits, err = items[Limit](d)
		default:
			err = fmt.Errorf("unknown key %.40q", key)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	if err := delimiter(d, '}'); err != nil {
		return nil, nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, nil, errors.New("data after the object")
	}
	return policies, limits, nil
}

// items reads a list of objects; T reads its own strictly.
func items[T any](d *json.Decoder) ([]T, error) {
	if err := delimiter(d, '['); err != nil {
		return nil, err
	}
	out := []T{}
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		var one T
		if err := json.Unmarshal(raw, &one); err != nil {
			return nil, err
		}
		if bytes.Equal(raw, []byte("null")) { // never reaches T's own reader
			return nil, errors.New("null where an object belongs")
		}
		out = append(out, one)
	}
	return out, delimiter(d, ']')
}

func delimiter(d *json.Decoder, want json.Delim) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	if t != want {
		return fmt.Errorf("want %q at byte %d", want.String(), d.InputOffset())
	}
	return nil
}
