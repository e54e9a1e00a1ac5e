package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/chains"
)

// The JSON forms, strict: unknown keys, keys in another case, keys given twice
// and trailing data are refused.
//
//	{"id":"p1","name":"payouts","effect":"EFFECT_ALLOW","condition":"…","consensus":"…",
//	 "time":"…","lang":"turnkey","partial_lists":false,"requester_abstains":false,"scope":{"delegation":"d1"},"not_after":"2026-04-01T00:00:00Z",
//	 "one_time":false,"replace":false}
//	{"id":"l1","name":"daily","asset":"eip155:1/slip44:60","max":"1000000000000000000","max_count":10,
//	 "window_seconds":86400,"delegation":"d1","per":"destination","include_fees":false,"control":false}
//	{"id":"l2","asset":"eip155:1/slip44:60","max":"1.5","decimals":18}
//
// Without decimals max is in the asset's smallest unit; with them it is in the unit for
// people, with up to that many decimals.

type policyForm struct {
	ID        string     `json:"id"`
	Name      string     `json:"name,omitempty"`
	Effect    Effect     `json:"effect"`
	Condition string     `json:"condition,omitempty"`
	Consensus string     `json:"consensus,omitempty"`
	Time      string     `json:"time,omitempty"`
	Lang      string     `json:"lang,omitempty"`
	Partial   bool       `json:"partial_lists,omitempty"`
	Abstains  bool       `json:"requester_abstains,omitempty"`
	Scope     *scopeForm `json:"scope,omitempty"`
	NotAfter  *time.Time `json:"not_after,omitempty"`
	OneTime   bool       `json:"one_time,omitempty"`
	Replace   bool       `json:"replace,omitempty"`
}

type scopeForm struct {
	Delegation string `json:"delegation"`
}

type limitForm struct {
	ID            string `json:"id"`
	Name          string `json:"name,omitempty"`
	Asset         string `json:"asset,omitempty"`
	Max           string `json:"max,omitempty"`
	MaxCount      uint64 `json:"max_count,omitempty"`
	Decimals      *uint8 `json:"decimals,omitempty"`
	WindowSeconds uint32 `json:"window_seconds,omitempty"`
	Delegation    string `json:"delegation,omitempty"`
	Per           Per    `json:"per,omitempty"`
	IncludeFees   bool   `json:"include_fees,omitempty"`
	Control       bool   `json:"control,omitempty"`
}

// MarshalJSON writes the form above.
func (p Policy) MarshalJSON() ([]byte, error) {
	f := policyForm{ID: p.ID, Name: p.Name, Effect: p.Effect, Condition: p.Condition, Consensus: p.Consensus, Time: p.Time, Lang: p.Lang, Partial: p.PartialLists, Abstains: p.RequesterAbstains, OneTime: p.OneTime, Replace: p.Replace}
	if p.Scope.Delegation != "" {
		f.Scope = &scopeForm{p.Scope.Delegation}
	}
	if !p.NotAfter.IsZero() {
		t := p.NotAfter.UTC()
		f.NotAfter = &t
	}
	return marshal(f)
}

// UnmarshalJSON reads the form above; id and effect must be there. Texts are not
// compiled.
func (p *Policy) UnmarshalJSON(b []byte) error {
	var f policyForm
	if err := strict(b, &f, "id", "effect"); err != nil {
		return fmt.Errorf("reading policy: %w", err)
	}
	*p = Policy{ID: f.ID, Name: f.Name, Effect: f.Effect, Condition: f.Condition, Consensus: f.Consensus, Time: f.Time, Lang: f.Lang, PartialLists: f.Partial, RequesterAbstains: f.Abstains, OneTime: f.OneTime, Replace: f.Replace}
	if f.Scope != nil {
		if f.Scope.Delegation == "" { // would be a policy for everybody
			return errors.New("reading policy: scope names no delegation")
		}
		p.Scope.Delegation = f.Scope.Delegation
	}
	if f.NotAfter != nil {
		p.NotAfter = f.NotAfter.UTC()
		if y := p.NotAfter.Year(); y < 1970 || y > 9999 {
			return errors.New("reading policy: not_after is not between 1970 and 9999")
		}
	}
	return nil
}

// MarshalJSON writes the form above; max is decimal text.
func (l Limit) MarshalJSON() ([]byte, error) {
	if l.Window < 0 || l.Window > MaxWindow || l.Window%time.Second != 0 {
		return nil, fmt.Errorf("writing limit: window %v is not whole seconds of at most 366 d", l.Window)
	}
	f := limitForm{ID: l.ID, Name: l.Name, Asset: l.Asset, MaxCount: l.MaxCount, WindowSeconds: uint32(l.Window / time.Second),
		Delegation: l.Delegation, Per: l.Per, IncludeFees: l.IncludeFees, Control: l.Control}
	if !l.AnyAmount {
		f.Max = l.Max.Dec()
	}
	if l.Decimals > 0 {
		f.Decimals = &l.Decimals
		if !l.AnyAmount {
			f.Max = chains.FormatUnits(&l.Max, int(l.Decimals))
		}
	}
	return marshal(f)
}

