package credential

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode/utf8"
)

// flat is a JSON object of strings and integers, its numbers still text.
type flat map[string]any

// readFlat reads exactly one flat JSON object with exactly the members named,
// each once, in any order. encoding/json alone would fold case, keep the last
// of two members and skip what it doesn't know.
func readFlat(data []byte, max int, names ...string) (flat, error) {
	return readMembers(data, max, names, nil)
}

// readMembers is readFlat with members that may be missing.
func readMembers(data []byte, max int, names, optional []string) (flat, error) {
	if len(data) > max {
		return nil, fmt.Errorf("%d bytes, at most %d are read", len(data), max)
	}
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, errors.New("not JSON in UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if open, err := dec.Token(); err != nil || open != json.Delim('{') {
		return nil, errors.New("not a JSON object")
	}
	out := flat{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, errors.New("not JSON in UTF-8")
		}
		name, _ := key.(string)
		if !slices.Contains(names, name) && !slices.Contains(optional, name) {
			return nil, fmt.Errorf("unknown member %q", clip(name))
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("member %q appears twice", name)
		}
		value, err := dec.Token()
		if err != nil {
			return nil, errors.New("not JSON in UTF-8")
		}
		switch value.(type) {
		case string, json.Number:
			out[name] = value
		default:
			return nil, fmt.Errorf("member %q is neither a string nor a number", name)
		}
	}
	if _, err := dec.Token(); err != nil { // the closing brace
		return nil, errors.New("not JSON in UTF-8")
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errors.New("something follows the JSON object")
	}
	for _, name := range names {
		if _, ok := out[name]; !ok {
			return nil, fmt.Errorf("member %q is missing", name)
		}
	}
	return out, nil
}

func (f flat) text(name string) (string, error) {
	s, ok := f[name].(string)
	if !ok {
		return "", fmt.Errorf("member %q is not a string", name)
	}
	return s, nil
}

// hexBytes wants lower-case hex, so that a value has one spelling.
func (f flat) hexBytes(name string) ([]byte, error) {
	s, err := f.text(name)
	if err != nil {
		return nil, err
	}
	b, err := hex.DecodeString(s)
	if err != nil || hex.EncodeToString(b) != s {
		return nil, fmt.Errorf("member %q is not lower-case hex", name)
	}
	return b, nil
}

// natural wants a plain decimal integer, at least 1, without sign, fraction or exponent.
func (f flat) natural(name string) (int64, error) {
	n, ok := f[name].(json.Number)
	if !ok {
		return 0, fmt.Errorf("member %q is not a number", name)
	}
	v, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil || v < 1 || strconv.FormatInt(v, 10) != string(n) {
		return 0, fmt.Errorf("member %q is not a positive decimal integer", name)
	}
	return v, nil
}
