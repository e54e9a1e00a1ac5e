package main

import (
	"fmt"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/stamping/body"
	"github.com/sigild/sigild/stamping/dfns"
)

// Verbs that have a request to another vendor stamped, and the witness' own.

func stampCommand() *cobra.Command {
	return group("stamp", "Have a request to another vendor's API stamped, if policies allow what it asks to sign",
		stampTurnkey(), stampDfns(), stampWitness())
}

// stampFlagsOf registers what both vendors' verbs have.
func stampFlagsOf(c *cobra.Command, f *keyFlags, file *string) {
	f.register(c)
	c.Flags().StringVar(file, "body", "", "`FILE` with the body, byte for byte as it will be sent")
	need(c, "wallet", "body", "api-key")
}

// askStamp has r stamped and prints the stamp, and for people what it is for.
func askStamp(cmd *cobra.Command, f *keyFlags, r *sigilv1.StampRequestRequest) error {
	r.WalletId = f.wallet
	return f.call(cmd, func(c *client.Client, id string) error {
		r.RequestId = id
		out, err := c.Stamping().StampRequest(cmd.Context(), r)
		if err != nil {
			return err
		}
		if h := out.GetHeader(); h != nil {
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", h.GetName(), h.GetValue())
		} else {
			fmt.Fprintln(cmd.OutOrStdout(), out.GetFirstFactor())
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "stamped: %s\n", out.GetSummary())
		return nil
	})
}

func stampTurnkey() *cobra.Command {
	var f keyFlags
	var file string
	c := &cobra.Command{
		Use:   "turnkey --wallet ID --body FILE --api-key FILE",
		Short: "Print the X-Stamp header for a body of Turnkey's API that asks to sign",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := readLimited(file, body.MaxBytes)
			if err != nil {
				return err
			}
			return askStamp(cmd, &f, &sigilv1.StampRequestRequest{Request: &sigilv1.StampRequestRequest_Turnkey{Turnkey: &sigilv1.TurnkeyRequest{Body: text}}})
		},
	}
	stampFlagsOf(c, &f, &file)
	return c
}

// actionFlags are a request to Dfns with its challenge.
type actionFlags struct{ path, body, challenge string }

func (f *actionFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.path, "path", "", "the `PATH` that the body is posted to, without host and query")
	c.Flags().StringVar(&f.challenge, "challenge", "", "`CHALLENGE` of Dfns' answer to POST /auth/action/init")
	need(c, "path", "challenge")
}

func (f *actionFlags) read() (*sigilv1.DfnsRequest, error) {
	text, err := readLimited(f.body, body.MaxBytes)
	if err != nil {
		return nil, err
	}
	return &sigilv1.DfnsRequest{Method: "POST", Path: f.path, Body: text, Challenge: f.challenge}, nil
}

func stampDfns() *cobra.Command {
	var f keyFlags
	var action actionFlags
	var witness string
	c := &cobra.Command{
		Use:   "dfns --wallet ID --path PATH --body FILE --challenge CHALLENGE --witness-signature FILE --api-key FILE",
		Short: "Print firstFactor of POST /auth/action for a request to Dfns' API that asks to sign",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := action.read()
			if err != nil {
				return err
			}
			if witness != "" {
				if r.WitnessSignature, err = readLimited(witness, 256); err != nil {
					return err
				}
			}
			return askStamp(cmd, &f, &sigilv1.StampRequestRequest{Request: &sigilv1.StampRequestRequest_Dfns{Dfns: r}})
		},
	}
	stampFlagsOf(c, &f, &action.body)
	action.register(c)
	c.Flags().StringVar(&witness, "witness-signature", "", "`FILE` that sigilctl stamp witness wrote")
	return c
}

func stampWitness() *cobra.Command {
	var action actionFlags
	var id, keyFile, out string
	c := &cobra.Command{
		Use:   "witness --credential ID --path PATH --body FILE --challenge CHALLENGE --witness-key FILE --out FILE",
		Short: "Sign, as the witness, that Dfns gave a challenge out for this very request",
		Long: `For the process that asked Dfns itself (POST /auth/action/init) for a challenge for
this body and path, and nobody else: its key decides what a credential of Dfns' can be
used for. Runs without the daemon.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r, err := action.read()
			if err != nil {
				return err
			}
			key, err := credential.LoadKey(keyFile)
			if err != nil {
				return err
			}
			defer key.Wipe()
			signature, err := key.Sign(dfns.Statement(id, dfns.Request{Method: r.GetMethod(), Path: r.GetPath(), Body: r.GetBody(), Challenge: r.GetChallenge()}))
			if err != nil {
				return err
			}
			return writeDurably(out, signature)
		},
	}
	action.register(c)
	c.Flags().StringVar(&action.body, "body", "", "`FILE` with the body, byte for byte as it will be sent")
	c.Flags().StringVar(&id, "credential", "", "`ID` of the vendor credential here (vcr_…)")
	c.Flags().StringVar(&keyFile, "witness-key", "", "private key `FILE` of the witness")
	c.Flags().StringVar(&out, "out", "", "`FILE` to write the signature to; it must not exist")
	need(c, "body", "credential", "witness-key", "out")
	return c
}
