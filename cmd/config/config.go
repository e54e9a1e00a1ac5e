// Package config reads /etc/sigild/sigild.yaml for both binaries. It is strict: an
// unknown key, a second document, a value out of range or a path that is not
// absolute is an error with its line, and nothing starts. packaging/sigild.yaml is
// the example, and its comments are the manual; a test holds it to this struct.
package config

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sigild/sigild/hsm"
)

// DefaultPath is read when no --config is given.
const DefaultPath = "/etc/sigild/sigild.yaml"

// Config is one whole file. Every key has a default but provider.
type Config struct {
	// StateDir holds vault.db; 0700, owned by the daemon's user.
	StateDir string `yaml:"state_dir"`
	// PinFile holds what is pinned outside the store; written by sigilctl init.
	PinFile string `yaml:"pin_file"`
	// PolicyDir holds files of rules that judge every organization; "" for none.
	PolicyDir string `yaml:"policy_dir"`
	// UnusedCredentialAlarm is after how long without use a credential is told of that has
	// no alarm of its own: 1h to 8784h; 0: never.
	UnusedCredentialAlarm time.Duration `yaml:"unused_credential_alarm"`

	Sockets  Sockets  `yaml:"sockets"`
	Peer     Peer     `yaml:"peer"`
	Roles    Roles    `yaml:"roles"`
	Provider Provider `yaml:"provider"`
	// Devices are further sealing devices, by name.
	Devices map[string]Provider `yaml:"devices"`
	// Parts says which shares need which device each time they are used.
	Parts         Parts         `yaml:"parts"`
	PreParameters PreParameters `yaml:"pre_parameters"`
	Presignatures Presignatures `yaml:"presignatures"`
	Ceremonies    Ceremonies    `yaml:"ceremonies"`
	Signing       Signing       `yaml:"signing"`
	Journal       Journal       `yaml:"journal"`
	VendorHelper  VendorHelper  `yaml:"vendor_helper"`
	Metrics       Metrics       `yaml:"metrics"`
	Log           Log           `yaml:"log"`
}

// VendorHelper is the unit that signs with what other vendors delivered.
type VendorHelper struct {
	// Socket is its; "" for none.
	Socket string `yaml:"socket"`
	// Timeout ends one signature, 1s to 2m.
	Timeout time.Duration `yaml:"timeout"`
}

// Metrics says where sigild's numbers can be read.
type Metrics struct {
	// Socket answers GET /metrics; no path, no socket.
	Socket Socket `yaml:"socket"`
	// Textfile is written anew every 15 s; "" for none.
	Textfile string `yaml:"textfile"`
}

// Sockets are the two doors.
type Sockets struct {
	App   Socket `yaml:"app"`
	Admin Socket `yaml:"admin"`
}

// Socket is one unix socket.
type Socket struct {
	Path string `yaml:"path"`
	// Mode is octal text, "0600" to "0666".
	Mode string `yaml:"mode"`
	// Group owns the socket file; empty leaves the daemon's own.
	Group string `yaml:"group"`
}

// Roles says which peers may use which methods.
type Roles struct {
	App      Role `yaml:"app"`
	Operator Role `yaml:"operator"`
	Auditor  Role `yaml:"auditor"`
	Courier  Role `yaml:"courier"`
}

// Role lists the numeric ids that have it.
type Role struct {
	UIDs []uint32 `yaml:"uids"`
	GIDs []uint32 `yaml:"gids"`
}

// Provider names a sealing device; exactly one.
type Provider struct {
	PKCS11 *PKCS11 `yaml:"pkcs11"`
	TPM    *TPM    `yaml:"tpm"`
}

// TPM is a TPM 2.0.
type TPM struct {
	// Path is the resource manager's device, or "unix:" and an emulator's socket.
	Path string `yaml:"path"`
	// SRKName pins the storage root key, 68 hex digits; sigilctl init prints it.
	SRKName string `yaml:"srk_name"`
	// SecretFile holds 32 bytes from outside the TPM: a path, or credential:NAME.
	SecretFile string `yaml:"secret_file"`
	// PINFile holds a PIN: a path, or credential:NAME.
	PINFile string `yaml:"pin_file"`
	// TrustBus says that nobody can get at the bus, so that no secret is needed.
	TrustBus       bool          `yaml:"trust_bus"`
	CommandTimeout time.Duration `yaml:"command_timeout"`
	// PCRPolicy is chosen at sigilctl init; absent means none.
	PCRPolicy *PCRPolicy `yaml:"pcr_policy"`
}

