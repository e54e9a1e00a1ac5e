package config

import (
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/systemd"
)

// HSM is the provider section as package hsm takes it.
func (c Config) HSM(log *slog.Logger) hsm.Config {
	p := c.Provider.PKCS11
	h := hsm.Config{
		Module: p.Module, TokenLabel: p.TokenLabel, TokenSerial: p.TokenSerial, PINFile: p.pinPath(),
		LatchFile: c.LatchFile(), CallTimeout: p.CallTimeout, Log: log,
	}
	for name, value := range p.Env {
		h.EnvAllow = append(h.EnvAllow, name+"="+value)
	}
	slices.Sort(h.EnvAllow)
	return h
}

// pinPath says where the PIN lies. A credential that the service manager did not
// pass stays the name it is: no file of that name exists, and the error shows it.
func (p PKCS11) pinPath() string {
	name, ok := strings.CutPrefix(p.PINFile, credentialPrefix)
	dir := systemd.CredentialsDirectory()
	if !ok || dir == "" {
		return p.PINFile
	}
	return filepath.Join(dir, name)
}