// UnmarshalJSON reads the form above; id must be there, and max, max_count or both.
func (l *Limit) UnmarshalJSON(b []byte) error {
	var f limitForm
	if err := strict(b, &f, "id"); err != nil {
		return fmt.Errorf("reading limit: %w", err)
	}
	*l = Limit{ID: f.ID, Name: f.Name, Asset: f.Asset, MaxCount: f.MaxCount, AnyAmount: f.Max == "", Window: time.Duration(f.WindowSeconds) * time.Second,
		Delegation: f.Delegation, Per: f.Per, IncludeFees: f.IncludeFees, Control: f.Control}
	if f.Decimals != nil {
		l.Decimals = *f.Decimals
	}
	switch {
	case f.Max == "" && f.MaxCount == 0:
		return errors.New(`reading limit: "max" is missing, and "max_count" too`)
	case f.Asset == "" && f.Max != "":
		return errors.New(`reading limit: "asset" is missing`)
	case f.Max == "":
		return nil
	}
	var err error
	if l.Max, err = ParseUnits(f.Max, int(l.Decimals)); err != nil {
		return fmt.Errorf("reading limit: %w", err)
	}
	return nil
}

// ParseUnits reads an amount in a unit of so many decimals, "1.5", as one in the
// smallest unit: digits without sign, separator or leading zero, then optionally a dot
// and 1 to decimals digits. The result is at most 2^256-1.
func ParseUnits(s string, decimals int) (uint256.Int, error) {
	whole, part, dotted := strings.Cut(s, ".")
	if decimals > maxDecimals || dotted && (part == "" || len(part) > decimals || strings.Trim(part, "0123456789") != "") || !decimal(whole) {
		return uint256.Int{}, fmt.Errorf("reading amount %.80q: want decimal digits, at most %d of them behind a dot", s, decimals)
	}
	digits := strings.TrimLeft(whole+part+strings.Repeat("0", decimals-len(part)), "0")
	if digits == "" {
		digits = "0"
	}
	return ParseAmount(digits)
}

// ParseAmount reads an amount in an asset's smallest unit: decimal digits without
// sign, separator or leading zero, at most 2^256-1.
func ParseAmount(s string) (uint256.Int, error) {
	var n uint256.Int
	if !decimal(s) || len(s) > 78 {
		return n, fmt.Errorf("reading amount %.80q: want decimal digits", s)
	}
	if err := n.SetFromDecimal(s); err != nil {
		return n, fmt.Errorf("reading amount %q: larger than 2^256-1", s)
	}
	return n, nil
}

// marshal writes JSON without escaping <, > and &, which policies are full of.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// strict decodes one object into a form and refuses what encoding/json lets pass.
func strict(b []byte, into any, required ...string) error {
	if !utf8.Valid(b) {
		return errors.New("not UTF-8")
	}
	seen, err := keysOf(b)
	if err != nil {
		return err
	}
	for _, k := range required {
		if !seen[k] {
			return fmt.Errorf("%q is missing", k)
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// knownKeys are the keys of all forms; encoding/json would also take "ID".
var knownKeys = map[string]bool{"id": true, "name": true, "effect": true, "condition": true, "consensus": true,
	"time": true, "lang": true, "partial_lists": true, "requester_abstains": true, "scope": true, "delegation": true, "not_after": true, "asset": true, "max": true,
	"window_seconds": true, "include_fees": true, "max_count": true, "decimals": true, "per": true, "control": true, "one_time": true, "replace": true}

// keysOf walks an object, and the objects in it, and refuses doubled keys, null
// and trailing data. It returns the outermost keys.
func keysOf(b []byte) (map[string]bool, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	var outer map[string]bool
	var open []map[string]bool
	for key := true; ; {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch t := t.(type) {
		case json.Delim:
			if t == '[' || t == ']' {
				return nil, errors.New("a list where none belongs")
			}
			if t == '{' {
				open = append(open, map[string]bool{})
				if len(open) > 2 {
					return nil, errors.New("objects nested too deep")
				}
			} else {
				outer, open = open[len(open)-1], open[:len(open)-1]
			}
			key = true
		case string:
			if key && len(open) > 0 {
				keys := open[len(open)-1]
				if !knownKeys[t] {
					return nil, fmt.Errorf("unknown key %q", t)
				}
				if keys[t] {
					return nil, fmt.Errorf("key %q is given twice", t)
				}
				keys[t] = true
				key = false
				continue
			}
			key = true
		case nil:
			return nil, errors.New("null where a value belongs")
		default:
			key = true
		}
		if len(open) == 0 {
			break
		}
	}
	if outer == nil {
		return nil, errors.New("want an object")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("data after the object")
	}
	return outer, nil
}
