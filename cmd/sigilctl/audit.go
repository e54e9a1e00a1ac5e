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
// and no secret.
func auditCommand() *cobra.Command {
	return group("audit", "Verify and read the journal, off-line", auditVerifyCommand(), auditListCommand())
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
	c := &cobra.Command{
		Use:   "verify",
		Short: "Check every entry's hash, the chain, and the device's signatures; name the first entry that fails",
		Args:  cobra.NoArgs,
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
			r, err := journal.Verify(cmd.Context(), path, key)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "journal of appliance %s verifies: %d entries, %s to %s\n", r.ApplianceID, r.Entries, r.First.UTC().Format("2006-01-02T15:04:05Z"), r.Last.UTC().Format("2006-01-02T15:04:05Z"))
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
