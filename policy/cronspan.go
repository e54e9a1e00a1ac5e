package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/policy/zoneinfo"
)

// CronSpan('minute hour day-of-month month day-of-week', 'duration', 'zone') is true
// within the duration after every fire: in [fire, fire+duration), of elapsed time. It
// fires at each minute whose reading on the zone's clock matches all fields. So a
// reading that summer time skips never fires, and one that comes twice fires twice;
// the documentation of Turnkey leaves both open. Where neither day field is *, one of
// them is enough.
//
// Fields are *, numbers, ranges a-b and lists of those; no steps, names or macros.
// Durations are whole days, hours and minutes in that order, each at most once, such
// as 1d12h, more than 0 and at most 7 days.

// maxSpan is the longest duration.
const maxSpan = 7 * 24 * time.Hour

// cronSpan is one compiled call. Fields are sets of bits, by value.
type cronSpan struct {
	minutes, hours, days, months, weekdays uint64
	// eitherDay: both day fields are restricted.
	eitherDay bool
	length    time.Duration
	zone      *time.Location
}

const cronSpanForm = "write CronSpan('0 9 * * 1-5', '8h', 'America/New_York')"

// cronSpan checks a call; the node then holds what was compiled.
func (c *checker) cronSpan(n *node) *chains.Type {
	if len(n.kids) != 3 {
		return c.fail(n, CodeBadCronSpan, cronSpanForm, "CronSpan takes three strings, not %d arguments", len(n.kids))
	}
	for _, k := range n.kids {
		if k.op != opString {
			return c.fail(k, CodeBadCronSpan, cronSpanForm, "CronSpan takes three strings")
		}
	}
	// The clock is read even where the text never names it.
	i, ok := c.schema.byName["time"]
	if !ok || !slices.Contains(c.schema.roots[i].clauses, c.clause) {
		return c.fail(n, CodeWrongClause, "", "CronSpan does not belong into %s", c.clause)
	}
	c.roots[i] = true
	s := &cronSpan{}
	for i, read := range []func(string) error{s.readFields, s.readLength, s.readZone} {
		if err := read(n.kids[i].text); err != nil {
			return c.fail(n.kids[i], CodeBadCronSpan, "", "%v", err)
		}
	}
	n.span = s
	return typeBool
}

var cronFields = [...]struct {
	name        string
	least, most int
}{{"minute", 0, 59}, {"hour", 0, 23}, {"day of month", 1, 31}, {"month", 1, 12}, {"day of week", 0, 6}}

func (s *cronSpan) readFields(text string) error {
	fields := strings.Fields(text)
	if len(fields) != len(cronFields) {
		return errors.New("a schedule has five fields: minute hour day-of-month month day-of-week")
	}
	for i, into := range []*uint64{&s.minutes, &s.hours, &s.days, &s.months, &s.weekdays} {
		set, err := readCronField(fields[i], cronFields[i].least, cronFields[i].most)
		if err != nil {
			return fmt.Errorf("%s %q: %w", cronFields[i].name, fields[i], err)
		}
		*into = set
	}
	s.eitherDay = fields[2] != "*" && fields[4] != "*"
	return nil
}

// readCronField returns the values a field matches, as bits.
func readCronField(text string, least, most int) (set uint64, err error) {
	if text == "*" {
		return bits(least, most), nil
	}
	for _, part := range strings.Split(text, ",") {
		from, to, ranged := strings.Cut(part, "-")
		a, err := readCronNumber(from, least, most)
		if err != nil {
			return 0, err
		}
		b := a
		if ranged {
			if b, err = readCronNumber(to, least, most); err != nil {
				return 0, err
			}
			if b < a {
				return 0, errors.New("the range ends before it starts")
			}
		}
		set |= bits(a, b)
	}
	return set, nil
}

func readCronNumber(text string, least, most int) (int, error) {
	switch {
	case strings.Contains(text, "/"):
		return 0, errors.New("steps are not part of the language; write a list")
	case text == "" || len(text) > 2 || strings.Trim(text, "0123456789") != "":
		return 0, errors.New("want *, numbers, ranges such as 1-5, and lists of those")
	}
	n := 0
	for _, c := range text {
		n = 10*n + int(c-'0')
	}
	if n < least || n > most {
		return 0, fmt.Errorf("%d is not in %d to %d", n, least, most)
	}
	return n, nil
}

// bits has a to b set; both are in 0 to 63.
func bits(a, b int) uint64 { return ^uint64(0) >> (63 - b) &^ (1<<a - 1) }

func (s *cronSpan) readLength(text string) error {
	bad := fmt.Errorf("duration %q: want whole days, hours and minutes, such as 8h, 90m or 1d12h", text)
	units := [...]struct {
		letter byte
		length time.Duration
	}{{'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}}
	rest, next := text, 0
	for rest != "" {
		digits := 0
		for digits < len(rest) && isDigit(rest[digits]) {
			digits++
		}
		if digits == 0 || digits > 5 || digits == len(rest) {
			return bad
		}
		for next < len(units) && units[next].letter != rest[digits] {
			next++
		}
		if next == len(units) {
			return bad
		}
		n := 0
		for _, c := range rest[:digits] {
			n = 10*n + int(c-'0')
		}
		s.length += time.Duration(n) * units[next].length
		rest, next = rest[digits+1:], next+1
	}
	if text == "" {
		return bad
	}
	if s.length <= 0 || s.length > maxSpan {
		return fmt.Errorf("duration %q: want more than 0 and at most 7 days", text)
	}
	return nil
}

func (s *cronSpan) readZone(text string) (err error) {
	if s.zone, err = zoneinfo.Load(text); err != nil {
		return fmt.Errorf("time zone %q: %w; want an IANA name such as America/New_York or UTC", text, err)
	}
	return nil
}

// compileCronSpan builds the function of a checked call.
func compileCronSpan(n *node) boolFunc {
	s := n.span
	return func(f *frame) (bool, *evalError) {
		if f.req.Now.IsZero() {
			return false, n.err(evalMissing, "the time is not known")
		}
		open, steps := s.open(f.req.Now)
		return open, f.spend(n, steps)
	}
}

// open reports whether now is within the span, and how many readings of the clock
// that took.
//
// It walks back from now through the minutes at which a fire would still count,
// in leaps over days and hours that don't match. A leap stays within the period in
// which the zone has one offset, so that no minute is passed over unread.
func (s *cronSpan) open(now time.Time) (open bool, steps int) {
	// The last minute at or before now, in elapsed time: offsets of whole minutes
	// only, as all zones have had since 1972.
	at := now.In(s.zone).Truncate(time.Minute)
	for now.Sub(at) < s.length {
		steps++
		_, month, day := at.Date()
		hour, minute := at.Hour(), at.Minute()
		back := time.Minute
		switch {
		case s.months>>month&1 == 0 || !s.onDay(day, at.Weekday()):
			back = time.Duration(60*hour+minute+1) * time.Minute
		case s.hours>>hour&1 == 0:
			back = time.Duration(minute+1) * time.Minute
		case s.minutes>>minute&1 == 1:
			return true, steps
		}
		if since, _ := at.ZoneBounds(); !since.IsZero() {
			back = min(back, max(at.Sub(since), 0)+time.Minute)
		}
		at = at.Add(-back)
	}
	return false, steps
}

func (s *cronSpan) onDay(day int, weekday time.Weekday) bool {
	inMonth, inWeek := s.days>>day&1 == 1, s.weekdays>>weekday&1 == 1
	if s.eitherDay {
		return inMonth || inWeek
	}
	return inMonth && inWeek
}
