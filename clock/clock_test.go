package clock

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// machine is a host whose clock and boots a test sets.
type machine struct {
	wall   time.Time
	boot   time.Duration
	synced bool
	id     string
}

func (m *machine) Wall() time.Time          { return m.wall }
func (m *machine) SinceBoot() time.Duration { return m.boot }
func (m *machine) Synced() bool             { return m.synced }
func (m *machine) BootID() string           { return m.id }

// pass lets time go by.
func (m *machine) pass(d time.Duration) { m.wall, m.boot = m.wall.Add(d), m.boot+d }

// step sets the wall clock.
func (m *machine) step(d time.Duration) { m.wall = m.wall.Add(d) }

// reboot is one after d without power, with a battery that kept the time.
func (m *machine) reboot(id string, d time.Duration) {
	m.wall, m.boot, m.id, m.synced = m.wall.Add(d), 20*time.Second, id, false
}

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

const year = 365 * 24 * time.Hour

// started is a clock that was confirmed at init and reached noon.
func started() (*machine, *Clock) {
	m := &machine{wall: noon, boot: time.Hour, id: "boot 1"}
	a := Init(m)
	c := New(m, &a)
	c.Reached(noon)
	return m, c
}

func (m *machine) want(t *testing.T, c *Clock, now time.Time, why string) {
	t.Helper()
	if got := c.Now(); !got.Equal(now) {
		t.Errorf("now is %v, want %v", got.UTC(), now.UTC())
	}
	err := c.Unconfirmed()
	if (err == nil) != (why == "") || err != nil && (!errors.Is(err, ErrUnconfirmed) || !strings.Contains(err.Error(), why)) {
		t.Errorf("unconfirmed: %v, want %q", err, why)
	}
}

func TestRunningClock(t *testing.T) {
	for _, row := range []struct {
		name   string
		do     func(m *machine)
		passed time.Duration // since noon, as it is gone by
		why    string
	}{
		{"time passes", func(m *machine) { m.pass(90 * 24 * time.Hour) }, 90 * 24 * time.Hour, ""},
		{"a little back", func(m *machine) { m.pass(time.Minute); m.step(-2 * time.Second) }, 58 * time.Second, ""},
		{"back", func(m *machine) { m.pass(time.Minute); m.step(-3 * time.Second) }, time.Minute, "3s behind"},
		{"a year back", func(m *machine) { m.pass(time.Minute); m.step(-year) }, time.Minute, "behind"},
		{"a little forward", func(m *machine) { m.pass(time.Minute); m.step(5 * time.Minute) }, 6 * time.Minute, ""},
		{"forward", func(m *machine) { m.pass(time.Minute); m.step(5*time.Minute + time.Second) }, time.Minute, "went forward by 5m1s"},
		{"a year forward", func(m *machine) { m.pass(time.Minute); m.step(year) }, time.Minute, "went forward"},
		{"a year forward, and NTP says so", func(m *machine) { m.pass(time.Minute); m.step(year); m.synced = true }, year + time.Minute, ""},
		{"a year back, and NTP says so", func(m *machine) { m.pass(time.Minute); m.step(-year); m.synced = true }, time.Minute, "behind"},
	} {
		m, c := started()
		row.do(m)
		t.Run(row.name, func(t *testing.T) { m.want(t, c, noon.Add(row.passed), row.why) })
	}
}

// Steps below the bound do not add up to one above it.
func TestManySmallStepsForwardAreOne(t *testing.T) {
	m, c := started()
	for range 3 {
		m.pass(time.Hour)
		m.step(2 * time.Minute)
		c.Now()
	}
	m.want(t, c, noon.Add(3*time.Hour), "went forward by 6m0s")
	m.step(-6 * time.Minute)
	m.want(t, c, noon.Add(3*time.Hour), "")
	m.step(2 * time.Minute)
	m.want(t, c, noon.Add(3*time.Hour+2*time.Minute), "")
	m.step(-2 * time.Minute) // set right again: what was gone by stays
	m.want(t, c, noon.Add(3*time.Hour+2*time.Minute), "behind")
	m.pass(2 * time.Minute)
	m.want(t, c, noon.Add(3*time.Hour+2*time.Minute), "")
}

