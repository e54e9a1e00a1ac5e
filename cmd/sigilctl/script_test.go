package main_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	chainsolana "github.com/sigild/sigild/chains/solana"
)

// TestScripts runs testdata/script/*.txt. Beside what package testscript offers,
// the scripts use these commands:
//
//	token                     put a SoftHSM token and sigild.yaml into $WORK; token/pin has its PIN
//	appliance                 the same, initialised: state/, store.pin, and bot.json for bot;
//	                          sets ORGANIZATION, WALLET and ADDRESS
//	exits N PROGRAM ARG…      run a program, which must exit with code N
//	waitfor REGEXP PROGRAM …  run it again and again until its output matches, 20 s at most
//	sigterm NAME              send SIGTERM to a background process
//	sighup NAME               send SIGHUP to a background process
//	edit FILE OLD NEW         replace the one OLD in the file
//	flip FILE TEXT            change one bit of the byte after the last TEXT in the file
//	resize FILE N             cut or lengthen the file to N bytes
//	scribble FILE AT N        overwrite N bytes at AT with random ones
//	sql FILE STATEMENT        change the database behind sigild's back
//	checksum OUT PATH…        write name, mode and SHA-256 of every file below the paths
//	checkpoint-key OUT        ask the token itself for its checkpoint key, as PEM
//	logins N                  the token has seen N logins, right or wrong, since this was last asked
//	json FILE                 every line of the file is a JSON object
//	ended FILE                every approval in a printed journal has an end
//	listen PATH               answer on a socket, as another program would
//	hidden FILE PROGRAM       no background process of that program, nor a child of one,
//	                          has the file's line in its arguments or its environment
//	asroot N PROGRAM ARG…     exits, as root
//	tpm                       a TPM in place of a token, and sigild.yaml
//	auditor                   make the scripts' uid an auditor in sigild.yaml
//	board                     a TPM named board among the devices of sigild.yaml
//	unplug, plug              end that TPM, start it again
//	paste FILE                add the lines that FILE says to provider.tpm in sigild.yaml
//	pin-srk FILE              pin the storage root key that init printed
//	secret FILE TEXT          write a file that others can't read
//	extend N                  measure something into PCR N
//	bundled FILE…             an organization whose policies two of the public files' keys sign;
//	                          sets APPLIANCE and ORGANIZATION
//	waits ID                  the bot asks for two transfers, which wait for approvals; sets ACTIVITY
//	boot                      switch the TPM off and on: its PCRs begin again
func TestScripts(t *testing.T) {
	// The sources may lie where the scratch user can't look.
	scripts, err := os.MkdirTemp(base, "script")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(scripts, 0o755), os.CopyFS(scripts, os.DirFS(filepath.Join("testdata", "script")))); err != nil {
		t.Fatal(err)
	}
	becomeScratch(t)
	work, err := os.MkdirTemp(filepath.Join(base, "work"), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := makeTemplate(); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                scripts,
		WorkdirRoot:        work,
		RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Join(base, "bin")+":/usr/sbin:/usr/bin:/sbin:/bin")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"token":          always(0, scriptToken),
			"appliance":      always(0, scriptAppliance),
			"exits":          always(2, scriptExits),
			"waitfor":        always(2, scriptWaitFor),
			"sigterm":        always(1, scriptSigterm),
			"sighup":         always(1, scriptSighup),
			"edit":           always(3, scriptEdit),
			"flip":           always(2, scriptFlip),
			"resize":         always(2, scriptResize),
			"scribble":       always(3, scriptScribble),
			"sql":            always(2, scriptSQL),
			"checksum":       always(2, scriptChecksum),
			"checkpoint-key": always(1, scriptCheckpointKey),
			"logins":         always(1, scriptLogins),
			"json":           always(1, scriptJSON),
			"ended":          always(1, scriptEnded),
			"listen":         always(1, scriptListen),
			"hidden":         always(2, scriptHidden),
			"asroot":         always(2, scriptAsRoot),
			"tpm":            always(0, scriptTPM),
			"auditor":        always(0, scriptAuditor),
			"board":          always(0, scriptBoard),
			"unplug":         always(0, scriptUnplug),
			"plug":           always(0, scriptPlug),
			"paste":          always(1, scriptPaste),
			"pin-srk":        always(1, scriptPinSRK),
			"secret":         always(2, scriptSecret),
			"extend":         always(1, scriptExtend),
			"boot":           always(0, scriptBoot),
			"bundled":        always(2, scriptBundled),
			"waits":          always(1, scriptWaits),
			"capture":        always(2, scriptCapture),
		},
	})
}

// always is a command that can't be negated and has at least so many arguments.
func always(least int, f func(ts *testscript.TestScript, args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < least {
			ts.Fatalf("want at least %d arguments, and no !", least)
		}
		ts.Check(f(ts, args))
	}
}

