package main_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// verdicts runs the doctor and gives each check's verdict and evidence.
func (p place) verdicts(t testing.TB, program string, args ...string) map[string]string {
	t.Helper()
	c := command(p.dir, "sigilctl", append([]string{"--config", "sigild.yaml", "doctor", "--output", "json"}, args...)...)
	if program != "" {
		c.Path = program
	}
	out, err := c.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var r struct {
		Version, Failed int
		Checks          []struct{ ID, Verdict, Evidence, Fix string }
	}
	if err := json.Unmarshal(out, &r); err != nil || r.Version != 1 {
		t.Fatalf("the doctor says %q: %v", out, err)
	}
	all := map[string]string{}
	failed := 0
	for _, f := range r.Checks {
		all[f.ID] = f.Verdict + " " + f.Evidence
		if f.Verdict == "fail" {
			failed++
		}
		if (f.Verdict == "fail" || f.Verdict == "warn") == (f.Fix == "") || f.Evidence == "" {
			t.Errorf("%s: %+v; want evidence, and a fix where there is something to mend", f.ID, f)
		}
	}
	if failed != r.Failed || (failed > 0) != (exit != nil) {
		t.Errorf("%d checks failed, the report says %d, exit %v", failed, r.Failed, err)
	}
	return all
}

func wantVerdict(t testing.TB, all map[string]string, id, verdict string) {
	t.Helper()
	if !strings.HasPrefix(all[id], verdict+" ") {
		t.Errorf("%s: %q, want %s", id, all[id], verdict)
	}
}

// Every row of the failures in docs/operating.md names a check, every check is in
// the page, and a test sees each of them fail.
func TestDoctorKnowsEveryFailureOfTheManual(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	all := p.verdicts(t, "")
	page, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	check := false
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			check = false
			continue
		}
		row := strings.TrimSuffix(line, "|")
		last := strings.TrimSpace(row[strings.LastIndex(row, "|")+1:])
		switch {
		case last == "Check":
			check = true
		case strings.HasPrefix(line, "| It says") || strings.HasPrefix(line, "| Reason"):
			t.Errorf("a table of failures without the column Check: %s", line)
		case check && !strings.HasPrefix(line, "|---"):
			id := strings.Trim(last, "`")
			if all[id] == "" {
				t.Errorf("the row %s names no check of the doctor", line)
			}
			named[id] = true
		}
	}
	seen := map[string]bool{}
	files, err := filepath.Glob("testdata/script/doctor*.txt")
	if err != nil {
		t.Fatal(err)
	}
	expected := regexp.MustCompile(`\^?(?:fail|warn) \+([a-z.-]+)|wantVerdict\(t, .+, "([a-z.-]+)", "(?:fail|warn)"\)`)
	for _, f := range append(files, "doctor_test.go", "doctorclock_test.go") {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range expected.FindAllStringSubmatch(string(b), -1) {
			seen[m[1]+m[2]] = true
		}
	}
	for id := range all {
		if !named[id] {
			t.Errorf("check %s is in no table of docs/operating.md", id)
		}
		if !seen[id] {
			t.Errorf("no test sees check %s fail", id)
		}
	}
}

func TestDoctorFindsTokensThatDontFit(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	made, err := makeTemplate()
	if err != nil {
		t.Fatal(err)
	}
	token := made.token
	token.Env = []string{"SOFTHSM2_CONF=" + p.path("token/softhsm2.conf")}
	if _, err := token.Add(token.Label); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, p.verdicts(t, ""), "device.unique", "fail")
	if _, err := token.Add("another"); err != nil {
		t.Fatal(err)
	}
	p.edit(t, "token_label: "+token.Label, "token_label: another")
	all := p.verdicts(t, "")
	wantVerdict(t, all, "keyslot", "fail")
	wantVerdict(t, all, "store.intact", "ok")
}

