package packaging

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/internal/testvendor"
)

// roleVariable makes this binary another program: what runs inside the container
// or in the daemon's sandbox. Each prints one JSON value.
const roleVariable = "SIGILD_PACKAGING_ROLE"

func play(role string, args []string) int {
	var out any
	var err error
	switch role {
	case "vendor":
		return testvendor.Main(args)
	case "caller":
		out = call(args[0])
	case "hammer":
		out, err = hammer(args[0], os.Stdin)
	case "killer":
		out, err = killAndCall(args[0], args[1], args[2])
	case "prisoner":
		out = probe()
	case "poster":
		out, err = post(args[0], args[1], args[2], args[3])
	case "scraper":
		out, err = scrape(args[0])
	case "signer":
		out, err = sign(args[0], args[1], args[2], args[3])
	default:
		err = fmt.Errorf("no role %q", role)
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		return 1
	}
	return 0
}

// answer is what one call of GetStatus brought.
type answer struct {
	Version string
	Sealed  bool
	ID      string
	Reason  string // of a refusal
	Error   string
}

// call makes one call over a connection of its own.
func call(socket string) (a answer) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := client.Dial(socket)
	if err != nil {
		return answer{Error: err.Error()}
	}
	defer c.Close()
	st, err := c.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
	if err != nil {
		return answer{Reason: client.Reason(err), Error: err.Error()}
	}
	return answer{Version: st.GetVersion(), Sealed: st.GetSealed(), ID: st.GetApplianceId()}
}

// tally is what a hammer counted.
type tally struct {
	OK, Failed int
	Longest    time.Duration
	Errors     []string // the first few
}

// hammer calls again and again, each time over a new connection, until in ends.
// It says "go" when the first call was answered.
func hammer(socket string, in io.Reader) (tally, error) {
	over := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, in)
		over <- err
	}()
	var t tally
	for {
		began := time.Now()
		a := call(socket)
		t.Longest = max(t.Longest, time.Since(began))
		if a.Error == "" && !a.Sealed {
			t.OK++
		} else {
			t.Failed++
			if len(t.Errors) < 5 {
				t.Errors = append(t.Errors, fmt.Sprintf("%+v", a))
			}
		}
		if t.OK+t.Failed == 1 {
			fmt.Println("go")
		}
		select {
		case err := <-over:
			return t, err
		default:
		}
	}
}

// killAndCall sends the daemon a signal that it can't catch and calls until it answers.
func killAndCall(socket, pid, signal string) (took time.Duration, err error) {
	number, err := strconv.Atoi(pid)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := syscall.Kill(number, unix.SignalNum(signal)); err != nil {
		return 0, err
	}
	for time.Since(began) < time.Minute {
		if a := call(socket); a.Error == "" && !a.Sealed {
			return time.Since(began), nil
		}
	}
	return 0, errors.New("nobody answers")
}

