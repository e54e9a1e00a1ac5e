// Package examples_test runs the clients in Python and TypeScript: the sessions of
// README.md against a real daemon, and their stamps against the vectors of credential.
package examples_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigild/sigild/credential"
)

// language is one client, built in a copy of its own.
type language struct {
	name string
	// check is the program beside the examples, sign and wallet are they themselves.
	check, sign, wallet string
}

var languages = []language{
	{"python", "python3 check.py", "python3 sign.py", "python3 wallet.py"},
	{"typescript", "node dist/check.js", "node dist/sign.js", "node dist/wallet.js"},
}

// built is a copy of the examples in which the first lines of every session of
// README.md, those that generate and build, have run.
type built struct{ dir string }

func build(t *testing.T) built {
	t.Helper()
	need(t)
	b := built{scratch(t)}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"refusal.proto", "python/*.py", "typescript/*.ts", "typescript/*.json"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("finding %s: %v", pattern, err)
		}
		for _, name := range found {
			b.write(t, "examples/"+name, read(t, name), 0o600)
		}
	}
	b.write(t, "bin/python3", []byte("#!/bin/sh\nexec '"+python()+"' \"$@\"\n"), 0o700)
	for from, to := range map[string]string{"api": "api", "examples/typescript/node_modules": "examples/typescript/node_modules"} {
		if err := os.Symlink(filepath.Join(root, from), filepath.Join(b.dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for _, l := range languages {
		wg.Go(func() {
			lines := session(t, l.name)
			if out, err := b.sh(t.Context(), nil, strings.Join(lines[:2], "\n"), nil); err != nil {
				t.Errorf("building the %s example: %v\n%s", l.name, err, out)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return b
}

func (b built) write(t *testing.T, name string, data []byte, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
}

// sh runs a script in the copy, and returns what it prints on both streams.
func (b built) sh(ctx context.Context, env []string, script string, stdin []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-euc", script)
	c.Dir = b.dir
	c.Env = append(append(os.Environ(), "PATH="+filepath.Join(b.dir, "bin")+":"+os.Getenv("PATH")), env...)
	c.Stdin = bytes.NewReader(stdin)
	c.WaitDelay = time.Second
	return c.CombinedOutput()
}

// in is sh in the directory of one language.
func (b built) in(t *testing.T, l language, env []string, command string, stdin []byte) (string, error) {
	t.Helper()
	out, err := b.sh(t.Context(), env, "cd examples/"+l.name+"; "+command, stdin)
	return strings.TrimSpace(string(out)), err
}

// session returns the lines of a language's block in README.md: where, how to
// build, and what to run.
func session(t *testing.T, name string) []string {
	t.Helper()
	_, rest, ok := strings.Cut(string(read(t, "README.md")), "\n```"+name+"-session\n")
	block, _, ended := strings.Cut(rest, "\n```\n")
	lines := strings.Split(block, "\n")
	if !ok || !ended || len(lines) != 4 || lines[0] != "cd examples/"+name {
		t.Errorf("README.md: want one session of %s with four lines, got %q", name, lines)
		return []string{"false", "false", "false", "false"}
	}
	return lines
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// python is Debian's own, which the packages belong to, unless PYTHON says otherwise.
func python() string {
	p := cmp.Or(os.Getenv("PYTHON"), "/usr/bin/python3")
	if found, err := exec.LookPath(p); err == nil {
		p = found // before our own python3 comes first in PATH
	}
	return p
}

// need stops with advice when a part is missing.
func need(t *testing.T) {
	t.Helper()
	const packages = "python3-grpcio python3-protobuf python3-cryptography protobuf-compiler libprotobuf-dev"
	for _, part := range [][]string{
		{python(), "-c", "import google.protobuf, grpc, cryptography"},
		{"protoc", "-o", os.DevNull, "google/protobuf/timestamp.proto"},
	} {
		if out, err := exec.Command(part[0], part[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s\nhint: apt-get install %s; another Python than Debian's is named by PYTHON", strings.Join(part, " "), err, out, packages)
		}
	}
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not installed\nhint: the TypeScript example needs Node 20.18 or newer with npm", tool)
		}
	}
	if err := install(); err != nil {
		t.Fatalf("npm ci: %v\nhint: it needs the package registry, once", err)
	}
}

// install puts what package-lock.json names into typescript/node_modules, once.
var install = sync.OnceValue(func() error {
	done, err := os.Stat("typescript/node_modules/.package-lock.json") // written last
	lock, lockErr := os.Stat("typescript/package-lock.json")
	if err == nil && lockErr == nil && !done.ModTime().Before(lock.ModTime()) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--no-progress")
	cmd.Dir, cmd.Stderr = "typescript", os.Stderr
	return cmd.Run()
})

func TestExamples(t *testing.T) {
	b := build(t)
	t.Run("vectors", func(t *testing.T) {
		for _, l := range languages {
			t.Run(l.name, func(t *testing.T) { vectors(t, b, l) })
		}
	})
	d := start(t)
	a := d.enroll(t)
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			story(t, b, l, d, a)
		})
	}
}

// vectors: what the client would stamp is what the vector's parts give, its stamps
// are good for credential, and the stamps of the vectors are what they say for its
// library.
func vectors(t *testing.T, b built, l language) {
	lines := read(t, "../credential/testdata/stamps.jsonl")
	out, err := b.in(t, l, nil, l.check+" vectors", lines)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	answers := strings.Split(out, "\n")
	rows := strings.Split(strings.TrimSpace(string(lines)), "\n")
	if len(answers) != len(rows) {
		t.Fatalf("%d answers to %d vectors:\n%s", len(answers), len(rows), out)
	}
	created := 0
	for i, row := range rows {
		var v struct {
			Name, Algorithm, Method, Message, Statement, Stamp, Verdict string

			ApplianceID    string `json:"appliance_id"`
			OrganizationID string `json:"organization_id"`
			IssuedAt       int64  `json:"issued_at"`
		}
		var got struct {
			Name, Statement, Stamp, Refused string
			Verifies                        *bool
		}
		if err := json.Unmarshal([]byte(row), &v); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(answers[i]), &got); err != nil {
			t.Fatalf("answer %q: %v", answers[i], err)
		}
		if got.Name != v.Name || got.Statement != v.Statement {
			t.Errorf("%s: statement %s, want %s", v.Name, got.Statement, v.Statement)
		}
		if v.Verdict != "malformed" && (got.Verifies == nil || *got.Verifies != (v.Verdict != "signature")) {
			t.Errorf("%s: its stamp is judged %v, the verdict is %s", v.Name, got.Verifies, v.Verdict)
		}
		if v.Algorithm == string(credential.Secp256k1) {
			if !strings.Contains(got.Refused, "P-256 and Ed25519") {
				t.Errorf("%s: a key that the example can't stamp with: %q %q", v.Name, got.Stamp, got.Refused)
			}
			continue
		}
		stamp, err := credential.ParseStamp([]byte(got.Stamp))
		if err != nil {
			t.Errorf("%s: %v: %q", v.Name, err, got.Refused)
			continue
		}
		message, err := hex.DecodeString(v.Message)
		if err != nil {
			t.Fatal(err)
		}
		if err := stamp.Verify(v.ApplianceID, v.Method, message); err != nil || stamp.OrganizationID != v.OrganizationID || stamp.IssuedAt.UnixMilli() != v.IssuedAt {
			t.Errorf("%s: stamped %+v: %v", v.Name, stamp, err)
		}
		if v.Name == "ed25519 in order" { // Ed25519 leaves nothing to chance
			if want, err := credential.ParseStamp([]byte(v.Stamp)); err != nil || !bytes.Equal(stamp.Signature, want.Signature) {
				t.Errorf("%s: signature %x, want %x (%v)", v.Name, stamp.Signature, want.Signature, err)
			}
		}
		created++
	}
	if created < 20 {
		t.Errorf("only %d stamps were made", created)
	}
}

// story is what an application lives through.
func story(t *testing.T, b built, l language, d *daemon, a account) {
	message := a.transfer(mostLamports)
	env := func(key, unsigned string) []string {
		return []string{
			"SIGILD_SOCKET=" + d.app, "SIGILD_API_KEY_FILE=" + a.apiKeyFile, "REQUEST=" + l.name + "-1", "WALLET=" + a.wallet,
			"CHAIN=solana", "UNSIGNED=" + unsigned, "KEY=" + key, "ORGANIZATION=" + a.organization,
		}
	}
	lines := session(t, l.name)
	var signed string
	for _, key := range a.keyFiles { // the second time it asks again under the same request id
		out, err := b.sh(t.Context(), env(key, hex.EncodeToString(message)), strings.Join(append(lines[:1:1], lines[2:]...), "\n"), nil)
		said := strings.Split(strings.TrimSpace(string(out)), "\n")
		if err != nil || len(said) != 3 {
			t.Fatalf("session with %s: %v\n%s", filepath.Base(key), err, out)
		}
		if want := a.address + " eddsa-ed25519 custody: host"; said[0] != want {
			t.Errorf("wallet: %q, want %q", said[0], want)
		}
		tx, err := hex.DecodeString(said[2])
		if err != nil || len(tx) != 65+len(message) || tx[0] != 1 || !bytes.Equal(tx[65:], message) {
			t.Fatalf("signed transaction %q: %v", said[2], err)
		}
		if !ed25519.Verify(a.publicKey, message, tx[1:65]) {
			t.Error("crypto/ed25519 refuses the signature")
		}
		if signed != "" && signed != said[2] {
			t.Errorf("asked again: %s, first %s", said[2], signed)
		}
		signed = said[2]
		t.Log(strings.Join(said, "\n"))
	}

	refused := func(what, command, unsigned, reason string) {
		t.Helper()
		out, err := b.in(t, l, env(a.keyFiles[0], unsigned), command, nil)
		if err == nil || !strings.HasPrefix(out, "refused: "+reason+" ") {
			t.Errorf("%s: %v, want %s\n%s", what, err, reason, out)
		}
		t.Logf("%s: %s", what, out)
	}
	sign := func(id, chain string) string {
		return l.sign + " " + l.name + id + ` "$WALLET" ` + chain + ` "$UNSIGNED"`
	}
	refused("one lamport too many", sign("-2", "solana"), hex.EncodeToString(a.transfer(mostLamports+1)), "POLICY_DENIED")
	refused("the same request id for another transfer", sign("-1", "solana"), hex.EncodeToString(a.transfer(1)), "REQUEST_ID_REUSED")
	refused("no transaction of any chain", sign("-3", "solana"), "80", "PAYLOAD_MALFORMED")
	refused("an EVM transaction for a Solana wallet", sign("-4", "evm"), "0x02c0", "PAYLOAD_MALFORMED")
	refused("another's wallet", l.wallet+` "$KEY" "$ORGANIZATION" "${WALLET}x"`, "", "NOT_FOUND")

	out, err := b.in(t, l, env(a.keyFiles[0], ""), l.check+` other-bytes "$KEY" "$ORGANIZATION" "$WALLET"`, nil)
	if err != nil || out != "STAMP_INVALID" {
		t.Errorf("a stamp over other bytes: %v, want STAMP_INVALID\n%s", err, out)
	}
	out, err = b.in(t, l, append(env(a.keyFiles[0], "00"), "SIGILD_SOCKET="+d.path("nobody.sock")), sign("-5", "solana"), nil)
	if err == nil || !strings.Contains(out, "refused: ") || !strings.Contains(out, "UNAVAILABLE") {
		t.Errorf("no daemon: %v, want UNAVAILABLE\n%s", err, out)
	}
}
