package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
	"github.com/sigild/sigild/tpm"
)

// statusCommand asks the daemon on the admin socket.
func statusCommand() *cobra.Command {
	var socket, output string
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the appliance; exit 0 serving, 2 sealed, 1 error",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output must be table or json, not %q", output)
			}
			if socket == "" {
				cfg, err := loadConfig(cmd)
				if err != nil {
					return err
				}
				socket = cfg.Sockets.Admin.Path
			}
			st, err := askStatus(cmd.Context(), socket)
			if err != nil {
				return err
			}
			if output == "json" {
				b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(st)
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), string(b))
			} else {
				printStatus(cmd, st)
			}
			if st.GetSealed() {
				return exitError{hinted{errors.New("the appliance is sealed"), st.GetSealedReason()}, 2}
			}
			return nil
		},
	}
	c.Flags().StringVar(&socket, "socket", "", "ask this `socket` instead of the admin socket of the configuration")
	c.Flags().StringVar(&output, "output", "table", "table for people, json for programs")
	return c
}

func askStatus(ctx context.Context, socket string) (*sigilv1.GetStatusResponse, error) {
	// gRPC would wrap what is wrong with the socket three times over.
	probe, err := net.DialTimeout("unix", socket, 5*time.Second)
	if err != nil {
		return nil, unreachable(socket, err)
	}
	_ = probe.Close()
	conn, err := client.Dial(socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := conn.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
	if err != nil {
		return nil, unreachable(socket, err)
	}
	return st, nil
}

func printStatus(cmd *cobra.Command, st *sigilv1.GetStatusResponse) {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	defer w.Flush()
	state := "serving"
	if st.GetSealed() {
		state = "sealed: " + st.GetSealedReason()
	}
	fmt.Fprintf(w, "state\t%s\nversion\t%s\n", state, st.GetVersion())
	if st.GetSealed() {
		return
	}
	fmt.Fprintf(w, "appliance\t%s\nkeyslots\t%s\nrollback anchor\t%s\n", st.GetApplianceId(), strings.Join(st.GetProviders(), ", "), st.GetAnchor())
	printSealing(w, st.GetSealing())
	if st.GetPeerPin() != "" {
		fmt.Fprintf(w, "pin\t%s\n", st.GetPeerPin())
	}
	for _, lack := range st.GetMissingProtections() {
		fmt.Fprintf(w, "not protected\t%s\n", lack)
	}
	if f := st.GetPolicyFiles(); f != nil {
		fmt.Fprintf(w, "policy files\t%d in force, hash %x\n", f.GetFiles(), f.GetHash())
		if f.Alarm != nil {
			fmt.Fprintf(w, "ALARM\tthe policy files that lie there now are not in force: %s\n", f.GetAlarm())
		}
	}
	if p := st.GetPaused(); p != nil {
		fmt.Fprintf(w, "paused\tby its %s since %s: %s\n", p.GetLevel(), p.GetSince().AsTime().Format("2006-01-02T15:04:05Z"), p.GetReason())
	}
	fmt.Fprintf(w, "keys\t%d, of which this host alone could sign with %d (custody: host)\n", st.GetKeys(), st.GetKeysInHostCustody())
	fmt.Fprintf(w, "pre-parameters\t%d of %d ready\n", st.GetPreParametersReady(), st.GetPreParametersTarget())
	if l := st.GetTpmLockout(); l != nil {
		state := tpm.Lockout{Locked: l.GetLocked(), Tries: l.GetTries(), MaxTries: l.GetMaxTries(), Recovery: time.Duration(l.GetRecoverySeconds()) * time.Second}
		fmt.Fprintf(w, "TPM lockout\t%s\n", state)
	}
	fmt.Fprintf(w, "journal\t%d entries, signed by the device up to %d\n", st.GetJournalSequence(), st.GetCheckpointSequence())
	if st.CheckpointAlarm != nil {
		fmt.Fprintf(w, "ALARM\tthe device does not sign the journal: %s\n", st.GetCheckpointAlarm())
	}
	if st.ArchiveSequence != nil {
		fmt.Fprintf(w, "archive\tentries up to %d\n", st.GetArchiveSequence())
	}
	if st.ClockAlarm != nil {
		fmt.Fprintf(w, "ALARM\t%s; rules about time are errors and windows do not end by the clock (sigilctl clock show)\n", st.GetClockAlarm())
	}
	if st.ArchiveAlarm != nil {
		fmt.Fprintf(w, "ALARM\tthe archive can't be written: %s\n", st.GetArchiveAlarm())
	}
}
