package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/seal"
)

// pinCommand clears the latch of a wrong PIN. The right to do so is the right to
// write the state directory; a daemon that waits sealed tries once again.
func pinCommand() *cobra.Command {
	return group("pin", "Handle a latched wrong PIN", &cobra.Command{
		Use:   "clear",
		Short: "Allow one more try after the PIN file was corrected",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			latch, latched, err := seal.ReadLatch(cfg.LatchFile())
			if err == nil && !latched {
				fmt.Fprintln(cmd.OutOrStdout(), "no wrong PIN is latched")
				return nil
			}
			// One that can't be read holds as well, and is cleared as well.
			since := "that could not be read"
			if err == nil {
				since = "of " + latch.Time.Format("2006-01-02 15:04:05 MST")
			}
			if err := seal.ClearLatch(cfg.LatchFile()); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "cleared the latch %s; the daemon tries the PIN once within seconds\n", since)
			return nil
		},
	})
}
