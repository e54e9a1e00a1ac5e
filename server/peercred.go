package server

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Caller is the process at the other end of a connection, as the kernel noted
// it when the process called connect(2) (SO_PEERCRED, unix(7)). A descriptor
// that was passed on keeps the identity of whoever connected.
type Caller struct {
	// UID and GID are the effective ids, in this process's user namespace.
	// Supplementary groups are not looked at.
	UID, GID uint32
	// PID is for journal and log only: pids are used again. 0 when the caller lives in a foreign pid namespace.
	PID int32
	// Process is for the log only: the inode of the caller's pidfd, which names
	// the process until the next boot. 0 before Linux 6.9.
	Process uint64
	// group is the number of the caller's control group, 0 when it is not known.
	group uint64
	units *units
}

// Unit is the systemd unit that the caller runs in, such as "bot.service"; "" when
// that can't be determined (unit.go).
func (c Caller) Unit() string {
	if c.units == nil {
		return ""
	}
	return c.units.name(c.group)
}

// seenUnit is Unit without waiting, for the log.
func (c Caller) seenUnit() string {
	if c.units == nil {
		return ""
	}
	return c.units.seen(c.group)
}

// nobody is the id the kernel shows for every user it can't map into our user
// namespace. It names nobody in particular, so it is never given a role.
const nobody = 65534

// readCaller asks the kernel who is at the other end.
func readCaller(conn *net.UnixConn) (Caller, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Caller{}, fmt.Errorf("reading peer credentials: %w", err)
	}
	var caller Caller
	var callErr error
	err = raw.Control(func(fd uintptr) { caller, callErr = callerOf(int(fd)) })
	if err = errors.Join(err, callErr); err != nil {
		return Caller{}, fmt.Errorf("reading peer credentials: %w", err)
	}
	return caller, nil
}

func callerOf(fd int) (Caller, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Caller{}, err
	}
	caller := Caller{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
	caller.Process, caller.group = peerProcess(fd)
	return caller, nil
}

const (
	soPeerPIDFD = 77         // SO_PEERPIDFD, asm-generic/socket.h, Linux 6.5
	pidfsMagic  = 0x50494446 // PID_FS_MAGIC, linux/magic.h, Linux 6.9
)

// peerProcess returns the inode of the caller's pidfd and the number of its control
// group, each 0 where the kernel is too old or the process is gone. The first
// decides nothing.
func peerProcess(fd int) (process, group uint64) {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, soPeerPIDFD)
	if err != nil {
		return 0, 0
	}
	defer unix.Close(pidfd)
	group = groupOf(pidfd)
	var fs unix.Statfs_t
	if err := unix.Fstatfs(pidfd, &fs); err != nil || fs.Type != pidfsMagic {
		return 0, group
	}
	var st unix.Stat_t
	if err := unix.Fstat(pidfd, &st); err != nil {
		return 0, group
	}
	return st.Ino, group
}

// peerCreds is the transport security of both sockets: there is nothing to
// encrypt between two processes of one kernel, and the kernel says who is there.
type peerCreds struct{}

// callerInfo carries the Caller of a connection to its calls.
type callerInfo struct {
	credentials.CommonAuthInfo
	caller Caller
}

func (callerInfo) AuthType() string { return "so_peercred" }

// ServerHandshake takes only connections that a limitListener accepted: those
// have a caller. Anything else, TCP above all, is refused.
func (peerCreds) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	known, ok := conn.(*callerConn)
	if !ok {
		return nil, nil, fmt.Errorf("identifying caller: %T is not a unix socket connection", conn)
	}
	return conn, callerInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, known.caller}, nil
}

// ClientHandshake refuses: these credentials are for servers.
func (peerCreds) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("identifying caller: only a server can")
}

func (peerCreds) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "so_peercred"}
}

func (p peerCreds) Clone() credentials.TransportCredentials { return p }

// OverrideServerName has nothing to override; the interface asks for it.
func (peerCreds) OverrideServerName(string) error { return nil }

func callerFrom(ctx context.Context) (Caller, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, false
	}
	info, ok := p.AuthInfo.(callerInfo)
	return info.caller, ok
}
