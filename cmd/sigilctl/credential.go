package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/credential"
)

// credentialCommand makes key pairs for stamps: a private file for whoever
// stamps, and a public file with proof of possession for whoever registers it.
func credentialCommand() *cobra.Command {
	var algorithm, purpose, name, out string
	create := &cobra.Command{
		Use:   "create --purpose operator --name NAME --out PREFIX",
		Short: "Make a key pair: PREFIX.key (private, 0600) and PREFIX.json (public, with proof of possession)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := credential.GenerateKey(credential.Algorithm(algorithm))
			if err != nil {
				return err
			}
			defer key.Wipe()
			public, err := credential.NewPublicFile(key, credential.Purpose(purpose), name)
			if err != nil {
				return err
			}
			text, err := public.Encode()
			if err != nil {
				return err
			}
			// The public file first: what can be made again is no loss when the key's fails.
			if err := writeDurably(out+".json", text); err != nil {
				return fmt.Errorf("writing the public file: %w", err)
			}
			if err := key.Save(out + ".key"); err != nil {
				return errors.Join(err, os.Remove(out+".json"))
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s  %s\n", key.Public().ID(), out+".key", out+".json")
			return nil
		},
	}
	create.Flags().StringVar(&algorithm, "algorithm", "p256", "p256, ed25519 or secp256k1")
	create.Flags().StringVar(&purpose, "purpose", "operator", "operator, organization-root, user, delegated-user, policy-bundle, pcr-approval or witness")
	create.Flags().StringVar(&name, "name", "", "a label for people")
	create.Flags().StringVar(&out, "out", "", "prefix of the two files")
	for _, f := range []string{"name", "out"} {
		if err := create.MarkFlagRequired(f); err != nil {
			panic(err)
		}
	}
	return group("credential", "Make credentials that stamp requests", create, signRecipientCommand(), webauthnCommand())
}
