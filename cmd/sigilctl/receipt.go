package main

import (
	"bytes"
	"crypto/ecdsa"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/journal"
)

// Receipts of acts, above all of what was destroyed: made from the store, or by the
// daemon for whom a delegation concerned; verified anywhere.

func receiptCommand() *cobra.Command {
	return group("receipt", "Prove to others that something was destroyed", receiptMakeCommand(), receiptVerifyCommand())
}

func receiptMakeCommand() *cobra.Command {
	var db, keyFile, out string
	var seq uint64
	c := &cobra.Command{
		Use:   "make --entry N --out FILE",
		Short: "Write the receipt of an act: its journal entry under the device's signature",
		Long: `Takes the entry out of the store's journal, which it verifies on the way, with all
entries up to the next that the device signed. It needs neither daemon nor secret.
Whoever gets the receipt can read those entries. sigilctl audit list shows which
number an act has.`,
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
			var b bytes.Buffer
			if err := journal.MakeReceipt(cmd.Context(), &b, path, key, seq); err != nil {
				return err
			}
			f, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			if err != nil {
				return fmt.Errorf("writing the receipt: %w", err)
			}
			if _, err := f.Write(b.Bytes()); err != nil {
				_ = f.Close()
				return fmt.Errorf("writing the receipt: %w", err)
			}
			if err := f.Close(); err != nil {
				return fmt.Errorf("writing the receipt: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&db, "db", "", "the database `file`, or a copy of it; default: the configuration's")
	c.Flags().StringVar(&keyFile, "public-key", "", "the device's checkpoint key, a PEM `file`")
	c.Flags().Uint64Var(&seq, "entry", 0, "the `number` of the act's entry")
	c.Flags().StringVar(&out, "out", "", "the new `file`")
	_, _ = c.MarkFlagRequired("entry"), c.MarkFlagRequired("out")
	return c
}

func delegationReceipt() *cobra.Command {
	var f stampFlags
	var out string
	c := &cobra.Command{
		Use:   "receipt ID --organization ID --out FILE --key FILE",
		Short: "Get the receipt of a delegation that has ended: what was destroyed, signed by the device; its owner or a root member",
		Long: `Gets the entry of the act that ended a delegation, signed by the appliance's device.
Whoever has the device's public key checks it: sigilctl receipt verify.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				got, err := c.Receipts().GetDelegationReceipt(cmd.Context(), &sigilv1.GetDelegationReceiptRequest{OrganizationId: f.organization, DelegationId: args[0]})
				if err != nil {
					return err
				}
				return writeNew(cmd, out, got.GetReceipt())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&out, "out", "", "the new `FILE`")
	need(c, "organization", "out")
	return c
}

func receiptVerifyCommand() *cobra.Command {
	var keyFile string
	c := &cobra.Command{
		Use:   "verify --public-key FILE RECEIPT",
		Short: "Check a receipt with the device's public key alone, and say what it proves and what not",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := readP256(keyFile)
			if err != nil {
				return err
			}
			b, err := readLimited(args[0], maxReceiptFile)
			if err != nil {
				return err
			}
			verify := journal.VerifyReceipt
			if bytes.HasPrefix(b, []byte("{")) { // of sigilctl delegation receipt
				verify = journal.OpenExtract
			}
			r, err := verify(b, key)
			if err != nil {
				return err
			}
			return tellReceipt(cmd.OutOrStdout(), r)
		},
	}
	c.Flags().StringVar(&keyFile, "public-key", "", "the device's checkpoint key, a PEM `file`")
	_ = c.MarkFlagRequired("public-key")
	return c
}

// maxReceiptFile bounds what is read: entries of a receipt are few.
const maxReceiptFile = 64 << 20

// tellReceipt says what a verified receipt proves.
func tellReceipt(out io.Writer, r journal.Receipt) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name string, values ...string) {
		for _, v := range values {
			if v != "" {
				fmt.Fprintf(w, "%s\t%s\n", name, v)
			}
		}
	}
	e := r.Act
	row("store", fmt.Sprintf("%x, journal entry %d", r.StoreID, e.Seq))
	row("at", time.UnixMilli(e.TimeMS).UTC().Format(time.RFC3339))
	row("act", strings.TrimSpace(e.Method+" "+e.Outcome))
	row("organization", e.Organization)
	row("wallet", e.Wallet)
	row("delegation", e.Delegation)
	row("asked by", e.Credentials...)
	row("destroyed", e.Destroyed...)
	for _, k := range slices.Sorted(maps.Keys(e.Facts)) {
		row(k, e.Facts[k])
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(e.Destroyed) == 0 {
		fmt.Fprintln(out, "\nThe act destroyed no secret of the store. Of a keyslot that was removed or a sealing\nkey that was replaced the lines above tell.")
	}
	fmt.Fprintln(out, `
This proves that the daemon removed what is named in the transaction of this entry,
overwritten in its database, and that the device with this key signed what
says so. It cannot prove that nobody had copied it before or had it in use, that
the disk, a snapshot or a backup holds no older copy (a backup is opened by its
custodians; restoring it replays this entry if its segment is kept), or that the
device and the daemon told the truth.`)
	return nil
}
