package server

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The systemd unit of a caller is that of its control group, which only systemd
// moves processes between. The kernel says which group it is for the very process
// that connected (PIDFD_GET_INFO, Linux 6.13): a process id could be somebody else's
// by now, and /proc shows us no other user's processes (ProtectProc=). The group's
// number is the inode of its folder, and the folder's path names the unit.
//
// What can't be determined is "", and a policy that reads it is an error: an older
// kernel, a caller that is gone, no control groups of version 2.

// walkEvery is how often the folders may be walked for a number that is not known,
// whoever asks.
const walkEvery = 100 * time.Millisecond

// units finds units by the numbers of control groups.
type units struct {
	root string // a cgroup2 file system, "" for none
	// mu guards the rest.
	mu     sync.Mutex
	paths  map[uint64]string // under root
	walked time.Time
}

func newUnits() *units {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if err := unix.Statfs(root, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
			return &units{root: root}
		}
	}
	return &units{}
}

// name returns the unit that a group belongs to, or "". It waits for at most
// [walkEvery] when the group is new.
func (u *units) name(group uint64) string { return u.find(group, true) }

// seen is name without waiting: "" also where that would be needed.
func (u *units) seen(group uint64) string { return u.find(group, false) }

func (u *units) find(group uint64, wait bool) string {
	if group == 0 || u.root == "" {
		return ""
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if path, ok := u.paths[group]; ok && inode(filepath.Join(u.root, path)) == group {
		return unitOfGroup(path)
	}
	if pause := walkEvery - time.Since(u.walked); pause > 0 {
		if !wait {
			return ""
		}
		time.Sleep(pause)
	}
	u.walk()
	return unitOfGroup(u.paths[group])
}

// walk notes the number of every group there is.
func (u *units) walk() {
	u.paths, u.walked = map[uint64]string{}, time.Now()
	_ = filepath.WalkDir(u.root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // gone meanwhile: it is not found
		}
		if n := inode(path); n != 0 {
			u.paths[n] = strings.TrimPrefix(path, u.root)
		}
		return nil
	})
}

func inode(path string) uint64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// unitOfGroup is the system unit that a group's path belongs to: its first part that
// is no slice, if that is a service or a scope. What a user's own systemd makes lies
// below user@UID.service, and is that: users name their units as they like.
func unitOfGroup(path string) string {
	for _, part := range strings.Split(strings.Trim(path, "/"), "/") {
		part = strings.TrimPrefix(part, "_") // systemd's escape for names of attributes
		switch {
		case strings.HasSuffix(part, ".slice"):
		case strings.HasSuffix(part, ".service"), strings.HasSuffix(part, ".scope"):
			return part
		default:
			return ""
		}
	}
	return ""
}

// groupOf asks for the control group of a live process, 0 when that is not known.
func groupOf(pidfd int) uint64 {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_CGROUPID}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil || info.Mask&unix.PIDFD_INFO_CGROUPID == 0 {
		return 0
	}
	return info.Cgroupid
}
