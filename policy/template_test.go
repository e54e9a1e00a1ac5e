package policy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func order() Template {
	return Template{Name: "swap", Condition: "eth.tx.to == ${router} && eth.tx.value <= ${amount} && eth.tx.data[0..10] == '0x38ed1739' && eth.tx.chain_id == 1",
		Parameters: []Parameter{{Name: "router", OneOf: []string{usdc, "0x9CaD63E4C09A9BD195568FC662835046C3605873"}}, {Name: "amount", Min: "1", Max: "500"}}}
}

func TestTemplateFillsWithinBounds(t *testing.T) {
	o := order()
	if err := o.Check(); err != nil {
		t.Fatal(err)
	}
	got, err := o.Fill(map[string]string{"router": usdc, "amount": "500"})
	want := "eth.tx.to == '" + usdc + "' && eth.tx.value <= 500 && eth.tx.data[0..10] == '0x38ed1739' && eth.tx.chain_id == 1"
	if err != nil || got != want {
		t.Errorf("filled %q, %v, want %q", got, err, want)
	}
	for name, values := range map[string]map[string]string{
		"too much":               {"router": usdc, "amount": "501"},
		"too little":             {"router": usdc, "amount": "0"},
		"no number":              {"router": usdc, "amount": "5 || true"},
		"a signed number":        {"router": usdc, "amount": "-5"},
		"leading zero":           {"router": usdc, "amount": "05"},
		"no amount":              {"router": usdc, "amount": ""},
		"far too much":           {"router": usdc, "amount": strings.Repeat("9", 80)},
		"another router":         {"router": "0x0000000000000000000000000000000000000001", "amount": "5"},
		"a router in lower case": {"router": strings.ToLower(usdc), "amount": "5"},
		"a quote":                {"router": usdc + "' || true || '", "amount": "5"},
		"one missing":            {"router": usdc},
		"one too many":           {"router": usdc, "amount": "5", "more": "1"},
		"none":                   nil,
	} {
		text, err := o.Fill(values)
		var bound *BoundError
		if !errors.As(err, &bound) {
			t.Errorf("%s: filled %q, %v", name, text, err)
		}
	}
}

func TestTemplatesAreRefused(t *testing.T) {
	for name, change := range map[string]func(o *Template){
		"a hole without a parameter":    func(o *Template) { o.Parameters = o.Parameters[:1] },
		"a parameter without a hole":    func(o *Template) { o.Parameters = append(o.Parameters, Parameter{Name: "x", Min: "0", Max: "1"}) },
		"one twice":                     func(o *Template) { o.Parameters = append(o.Parameters, o.Parameters[0]) },
		"no name":                       func(o *Template) { o.Parameters[0].Name = "" },
		"a name in capitals":            func(o *Template) { o.Parameters[0].Name = "Router" },
		"a long name":                   func(o *Template) { o.Parameters[0].Name = strings.Repeat("a", 33) },
		"no bound":                      func(o *Template) { o.Parameters[1] = Parameter{Name: "amount"} },
		"half a bound":                  func(o *Template) { o.Parameters[1].Min = "" },
		"both bounds":                   func(o *Template) { o.Parameters[1].OneOf = []string{"1"} },
		"min above max":                 func(o *Template) { o.Parameters[1].Min = "501" },
		"a bound that is none":          func(o *Template) { o.Parameters[1].Max = "0x1" },
		"an empty text":                 func(o *Template) { o.Parameters[0].OneOf[1] = "" },
		"a text with a quote":           func(o *Template) { o.Parameters[0].OneOf[1] = "a'b" },
		"a text with a hole":            func(o *Template) { o.Parameters[0].OneOf[1] = "${amount}" },
		"a text twice":                  func(o *Template) { o.Parameters[0].OneOf[1] = usdc },
		"a text that is no address":     func(o *Template) { o.Parameters[0].OneOf[1] = "0x12" },
		"too many texts":                func(o *Template) { o.Parameters[0].OneOf = many(maxChoices + 1) },
		"too many parameters":           func(o *Template) { o.Parameters = make([]Parameter, maxParameters+1) },
		"no grammar":                    func(o *Template) { o.Condition += " &&" },
		"a text where an amount stands": func(o *Template) { o.Condition = "eth.tx.value <= ${router} && ${amount} > 0" },
	} {
		o := order()
		change(&o)
		if err := o.Check(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func many(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf("0x%040x", i))
	}
	return out
}

// FuzzFill: whatever is filled in, the text has the template's own parts in their
// places and literals of the bounds between them.
func FuzzFill(f *testing.F) {
	f.Add("500", usdc)
	f.Add("1 || true", "' || true || '")
	f.Add("${router}", "${amount}")
	f.Fuzz(func(t *testing.T, amount, router string) {
		o := order()
		got, err := o.Fill(map[string]string{"amount": amount, "router": router})
		if err != nil {
			return
		}
		want := strings.Replace(strings.Replace(o.Condition, "${router}", "'"+router+"'", 1), "${amount}", amount, 1)
		if got != want || strings.Trim(amount, "0123456789") != "" || router != usdc && router != o.Parameters[0].OneOf[1] {
			t.Errorf("filled %q", got)
		}
		if set, ds := Compile([]Policy{{ID: "p", Effect: Allow, Condition: got, Lang: LangSigild}}, nil, nil); set == nil {
			t.Errorf("%q does not compile: %v", got, ds)
		}
	})
}
