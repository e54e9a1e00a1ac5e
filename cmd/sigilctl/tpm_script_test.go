package main_test

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sigild/sigild/internal/testtpm"
)

// scriptTPMs are the TPMs of the scripts that run.
var scriptTPMs sync.Map // *testscript.TestScript to *testtpm.TPM

// scriptTPM starts a TPM and writes a configuration that leads to it; its path is
// short, since sockets' paths must be.
func scriptTPM(ts *testscript.TestScript, _ []string) error {
	p, tpm, err := addTPM(ts)
	if err != nil {
		return err
	}
	return os.WriteFile(p.path("sigild.yaml"), fmt.Appendf(nil, `state_dir: %[1]s/state
pin_file: %[1]s/store.pin
sockets:
  app: {path: %[1]s/app.sock}
  admin: {path: %[1]s/admin.sock}
roles:
  operator: {uids: [%[2]d]}
provider:
  tpm:
    path: %[3]s
    secret_file: %[1]s/tpm-secret
pre_parameters: {target: 0}
`, p.dir, os.Geteuid(), tpm.Path), 0o600)
}

// addTPM starts a TPM, and puts an outside secret for it into the place.
func addTPM(ts *testscript.TestScript) (place, *testtpm.TPM, error) {
	p := place{ts.MkAbs(".")}
	dir, err := os.MkdirTemp("/tmp", "tpm-")
	if err != nil {
		return p, nil, err
	}
	ts.Defer(func() { ts.Check(os.RemoveAll(dir)) })
	tpm, err := testtpm.Make(dir)
	if err != nil {
		return p, nil, err
	}
	ts.Defer(func() { ts.Check(tpm.Close()) })
	scriptTPMs.Store(ts, tpm)
	secret := make([]byte, 32)
	for i := range secret {
		secret[i] = byte(i + 1)
	}
	return p, tpm, os.WriteFile(p.path("tpm-secret"), secret, 0o400)
}

// scriptBoard adds a TPM named board to the devices of sigild.yaml.
func scriptBoard(ts *testscript.TestScript, _ []string) error {
	p, tpm, err := addTPM(ts)
	if err != nil {
		return err
	}
	section := fmt.Sprintf("devices:\n  board:\n    tpm:\n      path: %s\n      secret_file: %s\npre_parameters:", tpm.Path, p.path("tpm-secret"))
	return scriptEdit(ts, []string{"sigild.yaml", "pre_parameters:", section})
}

// scriptAuditor gives the scripts' uid the role auditor.
func scriptAuditor(ts *testscript.TestScript, _ []string) error {
	return scriptEdit(ts, []string{"sigild.yaml", "roles:\n", fmt.Sprintf("roles:\n  auditor: {uids: [%d]}\n", os.Geteuid())})
}

// scriptUnplug ends the TPM, scriptPlug starts it again.
func scriptUnplug(ts *testscript.TestScript, _ []string) error { return tpmOf(ts).Kill() }

func scriptPlug(ts *testscript.TestScript, _ []string) error { return tpmOf(ts).Start() }

// scriptExtend measures something into a register, as a changed boot would.
func scriptExtend(ts *testscript.TestScript, args []string) error {
	_, err := tpmOf(ts).Try("tpm2_pcrextend", fmt.Sprintf("%s:sha256=%064x", args[0], 1))
	return err
}

// scriptBoot is a power cycle of the TPM: its PCRs begin again.
func scriptBoot(ts *testscript.TestScript, _ []string) error { return tpmOf(ts).Restart() }

// scriptPaste adds the lines that a command printed to provider.tpm, the last section.
func scriptPaste(ts *testscript.TestScript, args []string) error {
	_, lines, ok := strings.Cut(ts.ReadFile(args[0]), "configuration:\n")
	if !ok {
		return fmt.Errorf("%s says nothing to add to the configuration", args[0])
	}
	lines = strings.ReplaceAll(lines, "/etc/sigild", ts.MkAbs("."))
	return scriptEdit(ts, []string{"sigild.yaml", "pre_parameters:", lines + "pre_parameters:"})
}

// scriptPinSRK adds the line that init printed for it.
func scriptPinSRK(ts *testscript.TestScript, args []string) error {
	_, name, ok := strings.Cut(ts.ReadFile(args[0]), "srk_name: ")
	if !ok {
		return fmt.Errorf("%s names no storage root key", args[0])
	}
	before, _, _ := strings.Cut(ts.ReadFile("sigild.yaml"), "tpm:\n")
	indent := before[strings.LastIndex(before, "\n")+1:]
	return scriptEdit(ts, []string{"sigild.yaml", "tpm:\n", "tpm:\n" + indent + "  srk_name: " + strings.TrimSpace(name) + "\n"})
}

// scriptSecret writes a file as a credential is.
func scriptSecret(ts *testscript.TestScript, args []string) error {
	path := ts.MkAbs(args[0])
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, []byte(args[1]+"\n"), 0o400)
}

func tpmOf(ts *testscript.TestScript) *testtpm.TPM {
	tpm, ok := scriptTPMs.Load(ts)
	if !ok {
		ts.Fatalf("there is no TPM: say tpm first")
	}
	return tpm.(*testtpm.TPM)
}
