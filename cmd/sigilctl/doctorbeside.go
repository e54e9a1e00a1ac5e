package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sigild/sigild/cmd/config"
)

// Checks of the processes beside the daemon: link, receiver, deliverer, helper. Each is
// looked at when its configuration lies where its unit looks for it.

// beside is one of them.
type beside struct{ verb, path, unit string }

var (
	linkUnit    = beside{"link", config.LinkPath, "sigild-link.service"}
	receiveUnit = beside{"receive", config.ReceivePath, "sigild-receive.service"}
	deliverUnit = beside{"deliver", config.DeliverPath, "sigild-deliver.service"}
	helperUnit  = beside{"helper", config.HelperPath, "sigild-helper.socket"}
)

func (p *patient) pathOf(b beside) string {
	path, err := filepath.Abs(filepath.Join(p.root, b.path))
	if err != nil { // nowhere to be relative to
		return b.path
	}
	return path
}

// used says whether the unit is configured at all.
func (p *patient) used(b beside) bool {
	_, err := os.Stat(p.pathOf(b))
	return !errors.Is(err, fs.ErrNotExist)
}

func notUsed(b beside) finding { return well("there is no %s: sigild %s is not used", b.path, b.verb) }

func misread(b beside, err error) finding {
	if errors.Is(err, fs.ErrPermission) {
		return unknown("%v", err)
	}
	return bad("correct it; the comments of the example say which keys and values there are", "%v", err)
}

func notRunning(b beside, why string, args ...any) finding {
	return bad("systemctl enable --now "+b.unit+", and look at its log", "%s is there, and %s", b.path, fmt.Sprintf(why, args...))
}

// runs looks for a process of that verb with this configuration, by systemd or by hand.
// The error is that /proc shows us our own processes alone.
func (p *patient) runs(b beside) (bool, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return false, err
	}
	for _, dir := range dirs {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(bytes.TrimSuffix(line, []byte{0})), "\x00")
		if len(args) < 2 || filepath.Base(args[0]) != "sigild" || args[1] != b.verb {
			continue
		}
		path := b.path
		if i := slices.Index(args, "--config"); i > 0 && i+1 < len(args) {
			path = args[i+1]
		}
		if !filepath.IsAbs(path) {
			cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
			if err != nil {
				continue
			}
			path = filepath.Join(cwd, path)
		}
		if path == p.pathOf(b) {
			return true, nil
		}
	}
	if _, err := os.Stat("/proc/1/cmdline"); err != nil {
		return false, errors.New("/proc hides the processes of others; look as root")
	}
	return false, nil
}