func scriptToken(ts *testscript.TestScript, _ []string) error {
	return errors.Join(place{ts.MkAbs(".")}.addToken(), countLogins(ts, nil))
}

func scriptAppliance(ts *testscript.TestScript, _ []string) error {
	if err := errors.Join(place{ts.MkAbs(".")}.addAppliance(), countLogins(ts, nil)); err != nil {
		return err
	}
	b, err := readBot(ts.MkAbs("bot.json"))
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"ORGANIZATION": b.Organization, "WALLET": b.Wallet, "ADDRESS": chainsolana.Address([32]byte(b.From)), "USER_ID": b.User, "DELEGATION": b.Delegation, "RECIPIENT": b.Recipient} {
		ts.Setenv(name, value)
	}
	return nil
}

// scriptCapture keeps what a pattern's first group finds in the last standard output.
func scriptCapture(ts *testscript.TestScript, args []string) error {
	pattern, err := regexp.Compile("(?m)" + args[1])
	if err != nil {
		return err
	}
	found := pattern.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(found) < 2 {
		return fmt.Errorf("nothing matches %s", args[1])
	}
	ts.Setenv(args[0], found[1])
	return nil
}

func scriptExits(ts *testscript.TestScript, args []string) error {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%s exits with %d, want %d", args[1], got, want)
	}
	return nil
}

func scriptWaitFor(ts *testscript.TestScript, args []string) error {
	want, err := regexp.Compile(args[0])
	if err != nil {
		return err
	}
	var out []byte
	err = poll(20*time.Second, func(ctx context.Context) error {
		c := exec.CommandContext(ctx, "/usr/bin/env", args[1:]...)
		c.Dir, c.Env = ts.MkAbs("."), []string{"PATH=" + ts.Getenv("PATH")}
		var err error
		if out, err = c.CombinedOutput(); err != nil && c.ProcessState == nil {
			return err
		}
		if !want.Match(out) {
			return fmt.Errorf("%q is not in %q", args[0], out)
		}
		return nil
	})
	if _, e := ts.Stdout().Write(out); e != nil {
		return e
	}
	return err
}

func scriptSigterm(ts *testscript.TestScript, args []string) error {
	return tell(ts, args[0], syscall.SIGTERM)
}

func scriptSighup(ts *testscript.TestScript, args []string) error {
	return tell(ts, args[0], syscall.SIGHUP)
}

// tell sends a signal to the first background process of a program.
func tell(ts *testscript.TestScript, program string, signal os.Signal) error {
	c, err := background(ts, program)
	if err != nil {
		return err
	}
	return c[0].Process.Signal(signal)
}

// background finds the running background processes of a program.
func background(ts *testscript.TestScript, program string) ([]*exec.Cmd, error) {
	found := slices.DeleteFunc(ts.BackgroundCmds(), func(c *exec.Cmd) bool { return filepath.Base(c.Path) != program })
	if len(found) == 0 {
		return nil, fmt.Errorf("no %s runs in the background", program)
	}
	return found, nil
}

func scriptEdit(ts *testscript.TestScript, args []string) error {
	text := ts.ReadFile(args[0])
	if n := strings.Count(text, args[1]); n != 1 {
		return fmt.Errorf("%q is %d times in %s, want once", args[1], n, args[0])
	}
	return os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, args[1], args[2], 1)), 0o600)
}

func scriptFlip(ts *testscript.TestScript, args []string) error {
	text := []byte(ts.ReadFile(args[0]))
	at := bytes.LastIndex(text, []byte(args[1]))
	if at < 0 {
		return fmt.Errorf("%q is not in %s", args[1], args[0])
	}
	flipped := &text[at+len(args[1])]
	if *flipped ^= 1; *flipped == 'a'^1 || *flipped == 'f'^1 {
		*flipped ^= 2 // a hex digit stays one
	}
	return os.WriteFile(ts.MkAbs(args[0]), text, 0o600)
}

func scriptResize(ts *testscript.TestScript, args []string) error {
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	return os.Truncate(ts.MkAbs(args[0]), n)
}

func scriptScribble(ts *testscript.TestScript, args []string) error {
	at, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	noise := make([]byte, n)
	rand.Read(noise)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(noise, at)
	return errors.Join(err, f.Close())
}

func scriptSQL(ts *testscript.TestScript, args []string) error {
	db, err := sql.Open("sqlite", ts.MkAbs(args[0])) // the driver that vault links in
	if err != nil {
		return err
	}
	_, err = db.Exec(args[1])
	return errors.Join(err, db.Close())
}

