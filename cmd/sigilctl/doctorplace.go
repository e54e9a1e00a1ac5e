package main

import (
	"bufio"
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

	"golang.org/x/sys/unix"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/vault"
)

// Checks of what lies around the store: sockets, units, disk.

// sockets are both doors, with the name of their keys.
func (p *patient) sockets() []struct {
	key string
	config.Socket
} {
	return []struct {
		key string
		config.Socket
	}{{"sockets.app", p.cfg.Sockets.App}, {"sockets.admin", p.cfg.Sockets.Admin}}
}

func checkSocketKind(p *patient) finding {
	for _, s := range p.sockets() {
		info, err := os.Lstat(s.Path)
		if err == nil && info.Mode().Type() != fs.ModeSocket {
			return bad("move it away", "%s: %s exists and is not a socket", s.key, s.Path)
		}
		if info, err = os.Stat(filepath.Dir(s.Path)); err != nil || !info.IsDir() {
			return bad("make the folder; systemd's tmpfiles do where the package is installed", "%s: the folder of %s is not there", s.key, s.Path)
		}
	}
	return well("nothing lies in their place")
}

// checkSocketOwner compares who answers with who holds the store.
func checkSocketOwner(p *patient) finding {
	holder, _ := lockHolder(filepath.Join(p.cfg.StateDir, vault.LockName))
	answered := 0
	for _, s := range p.sockets() {
		pid, err := whoAnswers(s.Path)
		if err != nil {
			continue
		}
		answered++
		// systemd, which made the socket, is what the kernel names for one it handed over.
		if pid != holder && pid != 1 {
			return bad("stop one of them", "%s: process %d answers on %s, and the store is held by process %d", s.key, pid, s.Path, holder)
		}
	}
	return well("%d of 2 sockets are answered, by nobody else", answered)
}

// whoAnswers is the process that listens on a socket; 0 when the kernel can't name it.
func whoAnswers(path string) (pid int32, err error) {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Pid, nil
}

// lockHolder reads in /proc/locks which process holds a flock on the file; 0: none.
// Trying the lock itself could get into the way of a start.
func lockHolder(path string) (int32, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	inode := strconv.FormatUint(info.Sys().(*syscall.Stat_t).Ino, 10)
	f, err := os.Open("/proc/locks")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		w := strings.Fields(lines.Text())
		if len(w) < 6 || w[1] != "FLOCK" || !strings.HasSuffix(w[5], ":"+inode) {
			continue
		}
		pid, err := strconv.ParseInt(w[4], 10, 32)
		return int32(pid), err
	}
	return 0, nil
}

func checkSocketGroup(p *patient) finding {
	for _, s := range p.sockets() {
		if s.Group == "" {
			continue
		}
		if _, err := strconv.ParseUint(s.Group, 10, 32); err == nil {
			continue
		}
		if _, err := user.LookupGroup(s.Group); err != nil {
			return bad("create the group, or correct it", "%s.group: %v", s.key, err)
		}
	}
	return well("every group is known")
}

// unit collects the lines of a unit and its drop-ins, the later after the earlier.
func (p *patient) unit(name string) (lines []string, files []string) {
	dirs := []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}
	read := func(path string) bool {
		b, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		files = append(files, path)
		for line := range strings.Lines(string(b)) {
			lines = append(lines, strings.TrimSpace(line))
		}
		return true
	}
	for _, dir := range dirs {
		if read(filepath.Join(p.root, dir, name)) {
			break
		}
	}
	dropins := map[string]string{} // of one name, the first folder's counts
	for _, dir := range slices.Backward(dirs) {
		found, _ := filepath.Glob(filepath.Join(p.root, dir, name+".d", "*.conf")) // the pattern is well formed
		for _, f := range found {
			dropins[filepath.Base(f)] = f
		}
	}
	var names []string
	for n := range dropins {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		read(dropins[n])
	}
	return lines, files
}

// values are those of one key, as systemd adds them up: an empty one takes all back.
func values(lines []string, key string) (all []string) {
	for _, l := range lines {
		v, ok := strings.CutPrefix(l, key+"=")
		switch v = strings.TrimSpace(v); {
		case ok && v == "":
			all = nil
		case ok:
			all = append(all, v)
		}
	}
	return all
}

func checkUnitSockets(p *patient) finding {
	seen := 0
	for i, name := range []string{"sigild.socket", "sigild-admin.socket"} {
		lines, files := p.unit(name)
		if len(files) == 0 {
			continue
		}
		seen++
		s := p.sockets()[i]
		if listens := values(lines, "ListenStream"); !slices.Contains(listens, s.Path) {
			return bad("change ListenStream= by a drop-in of the socket, or "+s.key+".path", "%s listens on %s where the configuration says %s", name, strings.Join(listens, ", "), s.Path)
		}
	}
	return well("%d socket units, and they listen where the configuration says", seen)
}

