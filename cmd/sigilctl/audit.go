package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// auditCommand reads the journal off-line: it needs the database file, no daemon
// and no secret. tail asks a running daemon where it may.
func auditCommand() *cobra.Command {
	return group("audit", "Verify and read the journal", auditVerifyCommand(), auditListCommand(), auditTailCommand(), auditExportCommand(), auditKeyCommand())
}

func auditKeyCommand() *cobra.Command {
	var db string
	c := &cobra.Command{
		Use:   "key >FILE",
		Short: "Print the device's checkpoint key as the journal names it, PEM: what others verify journal, receipts and backups with",
		Long: `Prints the public key that the store's first entry names, once the whole journal
verifies under it. Take it when the appliance is new, and give it to those who are to
verify: a key that comes with what it verifies proves nothing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := verifyAudit(cmd, db, nil, nil, false)
			if err != nil {
				return err
			}
			return printPublic(cmd.OutOrStdout(), r.CheckpointKey)
		},
	}
	c.Flags().StringVar(&db, "db", "", "the database `file`, or a copy of it; default: the configuration's")
	return c
}

// database is the file that --db or the configuration names.
func database(cmd *cobra.Command, db string) (string, error) {
	if db != "" {
		return db, nil
	}
	cfg, err := loadConfig(cmd)
	if err != nil {
		return "", err
	}
	return filepath.Join(cfg.StateDir, vault.FileName), nil
}

func auditVerifyCommand() *cobra.Command {
	var db, keyFile string
	var full bool
	c := &cobra.Command{
		Use:   "verify [SEGMENT|FOLDER]...",
		Short: "Check every entry's hash, the chain, and the device's signatures; name the first entry that fails",
		Long: "Check every entry's hash, the chain, and the device's signatures, and name the first entry that fails.\n" +
			"Without arguments the journal in the store is checked; with them, segment files (audit export, the\n" +
			"archive), which must follow one another. Neither needs the daemon, the token or a secret.",
		RunE: func(cmd *cobra.Command, args []string) error {
			var key *ecdsa.PublicKey
			var err error
			if keyFile != "" {
				if key, err = readP256(keyFile); err != nil {
					return err
				}
			}
			r, err := verifyAudit(cmd, db, key, args, full)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			of := "journal"
			if r.ApplianceID != "" {
				of += " of appliance " + r.ApplianceID
			}
			fmt.Fprintf(out, "%s verifies: %d entries, %s to %s\n", of, r.Entries, r.First.UTC().Format("2006-01-02T15:04:05Z"), r.Last.UTC().Format("2006-01-02T15:04:05Z"))
			if full {
				fmt.Fprintf(out, "%d snapshots are what the entries before them add up to\n", r.Snapshots)
			}
			if r.From > 1 {
				fmt.Fprintf(out, "it begins with entry %d; what was before is in the archive's segments\n", r.From)
			}
			fmt.Fprintf(out, "the last is entry %d, hash %x\n", r.Entries, r.Head)
			fmt.Fprintf(out, "%d checkpoints signed by the device cover it up to entry %d\n", r.Checkpoints, r.Covered)
			if r.Unsigned > 0 {
				fmt.Fprintf(out, "%d entries from %d on are not under a checkpoint yet\n", r.Unsigned, r.FirstUnsigned)
			}
			if r.KeyFromGenesis {
				fmt.Fprintln(out, "the checkpoint key was taken from the journal itself; give --public-key to pin it")
			}
			return nil
		},
	}
	c.Flags().StringVar(&db, "db", "", "the database `file`, or a copy of it; default: the configuration's")
	c.Flags().StringVar(&keyFile, "public-key", "", "the device's checkpoint key, a PEM `file`")
	c.Flags().BoolVar(&full, "full", false, "also add every entry up again, and compare with each snapshot that the daemon took")
	return c
}

// verifyAudit checks segments, where there are any among the arguments, or the store.
func verifyAudit(cmd *cobra.Command, db string, key *ecdsa.PublicKey, args []string, full bool) (journal.Report, error) {
	if len(args) == 0 {
		path, err := database(cmd, db)
		if err != nil {
			return journal.Report{}, err
		}
		if full {
			return journal.VerifyFull(cmd.Context(), path, key)
		}
		return journal.Verify(cmd.Context(), path, key)
	}
	if db != "" || full {
		return journal.Report{}, errors.New("--db and --full are for the store, not for segments")
	}
	var files []string
	for _, a := range args {
		info, err := os.Stat(a)
		if err != nil {
			return journal.Report{}, fmt.Errorf("reading segments: %w", err)
		}
		if !info.IsDir() {
			files = append(files, a)
			continue
		}
		more, err := journal.SegmentFiles(a)
		if err != nil {
			return journal.Report{}, err
		}
		files = append(files, more...)
	}
	return journal.VerifySegments(cmd.Context(), files, key, nil)
}

func auditExportCommand() *cobra.Command {
	var db, keyFile, out string
	var entries uint64
	c := &cobra.Command{
		Use:   "export",
		Short: "Verify the journal and write its closed part as signed segment files",
		Long: "Verify the journal and write its closed part as segment files, each signed by the device's last checkpoint in it.\n" +
			"A folder that has segments is continued. What no checkpoint covers yet is left for the next time.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := database(cmd, db)
			if err != nil {
				return err
			}
			var key *ecdsa.PublicKey
			if keyFile != "" {
				if key, err = readP256(keyFile); err != nil {
					return err
				}
			}
			made, r, err := journal.Export(cmd.Context(), path, key, out, entries)
			for _, m := range made {
				fmt.Fprintln(cmd.OutOrStdout(), m)
			}
			if err == nil && len(made) == 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "nothing new: the device has signed up to entry %d\n", r.Covered)
			}
			return err
		},
	}
	c.Flags().StringVar(&db, "db", "", "the database `file`, or a copy of it; default: the configuration's")
	c.Flags().StringVar(&keyFile, "public-key", "", "the device's checkpoint key, a PEM `file`")
	c.Flags().StringVar(&out, "out", "", "the `folder` for the segments; it must exist")
	c.Flags().Uint64Var(&entries, "entries", 4096, "how many entries a file has at least, except the last")
	need(c, "out")
	return c
}

func auditListCommand() *cobra.Command {
	var db string
	c := &cobra.Command{
		Use:   "list",
		Short: "Verify the journal and print it, one JSON object a line",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := database(cmd, db)
			if err != nil {
				return err
			}
			enc := json.NewEncoder(cmd.OutOrStdout())
			return listEntries(cmd.Context(), path, func(e journal.Entry) error { return enc.Encode(e) })
		},
	}
	c.Flags().StringVar(&db, "db", "", "the database `file`, or a copy of it; default: the configuration's")
	return c
}

func listEntries(ctx context.Context, path string, show func(journal.Entry) error) error {
	_, err := journal.Walk(ctx, path, nil, show)
	return err
}

func readP256(path string) (*ecdsa.PublicKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint key: %w", err)
	}
	block, rest := pem.Decode(b)
	if block == nil || len(rest) > 0 {
		return nil, errors.New("reading the checkpoint key: not one PEM block")
	}
	k, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the checkpoint key: %w", err)
	}
	p, ok := k.(*ecdsa.PublicKey)
	if !ok || p.Curve != elliptic.P256() {
		return nil, errors.New("reading the checkpoint key: not a P-256 key")
	}
	return p, nil
}