func scriptChecksum(ts *testscript.TestScript, args []string) error {
	var out strings.Builder
	for _, root := range args[1:] {
		err := filepath.WalkDir(ts.MkAbs(root), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			fmt.Fprintf(&out, "%s %s", strings.TrimPrefix(path, ts.MkAbs(".")), info.Mode())
			if info.Mode().IsRegular() {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				fmt.Fprintf(&out, " %x", sha256.Sum256(b))
			}
			fmt.Fprintln(&out)
			return nil
		})
		if err != nil {
			return err
		}
	}
	return os.WriteFile(ts.MkAbs(args[0]), []byte(out.String()), 0o600)
}

func scriptCheckpointKey(ts *testscript.TestScript, args []string) error {
	t, err := makeTemplate()
	if err != nil {
		return err
	}
	der := ts.MkAbs(args[0]) + ".der"
	c := exec.Command("pkcs11-tool", "--module", t.token.Module, "--token-label", t.token.Label,
		"--read-object", "--type", "pubkey", "--label", "sigild-checkpoint", "--output-file", der)
	c.Env = []string{"PATH=/usr/bin:/bin", "SOFTHSM2_CONF=" + ts.MkAbs("token/softhsm2.conf")}
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("pkcs11-tool: %w\n%s", err, out)
	}
	b, err := os.ReadFile(der)
	if err != nil {
		return err
	}
	return os.WriteFile(ts.MkAbs(args[0]), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}), 0o600)
}

func scriptLogins(ts *testscript.TestScript, args []string) error {
	want, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	return countLogins(ts, &want)
}

// countLogins compares SoftHSM's count of changes to the token, which every
// login raises by one, with the count when it was last asked.
func countLogins(ts *testscript.TestScript, want *uint64) error {
	files, err := filepath.Glob(ts.MkAbs("token/tokens/*/token.object"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("looking for the token: %d files, %w", len(files), err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil || len(b) < 8 {
		return fmt.Errorf("reading the token: %d bytes, %w", len(b), err)
	}
	now, before := binary.BigEndian.Uint64(b), ts.Getenv("LOGINS")
	ts.Setenv("LOGINS", strconv.FormatUint(now, 10))
	if want == nil {
		return nil
	}
	then, err := strconv.ParseUint(before, 10, 64)
	if err == nil && now-then != *want {
		err = fmt.Errorf("the token has seen %d logins, want %d", now-then, *want)
	}
	return err
}

func scriptJSON(ts *testscript.TestScript, args []string) error {
	n := 0
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		n++
		var object map[string]any
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	if n == 0 {
		return errors.New("there is no line")
	}
	return nil
}

func scriptEnded(ts *testscript.TestScript, args []string) error {
	open := map[uint64]bool{}
	for line := range strings.Lines(ts.ReadFile(args[0])) {
		var e struct {
			Seq         uint64 `json:"seq"`
			Kind        string `json:"kind"`
			ApprovedSeq uint64 `json:"approved_seq"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			return err
		}
		if e.Kind == "approved" {
			open[e.Seq] = true
		}
		delete(open, e.ApprovedSeq)
	}
	if len(open) > 0 {
		return fmt.Errorf("approvals without an end: %v", slices.Sorted(maps.Keys(open)))
	}
	return nil
}

func scriptListen(ts *testscript.TestScript, args []string) error {
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	ts.Defer(func() { _ = l.Close() })
	return nil
}

func scriptHidden(ts *testscript.TestScript, args []string) error {
	secret := strings.TrimSpace(ts.ReadFile(args[0]))
	running, err := background(ts, args[1])
	if err != nil {
		return err
	}
	// A process that can't be dumped shows its environment to root only.
	return asRoot(func() error {
		for _, c := range running {
			pids := []string{strconv.Itoa(c.Process.Pid)}
			children, err := filepath.Glob("/proc/" + pids[0] + "/task/*/children")
			if err != nil {
				return err
			}
			for _, f := range children {
				b, err := os.ReadFile(f)
				if err != nil {
					return err
				}
				pids = append(pids, strings.Fields(string(b))...)
			}
			if len(pids) < 2 {
				return fmt.Errorf("%s has no child, no HSM worker", args[1])
			}
			for _, pid := range pids {
				for _, f := range []string{"cmdline", "environ"} {
					b, err := os.ReadFile("/proc/" + pid + "/" + f)
					if err != nil {
						return err
					}
					if len(b) == 0 {
						return fmt.Errorf("the %s of process %s is empty", f, pid)
					}
					if bytes.Contains(b, []byte(secret)) {
						return fmt.Errorf("the %s of process %s has it", f, pid)
					}
				}
			}
		}
		return nil
	})
}

func scriptAsRoot(ts *testscript.TestScript, args []string) error {
	return asRoot(func() error { return scriptExits(ts, args) })
}
