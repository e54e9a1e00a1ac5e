package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// A backup's manifest lies beside it and says, under the device's signature, what it
// is: which store, as of when, byte for byte. It has the pin in it, so that the public
// key is all that verifying takes.

const (
	manifestKind   = "backup-manifest"
	manifestSuffix = ".manifest"
)

// manifest is a backup's, as it is signed.
type manifest struct {
	Appliance string    `json:"appliance"`
	MadeAt    time.Time `json:"made_at"`
	SHA256    string    `json:"sha256"` // of the backup
	Size      int64     `json:"size"`
	Schema    int64     `json:"schema"`
	RootKey   uint32    `json:"root_key"`
	Epoch     uint64    `json:"epoch"`
	Sequence  uint64    `json:"sequence"` // updates since the store was made
	Records   uint64    `json:"records"`
	Entry     uint64    `json:"entry"`      // the last of its journal
	EntryHash string    `json:"entry_hash"` // its hash
	Pin       string    `json:"pin"`        // the pin file
}

func manifestOf(info vault.BackupInfo, appliance, sum string, size int64, pin vault.Pin, made time.Time) (manifest, error) {
	text, err := pin.MarshalText()
	if err != nil {
		return manifest{}, err
	}
	return manifest{
		Appliance: appliance, MadeAt: made.UTC().Truncate(time.Second), SHA256: sum, Size: size, Schema: info.Schema, RootKey: info.Generation,
		Epoch: info.Epoch, Sequence: info.Seq, Records: info.Records, Entry: info.Journal.Seq, EntryHash: hex.EncodeToString(info.Journal.Hash[:]), Pin: string(text),
	}, nil
}

// fileSum is SHA-256 of a file, hex, and its length.
func fileSum(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, fmt.Errorf("reading a backup: %w", err)
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, fmt.Errorf("reading a backup: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// writeManifest has the device sign what the backup is.
func writeManifest(ctx context.Context, cfg config.Config, path string, info vault.BackupInfo, pin vault.Pin) (err error) {
	var ref seal.KeyRef
	r, err := journal.Walk(ctx, path, nil, func(e journal.Entry) error {
		if e.Kind == journal.KindGenesis {
			ref = seal.KeyRef(e.Facts[delegation.CheckpointRef])
		}
		return nil
	})
	if err != nil {
		return err
	}
	if ref == "" {
		return hinted{errors.New("the journal does not say which key signs it: an older sigild made the store"), "--unsigned makes the backup without a manifest"}
	}
	sum, size, err := fileSum(path)
	if err != nil {
		return err
	}
	m, err := manifestOf(info, r.ApplianceID, sum, size, pin, time.Now())
	if err != nil {
		return err
	}
	d, err := cfg.OpenDevice(ctx, nil)
	if err != nil {
		return hinted{err, "the device signs what the backup is; --unsigned makes it without"}
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	b, err := journal.SignDocument(ctx, d, ref, r.CheckpointKey, manifestKind, m)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+manifestSuffix, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("writing the manifest: %w", err)
	}
	return nil
}

// readManifest reads the manifest of a backup under the key, and holds the backup's
// bytes against it.
func readManifest(path string, key *ecdsa.PublicKey) (m manifest, pin vault.Pin, err error) {
	b, err := os.ReadFile(path + manifestSuffix)
	if err != nil {
		return m, pin, fmt.Errorf("reading the manifest: %w", err)
	}
	if err := journal.OpenDocument(b, key, manifestKind, &m); err != nil {
		return m, pin, fmt.Errorf("reading the manifest: %w", err)
	}
	sum, size, err := fileSum(path)
	if err != nil {
		return m, pin, err
	}
	if sum != m.SHA256 || size != m.Size {
		return m, pin, hinted{fmt.Errorf("%w: the backup is not the file that the manifest is of", vault.ErrTampered), "was it changed, or is it another one's manifest?"}
	}
	pin, err = vault.ParsePin([]byte(m.Pin))
	return m, pin, err
}

// holds compares what the backup says with what was signed.
func (m *manifest) holds(info vault.BackupInfo, appliance string, pin vault.Pin) error {
	want, err := manifestOf(info, appliance, m.SHA256, m.Size, pin, m.MadeAt)
	if err != nil {
		return err
	}
	if want != *m {
		return fmt.Errorf("%w: the backup is not what its manifest says", vault.ErrTampered)
	}
	return nil
}
