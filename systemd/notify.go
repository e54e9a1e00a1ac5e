// Package systemd is how the daemon lives under the service manager, through
// coreos/go-systemd: the two sockets that it inherits, readiness, the watchdog,
// the journal, credentials. The units lie beside it: sigild.service and its two
// sockets, sysusers, tmpfiles, and drop-ins for machines that need more. Outside
// of systemd every call does nothing and says so by its zero value.
//
// It refuses sockets that it doesn't know, and to be without one of the two; it
// never says that we are alive when it was told that we aren't.
package systemd

import (
	"fmt"
	"strings"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the sockets are served, sealed or not; status is for people.
func Ready(status string) error {
	return notify(daemon.SdNotifyReady + "\n" + statusLine(status))
}

// Status replaces what Ready said of the state.
func Status(status string) error { return notify(statusLine(status)) }

// statusLine is one assignment, whatever the text: a line break would begin another.
func statusLine(status string) string {
	return "STATUS=" + strings.Join(strings.FieldsFunc(status, func(r rune) bool { return r == '\n' || r == '\r' || r == 0 }), "; ")
}

// Stopping says that the end has begun.
func Stopping() error { return notify(daemon.SdNotifyStopping) }

func notify(state string) error {
	if _, err := daemon.SdNotify(false, state); err != nil {
		return fmt.Errorf("notifying systemd: %w", err)
	}
	return nil
}
