package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/status"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/device"
	"github.com/sigild/sigild/mpc"
	_ "github.com/sigild/sigild/mpc/engines/frost" // a device takes part with the daemon's engines
	_ "github.com/sigild/sigild/mpc/engines/gg18"
)

// The user's side: a device plays the user's party of keys, and its share never is on
// the appliance. The device calls; the appliance never does.

func deviceCommand() *cobra.Command {
	return group("device", "Hold a user's share in a file of your own, and take part in what needs it",
		deviceInitCommand(), deviceRegisterCommand(), deviceShowCommand(), devicePendingCommand(), deviceJoinCommand(), deviceSignCommand(),
		deviceWalletCommand(), deviceRemoveCommand())
}

// deviceFlags name the device's file and what opens it.
type deviceFlags struct{ file, identity string }

func (f *deviceFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.file, "file", "", "the device's `FILE`")
	c.Flags().StringVar(&f.identity, "identity", "", "age identity `FILE` (age-keygen) that opens it; - is the standard input")
	need(c, "file", "identity")
}

func (f *deviceFlags) readIdentity(cmd *cobra.Command) (*age.X25519Identity, error) {
	if f.identity == "-" {
		return device.ReadIdentity(cmd.InOrStdin())
	}
	in, err := os.Open(f.identity)
	if err != nil {
		return nil, fmt.Errorf("reading the identity: %w", err)
	}
	defer in.Close()
	return device.ReadIdentity(in)
}

// open runs use with the device's file open.
func (f *deviceFlags) open(cmd *cobra.Command, use func(*device.File) error) error {
	id, err := f.readIdentity(cmd)
	if err != nil {
		return err
	}
	file, err := device.Open(f.file, id)
	if err != nil {
		return err
	}
	defer file.Close()
	return use(file)
}

// dial runs use with a connection to the appliance's door.
func (f *deviceFlags) dial(cmd *cobra.Command, use func(context.Context, *device.File, *device.Device) error) error {
	return f.open(cmd, func(file *device.File) error {
		d, err := device.Dial(file)
		if err != nil {
			return err
		}
		defer d.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Minute)
		defer cancel()
		err = use(ctx, file, d)
		if reason := client.Reason(err); reason != "" {
			return fmt.Errorf("asking sigild: %s: %s", reason, status.Convert(err).Message())
		}
		return err
	})
}

func deviceInitCommand() *cobra.Command {
	var f deviceFlags
	c := &cobra.Command{
		Use:   "init --file FILE --identity FILE",
		Short: "Make a device: a file with a key of its own, and room for shares",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := f.readIdentity(cmd)
			if err != nil {
				return err
			}
			file, err := device.Create(f.file, id)
			if err != nil {
				return err
			}
			defer file.Close()
			own, err := file.Identity()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "pin  %s\n", own.Pin())
			return nil
		},
	}
	f.register(c)
	return c
}

func deviceRegisterCommand() *cobra.Command {
	var f deviceFlags
	var s stampFlags
	var r sigilv1.RegisterDeviceRequest
	var address string
	c := &cobra.Command{
		Use:   "register --file FILE --identity FILE --organization ID --user ID --name NAME --address ADDRESS --key FILE",
		Short: "Have the appliance let the device in; needs the user's stamp",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.open(cmd, func(file *device.File) error {
				own, err := file.Identity()
				if err != nil {
					return err
				}
				return s.call(cmd, func(c *client.Client, id string) error {
					r.RequestId, r.OrganizationId, r.Pin = id, s.organization, own.Pin().String()
					out, err := c.Devices().RegisterDevice(cmd.Context(), &r)
					if err != nil {
						return err
					}
					if err := file.Register(out.GetDeviceId(), out.GetAppliancePin(), address); err != nil {
						return err
					}
					fmt.Fprintf(cmd.OutOrStdout(), "device     %s\nappliance  %s\n", out.GetDeviceId(), out.GetAppliancePin())
					return nil
				})
			})
		},
	}
	f.register(c)
	s.register(c, true)
	c.Flags().StringVar(&r.UserId, "user", "", "`ID` of the end user whose device it is")
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	c.Flags().StringVar(&address, "address", "unix:/run/sigild/peer.sock", `where the appliance's door is: "unix:" and a path, or "tcp:" and host:port of its link`)
	need(c, "organization", "user", "name")
	return c
}

