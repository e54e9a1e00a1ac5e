package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// spanAt compiles a policy of one CronSpan and says whether it holds at an instant.
func spanAt(t *testing.T, schedule, length, zone string, now time.Time) bool {
	t.Helper()
	set, ds := Compile([]Policy{{ID: "p", Effect: Allow, Time: fmt.Sprintf("CronSpan('%s', '%s', '%s')", schedule, length, zone)}}, nil, nil)
	if set == nil {
		t.Fatalf("compiling: %v", ds)
	}
	d := set.Evaluate(Request{Now: now})
	switch d.Policies[0].Outcome {
	case Matched:
		return true
	case TimeInactive:
		return false
	}
	t.Fatalf("got %v (%s)", d.Policies[0].Outcome, d.Policies[0].Error)
	return false
}

// The rows with a source are stated by Turnkey's guide to time-based policies.
func TestCronSpanIsOpenFromEachFire(t *testing.T) {
	const ny = "America/New_York"
	for _, row := range []struct {
		schedule, length, zone, now string
		want                        bool
		why                         string
	}{
		{"0 9 * * 1-5", "8h", ny, "2026-01-05T14:00:00Z", true, "the fire itself: 9:00 EST"},
		{"0 9 * * 1-5", "8h", ny, "2026-01-05T13:59:59.999999999Z", false, "before it"},
		{"0 9 * * 1-5", "8h", ny, "2026-01-05T21:59:59.999999999Z", true, "just before its end"},
		{"0 9 * * 1-5", "8h", ny, "2026-01-05T22:00:00Z", false, "the end is not in it"},
		{"0 9 * * 1-5", "8h", ny, "2026-07-06T13:00:00Z", true, "9:00 EDT"},
		{"0 9 * * 1-5", "8h", ny, "2026-01-04T14:00:00Z", false, "a Sunday"},
		{"0 22 * * *", "8h", ny, "2026-01-06T10:59:00Z", true, "over midnight, until 6:00"},
		{"0 22 * * *", "8h", ny, "2026-03-08T10:59:00Z", true, "spring forward: until 7:00 EDT (guide)"},
		{"0 22 * * *", "8h", ny, "2026-03-08T11:00:00Z", false, "spring forward: not longer"},
		{"0 22 * * *", "8h", ny, "2026-11-01T09:59:00Z", true, "fall back: until 5:00 EST (guide)"},
		{"0 22 * * *", "8h", ny, "2026-11-01T10:00:00Z", false, "fall back: not longer"},
		{"30 2 * * *", "1h", ny, "2026-03-08T07:30:00Z", false, "2:30 does not exist that night"},
		{"30 2 * * *", "1h", ny, "2026-03-08T06:45:00Z", false, "nor does it fire early"},
		{"30 1 * * *", "10m", ny, "2026-11-01T05:35:00Z", true, "1:30 EDT"},
		{"30 1 * * *", "10m", ny, "2026-11-01T06:35:00Z", true, "and again 1:30 EST"},
		{"30 1 * * *", "10m", ny, "2026-11-01T06:05:00Z", false, "not between"},
		{"0 9 1 * 1", "1h", "UTC", "2026-04-01T09:30:00Z", true, "the 1st, a Wednesday: either day field (guide)"},
		{"0 9 1 * 1", "1h", "UTC", "2026-04-06T09:30:00Z", true, "a Monday, the 6th (guide)"},
		{"0 9 1 * 1", "1h", "UTC", "2026-04-07T09:30:00Z", false, "neither"},
		{"0 9 1 * *", "1h", "UTC", "2026-04-06T09:30:00Z", false, "* does not make any day match"},
		{"0 9 * * 1", "1h", "UTC", "2026-04-01T09:30:00Z", false, "* does not make any day match"},
		{"0 0 29 2 *", "7d", "UTC", "2028-03-06T23:59:00Z", true, "seven days after 29 February"},
		{"0 0 29 2 *", "7d", "UTC", "2028-03-07T00:00:00Z", false, "and not a minute more"},
		{"0 0 29 2 *", "7d", "UTC", "2027-03-01T00:00:00Z", false, "no such day that year"},
		{"0,30 8-9,17 * * *", "5m", "UTC", "2026-04-01T17:34:00Z", true, "lists and ranges"},
		{"0,30 8-9,17 * * *", "5m", "UTC", "2026-04-01T17:36:00Z", false, "lists and ranges"},
		{"* * * * *", "1m", "UTC", "2026-04-01T17:36:59Z", true, "always"},
		{"0  9 * * *", "90m", "Asia/Kathmandu", "2026-04-01T04:44:00Z", true, "an offset of 5:45"},
		{"0 0 * * *", "1d12h", "Australia/Lord_Howe", "2026-04-05T00:00:00Z", true, "half an hour of summer time"},
		{"0 9 * * *", "1h", "UTC", "1965-04-01T09:59:00Z", true, "before 1970"},
	} {
		now, err := time.Parse(time.RFC3339Nano, row.now)
		if err != nil {
			t.Fatal(err)
		}
		if got := spanAt(t, row.schedule, row.length, row.zone, now); got != row.want {
			t.Errorf("CronSpan('%s', '%s', '%s') at %s: got %v, want %v: %s", row.schedule, row.length, row.zone, row.now, got, row.want, row.why)
		}
	}
}

