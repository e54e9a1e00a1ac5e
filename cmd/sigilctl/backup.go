package main

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// Backups are made and looked at off-line: create works beside a running daemon,
// verify needs no device and no secret. restore (restore.go) needs custodians.

func backupCommand() *cobra.Command {
	return group("backup", "Copy the store, and check a copy", backupCreateCommand(), backupVerifyCommand())
}

func backupCreateCommand() *cobra.Command {
	var unsigned bool
	c := &cobra.Command{
		Use:   "create FILE",
		Short: "Copy the store as of now into a new file, beside a running daemon, verify the copy and sign its manifest",
		Long: `Copies the store beside a running daemon and verifies the copy. The device signs what
it is with the checkpoint key; that manifest is written to FILE.manifest, and backup
verify wants both. It logs in to the device once.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			cfg, pin, err := configAndPin(cmd)
			if err != nil {
				return err
			}
			info, err := vault.BackUp(cmd.Context(), filepath.Join(cfg.StateDir, vault.FileName), args[0], pin)
			if err != nil {
				return err
			}
			if !unsigned {
				if err := writeManifest(cmd.Context(), cfg, args[0], info, pin); err != nil {
					return errors.Join(err, os.Remove(args[0]))
				}
			}
			return showBackup(cmd, args[0], info, nil)
		},
	}
	c.Flags().BoolVar(&unsigned, "unsigned", false, "without a manifest, and without the device")
	return c
}

func backupVerifyCommand() *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a copy and its manifest, and its journal against the device's signatures, without any secret",
		Long: `With --public-key that key is all it takes, on any machine: the manifest beside FILE is
verified under it, FILE and what is in it against the manifest. Without, the pin of this
machine's configuration is used, and a manifest is not looked at.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if keyFile == "" {
				_, pin, err := configAndPin(cmd)
				if err != nil {
					return err
				}
				info, err := vault.VerifyFile(cmd.Context(), args[0], pin)
				if err != nil {
					return err
				}
				return showBackup(cmd, args[0], info, nil)
			}
			key, err := readP256(keyFile)
			if err != nil {
				return err
			}
			m, pin, err := readManifest(args[0], key)
			if err != nil {
				return err
			}
			info, err := vault.VerifyFile(cmd.Context(), args[0], pin)
			if err != nil {
				return err
			}
			r, err := journal.Verify(cmd.Context(), args[0], key)
			if err != nil {
				return err
			}
			if err := m.holds(info, r.ApplianceID, pin); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "manifest   signed by the device, made at %s\n", m.MadeAt.Format(time.RFC3339))
			return showBackup(cmd, args[0], info, key)
		},
	}
	c.Flags().StringVar(&keyFile, "public-key", "", "the device's checkpoint key, a PEM `file`; then nothing else of the machine is needed")
	return c
}

func configAndPin(cmd *cobra.Command) (config.Config, vault.Pin, error) {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return cfg, vault.Pin{}, err
	}
	text, err := os.ReadFile(cfg.PinFile)
	if err != nil {
		return cfg, vault.Pin{}, fmt.Errorf("reading the pin: %w", err)
	}
	pin, err := vault.ParsePin(text)
	return cfg, pin, err
}

// showBackup verifies the journal in a copy, too, and says what was found.
func showBackup(cmd *cobra.Command, path string, info vault.BackupInfo, key *ecdsa.PublicKey) error {
	r, err := journal.Verify(cmd.Context(), path, key)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "store      %x of appliance %s, root key %d, epoch %d\n", info.StoreID, r.ApplianceID, info.Generation, info.Epoch)
	fmt.Fprintf(out, "records    %d, every envelope as listed; what is in them takes custodians to see: sigilctl restore --drill\n", info.Records)
	fmt.Fprintf(out, "journal    %d entries up to %s, signed by the device up to %d\n", info.Journal.Seq, r.Last.UTC().Format(time.RFC3339), r.Covered)
	for _, s := range info.Slots {
		fmt.Fprintf(out, "keyslot    group %d: %s %s\n", s.Group, s.Provider, s.Ref)
	}
	if !info.Recoverable() {
		fmt.Fprintln(out, "warning    no recovery group: nothing but the device opens it, and only until its sealing key is replaced; see sigilctl keyslot add")
	}
	return nil
}