func deviceShowCommand() *cobra.Command {
	var f deviceFlags
	c := &cobra.Command{
		Use:   "show --file FILE --identity FILE",
		Short: "Say what is in the file, but for its secrets",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.open(cmd, func(file *device.File) error {
				own, err := file.Identity()
				if err != nil {
					return err
				}
				id, appliance, address := file.Where()
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				defer w.Flush()
				fmt.Fprintf(w, "pin\t%s\ndevice\t%s\nappliance\t%s\naddress\t%s\n", own.Pin(), id, appliance, address)
				for _, s := range file.Shares() {
					fmt.Fprintf(w, "share\t%s of wallet %s %q on %s, made %s\n", s.State, s.Wallet, s.Name, s.Chain, s.MadeAt.Format(time.RFC3339))
				}
				return nil
			})
		},
	}
	f.register(c)
	return c
}

func devicePendingCommand() *cobra.Command {
	var f deviceFlags
	c := &cobra.Command{
		Use:   "pending --file FILE --identity FILE",
		Short: "Ask what waits for the device, and which of its shares count",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.dial(cmd, func(ctx context.Context, _ *device.File, d *device.Device) error {
				answer, err := d.Pending(ctx)
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				defer w.Flush()
				for _, c := range answer.GetCeremonies() {
					fmt.Fprintf(w, "%s\t%s\twallet %s %q on %s\t%s\tuntil %s\n", c.GetCeremonyId(), c.GetKind(), c.GetWalletId(), c.GetName(), c.GetChain(),
						c.GetDescription(), c.GetEndsAt().AsTime().Format(time.RFC3339))
				}
				return nil
			})
		},
	}
	f.register(c)
	return c
}

func deviceJoinCommand() *cobra.Command {
	var f deviceFlags
	var ceremony string
	var yes bool
	c := &cobra.Command{
		Use:   "join --file FILE --identity FILE --ceremony ID [--yes]",
		Short: "Take part in a ceremony that waits: make a key, delegate, rotate",
		Long: `Takes the user's part in a ceremony, after a person has said yes. The share that it
makes is on the disk before the appliance hears of it. Whatever ends it early leaves
the ceremony waiting: join again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.dial(cmd, func(ctx context.Context, _ *device.File, d *device.Device) error {
				if err := d.Join(ctx, ceremony, approval(cmd, yes)); err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "ceremony %s is done\n", ceremony)
				return nil
			})
		},
	}
	f.register(c)
	c.Flags().StringVar(&ceremony, "ceremony", "", "`ID` of a ceremony (sigilctl device pending)")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask a person")
	need(c, "ceremony")
	return c
}

func deviceSignCommand() *cobra.Command {
	var f deviceFlags
	var r sigilv1.SignRequest
	var kind string
	var yes bool
	c := &cobra.Command{
		Use:   "sign --file FILE --identity FILE --wallet ID --kind KIND --request-id ID [--yes] <PAYLOAD",
		Short: "Sign with the appliance, as the wallet's owner",
		Long: `Reads a payload from stdin, as sigilctl request create does, shows what it means,
and signs it together with the appliance when a person has said yes and the
appliance's policies allow it. With --identity - the payload follows the identity.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.identity == "-" {
				return errors.New("the standard input has the payload; --identity must name a file")
			}
			text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxBare+1))
			if err == nil && len(text) > maxBare {
				err = fmt.Errorf("more than %d bytes", maxBare)
			}
			if err != nil {
				return fmt.Errorf("reading the payload: %w", err)
			}
			k := chains.Kind(kind)
			payload, err := payloadFrom(k, text)
			if err != nil {
				return err
			}
			if err := setPayload(&r, k, payload); err != nil {
				return err
			}
			return f.dial(cmd, func(ctx context.Context, _ *device.File, d *device.Device) error {
				out, err := d.Sign(ctx, &r, k, payload, approval(cmd, yes))
				if err != nil {
					return err
				}
				w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
				defer w.Flush()
				fmt.Fprintf(w, "summary\t%s\nrule\t%s\nsignature\t%x\n", out.GetSummary(), out.GetRule(), out.GetSignature())
				if len(out.GetSignedTransaction()) > 0 {
					fmt.Fprintf(w, "transaction\t%s\nsigned\t%x\n", out.GetTransactionId(), out.GetSignedTransaction())
				}
				return nil
			})
		},
	}
	f.register(c)
	c.Flags().StringVar(&r.WalletId, "wallet", "", "`ID` of the wallet")
	c.Flags().StringVar(&r.RequestId, "request-id", "", "your `ID` of the request: asking again with it gives the same answer")
	c.Flags().StringVar(&kind, "kind", "", "what the payload is, as in sigilctl request create")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask a person")
	need(c, "wallet", "kind", "request-id")
	return c
}

