// Command demo shows what sigild is for, in the open, on real parts: a SoftHSM
// token, the daemon as its own process, its two sockets, threshold signatures.
// It narrates each step, checks what it says, and exits 0 only if all of it held.
//
// `make demo` runs it as root for one reason: it works as two scratch users, the
// one who owns everything (54321) and a stranger (54399) who can reach the socket
// and must be refused. Nothing of it runs as root but the starting of the two.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The two scratch users. Neither has an entry in /etc/passwd.
const (
	ownerUID    = 54321
	strangerUID = 54399
)

func main() {
	bin := flag.String("bin", "bin", "directory of sigild and sigilctl")
	keep := flag.Bool("keep", false, "keep the scratch folder")
	device := flag.String("seal", "hsm", "the sealing device: hsm (SoftHSM) or tpm (swtpm)")
	flag.Parse()
	var err error
	switch flag.Arg(0) {
	case "":
		err = orchestrate(*bin, *device, *keep)
	case "play":
		err = play(context.Background(), flag.Arg(1), flag.Arg(2))
	case "stranger":
		err = stranger(flag.Arg(1))
	default:
		err = fmt.Errorf("unknown part %q", flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// orchestrate makes the scratch folder and runs the two users' parts.
func orchestrate(bin, device string, keep bool) error {
	if device != "hsm" && device != "tpm" {
		return fmt.Errorf("-seal must be hsm or tpm, not %q", device)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("run me through `make demo`: two scratch users are needed, and only root can start them")
	}
	dir, err := os.MkdirTemp("", "sigild-demo-")
	if err != nil {
		return fmt.Errorf("making the scratch folder: %w", err)
	}
	if keep {
		fmt.Println("scratch folder:", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, f := range []string{filepath.Join(bin, "sigild"), filepath.Join(bin, "sigilctl"), self} {
		if err := copyFile(f, filepath.Join(dir, filepath.Base(f)), 0o755); err != nil {
			return fmt.Errorf("copying %s: %w", f, err)
		}
	}
	if err := os.Chown(dir, ownerUID, ownerUID); err != nil {
		return err
	}
	me := filepath.Join(dir, filepath.Base(self))

	// The stranger waits on its standard input; the play tells it when to knock.
	knock := as(strangerUID, me, "stranger", filepath.Join(dir, "run", "app.sock"))
	hearR, hearW, err := os.Pipe()
	if err != nil {
		return err
	}
	sayR, sayW, err := os.Pipe()
	if err != nil {
		return err
	}
	knock.Stdin, knock.Stdout, knock.Stderr = hearR, sayW, os.Stderr
	if err := knock.Start(); err != nil {
		return fmt.Errorf("starting the stranger: %w", err)
	}
	owner := as(ownerUID, me, "play", dir, device)
	owner.Stdout, owner.Stderr = os.Stdout, os.Stderr
	owner.ExtraFiles = []*os.File{hearW, sayR} // descriptors 3 and 4
	err = owner.Run()
	for _, f := range []*os.File{hearR, hearW, sayR, sayW} {
		_ = f.Close()
	}
	if e := knock.Wait(); e != nil && err == nil {
		err = fmt.Errorf("the stranger: %w", e)
	}
	return err
}

// as runs a command under another user id, with no other groups and a bare
// environment; it ends with us. (Changing the user clears a pdeathsig set before.)
func as(uid int, name string, args ...string) *exec.Cmd {
	c := exec.Command("setpriv", append([]string{
		fmt.Sprintf("--reuid=%d", uid), fmt.Sprintf("--regid=%d", uid), "--clear-groups", "--no-new-privs", "--pdeathsig=KILL", name,
	}, args...)...)
	c.Env = []string{"PATH=/usr/bin:/bin:/usr/sbin:/sbin", "HOME=/nonexistent"}
	return c
}

// askStranger lets the other user knock and returns what it was told.
func askStranger() (string, error) {
	to, from := os.NewFile(3, "to stranger"), os.NewFile(4, "from stranger")
	if _, err := fmt.Fprintln(to, "knock"); err != nil {
		return "", fmt.Errorf("asking the stranger: %w", err)
	}
	line, err := bufio.NewReader(from).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("hearing the stranger: %w", err)
	}
	return strings.TrimSpace(line), nil
}
