package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/delegation"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/vault"
)

// Restoring puts a backup, and what newer segments of the journal say, in the place
// of a lost store.

// restoration is what the flags of restore say.
type restoration struct {
	backup     string
	identities []string
	segments   string
	drill      bool
	newKey     bool
}

func restoreCommand() *cobra.Command {
	var r restoration
	c := &cobra.Command{
		Use:   "restore FILE --identity FILE…",
		Short: "Put a backup in the place of a lost store; or, with --drill, only try whether it could be",
		Long: `Opens a backup with as many custodians as it needs, takes in the newer segments of
the journal's archive, seals the result to this machine's device, and puts it where
the store was; a store that is there is not touched. The device must be the one that
signs the journal.

A backup has forgotten what happened after it: revocations, ended credentials,
policies, charges. Segments (--segments, else journal.archive_dir) bring all that
back, but secrets that were made after the backup. Whether they are the newest, only
the store's anchor can say. If it does, the restored store signs at once. If not,
nothing of an organization signs until its root quorum has looked and resumes it
(QUARANTINED), and from then on each limit counts its window as full for the window's
length. The store that the backup replaces is refused afterwards, if there is an anchor.

--drill opens it in a folder that is removed again, reads every record, and needs
no device and changes nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, pin, err := configAndPin(cmd)
			if err != nil {
				return err
			}
			people, err := readIdentities(r.identities)
			if err != nil {
				return err
			}
			r.backup = args[0]
			if r.drill {
				return drillRestore(cmd, r.backup, pin, people)
			}
			if !cmd.Flags().Changed("segments") {
				r.segments = cfg.Journal.ArchiveDir
			}
			return r.run(cmd, cfg, pin, people)
		},
	}
	c.Flags().StringArrayVar(&r.identities, "identity", nil, "a custodian's age identity `FILE`; repeat")
	c.Flags().StringVar(&r.segments, "segments", "", "the `FOLDER` of newer segments; \"\" for none (default: journal.archive_dir)")
	c.Flags().BoolVar(&r.drill, "drill", false, "try only; change nothing")
	c.Flags().BoolVar(&r.newKey, "new-key", false, "make a new sealing key in the device, where the backup's is gone")
	if err := c.MarkFlagRequired("identity"); err != nil {
		panic(err)
	}
	return c
}

func readIdentities(files []string) (*vault.Custodians, error) {
	var all []age.Identity
	for _, f := range files {
		ids, err := readIdentity(f)
		if err != nil {
			return nil, err
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

func (o *restoration) run(cmd *cobra.Command, cfg config.Config, pin vault.Pin, people *vault.Custodians) (err error) {
	ctx := cmd.Context()
	var segments []string
	if o.segments != "" {
		if segments, err = journal.SegmentFiles(o.segments); err != nil {
			return err
		}
	}
	r, err := vault.BeginRestore(ctx, vault.Config{Dir: cfg.StateDir}, o.backup, pin, people)
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
	// Step 2: this machine's device, which signs the journal.
	device, ref, err := restoreDevice(ctx, cfg, r.Vault(), o.newKey)
	if err != nil {
		return err
	}
	defer device.Close()
	// Step 3: what the backup has forgotten, and the device's keyslot.
	done, err := delegation.Restore(ctx, delegation.Restoring{
		Backup: r, Device: device, Ref: ref, NewKey: o.newKey, Segments: segments,
	})
	switch {
	case errors.Is(err, seal.ErrNotFound):
		return hinted{err, "the device no longer has the sealing key of the backup; --new-key makes another"}
	case err != nil:
		return hinted{err, "a backup can be restored where the device is that signs its journal, with segments that continue it"}
	}
	// Step 4: the anchor, then the name.
	finished = true
	if err := r.Finish(ctx, device); err != nil {
		return err
	}
	tell(cmd.OutOrStdout(), n, done)
	return nil
}

// tell says what was done and what was not.
func tell(out io.Writer, records int, done delegation.Restored) {
	fmt.Fprintf(out, "restored %d records and the journal through entry %d\n", records, done.Through)
	if r := done.Replayed; r.Through != 0 {
		fmt.Fprintf(out, "replayed entries %d to %d of the archive; %d changes of records were made again\n", r.From, r.Through, r.Records)
	} else {
		fmt.Fprintln(out, "replayed nothing: no segment is newer than the backup")
	}
	if done.Newest {
		fmt.Fprintln(out, "the anchor agrees that nothing is missing which must not be undone")
	} else {
		fmt.Fprintf(out, "nothing shows that this is the newest: %d organizations are in quarantine until their root quorum resumes them; their limits count as full then\n", done.Quarantined)
	}
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