// PCRPolicy binds the store to approved boot states.
type PCRPolicy struct {
	// Approver is the public file of whoever approves: sigilctl credential create.
	Approver string `yaml:"approver"`
	// Counter revokes approvals, 68 hex digits; sigilctl pcr prepare prints it.
	Counter string `yaml:"counter"`
	// Approvals is a folder of files that end in .json.
	Approvals string `yaml:"approvals"`
}

// PKCS11 is a token behind a module.
type PKCS11 struct {
	Module      string `yaml:"module"`
	TokenLabel  string `yaml:"token_label"`
	TokenSerial string `yaml:"token_serial"`
	// URI names the token by RFC 7512, in place of label and serial.
	URI string `yaml:"uri"`
	// AllowImportedKEK takes a sealing key that may have been outside the token.
	AllowImportedKEK bool `yaml:"allow_imported_kek"`
	// PINFile is a path, or credential:NAME for a file in $CREDENTIALS_DIRECTORY.
	PINFile     string        `yaml:"pin_file"`
	CallTimeout time.Duration `yaml:"call_timeout"`
	// Env is given to the worker process, and to nothing else.
	Env map[string]string `yaml:"env"`
}

// PreParameters is the pool for ECDSA ceremonies.
type PreParameters struct {
	Target int `yaml:"target"`
}

// Presignatures bounds what is made ahead for keys that want it.
type Presignatures struct {
	// Max is how many are kept in all.
	Max int `yaml:"max"`
	// CPU is the share of one core that making them may take.
	CPU float64 `yaml:"cpu"`
}

// Ceremonies bounds keygen and issue.
type Ceremonies struct {
	Timeout time.Duration `yaml:"timeout"`
}

// Signing bounds threshold signatures.
type Signing struct {
	Timeout       time.Duration `yaml:"timeout"`
	MaxConcurrent int           `yaml:"max_concurrent"`
}

// Journal says what leaves the store, and when.
type Journal struct {
	// ArchiveDir gets segments; "" keeps none.
	ArchiveDir     string        `yaml:"archive_dir"`
	ArchiveEntries uint64        `yaml:"archive_entries"`
	ArchiveAfter   time.Duration `yaml:"archive_after"`
	// KeepFor and KeepEntries prune what is archived; 0: it stays.
	KeepFor     time.Duration `yaml:"keep_for"`
	KeepEntries uint64        `yaml:"keep_entries"`
	// LeasePart and LeaseApprovals are how far spending goes before the anchor moves.
	LeasePart      uint64 `yaml:"lease_part"`
	LeaseApprovals uint64 `yaml:"lease_approvals"`
}

// Log is how the daemon speaks on standard error.
type Log struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// Default is what an empty file but for provider means.
func Default() Config {
	return Config{
		StateDir: "/var/lib/sigild",
		PinFile:  "/etc/sigild/store.pin",
		Sockets: Sockets{
			App:   Socket{Path: "/run/sigild/sigild.sock", Mode: "0660"},
			Admin: Socket{Path: "/run/sigild/admin.sock", Mode: "0660"},
		},
		Peer:          Peer{Socket: Socket{Mode: "0660"}},
		PreParameters: PreParameters{Target: 4},
		Presignatures: Presignatures{Max: 16, CPU: 0.25},
		Ceremonies:    Ceremonies{Timeout: 5 * time.Minute},
		Signing:       Signing{Timeout: 20 * time.Second, MaxConcurrent: 8},
		Journal:       Journal{ArchiveEntries: 4096, ArchiveAfter: time.Hour, LeasePart: 8, LeaseApprovals: 1024},
		VendorHelper:  VendorHelper{Timeout: 15 * time.Second},
		Metrics:       Metrics{Socket: Socket{Mode: "0660"}},
		Log:           Log{Level: "info", Format: "text"},
	}
}

