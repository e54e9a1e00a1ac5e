package main

import (
	"errors"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/internal/testhsm"
)

// Two names for one token would let people believe that its theft leaves the other.
func TestTwoNamesForOneDeviceAreRefused(t *testing.T) {
	tok, other := testhsm.New(t), testhsm.New(t)
	section := func(x testhsm.Token, by func(*config.PKCS11)) config.Provider {
		p := &config.PKCS11{Module: x.Module, PINFile: x.PINFile, Env: map[string]string{"SOFTHSM2_CONF": filepath.Join(x.Dir, "softhsm2.conf")}}
		by(p)
		return config.Provider{PKCS11: p}
	}
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	cfg.Provider = section(tok, func(p *config.PKCS11) { p.TokenLabel = tok.Label })
	cfg.Devices = map[string]config.Provider{"again": section(tok, func(p *config.PKCS11) { p.TokenSerial = tok.Serial })}
	if _, err := openDevices(t.Context(), cfg, nil, slog.New(slog.DiscardHandler)); !errors.Is(err, errSameDevice) {
		t.Errorf("two names: %v, want errSameDevice", err)
	}
	cfg.Devices = map[string]config.Provider{
		"other": section(other, func(p *config.PKCS11) { p.TokenLabel = other.Label }),
		"gone":  section(other, func(p *config.PKCS11) { p.TokenLabel = "nobody" }),
	}
	d, err := openDevices(t.Context(), cfg, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if len(d.sealers()) != 2 || d.away["gone"] == "" || d.main().ID() != "pkcs11:"+tok.Serial {
		t.Errorf("%d devices, away %v", len(d.sealers()), d.away)
	}
}
