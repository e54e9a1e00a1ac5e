package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

// Verbs about what opens the store, and the keys above it. They call the running
// daemon, with operators' stamps.

func keyslotCommand() *cobra.Command {
	return group("keyslot", "What opens the store: any one group does, within a group all are needed",
		keyslotListCommand(), keyslotAddCommand(), keyslotRemoveCommand(), keyslotVerifyCommand())
}

func rotateCommand() *cobra.Command {
	return group("rotate", "Bring in new keys while the daemon serves", rotateRootCommand(), rotateKEKCommand())
}

func keyslotListCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "list --key FILE",
		Short: "List the keyslots",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, _ string) error {
				out, err := c.Keyslot().ListKeyslots(cmd.Context(), &sigilv1.ListKeyslotsRequest{})
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "GROUP\tKEYSLOT\tDEVICE\tKEY\tSEALED")
				for _, s := range out.GetKeyslots() {
					fmt.Fprintf(w, "%d\t%d\t%s\t%s\t%s\n", s.GetGroup(), s.GetId(), s.GetProvider(), s.GetKeyRef(), s.GetCreatedAt().AsTime().Format("2006-01-02T15:04:05Z"))
					for _, r := range s.GetCustodians() {
						fmt.Fprintf(w, "\t\t\t%s\t\n", r)
					}
				}
				if err := w.Flush(); err != nil {
					return err
				}
				state := "in use"
				if out.GetRotating() {
					state = "in use; records are still being wrapped under it"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "root key %d %s\n", out.GetRootKey(), state)
				return nil
			})
		},
	}
	f.register(c, false)
	return c
}

func keyslotAddCommand() *cobra.Command {
	var f stampFlags
	var needed uint32
	var recipients, devices []string
	c := &cobra.Command{
		Use:   "add (--device NAME… | --custodian RECIPIENT… --needed M) --key FILE…",
		Short: "Add a group: devices that open the store together, or custodians; the operators' quorum",
		Long: `Adds a group of keyslots. With --device it is of devices of the configuration
("provider" is the main one), all of which are needed together, and which open it once
before it counts. With --custodian it is a recovery group: any M of the people open a
copy of the store.

Any one group is enough: after adding "tpm AND hsm" remove the group of the one alone.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				if len(devices) > 0 {
					out, err := c.Keyslot().AddDeviceGroup(cmd.Context(), &sigilv1.AddDeviceGroupRequest{RequestId: id, Devices: devices})
					if err == nil {
						fmt.Fprintf(cmd.OutOrStdout(), "group %d: %s\n", out.GetGroup(), strings.Join(devices, " and "))
					}
					return err
				}
				out, err := c.Keyslot().AddCustodians(cmd.Context(), &sigilv1.AddCustodiansRequest{RequestId: id, Needed: needed, Recipients: recipients})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "group %d: any %d of %d custodians\n", out.GetGroup(), needed, len(recipients))
				}
				return err
			})
		},
	}
	f.register(c, false)
	c.Flags().StringArrayVar(&recipients, "custodian", nil, "a custodian's age `RECIPIENT` (age1…); repeat")
	c.Flags().Uint32Var(&needed, "needed", 0, "how many custodians are needed together")
	c.Flags().StringArrayVar(&devices, "device", nil, "a device's `NAME` in the configuration; repeat for devices that are needed together")
	c.MarkFlagsRequiredTogether("custodian", "needed")
	c.MarkFlagsMutuallyExclusive("device", "custodian")
	c.MarkFlagsOneRequired("device", "custodian")
	return c
}

func keyslotRemoveCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "remove GROUP --key FILE…",
		Short: "Remove a group; the operators' quorum. Copies made before still open by it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := groupNumber(args[0])
			if err != nil {
				return err
			}
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Keyslot().RemoveKeyslotGroup(cmd.Context(), &sigilv1.RemoveKeyslotGroupRequest{RequestId: id, Group: number})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "group %d is removed; to shut copies that were made before, rotate root\n", number)
				}
				return err
			})
		},
	}
	f.register(c, false)
	return c
}

func keyslotVerifyCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "verify GROUP --key FILE",
		Short: "Ask a group's devices whether they open the store",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			number, err := groupNumber(args[0])
			if err != nil {
				return err
			}
			return f.call(cmd, func(c *client.Client, _ string) error {
				_, err := c.Keyslot().VerifyKeyslotGroup(cmd.Context(), &sigilv1.VerifyKeyslotGroupRequest{Group: number})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "group %d opens the store\n", number)
				}
				return err
			})
		},
	}
	f.register(c, false)
	return c
}

func rotateRootCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "root --key FILE…",
		Short: "Bring in a new root key and wrap every record under it; the operators' quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				out, err := c.Keyslot().RotateRootKey(cmd.Context(), &sigilv1.RotateRootKeyRequest{RequestId: id})
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "root key %d is in use; records are wrapped under it while signing goes on (sigilctl keyslot list)\n", out.GetRootKey())
				}
				return err
			})
		},
	}
	f.register(c, false)
	return c
}

func rotateKEKCommand() *cobra.Command {
	var f stampFlags
	c := &cobra.Command{
		Use:   "kek --key FILE…",
		Short: "Replace the devices' sealing keys and destroy the old ones; the operators' quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.call(cmd, func(c *client.Client, id string) error {
				_, err := c.Keyslot().RotateKEK(cmd.Context(), &sigilv1.RotateKEKRequest{RequestId: id})
				if err == nil {
					fmt.Fprintln(cmd.OutOrStdout(), "the old key is destroyed; the device opens no copy of the store that was made before")
				}
				return err
			})
		},
	}
	f.register(c, false)
	return c
}

func groupNumber(text string) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not the number of a keyslot group; see sigilctl keyslot list", text)
	}
	return uint32(n), nil
}
