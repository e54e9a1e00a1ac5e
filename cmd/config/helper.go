package config

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sigild/sigild/runner"
)

// HelperPath is read by `sigild helper` when no --config is given.
const HelperPath = "/etc/sigild/helper.yaml"

// Helper is the configuration of the unit that runs a vendor's program;
// packaging/helper.yaml is the example, and its comments are the manual.
type Helper struct {
	// Program is the absolute path of the executable, SHA256 its bytes' hash, in hex.
	Program string `yaml:"program"`
	SHA256  string `yaml:"sha256"`
	// Files are what else it reads, path to hash.
	Files map[string]string `yaml:"files"`
	Args  []string          `yaml:"args"`
	Env   map[string]string `yaml:"env"`
	// Timeout ends a run, 1s to 2m.
	Timeout time.Duration `yaml:"timeout"`
	// Callers are the uids that may have it sign: the daemon's.
	Callers []uint32 `yaml:"callers"`
}

// LoadHelper reads and checks the file.
func LoadHelper(path string) (*runner.Program, error) {
	h := Helper{Timeout: 15 * time.Second}
	if err := loadOne(path, &h); err != nil {
		return nil, err
	}
	p, err := h.program()
	if err != nil {
		return nil, fmt.Errorf("reading config %s: %w", path, err)
	}
	return p, nil
}

// program checks what was read.
func (h Helper) program() (*runner.Program, error) {
	p := &runner.Program{Path: h.Program, Args: h.Args, Env: h.Env, Timeout: h.Timeout, Callers: h.Callers, Files: map[string][32]byte{}}
	if err := checkPath("program", h.Program); err != nil {
		return nil, err
	}
	var err error
	if p.SHA256, err = hashOf("sha256", h.SHA256); err != nil {
		return nil, err
	}
	for path, text := range h.Files {
		if err := checkPath("files", path); err != nil {
			return nil, err
		}
		if p.Files[path], err = hashOf("files", text); err != nil {
			return nil, err
		}
	}
	switch {
	case h.Timeout < time.Second || h.Timeout > 2*time.Minute:
		return nil, errors.New("timeout must be 1s to 2m")
	case len(h.Callers) == 0:
		return nil, errors.New("callers must name the daemon's uid")
	}
	return p, nil
}

var errEmpty = errors.New("the file is empty")

// decodeOne decodes the only YAML document of a file, strictly.
func decodeOne(b []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return errEmpty
		}
		return oneLine(err)
	}
	var more any
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return errors.New("more than one YAML document")
	}
	return nil
}

func hashOf(key, text string) (sum [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("%s must be SHA-256 in hex, 64 digits", key)
	}
	return [32]byte(b), nil
}
