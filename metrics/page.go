// Package metrics writes what sigild counts in the text format of Prometheus
// (exposition format 0.0.4), for cmd/sigild, which serves it on a unix socket of its own
// or puts it into a file for node_exporter, and for the rooms that count.
//
// It refuses, by panicking, a name without the prefix sigild_, and a label that is not
// on its closed list: no organization, user, wallet or key is ever a label, since
// whoever may read metrics need not know tenants, and since labels without bounds fill
// memories.
package metrics

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// ContentType of what a page writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// labels are all there may be.
var labels = []string{"call", "device", "kind", "method", "reason", "socket", "version"}

var metricName = regexp.MustCompile(`^sigild_[a-z][a-z0-9_]*$`)

// Page is one scrape. The zero Page is empty. Not safe for concurrent use.
type Page struct{ families []*family }

// family is all samples of one name.
type family struct {
	name, kind, help string
	lines            bytes.Buffer
}

// Gauge adds a value that goes up and down. With are pairs of label and value; samples of
// one name must differ in them.
func (p *Page) Gauge(name, help string, value float64, with ...string) {
	p.sample(name, "gauge", help, "", value, with)
}

// Flag is a gauge of 0 or 1.
func (p *Page) Flag(name, help string, on bool, with ...string) {
	value := 0.0
	if on {
		value = 1
	}
	p.Gauge(name, help, value, with...)
}

// Counter adds a number that only grows while the process lives; name ends in _total.
func (p *Page) Counter(name, help string, value uint64, with ...string) {
	if !strings.HasSuffix(name, "_total") {
		panic("metrics: counter " + name + " does not end in _total")
	}
	p.sample(name, "counter", help, "", float64(value), with)
}

// Histogram adds how long things took, in seconds.
func (p *Page) Histogram(name, help string, h *Histogram, with ...string) {
	if !strings.HasSuffix(name, "_seconds") {
		panic("metrics: histogram " + name + " does not end in _seconds")
	}
	s := h.Snapshot()
	for i, bound := range Bounds {
		p.sample(name, "histogram", help, "_bucket", float64(s.Below[i]), append(slices.Clone(with), "le", number(bound.Seconds())))
	}
	p.sample(name, "histogram", help, "_bucket", float64(s.Count), append(slices.Clone(with), "le", "+Inf"))
	p.sample(name, "histogram", help, "_sum", s.Sum.Seconds(), with)
	p.sample(name, "histogram", help, "_count", float64(s.Count), with)
}

func (p *Page) sample(name, kind, help, suffix string, value float64, with []string) {
	f := p.family(name, kind, help)
	f.lines.WriteString(name + suffix)
	if len(with)%2 != 0 {
		panic("metrics: " + name + " has a label without a value")
	}
	for i := 0; i < len(with); i += 2 {
		if !slices.Contains(labels, with[i]) && !(with[i] == "le" && kind == "histogram") {
			panic("metrics: " + name + " has the label " + with[i] + ", which is not on the list")
		}
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		f.lines.WriteByte(sep)
		f.lines.WriteString(with[i] + `="` + escape(with[i+1]) + `"`)
	}
	if len(with) > 0 {
		f.lines.WriteByte('}')
	}
	f.lines.WriteString(" " + number(value) + "\n")
}

func (p *Page) family(name, kind, help string) *family {
	for _, f := range p.families {
		if f.name == name {
			if f.kind != kind || f.help != help {
				panic("metrics: " + name + " is two things")
			}
			return f
		}
	}
	if !metricName.MatchString(name) || help == "" {
		panic(fmt.Sprintf("metrics: %q is no name of ours, or has no help", name))
	}
	f := &family{name: name, kind: kind, help: help}
	p.families = append(p.families, f)
	return f
}

// Names are the families' names, in their order.
func (p *Page) Names() (names []string) {
	for _, f := range p.families {
		names = append(names, f.name)
	}
	return names
}

// WriteTo writes the page.
func (p *Page) WriteTo(w io.Writer) (int64, error) {
	var b bytes.Buffer
	for _, f := range p.families {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.name, escape(f.help), f.name, f.kind)
		b.Write(f.lines.Bytes())
	}
	return b.WriteTo(w)
}

var escapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func escape(s string) string { return escapes.Replace(strings.ToValidUTF8(s, "?")) }

func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.FormatInt(int64(v), 10)
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}
