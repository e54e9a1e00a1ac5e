package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/tpm"
)

// pcrCommand is for the boot states in which a TPM opens the store. Three of its
// verbs speak to the TPM of this host; approve works where the approver's key is,
// with neither TPM nor configuration.
func pcrCommand() *cobra.Command {
	return group("pcr", "Approve and revoke the boot states in which the TPM opens the store",
		pcrPrepareCommand(), pcrShowCommand(), pcrApproveCommand(), pcrRevokeCommand())
}

func pcrPrepareCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "prepare",
		Short: "Make the counter that revokes approvals, before sigilctl init",
		Long: `Makes a counter in the TPM and prints the lines to add to the configuration.
Once, before "sigilctl init"; TPMs have room for few counters.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withTPM(cmd, func(ctx context.Context, cfg config.TPM, p *tpm.Provider) error {
				if cfg.PCRPolicy != nil {
					return hinted{errors.New("provider.tpm.pcr_policy names a counter already"), "sigilctl pcr show says what it is for"}
				}
				ref, err := p.MakeCounter(ctx)
				if err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				fmt.Fprintln(w, "add to provider.tpm in the configuration:")
				if cfg.SRKName == "" {
					fmt.Fprintf(w, "    srk_name: %x\n", p.SRKName())
				}
				fmt.Fprintf(w, "    pcr_policy:\n      approver: /etc/sigild/pcr-approver.json\n      counter: %s\n      approvals: /etc/sigild/pcr-approvals\n", ref)
				return nil
			})
		},
	}
}

func pcrShowCommand() *cobra.Command {
	var indexes []int
	var out string
	var ahead bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Show this boot state and what the approvals at hand say of it; write a request for an approval",
		Long: `Shows the PCRs of this boot, the counter that revokes, and for each approval in
the folder whether it opens the store now, or why not.

--out FILE writes a request for the approval of this boot state. Carry it to whoever
has the approver's key, have it signed ("sigilctl pcr approve"), and put the result
into the folder of the configuration. --ahead asks for one that outlives the next
"sigilctl pcr revoke".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withPCRPolicy(cmd, func(ctx context.Context, cfg config.PCRPolicy, p *tpm.Provider) error {
				approvals, err := tpm.ReadApprovals(cfg.Approvals)
				if err != nil {
					return err
				}
				slices.Sort(indexes)
				request, err := p.BootState(ctx, seal.KeyRef(cfg.Counter), slices.Compact(indexes))
				if err != nil {
					return err
				}
				if err := printBootState(ctx, cmd.OutOrStdout(), p, request, approvals); err != nil || out == "" {
					return err
				}
				if ahead {
					request.Sequence++
				}
				return writeApproval(cmd, out, request)
			})
		},
	}
	c.Flags().IntSliceVar(&indexes, "pcrs", []int{7}, "the registers, 0 to 23")
	c.Flags().StringVar(&out, "out", "", "write a request to this new `FILE`")
	c.Flags().BoolVar(&ahead, "ahead", false, "request an approval that holds after the next revocation")
	return c
}

// printBootState shows the registers and what each approval says of them.
func printBootState(ctx context.Context, out io.Writer, p *tpm.Provider, now tpm.Approval, approvals []tpm.NamedApproval) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "tpm\t%s\ncounter\t%d\n", p.ID(), now.Sequence)
	for _, n := range now.PCRs.Indexes() {
		v := now.PCRs[n]
		fmt.Fprintf(w, "PCR %d\t%x\n", n, v)
	}
	for _, a := range approvals {
		pcrs, err := p.ReadPCRs(ctx, a.PCRs.Indexes())
		if err != nil {
			return err
		}
		says := "opens the store"
		if why := p.Judge(a, pcrs, now.Sequence); why != nil {
			says = why.Error()
		}
		fmt.Fprintf(w, "%s\t%s\n", a.Name, says)
	}
	return w.Flush()
}

