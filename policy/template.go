package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/holiman/uint256"
)

// Template is the text of an ALLOW condition with holes, ${name}, and for each hole
// a bound on what may stand there. Whoever signs a template signs every text that
// filling it can give: that a filled one is no wider than the template is seen by
// comparing values with bounds, never by comparing conditions.
type Template struct {
	// Name as of a policy.
	Name string
	// Condition is under LangSigild; every hole in it has a parameter.
	Condition string
	// Parameters are 0 to 16, each used in Condition.
	Parameters []Parameter
}

// Parameter bounds what fills a hole: an amount, or one of some texts.
type Parameter struct {
	// Name is 1 to 32 of a-z, 0-9 and "_", beginning with a letter.
	Name string `json:"name"`
	// Min and Max bound an amount: decimal, both included. An amount is written as
	// digits, so it stands where a number stands. Both empty: a text.
	Min string `json:"min,omitempty"`
	Max string `json:"max,omitempty"`
	// OneOf are the texts that may fill the hole, 1 to 64; they are written as a
	// literal with its quotes, so they stand where an address or a text stands.
	OneOf []string `json:"one_of,omitempty"`
}

// Bounds of templates.
const (
	maxParameters = 16
	maxChoices    = 64
)

// Check compiles the template at the ends of every bound and with every text, and
// returns what is wrong with it: the bounds, or an error [Diagnostic].
func (t Template) Check() error {
	if len(t.Parameters) > maxParameters {
		return fmt.Errorf("%d parameters, at most %d", len(t.Parameters), maxParameters)
	}
	values := map[string]string{}
	for _, p := range t.Parameters {
		if err := p.check(); err != nil {
			return fmt.Errorf("parameter %.40q: %w", p.Name, err)
		}
		if _, twice := values[p.Name]; twice {
			return fmt.Errorf("parameter %q is there twice", p.Name)
		}
		if !strings.Contains(t.Condition, "${"+p.Name+"}") {
			return fmt.Errorf("parameter %q is nowhere in the condition", p.Name)
		}
		values[p.Name] = p.ends()[0]
	}
	if err := t.compiles(values); err != nil {
		return err
	}
	for _, p := range t.Parameters {
		first := values[p.Name]
		for _, v := range p.ends()[1:] {
			values[p.Name] = v
			if err := t.compiles(values); err != nil {
				return fmt.Errorf("with %s = %.80s: %w", p.Name, v, err)
			}
		}
		values[p.Name] = first
	}
	return nil
}

func (t Template) compiles(values map[string]string) error {
	condition, err := t.Fill(values)
	if err != nil {
		return err
	}
	set, problems := Compile([]Policy{{ID: "template", Name: t.Name, Effect: Allow, Condition: condition, Lang: LangSigild}}, nil, nil)
	if set != nil {
		return nil
	}
	for _, d := range problems {
		if d.Severity == SeverityError {
			return errors.New(d.String())
		}
	}
	return errors.New("it does not compile")
}

func (p Parameter) check() error {
	for i, r := range p.Name {
		if (r < 'a' || r > 'z') && (i == 0 || (r < '0' || r > '9') && r != '_') {
			return errors.New("a name is a-z, 0-9 and _, beginning with a letter")
		}
	}
	if p.Name == "" || len(p.Name) > 32 {
		return errors.New("a name has 1 to 32 characters")
	}
	if len(p.OneOf) == 0 {
		least, err := ParseAmount(p.Min)
		if err != nil {
			return fmt.Errorf("min: %w", err)
		}
		most, err := ParseAmount(p.Max)
		if err != nil {
			return fmt.Errorf("max: %w", err)
		}
		if least.Gt(&most) {
			return errors.New("min is above max")
		}
		return nil
	}
	if p.Min != "" || p.Max != "" || len(p.OneOf) > maxChoices {
		return fmt.Errorf("give min and max, or 1 to %d texts", maxChoices)
	}
	for i, text := range p.OneOf {
		if text == "" || len(text) > maxNameBytes || strings.ContainsAny(text, `'"\$`) || !validName(text) {
			return fmt.Errorf("text %d is empty, too long, or has quotes, backslashes or unprintable characters", i)
		}
		if slices.Contains(p.OneOf[:i], text) {
			return fmt.Errorf("text %d is there twice", i)
		}
	}
	return nil
}

// ends are the values at which a template is tried.
func (p Parameter) ends() []string {
	if len(p.OneOf) > 0 {
		return p.OneOf
	}
	return []string{p.Max, p.Min}
}

// literal is a value as it stands in the condition, or what bound it breaks.
func (p Parameter) literal(value string) (string, error) {
	if len(p.OneOf) > 0 {
		if !slices.Contains(p.OneOf, value) {
			return "", errors.New("it is none of the texts that were signed")
		}
		return "'" + value + "'", nil
	}
	n, err := ParseAmount(value)
	if err != nil {
		return "", err
	}
	var least, most uint256.Int
	if least, err = ParseAmount(p.Min); err != nil {
		return "", err
	}
	if most, err = ParseAmount(p.Max); err != nil {
		return "", err
	}
	if n.Lt(&least) || n.Gt(&most) {
		return "", fmt.Errorf("it is not %s to %s", p.Min, p.Max)
	}
	return value, nil
}

// BoundError says which value breaks its bound.
type BoundError struct {
	Parameter, Why string
}

func (e *BoundError) Error() string { return fmt.Sprintf("value of %s: %s", e.Parameter, e.Why) }

// Fill writes the condition with the values in its holes: one for each parameter,
// none else, each within its bound. Errors are *[BoundError], or say that the
// template itself is wrong.
func (t Template) Fill(values map[string]string) (string, error) {
	for name := range values {
		if !slices.ContainsFunc(t.Parameters, func(p Parameter) bool { return p.Name == name }) {
			return "", &BoundError{clipName(name), "the template has no such parameter"}
		}
	}
	var holes []string
	for _, p := range t.Parameters {
		value, ok := values[p.Name]
		if !ok {
			return "", &BoundError{p.Name, "it is missing"}
		}
		literal, err := p.literal(value)
		if err != nil {
			return "", &BoundError{p.Name, err.Error()}
		}
		holes = append(holes, "${"+p.Name+"}", literal)
	}
	// One pass: what a value holds is never looked at again.
	out := strings.NewReplacer(holes...).Replace(t.Condition)
	if strings.Contains(out, "${") {
		return "", errors.New("the condition has a hole without a parameter")
	}
	return out, nil
}

func clipName(s string) string {
	if len(s) > 32 {
		s = s[:32]
	}
	return fmt.Sprintf("%q", s)
}