// probe tries what the sandbox must not let us do, and what it must. The value
// is "ok", or the error.
func probe() map[string]string {
	found := map[string]string{}
	try := func(what string, err error) {
		var no syscall.Errno
		switch {
		case err == nil:
			found[what] = "ok"
		case errors.As(err, &no):
			found[what] = unix.ErrnoName(no)
		default:
			found[what] = err.Error()
		}
	}
	socket := func(domain, kind int) error {
		fd, err := unix.Socket(domain, kind, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	write := func(dir string) error {
		f, err := os.CreateTemp(dir, "probe")
		if err == nil {
			f.Close()
			err = os.Remove(f.Name())
		}
		return err
	}
	open := func(path string) error {
		f, err := os.Open(path)
		if err == nil {
			f.Close()
		}
		return err
	}
	memory := func(prot int) error {
		m, err := unix.Mmap(-1, 0, 4096, prot, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err == nil {
			unix.Munmap(m)
		}
		return err
	}
	protect := func() error {
		m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil // would be said elsewhere
		}
		defer unix.Munmap(m)
		return unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC)
	}

	try("unix socket", socket(unix.AF_UNIX, unix.SOCK_STREAM))
	try("inet socket", socket(unix.AF_INET, unix.SOCK_STREAM))
	try("inet6 socket", socket(unix.AF_INET6, unix.SOCK_DGRAM))
	try("netlink socket", socket(unix.AF_NETLINK, unix.SOCK_RAW))
	try("packet socket", socket(unix.AF_PACKET, unix.SOCK_RAW))
	try("vsock socket", socket(unix.AF_VSOCK, unix.SOCK_STREAM))

	try("write the state", write("/var/lib/sigild"))
	try("read the state", open("/var/lib/sigild"))
	try("write /tmp of its own", write("/tmp"))
	for _, dir := range []string{"/etc", "/etc/sigild", "/usr/bin", "/var/lib", "/run", "/run/sigild", "/dev"} {
		try("write "+dir, write(dir))
	}
	try("read the configuration", open("/etc/sigild/sigild.yaml"))
	try("read /etc/shadow", open("/etc/shadow"))
	try("read /home", open("/home/somebody"))
	try("read /root", open("/root"))
	try("read the host's /tmp", open("/tmp/of-the-host"))
	try("read /srv", open("/srv"))
	try("read /proc/1", open("/proc/1/status"))
	try("read /proc/meminfo", open("/proc/meminfo"))
	try("read /proc/self", open("/proc/self/status"))
	for _, dev := range []string{"mem", "kmsg", "rtc", "fuse", "net/tun"} {
		try("open /dev/"+dev, open("/dev/"+dev))
	}
	try("open /dev/urandom", open("/dev/urandom"))

	for _, program := range []string{"/bin/sh", "/usr/bin/id"} {
		try("run "+program, exec.Command(program).Run())
	}
	for _, dir := range []string{"/var/lib/sigild", "/tmp", "/var/tmp", "/dev/shm"} {
		try("run a program of ours in "+dir, runCopy(dir))
	}
	try("memory to write", memory(unix.PROT_READ|unix.PROT_WRITE))
	try("memory to write and run", memory(unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC))
	try("memory written, then run", protect())
	try("lock memory", func() error {
		m, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		defer unix.Munmap(m)
		return unix.Mlock(m)
	}())

	try("a user namespace", unix.Unshare(unix.CLONE_NEWUSER))
	try("a mount namespace", unix.Unshare(unix.CLONE_NEWNS))
	try("mount", unix.Mount("none", "/tmp", "tmpfs", 0, ""))
	try("ptrace", unix.PtraceAttach(1))
	try("bpf", errnoOf(unix.SYS_BPF))
	try("perf_event_open", errnoOf(unix.SYS_PERF_EVENT_OPEN))
	try("keyctl", errnoOf(unix.SYS_KEYCTL))
	try("io_uring_setup", errnoOf(unix.SYS_IO_URING_SETUP))
	try("kexec_load", errnoOf(unix.SYS_KEXEC_LOAD))
	try("setuid 0", unix.Setuid(0))
	try("set the clock", unix.Settimeofday(&unix.Timeval{Sec: 1}))
	try("set the host name", unix.Sethostname([]byte("x")))
	try("a setuid file", unix.Chmod("/var/lib/sigild/program", 0o4700))
	try("real-time scheduling", errnoOf(unix.SYS_SCHED_SETSCHEDULER))
	try("personality", errnoOf(unix.SYS_PERSONALITY, 8))

	interfaces, err := net.Interfaces() // netlink is refused, so it can't even be asked
	try("list interfaces", err)
	found["interfaces"] = fmt.Sprint(len(interfaces))
	if f, err := os.Open("/proc/self/status"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if name, value, ok := strings.Cut(s.Text(), ":\t"); ok {
				switch name {
				case "CapEff", "CapPrm", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
					found[name] = value
				}
			}
		}
	}
	var st unix.Stat_t
	if err := unix.Stat("/var/lib/sigild", &st); err == nil {
		found["mode of the state"] = fmt.Sprintf("%04o", st.Mode&0o7777)
	}
	for _, name := range []string{"GOLOG_FILE", "IPFS_LOGGING", "GODEBUG", "GOTRACEBACK"} {
		found["$"+name] = os.Getenv(name)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err == nil {
		found["core limit"] = fmt.Sprint(core.Max)
	}
	return found
}

// runCopy puts this program into dir and runs it there.
func runCopy(dir string) error {
	body, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "copy")
	if err := os.WriteFile(path, body, 0o700); err != nil {
		return err
	}
	defer os.Remove(path)
	cmd := exec.Command(path)
	cmd.Env = []string{roleVariable + "=none"}
	return cmd.Run()
}

// errnoOf makes a system call with arguments that nothing takes, to see whether
// the filter or the kernel answers.
func errnoOf(number uintptr, args ...uintptr) error {
	args = append(args, ^uintptr(0), ^uintptr(0), ^uintptr(0))
	_, _, no := unix.Syscall(number, args[0], args[1], args[2])
	if no == 0 {
		return nil
	}
	return no
}