// maxFile bounds the file: a config is a page, not a data set.
const maxFile = 256 << 10

// Load reads and checks the file at path.
func Load(path string) (Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return Config{}, fmt.Errorf("opening config: %w", err)
	}
	defer f.Close()
	if err := checkOwner(f); err != nil {
		return Config{}, fmt.Errorf("reading config %s: %w", path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return Config{}, fmt.Errorf("reading config: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("reading config %s: %w", path, err)
	}
	return c, nil
}

// checkOwner refuses what is no file, or one that somebody else could have written:
// it says who may call what, and which token holds the keys.
func checkOwner(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	return trusted(info)
}

// trusted refuses what somebody else could have written. Root, whom --config sent
// there, may read anybody's: sigild itself never runs as root.
func trusted(info os.FileInfo) error {
	owner := uint32(0)
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = st.Uid
	}
	switch {
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("mode %04o lets others write it; hint: chmod go-w", info.Mode().Perm())
	case owner != 0 && os.Geteuid() != 0 && int(owner) != os.Geteuid():
		return fmt.Errorf("it belongs to uid %d; hint: it must belong to root, or to uid %d that reads it", owner, os.Geteuid())
	}
	return nil
}

// Parse decodes and checks one document.
func Parse(b []byte) (Config, error) {
	if len(b) > maxFile {
		return Config{}, fmt.Errorf("larger than %d bytes", maxFile)
	}
	c := Default()
	if err := decodeOne(b, &c); err != nil {
		if errors.Is(err, errEmpty) {
			err = fmt.Errorf("%w; provider.pkcs11 is needed", err)
		}
		return Config{}, err
	}
	if err := c.check(); err != nil {
		return Config{}, err
	}
	return c, nil
}

// goType is what the YAML library adds about us; people look for the line and the key.
var goType = regexp.MustCompile(` in type config\.\w+`)

// oneLine joins what the decoder found, each with its line number.
func oneLine(err error) error {
	var all *yaml.TypeError
	if !errors.As(err, &all) {
		return err
	}
	return errors.New(goType.ReplaceAllString(strings.Join(all.Errors, "; "), ""))
}

func (c Config) check() error {
	if (c.Provider.PKCS11 == nil) == (c.Provider.TPM == nil) {
		return errors.New("provider must name one sealing device: pkcs11 with its module and token, or tpm")
	}
	for _, path := range []struct{ key, value string }{
		{"state_dir", c.StateDir}, {"pin_file", c.PinFile},
		{"sockets.app.path", c.Sockets.App.Path}, {"sockets.admin.path", c.Sockets.Admin.Path},
	} {
		if err := checkPath(path.key, path.value); err != nil {
			return err
		}
	}
	if c.VendorHelper.Socket != "" {
		if err := checkPath("vendor_helper.socket", c.VendorHelper.Socket); err != nil {
			return err
		}
	}
	if c.VendorHelper.Timeout < time.Second || c.VendorHelper.Timeout > 2*time.Minute {
		return errors.New("vendor_helper.timeout must be 1s to 2m")
	}
	if c.PolicyDir != "" {
		if err := checkPath("policy_dir", c.PolicyDir); err != nil {
			return err
		}
	}
	if filepath.Clean(c.Sockets.App.Path) == filepath.Clean(c.Sockets.Admin.Path) {
		return errors.New("sockets.app.path and sockets.admin.path are the same")
	}
	if _, err := c.Sockets.App.FileMode(); err != nil {
		return fmt.Errorf("sockets.app.mode: %w", err)
	}
	if _, err := c.Sockets.Admin.FileMode(); err != nil {
		return fmt.Errorf("sockets.admin.mode: %w", err)
	}
	if err := c.Peer.check(); err != nil {
		return err
	}
	if err := c.Provider.check(MainDevice); err != nil {
		return err
	}
	if err := c.checkDevices(); err != nil {
		return err
	}
	if c.PreParameters.Target < 0 || c.PreParameters.Target > 64 {
		return errors.New("pre_parameters.target must be 0 to 64")
	}
	if c.Presignatures.Max < 0 || c.Presignatures.Max > 64 {
		return errors.New("presignatures.max must be 0 to 64")
	}
	if !(c.Presignatures.CPU >= 0.01 && c.Presignatures.CPU <= 1) {
		return errors.New("presignatures.cpu must be 0.01 to 1")
	}
	if a := c.UnusedCredentialAlarm; a != 0 && (a < time.Hour || a > 366*24*time.Hour) {
		return fmt.Errorf("unused_credential_alarm is %v, want 1h to 8784h, or 0s for never", a)
	}
	if c.Ceremonies.Timeout < 10*time.Second || c.Ceremonies.Timeout > time.Hour {
		return errors.New("ceremonies.timeout must be 10s to 1h")
	}
	if c.Signing.Timeout < time.Second || c.Signing.Timeout > 5*time.Minute {
		return errors.New("signing.timeout must be 1s to 5m")
	}
	if c.Signing.MaxConcurrent < 1 || c.Signing.MaxConcurrent > 256 {
		return errors.New("signing.max_concurrent must be 1 to 256")
	}
	if err := c.Journal.check(); err != nil {
		return err
	}
	if err := c.checkMetrics(); err != nil {
		return err
	}
	if _, err := c.Log.level(); err != nil {
		return err
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		return fmt.Errorf(`log.format must be "text" or "json", not %q`, c.Log.Format)
	}
	return nil
}

