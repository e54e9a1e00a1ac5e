package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

// The names of the sockets, FileDescriptorName= in their units.
const (
	appName     = "app"
	adminName   = "admin"
	metricsName = "metrics" // may be missing
	peerName    = "peer"    // may be missing
)

// Sockets are those that the service manager opened for us.
type Sockets struct {
	App, Admin *net.UnixListener
	// nil when there is none
	Metrics, Peer *net.UnixListener
}

// Listeners returns the sockets that the service manager opened for us
// (sd_listen_fds(3)), or nils if it opened none. All or nothing: a name that
// is unknown, app or admin missing, a second one, or anything but a listening
// unix stream socket is an error, and then all are closed. It can be asked once:
// the environment that names them is cleared, and no child inherits them. The
// files of the sockets belong to the manager.
func Listeners() (s Sockets, err error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return s, nil
	}
	found := map[string]*net.UnixListener{}
	for _, f := range files {
		err = errors.Join(err, adopt(found, f))
	}
	for _, name := range []string{appName, adminName} {
		if found[name] == nil && err == nil {
			err = fmt.Errorf("no socket is named %q; hint: FileDescriptorName=%s in its unit", name, name)
		}
	}
	if err != nil {
		for _, l := range found {
			l.Close()
		}
		return s, fmt.Errorf("taking the sockets from systemd: %w", err)
	}
	return Sockets{App: found[appName], Admin: found[adminName], Metrics: found[metricsName], Peer: found[peerName]}, nil
}

// adopt makes a listener of f, which it closes, and files it under its name.
func adopt(found map[string]*net.UnixListener, f *os.File) error {
	defer f.Close()
	name := f.Name()
	if name != appName && name != adminName && name != metricsName && name != peerName {
		return fmt.Errorf("a socket is named %q, want %q, %q, %q or %q", name, appName, adminName, metricsName, peerName)
	}
	if found[name] != nil {
		return fmt.Errorf("two sockets are named %q", name)
	}
	l, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("socket %q: %w", name, err)
	}
	unix, ok := l.(*net.UnixListener)
	if !ok || unix.Addr().Network() != "unix" {
		l.Close()
		return fmt.Errorf("socket %q is %s, want a unix stream socket", name, l.Addr().Network())
	}
	unix.SetUnlinkOnClose(false)
	found[name] = unix
	return nil
}
