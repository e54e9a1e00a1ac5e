package config

import (
	"context"
	"crypto/ecdsa"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/hsm"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/systemd"
	"github.com/sigild/sigild/tpm"
)

// Device is a sealing device that a configuration names.
type Device interface {
	seal.Provider
	seal.Sealer
	seal.Signer
	seal.Decrypter
	seal.KEKMaker
	// GenerateRSA makes a decryption key that never leaves the device.
	GenerateRSA(ctx context.Context, bits int) (seal.KeyRef, error)
	// ImportedRSA says whether a decryption key was once outside.
	ImportedRSA(ctx context.Context, ref seal.KeyRef) (bool, error)
}

// Keys are what a device was provisioned with.
type Keys struct{ KEK, Checkpoint seal.KeyRef }

// OpenDevice opens the main device for the daemon. Errors wrap seal's sentinels.
func (c Config) OpenDevice(ctx context.Context, log *slog.Logger) (Device, error) {
	return c.OpenNamed(ctx, MainDevice, log)
}

// OpenNamed opens one of the devices for the daemon. Errors wrap seal's sentinels.
func (c Config) OpenNamed(ctx context.Context, name string, log *slog.Logger) (Device, error) {
	p, ok := c.named(name)
	if !ok {
		return nil, fmt.Errorf("opening a device: %w: the configuration names none %q", seal.ErrNotFound, name)
	}
	if p.TPM == nil {
		return opened(hsm.Open(ctx, c.hsm(name, p.PKCS11, log)))
	}
	if p.TPM.SRKName == "" {
		return nil, fmt.Errorf("opening the TPM: %w: %s.tpm.srk_name is not set; hint: copy it from what sigilctl %s printed", seal.ErrPolicy, key(name), srkPrinter(name))
	}
	t, err := c.tpm(name, p.TPM, log)
	if err != nil {
		return nil, err
	}
	return opened(tpm.Open(ctx, t))
}

// OpenToSee opens one of the devices to look at it, also a TPM whose SRK is not pinned
// yet: it is believed, and unpinned says so.
func (c Config) OpenToSee(ctx context.Context, name string, log *slog.Logger) (d Device, unpinned bool, err error) {
	if p, ok := c.named(name); ok && p.TPM != nil && p.TPM.SRKName == "" {
		t, err := c.tpm(name, p.TPM, log)
		if err != nil {
			return nil, false, err
		}
		d, err := opened(tpm.Open(ctx, t))
		return d, true, err
	}
	d, err = c.OpenNamed(ctx, name, log)
	return d, false, err
}

// opened keeps a nil pointer from becoming a device.
func opened[D Device](d D, err error) (Device, error) {
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Provision opens the device for sigilctl init and makes its keys. For a TPM
// whose SRK is not pinned yet it returns the line to add to the configuration.
func (c Config) Provision(ctx context.Context) (d Device, keys Keys, advice string, err error) {
	if c.Provider.TPM == nil {
		p, err := hsm.Open(ctx, c.HSM(nil))
		if err != nil {
			return nil, Keys{}, "", err
		}
		k, err := p.Provision(ctx)
		if err != nil {
			return nil, Keys{}, "", errors.Join(err, p.Close())
		}
		return p, Keys{KEK: k.KEK, Checkpoint: k.Checkpoint}, "", nil
	}
	t, err := c.TPM(nil)
	if err != nil {
		return nil, Keys{}, "", err
	}
	p, err := tpm.Open(ctx, t)
	if err != nil {
		return nil, Keys{}, "", err
	}
	k, err := p.Provision(ctx)
	if err != nil {
		return nil, Keys{}, "", errors.Join(err, p.Close())
	}
	if len(t.SRKName) == 0 {
		advice = "add to provider.tpm in the configuration: srk_name: " + hex.EncodeToString(p.SRKName())
	}
	return p, Keys{KEK: k.KEK, Checkpoint: k.Checkpoint}, advice, nil
}

// TPM is the provider section as package tpm takes it; it reads the approver's file.
func (c Config) TPM(log *slog.Logger) (tpm.Config, error) {
	return c.tpm(MainDevice, c.Provider.TPM, log)
}

func (c Config) tpm(name string, t *TPM, log *slog.Logger) (tpm.Config, error) {
	srk, err := hex.DecodeString(t.SRKName)
	if err != nil {
		return tpm.Config{}, fmt.Errorf("reading %s.tpm.srk_name: %w", key(name), err)
	}
	out := tpm.Config{
		Path: t.Path, CommandTimeout: t.CommandTimeout, SRKName: srk, SecretFile: credentialPath(t.SecretFile),
		PINFile: credentialPath(t.PINFile), LatchFile: c.LatchFileOf(name), TrustBus: t.TrustBus, Log: log,
	}
	if p := t.PCRPolicy; p != nil {
		approver, err := readApprover(p.Approver)
		if err != nil {
			return tpm.Config{}, fmt.Errorf("reading %s.tpm.pcr_policy.approver: %w: %w", key(name), seal.ErrPolicy, err)
		}
		out.PCR = &tpm.PCRPolicy{Approver: approver, Counter: seal.KeyRef(p.Counter), Dir: p.Approvals}
	}
	return out, nil
}

// readApprover reads the public file of whoever approves boot states.
func readApprover(path string) (*ecdsa.PublicKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := credential.ParsePublicFile(b)
	if err != nil {
		return nil, err
	}
	if f.Purpose != credential.ForPCRApproval {
		return nil, fmt.Errorf("%s was made for purpose %q, not %q", path, f.Purpose, credential.ForPCRApproval)
	}
	return f.Key.P256()
}

// HSM is the provider section as package hsm takes it.
func (c Config) HSM(log *slog.Logger) hsm.Config {
	return c.hsm(MainDevice, c.Provider.PKCS11, log)
}

func (c Config) hsm(name string, p *PKCS11, log *slog.Logger) hsm.Config {
	h := hsm.Config{
		Module: p.Module, TokenLabel: p.TokenLabel, TokenSerial: p.TokenSerial, PINFile: credentialPath(p.PINFile),
		URI: p.URI, AllowImportedKEK: p.AllowImportedKEK, LatchFile: c.LatchFileOf(name), CallTimeout: p.CallTimeout, Log: log,
	}
	for name, value := range p.Env {
		h.EnvAllow = append(h.EnvAllow, name+"="+value)
	}
	slices.Sort(h.EnvAllow)
	return h
}

// credentialPath says where a file lies. A credential that the service manager did
// not pass stays the name it is: no file of that name exists, and the error shows it.
func credentialPath(file string) string {
	name, ok := strings.CutPrefix(file, credentialPrefix)
	dir := systemd.CredentialsDirectory()
	if !ok || dir == "" {
		return file
	}
	return filepath.Join(dir, name)
}