// answers says whether somebody listens. A wildcard address is asked on this host.
func answers(network, address string) error {
	if network == "tcp" {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			address = net.JoinHostPort("localhost", port)
		}
	}
	conn, err := net.DialTimeout(network, address, 2*time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

func checkLink(p *patient) finding {
	if !p.used(linkUnit) {
		return notUsed(linkUnit)
	}
	l, err := config.LoadLink(p.pathOf(linkUnit))
	if err != nil {
		return misread(linkUnit, err)
	}
	for _, r := range l.Accept {
		if filepath.Clean(r.To) != filepath.Clean(p.cfg.Peer.Socket.Path) {
			return bad("set peer.socket.path, enable sigild-peer.socket, restart sigild; or correct "+linkUnit.path,
				"the link hands connections to %s, and the daemon's door of peers is %q", r.To, p.cfg.Peer.Socket.Path)
		}
	}
	asked := 0
	for _, r := range slices.Concat(l.Accept, l.Connect) {
		network := "tcp"
		if filepath.IsAbs(r.Listen) {
			network = "unix"
		}
		if err := answers(network, r.Listen); errors.Is(err, fs.ErrPermission) {
			return unknown("%v", err)
		} else if err != nil {
			return notRunning(linkUnit, "nobody answers: %v", err)
		}
		asked++
	}
	return well("the link answers on %d addresses", asked)
}

// checkAppliances looks whether each pinned appliance that is called can be.
func checkAppliances(p *patient) finding {
	called := 0
	for _, a := range p.cfg.Peer.Appliances {
		if a.Socket == "" {
			continue
		}
		called++
		if err := answers("unix", a.Socket); errors.Is(err, fs.ErrPermission) {
			return unknown("%v", err)
		} else if err != nil {
			return bad("an entry of connect in "+linkUnit.path+" makes the socket; systemctl status "+linkUnit.unit,
				"appliance %s is called on %s, where nobody answers: %v", a.Name, a.Socket, err)
		}
	}
	return well("%d appliances are pinned, %d are called, and somebody answers", len(p.cfg.Peer.Appliances), called)
}

// checkSocketModes looks at every door that is there. The kernel lets in who may write.
func checkSocketModes(p *patient) finding {
	open := 0
	for _, path := range []string{p.cfg.Sockets.App.Path, p.cfg.Sockets.Admin.Path, p.cfg.Peer.Socket.Path, p.cfg.Metrics.Socket.Path, p.cfg.VendorHelper.Socket} {
		info, err := os.Stat(path)
		if path == "" || err != nil || info.Mode().Type() != fs.ModeSocket {
			continue
		}
		open++
		others := fs.FileMode(0o007)
		if path == p.cfg.VendorHelper.Socket {
			others = 0o077 // the daemon alone
		}
		if info.Mode().Perm()&others != 0 {
			return bad("set SocketMode= and SocketGroup= of its unit, or mode and group in the configuration", "%s has mode %04o: more than its users may connect", path, info.Mode().Perm())
		}
	}
	return well("%d sockets are there, each for its users alone", open)
}

// checkCourier holds the daemon's configuration against those of the two couriers.
func checkCourier(p *patient) finding {
	seen := 0
	for _, b := range []beside{receiveUnit, deliverUnit} {
		if !p.used(b) {
			continue
		}
		daemon, err := p.daemonOf(b)
		if err != nil {
			return unknown("%v", err)
		}
		if filepath.Clean(daemon) != filepath.Clean(p.cfg.Sockets.App.Path) {
			return bad("correct daemon in "+b.path, "%s calls %s, and the daemon's socket of applications is %s", b.path, daemon, p.cfg.Sockets.App.Path)
		}
		role := p.cfg.Roles.Courier
		if len(role.UIDs)+len(role.GIDs) == 0 {
			return bad("put the id of its user there (id -u sigild-"+b.verb+") and restart sigild", "%s is there, and nobody has the role courier", b.path)
		}
		name := "sigild-" + b.verb
		if u, err := user.Lookup(name); err == nil && !has(role.UIDs, u.Uid) && !has(role.GIDs, u.Gid) {
			return bad("put its id there and restart sigild", "roles.courier does not name %s, uid %s", name, u.Uid)
		}
		seen++
	}
	return well("%d of 2 couriers are configured, and may call the daemon", seen)
}

func (p *patient) daemonOf(b beside) (string, error) {
	if b == receiveUnit {
		r, err := config.ReadReceive(p.pathOf(b))
		return r.Daemon, err
	}
	d, _, err := config.LoadDeliver(p.pathOf(b))
	return d.Daemon, err
}

func has(ids []uint32, text string) bool {
	id, err := strconv.ParseUint(text, 10, 32)
	return err == nil && slices.Contains(ids, uint32(id))
}

func checkReceive(p *patient) finding {
	if !p.used(receiveUnit) {
		return notUsed(receiveUnit)
	}
	r, err := config.ReadReceive(p.pathOf(receiveUnit))
	if err != nil {
		return misread(receiveUnit, err)
	}
	if err := answers("tcp", r.Listen); err != nil {
		return notRunning(receiveUnit, "nobody answers: %v", err)
	}
	return well("the receiver answers on %s", r.Listen)
}

// soonOver is how long before its end a certificate is told of.
const soonOver = 14 * 24 * time.Hour

func checkCertificate(p *patient) finding {
	if !p.used(receiveUnit) {
		return notUsed(receiveUnit)
	}
	r, err := config.ReadReceive(p.pathOf(receiveUnit))
	if err != nil {
		return unknown("%v", err)
	}
	if r.Certificate == "" && r.Key == "" {
		return well("none: a proxy ends TLS")
	}
	const fix = "put certificate and key in place, the key with mode 0400 for the receiver's user, and restart " + "sigild-receive.service"
	info, err := os.Stat(filepath.Join(p.root, r.Key))
	if err != nil {
		return bad(fix, "%v", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return bad(fix, "%s has mode %04o: others than the receiver may read the key", r.Key, info.Mode().Perm())
	}
	if u, err := user.Lookup("sigild-receive"); err == nil && strconv.FormatUint(uint64(info.Sys().(*syscall.Stat_t).Uid), 10) != u.Uid {
		return bad(fix, "%s does not belong to the receiver's user, uid %s, which can't read it then", r.Key, u.Uid)
	}
	text, err := os.ReadFile(filepath.Join(p.root, r.Certificate))
	if err != nil {
		return bad(fix, "%v", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return bad(fix, "%s holds no certificate in PEM", r.Certificate)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return bad(fix, "%s: %v", r.Certificate, err)
	}
	now := time.Now()
	switch {
	case now.After(c.NotAfter) || now.Before(c.NotBefore):
		return bad(fix, "the certificate holds from %s to %s, and now is %s", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case now.Add(soonOver).After(c.NotAfter):
		return odd(fix, "the certificate ends at %s", c.NotAfter.Format(time.RFC3339))
	}
	return well("the certificate holds until %s", c.NotAfter.Format(time.RFC3339))
}

func checkDeliver(p *patient) finding {
	if !p.used(deliverUnit) {
		return notUsed(deliverUnit)
	}
	if _, _, err := config.LoadDeliver(p.pathOf(deliverUnit)); err != nil {
		return misread(deliverUnit, err)
	}
	running, err := p.runs(deliverUnit)
	if err != nil {
		return unknown("%v", err)
	}
	if !running {
		return notRunning(deliverUnit, "no such process runs")
	}
	return well("the deliverer runs")
}

func checkHelper(p *patient) finding {
	socket := p.cfg.VendorHelper.Socket
	switch used := p.used(helperUnit); {
	case !used && socket == "":
		return notUsed(helperUnit)
	case !used:
		return bad("copy the example and correct it, then systemctl enable --now "+helperUnit.unit, "vendor_helper.socket is %s, and there is no %s", socket, helperUnit.path)
	case socket == "":
		return bad("set it to /run/sigild-helper/helper.sock and restart sigild", "%s is there, and vendor_helper.socket is empty", helperUnit.path)
	}
	program, err := config.LoadHelper(p.pathOf(helperUnit))
	if err != nil {
		return misread(helperUnit, err)
	}
	if info, err := os.Stat(p.cfg.StateDir); err == nil && !slices.Contains(program.Callers, info.Sys().(*syscall.Stat_t).Uid) {
		return bad("put the daemon's uid under callers", "callers in %s lacks uid %d, who owns state_dir", helperUnit.path, info.Sys().(*syscall.Stat_t).Uid)
	}
	// A connection would start a process, so the socket is looked at, no more.
	switch info, err := os.Stat(socket); {
	case errors.Is(err, fs.ErrPermission):
		return unknown("%v", err)
	case err != nil:
		return notRunning(helperUnit, "its socket is not: %v", err)
	case info.Mode().Type() != fs.ModeSocket:
		return bad("move it away", "%s is no socket", socket)
	}
	return well("the helper's socket is there, for the daemon alone")
}

func checkHelperProgram(p *patient) finding {
	if !p.used(helperUnit) {
		return notUsed(helperUnit)
	}
	program, err := config.LoadHelper(p.pathOf(helperUnit))
	if err != nil {
		return unknown("%v", err)
	}
	if err := program.Check(); errors.Is(err, fs.ErrPermission) {
		return unknown("%v", err)
	} else if err != nil {
		return bad("find out who changed it; after an update of the vendor's, pin its new hash (sha256sum)", "%v", err)
	}
	return well("%s and %d files of it are the pinned ones", program.Path, len(program.Files))
}