// approval shows what is proposed and asks a person at the terminal.
func approval(cmd *cobra.Command, yes bool) device.Approve {
	return func(p device.Proposed) error {
		w := cmd.ErrOrStderr()
		fmt.Fprintf(w, "%s with wallet %s %q on %s\n", p.Op, p.Wallet, p.Name, p.Chain)
		if p.Decoded != nil {
			fmt.Fprintf(w, "it says: %s\n", p.Decoded.Summary)
		}
		for _, set := range []*mpc.ShareSet{p.From, p.To} {
			if set != nil {
				fmt.Fprintf(w, "share set %s of %v, of which %d are needed\n", set.ID, set.Parties, set.Threshold)
			}
		}
		if yes {
			return nil
		}
		terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return hinted{errors.New("nobody is here to ask"), "--yes takes part without asking"}
		}
		defer terminal.Close()
		fmt.Fprint(terminal, `type "yes" to take part: `)
		line, _ := bufio.NewReader(terminal).ReadString('\n')
		if strings.TrimSpace(line) != "yes" {
			return errors.New("the person at the device said no")
		}
		return nil
	}
}

func deviceWalletCommand() *cobra.Command {
	var s stampFlags
	var r sigilv1.CreateDeviceWalletRequest
	c := &cobra.Command{
		Use:   "wallet --organization ID --owner ID --device ID --chain CHAIN --name NAME --key FILE…",
		Short: "Make a wallet whose user's share is made on a device; needs the root quorum",
		Long: `The keygen waits a day for the device to join. Without --recovery the key needs both
the appliance and the device: keep copies of the device's file and of its identity.
With --recovery a third share lies on the appliance, which alone holds a quorum then:
a lost device is no lost key, and the key says custody: host.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, s.organization
				out, err := c.Devices().CreateDeviceWallet(cmd.Context(), &r)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "wallet    %s\nkey       %s\nceremony  %s\n", out.GetWalletId(), out.GetKeyId(), out.GetCeremonyId())
				}
				return err
			})
		},
	}
	s.register(c, true)
	c.Flags().StringVar(&r.OwnerUserId, "owner", "", "`ID` of the end user who will own the wallet")
	c.Flags().StringVar(&r.DeviceId, "device", "", "`ID` of the owner's device")
	c.Flags().StringVar(&r.Chain, "chain", "", `"eip155", or the CAIP-2 id of a Solana cluster`)
	c.Flags().StringVar(&r.Name, "name", "", "a name for people")
	c.Flags().BoolVar(&r.Recovery, "recovery", false, "make a recovery share that lies on the appliance")
	need(c, "organization", "owner", "device", "chain", "name")
	return c
}

func deviceRemoveCommand() *cobra.Command {
	var s stampFlags
	var r sigilv1.RemoveDeviceRequest
	c := &cobra.Command{
		Use:   "remove --organization ID --device ID --key FILE…",
		Short: "Let a device in no more; needs its user's stamp or the root quorum",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(c *client.Client, id string) error {
				r.RequestId, r.OrganizationId = id, s.organization
				_, err := c.Devices().RemoveDevice(cmd.Context(), &r)
				return err
			})
		},
	}
	s.register(c, true)
	c.Flags().StringVar(&r.DeviceId, "device", "", "`ID` of the device")
	need(c, "organization", "device")
	return c
}
