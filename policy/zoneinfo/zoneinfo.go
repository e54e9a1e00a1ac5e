// Package zoneinfo holds the IANA time zone database that policies are read with.
// It is part of the build, so that a decision depends on no file of the host and on
// no environment variable, and two appliances of one build decide alike.
package zoneinfo

import (
	"archive/zip"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"
)

// Version of the database (https://www.iana.org/time-zones), which is in the public
// domain. The file is lib/time/zoneinfo.zip of the Go distribution that carries it.
const Version = "2025c"

//go:embed zoneinfo.zip
var archive []byte

// ErrUnknown: the database has no zone of that name.
var ErrUnknown = errors.New("unknown time zone")

// maxZone bounds one zone's data; the largest has less than 4 kB.
const maxZone = 64 << 10

var open = sync.OnceValues(func() (*zip.Reader, error) {
	return zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
})

// Load returns the zone of a name such as "America/New_York" or "UTC", spelt as in
// the database. It never returns the host's own zone. Errors: [ErrUnknown].
func Load(name string) (*time.Location, error) {
	if !fs.ValidPath(name) || strings.HasSuffix(name, "/") {
		return nil, ErrUnknown
	}
	z, err := open()
	if err != nil {
		return nil, fmt.Errorf("opening the time zones of this build: %w", err)
	}
	f, err := z.Open(name)
	if err != nil {
		return nil, ErrUnknown
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		return nil, ErrUnknown
	}
	data, err := io.ReadAll(io.LimitReader(f, maxZone))
	if err != nil {
		return nil, fmt.Errorf("reading time zone %s: %w", name, err)
	}
	loc, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		return nil, fmt.Errorf("reading time zone %s: %w", name, err)
	}
	return loc, nil
}
