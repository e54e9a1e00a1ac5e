//go:build cgo

package hsm

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/internal/testhsm"
	"github.com/sigild/sigild/seal"
)

// wantOpenError opens and wants a sentinel and words.
func wantOpenError(t *testing.T, cfg Config, sentinel error, words ...string) {
	t.Helper()
	p, err := Open(t.Context(), cfg)
	if err == nil {
		p.Close()
	}
	if !errors.Is(err, sentinel) {
		t.Errorf("opening: %v, want %v", err, sentinel)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("opening: %v, want it to say %q", err, w)
		}
	}
}

func TestTokenSelection(t *testing.T) {
	tok := testhsm.New(t)
	cfg := config(tok)

	missing := cfg
	missing.TokenLabel, missing.TokenSerial = "no-such-token", ""
	wantOpenError(t, missing, seal.ErrNotFound, "no-such-token", "hint: there are", tok.Label)
	missing = cfg
	missing.TokenSerial = "0000000000000000"
	wantOpenError(t, missing, seal.ErrNotFound, tok.Serial)

	for name, c := range map[string]func(*Config){
		"label alone":  func(c *Config) { c.TokenSerial = "" },
		"serial alone": func(c *Config) { c.TokenLabel = "" },
		"both":         func(*Config) {},
	} {
		cfg := cfg
		c(&cfg)
		p := mustOpen(t, cfg)
		if want := "pkcs11:" + tok.Serial; p.ID() != want {
			t.Errorf("%s: ID is %q, want %q", name, p.ID(), want)
		}
		p.Close()
	}

	second, err := tok.Add(tok.Label)
	if err != nil {
		t.Fatal(err)
	}
	twice := cfg
	twice.TokenSerial = ""
	wantOpenError(t, twice, seal.ErrAmbiguous, "2 match", tok.Serial, second, "hint: set the token's serial")
	byURI := cfg
	byURI.TokenLabel, byURI.TokenSerial = "", ""
	byURI.URI = "pkcs11:token=" + tok.Label
	wantOpenError(t, byURI, seal.ErrAmbiguous, "2 match", tok.Serial, second)
	byURI.URI += ";manufacturer=SoftHSM%20project;serial=" + second
	p := mustOpen(t, byURI)
	if p.ID() != "pkcs11:"+second {
		t.Errorf("ID is %q, want the token that the URI names", p.ID())
	}
	if _, err := p.GenerateRSA(t.Context(), 2048); err != nil { // in a worker of its own
		t.Errorf("making an RSA key: %v", err)
	}
	byURI.URI = "pkcs11:token=" + tok.Label + ";manufacturer=Acme"
	wantOpenError(t, byURI, seal.ErrNotFound, "manufacturer \"Acme\"", "hint: there are")
	twice.TokenSerial = second
	if p := mustOpen(t, twice); p.ID() != "pkcs11:"+second {
		t.Errorf("ID is %q, want the second token's", p.ID())
	}
}

func TestModuleWithoutTokens(t *testing.T) {
	cfg := config(testhsm.New(t))
	cfg.EnvAllow = []string{"SOFTHSM2_CONF=/nonexistent/softhsm2.conf"}
	p, err := Open(t.Context(), cfg)
	if err == nil {
		p.Close()
		t.Fatal("opened a token without SoftHSM's configuration")
	}
	if !errors.Is(err, seal.ErrNotFound) && !errors.Is(err, seal.ErrUnavailable) {
		t.Errorf("opening: %v, want ErrNotFound or ErrUnavailable", err)
	}
}

func TestSerialIsPinnedOverRespawns(t *testing.T) {
	tok := testhsm.New(t)
	cfg := config(tok)
	cfg.TokenSerial = ""
	p := mustOpen(t, cfg)
	second, err := tok.Add(tok.Label) // now the label alone is ambiguous
	if err != nil {
		t.Fatal(err)
	}
	p.sup.current.Load().kill()
	info, err := p.Info(t.Context())
	if err != nil || info.Serial != tok.Serial {
		t.Errorf("Info after a respawn: %+v, %v; want token %s, not %s", info, err, tok.Serial, second)
	}
}

func TestModuleRefused(t *testing.T) {
	tok := testhsm.New(t)
	dir := t.TempDir()
	file := func(name string, b []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	source := file("empty.c", []byte("int nothing;\n"), 0o600)
	plain, needed, needs := filepath.Join(dir, "plain.so"), filepath.Join(dir, "libneeded.so"), filepath.Join(dir, "needs.so")
	cc(t, plain, source)
	cc(t, needed, source)
	cc(t, needs, source, "-Wl,--no-as-needed", needed)
	if err := os.Remove(needed); err != nil {
		t.Fatal(err)
	}
	real, err := os.ReadFile(tok.Module)
	if err != nil {
		t.Fatal(err)
	}
	// The header of a 32-bit shared object for the 386, and nothing else.
	small := make([]byte, 52)
	copy(small, "\x7fELF\x01\x01\x01")
	binary.LittleEndian.PutUint16(small[16:], 3)  // ET_DYN
	binary.LittleEndian.PutUint16(small[18:], 3)  // EM_386
	binary.LittleEndian.PutUint32(small[20:], 1)  // EV_CURRENT
	binary.LittleEndian.PutUint16(small[40:], 52) // header size

	for _, tt := range []struct {
		name, module string
		want         error
		words        string
	}{
		{"missing", filepath.Join(dir, "missing.so"), seal.ErrUnavailable, "does not exist: sealing device unavailable; hint"},
		{"a directory", dir, seal.ErrPolicy, "not a regular file"},
		{"text", file("text.so", []byte("#!/bin/sh\n"), 0o755), seal.ErrUnavailable, "not an ELF shared object"},
		{"32 bits", file("small.so", small, 0o755), seal.ErrUnavailable, "wrong ELF class"},
		{"cut", file("cut.so", real[:len(real)/2], 0o755), seal.ErrUnavailable, "loading module"},
		{"writable by others", file("open.so", real, 0o777), seal.ErrPolicy, "lets others write"},
		{"no PKCS#11 module", plain, seal.ErrUnavailable, "C_GetFunctionList"},
		{"a library is missing", needs, seal.ErrUnavailable, "libneeded.so"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(tok)
			cfg.Module = tt.module
			wantOpenError(t, cfg, tt.want, tt.words)
		})
	}
}

func TestConfigRefused(t *testing.T) {
	good := Config{Module: "/m.so", TokenLabel: "l", PINFile: "/p", LatchFile: "/l"}
	if _, err := good.complete(); err != nil {
		t.Fatal(err)
	}
	for words, change := range map[string]func(*Config){
		"not an absolute path":                   func(c *Config) { c.Module = "libsofthsm2.so" },
		"is not an absolute":                     func(c *Config) { c.Module = "" },
		"neither token label nor serial nor URI": func(c *Config) { c.TokenLabel = "" },
		"at most 32 bytes":                       func(c *Config) { c.TokenLabel = strings.Repeat("x", 33) },
		"and a serial 16":                        func(c *Config) { c.TokenSerial = strings.Repeat("x", 17) },
		"no PIN file":                            func(c *Config) { c.PINFile = "" },
		"no latch file":                          func(c *Config) { c.LatchFile = "" },
		"negative call timeout":                  func(c *Config) { c.CallTimeout = -1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("opening: %v, want an error that says %q", err, words)
		}
	}
}