func (p place) edit(t testing.TB, old, new string) {
	t.Helper()
	b, err := os.ReadFile(p.path("sigild.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(b), old) != 1 {
		t.Fatalf("%q is not once in %s", old, b)
	}
	if err := os.WriteFile(p.path("sigild.yaml"), []byte(strings.Replace(string(b), old, new, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A token that says its PIN is locked, which SoftHSM's never does: a module before it does.
func TestDoctorFindsALockedPIN(t *testing.T) {
	headers, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/miekg/pkcs11").Output()
	if err != nil {
		t.Fatal(err)
	}
	shim := filepath.Join(base, "bin", "shim.so")
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-I", strings.TrimSpace(string(headers)), "-o", shim, "../../hsm/testdata/shim.c").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	becomeScratch(t)
	p := newPlace(t)
	module, err := testhsm.Module()
	if err != nil {
		t.Fatal(err)
	}
	p.edit(t, "module: "+module, "module: "+shim)
	p.edit(t, "env: {", fmt.Sprintf("env: {SHIM_MODULE: %s, SHIM_CONTROL: %s, ", module, p.path("control")))
	if err := os.WriteFile(p.path("control"), []byte("C_Login rv A4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantVerdict(t, p.verdicts(t, ""), "device.pin-locked", "fail")
}

func TestDoctorFindsABinaryWithoutCgo(t *testing.T) {
	program := filepath.Join(base, "bin", "sigilctl-nocgo")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", program, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	becomeScratch(t)
	wantVerdict(t, newPlace(t).verdicts(t, program), "device.cgo", "fail")
}

// sealedDaemon answers as a daemon that stays sealed.
type sealedDaemon struct {
	sigilv1.UnimplementedStatusServiceServer
	why string
}

func (d sealedDaemon) GetStatus(context.Context, *sigilv1.GetStatusRequest) (*sigilv1.GetStatusResponse, error) {
	return &sigilv1.GetStatusResponse{Sealed: true, SealedReason: &d.why}, nil
}

// The emulator can't say that it is a chip, and locking it takes longer than a test
// may: what a daemon would say of such TPMs is told here.
func TestDoctorBelievesTheDaemon(t *testing.T) {
	becomeScratch(t)
	all := newPlace(t).told(t, `opening the TPM: key or device state violates the sealing policy: a TPM of "STM" may be a chip of its own, and who is on its bus would open what is sealed`)
	wantVerdict(t, all, "tpm.bus", "fail")
	wantVerdict(t, all, "sealed", "fail")
	wantVerdict(t, all, "device.policy", "unknown")
	all = newPlace(t).told(t, "the TPM is locked: sealing device has locked the PIN: TPM_RC_LOCKOUT")
	wantVerdict(t, all, "tpm.locked", "fail")
}

// told is what the doctor finds when the daemon of a TPM is sealed for a reason.
func (p place) told(t testing.TB, why string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(p.path("sigild.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(b), "provider:")
	if err := os.WriteFile(p.path("sigild.yaml"), []byte(before+"provider: {tpm: {path: /dev/tpmrm0}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", p.path("admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	sigilv1.RegisterStatusServiceServer(s, sealedDaemon{why: why})
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	all := p.verdicts(t, "")
	s.Stop()
	<-done
	return all
}

// softDevice seals and signs in software: the doctor only reads what it left.
type softDevice struct{ key *ecdsa.PrivateKey }

func (softDevice) Seal(_ context.Context, _ seal.KeyRef, plaintext, _ []byte) ([]byte, error) {
	return append([]byte("sealed:"), plaintext...), nil
}

func (softDevice) Unseal(_ context.Context, _ seal.KeyRef, blob, _ []byte, use func([]byte) error) error {
	return use(append([]byte(nil), blob[len("sealed:"):]...))
}

func (d softDevice) PublicP256(context.Context, seal.KeyRef) (*ecdsa.PublicKey, error) {
	return &d.key.PublicKey, nil
}

func (softDevice) SignP256(context.Context, seal.KeyRef, [32]byte) ([]byte, error) {
	return nil, seal.ErrUnavailable
}

// A store that an hour ago was left with an unsigned journal, an approval without an
// outcome, and callers that were turned away.
func TestDoctorReadsTheJournal(t *testing.T) {
	becomeScratch(t)
	p := newPlace(t)
	if err := os.RemoveAll(p.path("state")); err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	device := softDevice{key}
	past := func() time.Time { return time.Now().Add(-time.Hour) }
	ctx := context.Background()
	v, pin, err := vault.Create(ctx, vault.Config{Dir: p.path("state"), Now: past}, vault.KeyHolder{Sealer: device, ID: "soft:1", Ref: "1"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := pin.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	refusals := journal.NewRefusals(past)
	refusals.Refused("RATE_LIMITED", "sigild.sock", 1000)
	cfg := journal.Config{Signer: device, CheckpointKey: "2", Now: past, Refusals: refusals}
	j, err := journal.Create(ctx, v, cfg, journal.Genesis{ApplianceID: "app_test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	hash := strings.Repeat("ab", 32)
	err = v.Update(ctx, func(tx *vault.Tx) error {
		seq, err := j.Append(tx, journal.Entry{Kind: journal.KindApproved, Organization: "org", RequestID: "pay-1", RequestHash: hash, Digest: hash})
		if err != nil {
			return err
		}
		_, err = j.Append(tx, journal.Entry{Kind: journal.KindOutcomeUnknown, ApprovedSeq: seq})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(ctx); !errors.Is(err, seal.ErrUnavailable) { // tells the refusals, and can't sign
		t.Fatal(err)
	}
	if err := errors.Join(v.Close(), os.Remove(p.path("store.pin")), os.WriteFile(p.path("store.pin"), text, 0o600)); err != nil {
		t.Fatal(err)
	}
	all := p.verdicts(t, "")
	wantVerdict(t, all, "journal.signed", "fail")
	wantVerdict(t, all, "outcomes", "warn")
	wantVerdict(t, all, "load", "warn")
	wantVerdict(t, all, "journal", "ok")
	if !strings.Contains(all["outcomes"], "pay-1") {
		t.Errorf("outcomes: %s; want the request named", all["outcomes"])
	}
}