func pcrApproveCommand() *cobra.Command {
	var keyFile, out string
	c := &cobra.Command{
		Use:   "approve --key FILE --out FILE REQUEST",
		Short: "Sign a request for the approval of a boot state, where the approver's key is",
		Long: `Prints what the request says and signs it. Compare the PCRs with what you expect of
that host, by a way that does not lead through it: whoever approves a state says that
the store may open in it.

The key is made with "sigilctl credential create --purpose pcr-approval", on a machine
that is none of those that it approves. Neither TPM nor configuration is needed here.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := tpm.ReadApproval(args[0])
			if err != nil {
				return fmt.Errorf("reading the request: %w", err)
			}
			if len(a.Signature) != 0 {
				return fmt.Errorf("%s is signed already", args[0])
			}
			key, err := credential.LoadKey(keyFile)
			if err != nil {
				return err
			}
			defer key.Wipe()
			if key.Public().Algorithm != credential.P256 {
				return fmt.Errorf("approving: the key is of algorithm %q, want %q: a TPM has to verify it", key.Public().Algorithm, credential.P256)
			}
			message, err := a.Message()
			if err != nil {
				return err
			}
			if a.Signature, err = key.Sign(message); err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			fmt.Fprintf(w, "TPM       SRK %x\nrevoked   when its counter is above %d\n", a.SRKName, a.Sequence)
			for _, n := range a.PCRs.Indexes() {
				v := a.PCRs[n]
				fmt.Fprintf(w, "PCR %-5d %x\n", n, v)
			}
			return writeApproval(cmd, out, a)
		},
	}
	c.Flags().StringVar(&keyFile, "key", "", "the approver's private key `FILE`")
	c.Flags().StringVar(&out, "out", "", "write the approval to this new `FILE`")
	need(c, "key", "out")
	return c
}

func pcrRevokeCommand() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "revoke",
		Short: "Make void every approval signed so far, but those asked for with --ahead",
		Long: `Counts the counter in the TPM on by one. Every approval whose sequence is below it
opens nothing any more, for ever, also copies of it that others kept.

It refuses while no approval at hand would open the store in this boot state
afterwards: have one made first, "sigilctl pcr show --ahead". --force revokes all the
same; the store then opens no more until this boot state is approved anew.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withPCRPolicy(cmd, func(ctx context.Context, cfg config.PCRPolicy, p *tpm.Provider) error {
				count, err := p.ReadCounter(ctx, seal.KeyRef(cfg.Counter))
				if err != nil {
					return err
				}
				survives, err := opensAfter(ctx, p, cfg.Approvals, count+1)
				if err != nil {
					return err
				}
				if survives == "" && !force {
					return hinted{errors.New("no approval would open the store in this boot state afterwards"), "sigilctl pcr show --ahead --out FILE, and have it approved; or --force"}
				}
				if count, err = p.Increment(ctx, seal.KeyRef(cfg.Counter), count); err != nil {
					return err
				}
				w := cmd.OutOrStdout()
				fmt.Fprintf(w, "the counter is %d: approvals with a smaller sequence are void\n", count)
				if survives != "" {
					fmt.Fprintf(w, "%s opens the store in this boot state\n", survives)
				}
				return nil
			})
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also when nothing would open the store afterwards")
	return c
}

// opensAfter names an approval that opens this boot state when the counter is count.
func opensAfter(ctx context.Context, p *tpm.Provider, dir string, count uint64) (string, error) {
	approvals, err := tpm.ReadApprovals(dir)
	if err != nil {
		return "", err
	}
	for _, a := range approvals {
		pcrs, err := p.ReadPCRs(ctx, a.PCRs.Indexes())
		if err != nil {
			return "", err
		}
		if p.Judge(a, pcrs, count) == nil {
			return a.Name, nil
		}
	}
	return "", nil
}

// writeApproval makes a new file.
func writeApproval(cmd *cobra.Command, path string, a tpm.Approval) error {
	b, err := a.Encode()
	if err != nil {
		return err
	}
	return writeNew(cmd, path, b)
}

// withTPM lends the open TPM of the configuration.
func withTPM(cmd *cobra.Command, use func(context.Context, config.TPM, *tpm.Provider) error) error {
	cfg, err := loadConfig(cmd)
	if err != nil {
		return err
	}
	if cfg.Provider.TPM == nil {
		return fmt.Errorf("opening the TPM: %w: the configuration has no provider.tpm", seal.ErrUnsupported)
	}
	t, err := cfg.TPM(nil)
	if err != nil {
		return err
	}
	p, err := tpm.Open(cmd.Context(), t)
	if err != nil {
		return err
	}
	defer p.Close()
	return use(cmd.Context(), *cfg.Provider.TPM, p)
}

// withPCRPolicy lends the TPM of a configuration that has a PCR policy.
func withPCRPolicy(cmd *cobra.Command, use func(context.Context, config.PCRPolicy, *tpm.Provider) error) error {
	return withTPM(cmd, func(ctx context.Context, cfg config.TPM, p *tpm.Provider) error {
		if cfg.PCRPolicy == nil {
			return hinted{errors.New("the configuration has no provider.tpm.pcr_policy"), "sigilctl pcr prepare, before sigilctl init"}
		}
		return use(ctx, *cfg.PCRPolicy, p)
	})
}
