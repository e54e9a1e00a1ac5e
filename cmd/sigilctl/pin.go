package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/cmd/config"
	"github.com/sigild/sigild/seal"
)

// pinCommand clears the latch of a wrong PIN. The right to do so is the right to
// write the state directory; a daemon that waits sealed tries once again.
func pinCommand() *cobra.Command {
	var device string
	c := &cobra.Command{
		Use:   "clear",
		Short: "Allow one more try after the PIN file was corrected",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if _, known := cfg.Devices[device]; !known && device != config.MainDevice {
				return fmt.Errorf("the configuration names no device %q", device)
			}
			file := cfg.LatchFileOf(device)
			latch, latched, err := seal.ReadLatch(file)
			if err == nil && !latched {
				fmt.Fprintln(cmd.OutOrStdout(), "no wrong PIN is latched")
				return nil
			}
			// One that can't be read holds as well, and is cleared as well.
			since := "that could not be read"
			if err == nil {
				since = "of " + latch.Time.Format("2006-01-02 15:04:05 MST")
			}
			if err := seal.ClearLatch(file); err != nil {
				return err
			}
			soon := "seconds"
			if device != config.MainDevice {
				soon = "half a minute"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cleared the latch %s; the daemon tries the PIN once within %s\n", since, soon)
			return nil
		},
	}
	c.Flags().StringVar(&device, "device", config.MainDevice, "the device's `NAME` in the configuration")
	return group("pin", "Handle a latched wrong PIN", c)
}
