package main

import (
	"fmt"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/client"
)

// Verbs of an organization's root quorum: a wallet for a key that exists, and
// further addresses of a key.

func walletCommand() *cobra.Command {
	return group("wallet", "Make and show wallets, import keys, derive further addresses, rotate root sets",
		walletShowCommand(), walletCreateCommand(), walletImportCommand(), walletDeriveCommand(), walletRotateCommand(), walletShareCommand())
}

// wholeKeyFlags name the file of a private key, in one of three forms.
type wholeKeyFlags struct{ hex, words, passphrase, path, keypair string }

func (f *wholeKeyFlags) read(cmd *cobra.Command, scheme chains.Scheme) ([]byte, error) {
	file := f.hex + f.words + f.keypair // cobra insists on exactly one
	b, err := readSecretFile(file, cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	defer clear(b)
	switch {
	case f.hex != "":
		return parseHexKey(b)
	case f.keypair != "":
		return parseKeypair(b)
	}
	var passphrase []byte
	if f.passphrase != "" {
		if passphrase, err = readSecretFile(f.passphrase, cmd.InOrStdin()); err != nil {
			return nil, err
		}
		defer clear(passphrase)
	}
	return parseWords(b, passphrase, f.path, scheme)
}

func walletImportCommand() *cobra.Command {
	var f stampFlags
	var key wholeKeyFlags
	var r sigilv1.ImportWalletRequest
	var wait bool
	c := &cobra.Command{
		Use:   "import --organization ID --owner ID --chain CHAIN --name NAME (--hex | --mnemonic | --keypair) FILE --key FILE…",
		Short: "Share out a private key that exists; the key says \"imported\" for ever",
		Long: `Hands a private key to the daemon, which shares it out by a ceremony. The key was
whole where it comes from, and whoever had it there has it still: prefer a new
wallet and a transfer. FILE holds one key and nothing else, "-" is the standard
input; it stays as it is, destroy it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			scheme := chains.EdDSAEd25519
			if r.Chain == "eip155" {
				scheme = chains.ECDSASecp256k1
			}
			secret, err := key.read(cmd, scheme)
			if err != nil {
				return err
			}
			defer clear(secret)
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId, r.PrivateKey = id, f.organization, secret
				out, err := c.Wallets().ImportWallet(cmd.Context(), &r)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "wallet    %s\nkey       %s\n", out.GetWalletId(), out.GetKeyId())
				return f.follow(cmd, c, wait, out.GetCeremonyId())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.OwnerUserId, "owner", "", "`ID` of the end user who will own the wallet")
	c.Flags().StringVar(&r.Chain, "chain", "", `"eip155", or the CAIP-2 id of a Solana cluster`)
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	c.Flags().StringVar(&key.hex, "hex", "", "`FILE` with 64 hexadecimal digits")
	c.Flags().StringVar(&key.words, "mnemonic", "", "`FILE` with the words of BIP-39; needs --path")
	c.Flags().StringVar(&key.passphrase, "mnemonic-passphrase", "", "`FILE` with the words' passphrase")
	c.Flags().StringVar(&key.path, "path", "", "path of the key below the words, as m/44'/60'/0'/0/0")
	c.Flags().StringVar(&key.keypair, "keypair", "", "Solana keypair `FILE`")
	c.MarkFlagsMutuallyExclusive("hex", "mnemonic", "keypair")
	c.MarkFlagsOneRequired("hex", "mnemonic", "keypair")
	c.MarkFlagsRequiredTogether("mnemonic", "path")
	waitFlag(c, &wait)
	need(c, "organization", "owner", "chain", "name")
	return c
}

func walletDeriveCommand() *cobra.Command {
	var f stampFlags
	var r sigilv1.DeriveWalletRequest
	c := &cobra.Command{
		Use:   "derive --organization ID --wallet ID --path 0/7 --name NAME --key FILE…",
		Short: "Make a further address of a wallet's key (BIP-32, not hardened)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, f.organization
				out, err := c.Wallets().DeriveWallet(cmd.Context(), &r)
				if err == nil {
					w := out.GetWallet()
					fmt.Fprintf(cmd.OutOrStdout(), "wallet   %s\npath     %s\naddress  %s\n", w.GetWalletId(), w.GetPath(), w.GetAddress())
				}
				return err
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&r.WalletId, "wallet", "", "`ID` of one of the key's wallets")
	c.Flags().StringVar(&r.Path, "path", "", "path below the key")
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	need(c, "organization", "wallet", "path", "name")
	return c
}