// While it is not believed, time goes on by what has passed, and no further.
func TestTimeGoesOnByWhatPassed(t *testing.T) {
	m, c := started()
	m.step(year)
	m.want(t, c, noon, "went forward")
	m.pass(time.Hour)
	m.want(t, c, noon.Add(time.Hour), "went forward")
	m.step(-year)
	m.pass(time.Hour)
	m.want(t, c, noon.Add(2*time.Hour), "")
}

func TestRestartWithinABoot(t *testing.T) {
	m, c := started()
	kept := c.State().Anchor
	m.pass(time.Hour)
	c = New(m, &kept)
	c.Reached(noon.Add(time.Minute))
	m.want(t, c, noon.Add(time.Hour), "")
	m.step(year)
	c = New(m, &kept)
	c.Reached(noon.Add(time.Minute))
	m.want(t, c, noon.Add(time.Hour), "went forward")
}

func TestBootWithoutAuthenticatedTime(t *testing.T) {
	for _, off := range []time.Duration{0, time.Hour, year, -year} {
		m, c := started()
		kept := c.State().Anchor
		m.pass(time.Hour)
		m.reboot("boot 2", off)
		c = New(m, &kept)
		if !c.Now().Before(noon) { // before the journal was read nothing is known
			t.Errorf("%v: a time out of nothing: %v", off, c.Now())
		}
		c.Reached(noon.Add(time.Hour))
		why := "since this boot"
		if off < 0 {
			why = "behind"
		}
		m.want(t, c, noon.Add(time.Hour), why)
		m.pass(10 * time.Minute)
		m.want(t, c, noon.Add(time.Hour+10*time.Minute), why)

		// NTP, or the operators, look at the clock.
		m.wall = noon.Add(3 * time.Hour)
		m.synced = true
		m.want(t, c, noon.Add(3*time.Hour), "")
		m.synced = false
		m.pass(time.Minute)
		m.want(t, c, noon.Add(3*time.Hour+time.Minute), "")
		if a := c.State().Anchor; a.By != "ntp" || a.BootID != "boot 2" {
			t.Errorf("anchor %+v", a)
		}
	}
}

func TestOperatorsConfirm(t *testing.T) {
	m, _ := started()
	m.reboot("boot 2", year)
	c := New(m, nil)
	c.Reached(noon)
	for name, try := range map[string]struct {
		stated time.Time
		boot   string
	}{
		"another time": {m.wall.Add(-3 * time.Minute), "boot 2"},
		"another boot": {m.wall, "boot 1"},
	} {
		if _, err := c.Confirmed(try.stated, try.boot); err == nil {
			t.Errorf("%s: confirmed", name)
		}
	}
	m.want(t, c, noon, "since this boot")
	a, err := c.Confirmed(m.wall.Add(-time.Minute), "boot 2")
	if err != nil {
		t.Fatal(err)
	}
	m.want(t, c, noon, "since this boot") // not before it is on disk
	m.pass(time.Second)
	c.Confirm(a)
	m.want(t, c, noon.Add(year+time.Second), "")
	m.wall = noon
	if _, err := c.Confirmed(m.wall, "boot 2"); err == nil {
		t.Error("a time before what the journal has seen was confirmed")
	}
}

// Without a name for the boot every start is one after a boot.
func TestUnknownBoot(t *testing.T) {
	m := &machine{wall: noon, boot: time.Hour}
	a := Init(m)
	c := New(m, &a)
	c.Reached(noon)
	m.want(t, c, noon, "since this boot")
}

func TestThisHost(t *testing.T) {
	var h Host
	a, b := h.SinceBoot(), h.SinceBoot()
	if a <= 0 || b < a {
		t.Errorf("since boot %v, then %v", a, b)
	}
	if id := h.BootID(); len(id) != 32 {
		t.Errorf("boot id %q", id)
	}
	if h.Wall().Year() < 2026 {
		t.Errorf("wall clock %v", h.Wall())
	}
	h.Synced()
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"v":1,"boot_id":"x","wall_ms":1,"since_boot_ms":2,"by":"ntp"}`))
	f.Add([]byte(`{"v":2}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := decode(b); err == nil && (a.V != anchorVersion || a.WallMS < 0) {
			t.Errorf("%s: read as %+v", b, a)
		}
	})
}