func checkUnitUsers(p *patient) finding {
	lines, files := p.unit("sigild.service")
	v := values(lines, "PrivateUsers")
	if len(v) > 0 && !slices.Contains([]string{"no", "false", "0", "off"}, v[len(v)-1]) {
		return bad("remove it: every caller would be uid 65534, which is refused everywhere", "PrivateUsers=%s in %s", v[len(v)-1], strings.Join(files, ", "))
	}
	return well("callers keep their uids")
}

// checkGeneration looks whether the daemon would hear that this virtual machine was copied
// or goes on from a snapshot. Without our unit somebody else has thought of it.
func checkGeneration(p *patient) finding {
	lines, files := p.unit("sigild.service")
	cpu, err := os.ReadFile(filepath.Join(p.root, "/proc/cpuinfo"))
	switch {
	case p.cfg.Presignatures.Max == 0:
		return well("no presignatures are made")
	case len(files) == 0 || err != nil || !slices.Contains(strings.Fields(string(cpu)), "hypervisor"):
		return well("no virtual machine with our unit")
	case slices.Contains(values(lines, "StandardInput"), "file:/dev/kmsg"):
		return well("the daemon reads the kernel's log, which tells of a copy")
	}
	return odd("the drop-in vm-generation.conf, where snapshots hold its memory; or presignatures: {max: 0}", "this is a virtual machine, and nothing tells the daemon of copies that could use the same presignatures")
}

// checkUnitCredential looks whether a credential that the configuration names would
// get to the daemon. Only systemd can say whether it opens.
func checkUnitCredential(p *patient) finding {
	name, ok := "", false
	if c := p.cfg.Provider.PKCS11; c != nil {
		name, ok = strings.CutPrefix(c.PINFile, "credential:")
	} else if c := p.cfg.Provider.TPM; c != nil {
		name, ok = strings.CutPrefix(c.SecretFile, "credential:")
	}
	if !ok {
		return well("none is used")
	}
	const fix = "make it again, as docs/operating.md shows, and load it in a drop-in of sigild.service"
	lines, _ := p.unit("sigild.service")
	for _, key := range []string{"LoadCredentialEncrypted", "LoadCredential", "SetCredentialEncrypted"} {
		for _, v := range values(lines, key) {
			id, path, named := strings.Cut(v, ":")
			if id != name {
				continue
			}
			if key == "SetCredentialEncrypted" {
				return well("%s is in the unit", name)
			}
			if !named {
				path = "/etc/credstore.encrypted/" + name
			}
			info, err := os.Stat(filepath.Join(p.root, path))
			if err != nil {
				return bad(fix, "the unit loads credential %s: %v", name, err)
			}
			if info.Size() == 0 {
				return bad(fix, "the unit loads credential %s: %s is empty", name, path)
			}
			return well("the unit loads %s from %s; whether it opens only systemd can say", name, path)
		}
	}
	return bad(fix, "no unit loads credential %s, which the configuration names", name)
}

// leastSpace is what the store should have to grow.
const leastSpace = 64 << 20

func checkDiskSpace(p *patient) finding {
	var st unix.Statfs_t
	if err := unix.Statfs(p.cfg.StateDir, &st); err != nil {
		return unknown("looking at state_dir: %v", err)
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < leastSpace {
		return bad("make space; nothing was lost, signing goes on by itself", "%d KiB are free where the store is", free>>10)
	}
	return well("%d MiB are free where the store is", free>>20)
}

// checkDiskSync writes and fsyncs a file beside the store.
func checkDiskSync(p *patient) finding {
	f, err := os.CreateTemp(p.cfg.StateDir, "doctor-")
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) {
		return unknown("writing beside the store: %v", err)
	}
	const fix = "look at the disk (dmesg), then restart sigild; the start verifies what is there"
	if err != nil {
		return bad(fix, "writing beside the store: %v", err)
	}
	_, err = f.Write(make([]byte, 4096))
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	if errors.Is(err, unix.ENOSPC) {
		return unknown("no space to try: see disk.space")
	}
	if err != nil {
		return bad(fix, "writing beside the store: %v", err)
	}
	return well("a file beside the store was written and fsynced")
}

func checkRoles(p *patient) finding {
	r := p.cfg.Roles
	n := 0
	for _, x := range []config.Role{r.App, r.Operator, r.Auditor} {
		for _, id := range slices.Concat(x.UIDs, x.GIDs) {
			if n++; id == 65534 {
				return bad("give the caller an id of its own", "a role names 65534, which stands for every user the kernel can't name")
			}
		}
	}
	if n == 0 {
		return bad("put the ids of your callers under roles, and restart", "no uid and no gid has a role: every call is refused with CALLER_NOT_ALLOWED")
	}
	return well("%d ids have a role", n)
}

// ownedByUs says whether we run as the user that owns the state, as the device needs.
func (p *patient) ownedByUs() error {
	info, err := os.Stat(p.cfg.StateDir)
	if err != nil {
		return err
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; int(uid) != os.Geteuid() {
		return fmt.Errorf("this needs the daemon's user, uid %d", uid)
	}
	return nil
}