func (j Journal) check() error {
	if j.ArchiveDir != "" {
		if err := checkPath("journal.archive_dir", j.ArchiveDir); err != nil {
			return err
		}
	}
	if j.ArchiveEntries < 16 || j.ArchiveEntries > 1<<16 {
		return errors.New("journal.archive_entries must be 16 to 65536")
	}
	if j.ArchiveAfter < 10*time.Second || j.ArchiveAfter > 7*24*time.Hour {
		return errors.New("journal.archive_after must be 10s to 168h")
	}
	if j.KeepFor != 0 && j.KeepFor < 24*time.Hour {
		return errors.New("journal.keep_for must be 0s, or 24h and more")
	}
	if j.KeepEntries != 0 && j.KeepEntries < 1<<14 {
		return errors.New("journal.keep_entries must be 0, or 16384 and more")
	}
	if j.LeasePart < 1 || j.LeasePart > 1024 {
		return errors.New("journal.lease_part must be 1 to 1024")
	}
	if j.LeaseApprovals < 1 || j.LeaseApprovals > 1<<20 {
		return errors.New("journal.lease_approvals must be 1 to 1048576")
	}
	if j.ArchiveDir == "" && (j.KeepFor != 0 || j.KeepEntries != 0) {
		return errors.New("journal.keep_for and keep_entries need journal.archive_dir: only what is archived is pruned")
	}
	return nil
}

func checkPath(key, value string) error {
	if !filepath.IsAbs(value) || strings.ContainsRune(value, 0) {
		return fmt.Errorf("%s must be an absolute path, not %q", key, value)
	}
	return nil
}

// credentialPrefix makes pin_file the name of a systemd credential instead of a path.
const credentialPrefix = "credential:"

