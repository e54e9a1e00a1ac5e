package main

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/credential"
)

// Verbs for shares of a root set that are lost. Each has the other two parties make a
// new set, with a fresh share for whoever lost theirs, and ends the old one.

func recoverCommand() *cobra.Command {
	return group("recover", "Make a new root set without a share that is lost", recoverShareCommand(), recoverDeviceCommand(), recoverCustodianCommand())
}

func recoverShareCommand() *cobra.Command {
	var f stampFlags
	var wallet, recipient string
	var wait bool
	c := &cobra.Command{
		Use:   "share --organization ID --wallet ID [--recipient age1…] --key FILE…",
		Short: "The owner lost their share: they get a fresh one; the owner, or the root quorum",
		Long: `Makes a new root set from the shares that lie here. With --recipient the fresh share,
and all later ones of this owner, go to another age recipient, which the first --key,
one of the owner's, signs; only the owner can ask for that.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.RecoverShareRequest{OrganizationId: f.organization, WalletId: wallet}
			if recipient != "" {
				signature, err := signRecipient(f.keys[0], recipient)
				if err != nil {
					return err
				}
				r.ShareRecipient, r.ShareRecipientSignature = &recipient, signature
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId = id
				out, err := c.Keys().RecoverShare(cmd.Context(), r)
				if err != nil {
					return err
				}
				return f.follow(cmd, c, wait, out.GetCeremonyId())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of any of the key's wallets")
	c.Flags().StringVar(&recipient, "recipient", "", "an age `RECIPIENT` in place of the registered one")
	waitFlag(c, &wait)
	need(c, "organization", "wallet")
	return c
}

func signRecipient(keyFile, recipient string) ([]byte, error) {
	k, err := credential.LoadKey(keyFile)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", keyFile, err)
	}
	defer k.Wipe()
	return credential.SignRecipient(k, recipient)
}

// signRecipientCommand is what the holder of a new device does beside making its key.
func signRecipientCommand() *cobra.Command {
	var key, recipient string
	c := &cobra.Command{
		Use:   "sign-recipient --key FILE --recipient age1…",
		Short: "Sign the age recipient that a user's shares are to go to; prints hex",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			signature, err := signRecipient(key, recipient)
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), hex.EncodeToString(signature))
			}
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "private key `FILE` of the user")
	c.Flags().StringVar(&recipient, "recipient", "", "an age `RECIPIENT`")
	need(c, "key", "recipient")
	return c
}

func recoverDeviceCommand() *cobra.Command {
	var f stampFlags
	var user, recipient, signature string
	var credentials []string
	var wait bool
	c := &cobra.Command{
		Use:   "device --organization ID --owner ID --credential FILE.json… --recipient age1… --recipient-signature HEX --key FILE…",
		Short: "An end user lost their device: other credentials, and new root sets of all their keys; the root quorum",
		Long: `Replaces all credentials of an end user, who made the new ones with sigilctl credential
create --purpose user, and signed the new recipient with the first of them (sigilctl
credential sign-recipient). The lost ones stamp nothing any more when this returns. What
they stamped before stands: look at the user's delegations.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := &sigilv1.RecoverDeviceRequest{OrganizationId: f.organization, UserId: user, ShareRecipient: recipient}
			var err error
			if r.ShareRecipientSignature, err = hex.DecodeString(signature); err != nil {
				return errors.New("--recipient-signature is not in hex")
			}
			if r.Credentials, err = newCredentials(credential.ForUser, credentials); err != nil {
				return err
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				r.RequestId = id
				out, err := c.Keys().RecoverDevice(cmd.Context(), r)
				if err != nil {
					return err
				}
				return f.follow(cmd, c, wait, out.GetCeremonyIds()...)
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&user, "owner", "", "`ID` of the end user")
	c.Flags().StringArrayVar(&credentials, "credential", nil, "public `FILE` of a new credential; repeat")
	c.Flags().StringVar(&recipient, "recipient", "", "the age `RECIPIENT` of the user's shares from now on")
	c.Flags().StringVar(&signature, "recipient-signature", "", "the first credential's signature over it, in `HEX`")
	waitFlag(c, &wait)
	need(c, "organization", "owner", "credential", "recipient", "recipient-signature")
	return c
}

func recoverCustodianCommand() *cobra.Command {
	var f stampFlags
	var wallet, share, identity string
	var wait bool
	c := &cobra.Command{
		Use:   "custodian --organization ID --wallet ID --share FILE --identity FILE --key FILE",
		Short: "The recovery share is lost: a new root set with the owner's own share; the owner",
		Long: `Opens the owner's share, the age file of sigilctl wallet share, with the owner's age
identity and hands it to the daemon for one ceremony. It is worth nothing after that:
fetch the fresh one with sigilctl wallet share.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			secret, err := openAge(share, identity, maxShareFile)
			if err != nil {
				return err
			}
			defer clear(secret)
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.Keys().RecoverCustodian(cmd.Context(), &sigilv1.RecoverCustodianRequest{
					RequestId: id, OrganizationId: f.organization, WalletId: wallet, UserShare: secret,
				})
				if err != nil {
					return err
				}
				return f.follow(cmd, c, wait, out.GetCeremonyId())
			})
		},
	}
	f.register(c, true)
	c.Flags().StringVar(&wallet, "wallet", "", "`ID` of any of the key's wallets")
	c.Flags().StringVar(&share, "share", "", "the owner's share, an age `FILE`")
	c.Flags().StringVar(&identity, "identity", "", "age identity `FILE` that opens it")
	waitFlag(c, &wait)
	need(c, "organization", "wallet", "share", "identity")
	return c
}

// maxShareFile is the longest share that is read, in bytes; GG18's have some 15 KiB.
const maxShareFile = 64 << 10
