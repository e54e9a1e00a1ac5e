package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/seal"
	"github.com/sigild/sigild/tpm"
)

// Verbs and lines about sealing devices: which there are, and what they guard.

func providerCommand() *cobra.Command {
	return group("provider", "The sealing devices of the configuration", providerListCommand())
}

func providerListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "Open each device of the configuration and print its id, and the srk_name of a TPM",
		Long: `Opens each device of the configuration, as the daemon would, and prints its name and
id. A TPM whose srk_name is not set yet is believed once, and the line for the
configuration printed. A PIN that is latched as wrong is not tried. Exit code 1 when one
does not open.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			var failed []error
			for _, name := range cfg.DeviceNames() {
				if err := listDevice(cmd, cfg, name); err != nil {
					failed = append(failed, fmt.Errorf("%s: %w", name, err))
				}
			}
			return errors.Join(failed...)
		},
	}
}

func listDevice(cmd *cobra.Command, cfg config.Config, name string) error {
	if err := seal.CheckLatch(cfg.LatchFileOf(name)); err != nil {
		return err
	}
	d, unpinned, err := cfg.OpenToSee(cmd.Context(), name, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", name, d.ID())
	if t, ok := d.(*tpm.Provider); ok && unpinned {
		fmt.Fprintf(cmd.OutOrStdout(), "add to its section tpm in the configuration: srk_name: %s\n", hex.EncodeToString(t.SRKName()))
	}
	return nil
}

func needs(devices []string) string {
	if len(devices) == 0 {
		return "opens with the root key alone"
	}
	return "each use needs " + strings.Join(devices, " and ")
}

// printKeySealing is what key show says of the shares that are here.
func printKeySealing(row func(name, format string, args ...any), s *sigilv1.KeySealing) {
	for _, x := range s.GetShares() {
		row("share", "%s of %s: %s", x.GetParty(), x.GetShareSet(), needs(x.GetDevices()))
	}
	row("theft", "%s", theft(s.GetTheftOf()))
}

// theft says which case holds. The words are those of docs/attacksurface.md.
func theft(of []string) string {
	if len(of) == 0 {
		return "two devices: who steals one of them with this disk has no quorum"
	}
	return "one device: who steals " + strings.Join(of, ", or ") + " with this disk and its PIN has a quorum of shares"
}

// printSealing is what status says of devices.
func printSealing(w io.Writer, s *sigilv1.Sealing) {
	for _, d := range s.GetDevices() {
		fmt.Fprintf(w, "device %s\t%s\n", d.GetName(), d.GetId())
		if d.Alarm != nil {
			fmt.Fprintf(w, "ALARM\tdevice %s is not here: %s\n", d.GetName(), d.GetAlarm())
		}
	}
	for _, p := range s.GetParts() {
		fmt.Fprintf(w, "shares of %s\t%s\n", p.GetParty(), needs(p.GetDevices()))
	}
	if s.GetPending() {
		fmt.Fprintln(w, "shares\tare being sealed so; some may still be as before")
	}
	if s.GetAlarm() != "" {
		fmt.Fprintf(w, "ALARM\tshares can't be sealed as the configuration says: %s\n", s.GetAlarm())
	}
	fmt.Fprintf(w, "theft\t%s\n", theft(s.GetTheftOf()))
}