func TestCronSpanNeedsAClock(t *testing.T) {
	for _, effect := range []Effect{Allow, Deny} {
		set, ds := Compile([]Policy{{ID: "p", Effect: effect, Condition: "!CronSpan('* * * * *', '1h', 'UTC') || true"}}, nil, nil)
		if set == nil {
			t.Fatal(ds)
		}
		if got := set.Evaluate(Request{}); got.Policies[0].Outcome != Failed || got.Outcome == Allowed {
			t.Errorf("%v without a clock: got %v", effect, got.Outcome)
		}
	}
}

// open leaps; slowly reads every minute.
func (s *cronSpan) slowly(now time.Time) bool {
	for at := now.Truncate(time.Minute); now.Sub(at) < s.length; at = at.Add(-time.Minute) {
		local := at.In(s.zone)
		day := s.onDay(local.Day(), local.Weekday())
		if s.minutes>>local.Minute()&1 == 1 && s.hours>>local.Hour()&1 == 1 && s.months>>local.Month()&1 == 1 && day {
			return true
		}
	}
	return false
}

func TestCronSpanLeapsOverNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	field := func(least, most int) string {
		if r.IntN(3) == 0 {
			return "*"
		}
		var parts []string
		for range 1 + r.IntN(3) {
			a := least + r.IntN(most-least+1)
			if b := a + r.IntN(most-a+1); r.IntN(3) == 0 {
				parts = append(parts, fmt.Sprintf("%d-%d", a, b))
			} else {
				parts = append(parts, fmt.Sprint(a))
			}
		}
		return strings.Join(parts, ",")
	}
	zones := []string{"UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia", "Africa/Casablanca", "Antarctica/Troll", "America/Santiago"}
	open := 0
	for range 3000 {
		var s cronSpan
		text := strings.Join([]string{field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)}, " ")
		zone := zones[r.IntN(len(zones))]
		for _, err := range []error{s.readFields(text), s.readZone(zone), s.readLength(fmt.Sprintf("%dm", 1+r.IntN(3*24*60)))} {
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
		}
		now := time.Unix(1_500_000_000+r.Int64N(600_000_000), r.Int64N(1e9))
		if r.IntN(2) == 0 { // near a change of the clock
			if _, end := now.In(s.zone).ZoneBounds(); !end.IsZero() {
				now = end.Add(time.Duration(r.Int64N(int64(6 * time.Hour))))
			}
		}
		got, steps := s.open(now)
		if want := s.slowly(now); got != want {
			t.Fatalf("%q %v %s at %v: got %v, want %v", text, s.length, zone, now.UTC(), got, want)
		}
		if steps > 400 {
			t.Errorf("%q %v %s at %v: %d steps", text, s.length, zone, now.UTC(), steps)
		}
		if got {
			open++
		}
	}
	if open < 100 || open > 2900 {
		t.Errorf("%d of 3000 were open: nothing was compared", open)
	}
}
