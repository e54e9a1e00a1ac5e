package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Backups are made and looked at off-line: create works beside a running daemon,
// verify needs no device and no secret. restore needs custodians.

func backupCommand() *cobra.Command {
	return group("backup", "Copy the store, and check a copy", backupCreateCommand(), backupVerifyCommand())
}

func backupCreateCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "create FILE",
		Short: "Copy the store as of now into a new file, beside a running daemon, and verify the copy",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, pin, err := configAndPin(cmd)
			if err != nil {
				return err
			}
			info, err := vault.BackUp(cmd.Context(), filepath.Join(cfg.StateDir, vault.FileName), args[0], pin)
			if err != nil {
				return err
			}
			return showBackup(cmd, args[0], info)
		},
	}
	return c
}

func backupVerifyCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a copy against the pin, and its journal against the device's signatures, without any secret",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, pin, err := configAndPin(cmd)
			if err != nil {
				return err
			}
			info, err := vault.VerifyFile(cmd.Context(), args[0], pin)
			if err != nil {
				return err
			}
			return showBackup(cmd, args[0], info)
		},
	}
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
func showBackup(cmd *cobra.Command, path string, info vault.BackupInfo) error {
	r, err := journal.Verify(cmd.Context(), path, nil)
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

func restoreCommand() *cobra.Command {
	var identities []string
	var drill, newKey bool
	c := &cobra.Command{
		Use:   "restore FILE --identity FILE…",
		Short: "Put a backup in the place of a lost store, in quarantine; or, with --drill, only try whether it could be",
		Long: `Opens a backup with as many custodians as it needs, seals it to this machine's
device, and puts it where the store was; a store that is there is not touched. The
device must be the one that signs the journal.

A backup has forgotten what happened after it: revocations, ended credentials,
charges. Nothing of an organization signs until its root quorum has looked and
resumes it (QUARANTINED). The store that the backup replaces is refused afterwards,
if there is an anchor.

--drill opens it in a folder that is removed again, reads every record, and needs
no device and changes nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, pin, err := configAndPin(cmd)
			if err != nil {
				return err
			}
			people, err := readIdentities(identities)
			if err != nil {
				return err
			}
			if drill {
				return drillRestore(cmd, args[0], pin, people)
			}
			return restore(cmd, cfg, args[0], pin, people, newKey)
		},
	}
	c.Flags().StringArrayVar(&identities, "identity", nil, "a custodian's age identity `FILE`; repeat")
	c.Flags().BoolVar(&drill, "drill", false, "try only; change nothing")
	c.Flags().BoolVar(&newKey, "new-key", false, "make a new sealing key in the device, where the backup's is gone")
	if err := c.MarkFlagRequired("identity"); err != nil {
		panic(err)
	}
	return c
}

func readIdentities(files []string) (*vault.Custodians, error) {
	var all []age.Identity
	for _, f := range files {
		in, err := os.Open(f)
		if err != nil {
			return nil, fmt.Errorf("reading an identity: %w", err)
		}
		ids, err := age.ParseIdentities(io.LimitReader(in, 1<<16))
		_ = in.Close()
		if err != nil {
			return nil, fmt.Errorf("reading an identity: %s is no age identity file", f) // its text could be secret
		}
		all = append(all, ids...)
	}
	return vault.PresentCustodians(all...), nil
}

func drillRestore(cmd *cobra.Command, backup string, pin vault.Pin, people *vault.Custodians) error {
	dir, err := os.MkdirTemp("", "sigild-drill-")
	if err != nil {
		return fmt.Errorf("trying a restoration: %w", err)
	}
	defer os.RemoveAll(dir)
	r, err := vault.BeginRestore(cmd.Context(), vault.Config{Dir: dir}, backup, pin, people)
	if err != nil {
		return err
	}
	n, err := r.ReadAll(cmd.Context())
	if err = errors.Join(err, r.Abandon()); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "the custodians open it; all %d records are whole; nothing was changed\n", n)
	return nil
}

func restore(cmd *cobra.Command, cfg config.Config, backup string, pin vault.Pin, people *vault.Custodians, newKey bool) (err error) {
	ctx := cmd.Context()
	r, err := vault.BeginRestore(ctx, vault.Config{Dir: cfg.StateDir}, backup, pin, people)
	if err != nil {
		return err
	}
	finished := false
	defer func() {
		if !finished {
			err = errors.Join(err, r.Abandon())
		}
	}()
	// Step 1: everything in it is whole.
	n, err := r.ReadAll(ctx)
	if err != nil {
		return err
	}
	// Step 2: this machine's device can hold it.
	device, ref, err := restoreDevice(ctx, cfg, r.Vault(), newKey)
	if err != nil {
		return err
	}
	defer device.Close()
	held, err := r.Prepare(ctx, vault.KeyHolder{Sealer: device, ID: device.ID(), Ref: ref})
	if errors.Is(err, seal.ErrNotFound) {
		return hinted{err, "the device no longer has the sealing key of the backup; --new-key makes another"}
	}
	if err != nil {
		return err
	}
	// Step 3: the change, in one transaction with its entry in the journal.
	signer, err := delegation.CheckpointKey(ctx, r.Vault())
	if err != nil {
		return err
	}
	j, err := journal.Open(ctx, r.Vault(), journal.Config{Signer: device, CheckpointKey: seal.KeyRef(signer)})
	if err != nil {
		return hinted{err, "a backup can be restored where the device is that signs its journal"}
	}
	head, err := r.Vault().JournalHead()
	if err != nil {
		return errors.Join(err, j.Close(ctx))
	}
	facts := map[string]string{"restored_through": strconv.FormatUint(head.Seq, 10)}
	organizations, err := delegation.Quarantine(ctx, r.Vault(), j, time.Now(), facts, func(tx *vault.Tx) error { return r.Restore(tx, held) })
	if err = errors.Join(err, j.Close(ctx)); err != nil {
		return err
	}
	// Step 4: the anchor, then the name.
	finished = true
	if err := r.Finish(ctx, device); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "restored %d records and the journal through entry %d; %d organizations are in quarantine until their root quorum resumes them\n", n, head.Seq, organizations)
	return nil
}

// restoreDevice opens the device, and finds its key in the backup's keyslots or
// makes a new one.
func restoreDevice(ctx context.Context, cfg config.Config, v *vault.Vault, newKey bool) (config.Device, seal.KeyRef, error) {
	if newKey {
		d, keys, _, err := cfg.Provision(ctx)
		return d, keys.KEK, err
	}
	d, err := cfg.OpenDevice(ctx, nil)
	if err != nil {
		return nil, "", err
	}
	for _, s := range v.Slots() {
		if s.Provider == d.ID() {
			return d, s.Ref, nil
		}
	}
	return nil, "", hinted{errors.Join(fmt.Errorf("the backup has no keyslot of %s", d.ID()), d.Close()), "--new-key makes a sealing key in it"}
}
