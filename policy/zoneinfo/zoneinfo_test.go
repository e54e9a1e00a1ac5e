package zoneinfo

import (
	"errors"
	"testing"
	"time"
)

func TestLoadKnowsSummerTime(t *testing.T) {
	ny, err := Load("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	for utc, want := range map[string]string{"2026-01-05T14:00:00Z": "09:00 EST", "2026-07-06T13:00:00Z": "09:00 EDT"} {
		at, err := time.Parse(time.RFC3339, utc)
		if err != nil {
			t.Fatal(err)
		}
		if got := at.In(ny).Format("15:04 MST"); got != want {
			t.Errorf("%s: got %s, want %s", utc, got, want)
		}
	}
}

func TestLoadRefusesOtherNames(t *testing.T) {
	t.Setenv("ZONEINFO", t.TempDir())
	for _, name := range []string{"", "Local", "America", "America/", "/America/New_York", "../America/New_York", "america/new_york", "EST5EDT4", "America/New_York\x00", "Nowhere/At_All"} {
		if _, err := Load(name); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: got %v, want %v", name, err, ErrUnknown)
		}
	}
}

// Every zone of the archive can be read.
func TestLoadReadsEveryZone(t *testing.T) {
	z, err := open()
	if err != nil {
		t.Fatal(err)
	}
	zones := 0
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		if _, err := Load(f.Name); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		zones++
	}
	if zones < 500 {
		t.Errorf("%d zones only", zones)
	}
}