// credentialName is narrower than what systemd takes: it names one file.
var credentialName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`)

// check checks one device; key is where it stands, "provider" or "devices.NAME".
func (p Provider) check(key string) error {
	if (p.PKCS11 == nil) == (p.TPM == nil) {
		return fmt.Errorf("%s must name one sealing device: pkcs11 with its module and token, or tpm", key)
	}
	if p.TPM != nil {
		return p.TPM.check(key + ".tpm")
	}
	return p.PKCS11.check(key + ".pkcs11")
}

func (t TPM) check(key string) error {
	if t.Path != "" {
		if err := checkPath(key+".path", strings.TrimPrefix(t.Path, "unix:")); err != nil {
			return err
		}
	}
	if name, err := hex.DecodeString(t.SRKName); err != nil || len(name) != 0 && len(name) != 34 {
		return fmt.Errorf("%s.srk_name must have 68 hex digits, as sigilctl init printed them", key)
	}
	for _, file := range []struct{ name, value string }{{"secret_file", t.SecretFile}, {"pin_file", t.PINFile}} {
		if name, ok := strings.CutPrefix(file.value, credentialPrefix); ok {
			if !credentialName.MatchString(name) {
				return fmt.Errorf("%s.%s: %q can't be the name of a systemd credential", key, file.name, name)
			}
		} else if file.value != "" {
			if err := checkPath(key+"."+file.name, file.value); err != nil {
				return err
			}
		}
	}
	if p := t.PCRPolicy; p != nil {
		if err := checkPath(key+".pcr_policy.approver", p.Approver); err != nil {
			return err
		}
		if err := checkPath(key+".pcr_policy.approvals", p.Approvals); err != nil {
			return err
		}
		if name, err := hex.DecodeString(p.Counter); err != nil || len(name) != 34 {
			return fmt.Errorf("%s.pcr_policy.counter must have 68 hex digits, as sigilctl pcr prepare printed them", key)
		}
	}
	if t.CommandTimeout < 0 || t.CommandTimeout > time.Minute {
		return fmt.Errorf("%s.command_timeout must be at most 1m", key)
	}
	return nil
}

func (p PKCS11) check(key string) error {
	if err := checkPath(key+".module", p.Module); err != nil {
		return err
	}
	if p.URI != "" && (p.TokenLabel != "" || p.TokenSerial != "") {
		return fmt.Errorf("%s: uri and token_label or token_serial exclude each other", key)
	}
	if p.URI == "" && p.TokenLabel == "" && p.TokenSerial == "" {
		return fmt.Errorf("%s needs token_label, token_serial or uri", key)
	}
	if p.URI != "" {
		if err := hsm.CheckURI(p.URI); err != nil {
			return fmt.Errorf("%s.uri: %w", key, err)
		}
	}
	if len(p.TokenLabel) > 32 {
		return fmt.Errorf("%s.token_label must have at most 32 bytes", key)
	}
	if len(p.TokenSerial) > 16 {
		return fmt.Errorf("%s.token_serial must have at most 16 bytes", key)
	}
	if name, ok := strings.CutPrefix(p.PINFile, credentialPrefix); ok {
		if !credentialName.MatchString(name) {
			return fmt.Errorf("%s.pin_file: %q can't be the name of a systemd credential", key, name)
		}
	} else if err := checkPath(key+".pin_file", p.PINFile); err != nil {
		return err
	}
	if p.CallTimeout < 0 || p.CallTimeout > time.Minute {
		return fmt.Errorf("%s.call_timeout must be at most 1m", key)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		value := p.Env[name]
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0) {
			return fmt.Errorf("%s.env: %q can't be the name of a variable with that value", key, name)
		}
	}
	return nil
}

// FileMode reads Mode: four octal digits; read and write for the daemon's own
// user, read and write or less for group and others.
func (s Socket) FileMode() (os.FileMode, error) {
	m, err := strconv.ParseUint(s.Mode, 8, 32)
	if err != nil || len(s.Mode) != 4 || m&^0o666 != 0 || m&0o600 != 0o600 {
		return 0, fmt.Errorf(`%q is not a mode from "0600" to "0666"`, s.Mode)
	}
	return os.FileMode(m), nil
}

// levels is the closed list; slog itself would take INFO+2.
var levels = map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}

func (l Log) level() (slog.Level, error) {
	v, ok := levels[l.Level]
	if !ok {
		return 0, fmt.Errorf(`log.level must be debug, info, warn or error, not %q`, l.Level)
	}
	return v, nil
}

// Logger makes the daemon's logger.
func (l Log) Logger(w io.Writer) (*slog.Logger, error) {
	v, err := l.level()
	if err != nil {
		return nil, err
	}
	o := &slog.HandlerOptions{Level: v}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return slog.New(slog.NewTextHandler(w, o)), nil
}

// LatchFile is where a wrong PIN of the main device is remembered.
func (c Config) LatchFile() string { return c.LatchFileOf(MainDevice) }
