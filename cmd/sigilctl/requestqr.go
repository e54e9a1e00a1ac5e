package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/airgap"
)

// frameTime is how long one part of a message stands on the screen: what phones and
// webcams of wallets take comfortably.
const frameTime = 250 * time.Millisecond

func requestQRCommand() *cobra.Command {
	var pictures string
	var text bool
	var rounds int
	c := &cobra.Command{
		Use:   "qr FILE...",
		Short: "Show a request or an answer as QR codes; needs no daemon",
		Long: `Draws a message in the terminal. One that is too long for a code is shown as
a moving picture, part after part, until it is interrupted or --rounds are over;
cameras may begin anywhere and miss some. With --png the parts become pictures,
with --text one "ur:..." resource a line.

` + requestFiles,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			u, err := readMessage(files)
			if err != nil {
				return err
			}
			n := u.Fragments()
			parts, err := u.Parts(n * max(rounds, 1))
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			switch {
			case text:
				for _, p := range parts {
					fmt.Fprintln(w, p)
				}
				return nil
			case pictures != "":
				for i, p := range parts {
					b, err := airgap.PictureQR(p)
					if err != nil {
						return err
					}
					if err := writeNew(cmd, fmt.Sprintf("%s-%04d.png", pictures, i+1), b); err != nil {
						return err
					}
				}
				return nil
			}
			return play(cmd, w, u, parts, rounds)
		},
	}
	c.Flags().StringVar(&pictures, "png", "", "write pictures PREFIX-0001.png and so on")
	c.Flags().BoolVar(&text, "text", false, "print the resources as text")
	c.Flags().IntVar(&rounds, "rounds", 0, "`N` times as many parts as are needed, then end; 0: once as text or pictures, without end in a terminal")
	c.MarkFlagsMutuallyExclusive("png", "text")
	return c
}

// play shows the parts one after another, each over the last.
func play(cmd *cobra.Command, w io.Writer, u airgap.UR, parts []string, rounds int) error {
	f, ok := w.(*os.File)
	moving := ok && isTerminal(f) && u.Fragments() > 1
	for shown := 0; ; {
		for _, p := range parts[shown:] {
			code, err := airgap.TerminalQR(p)
			if err != nil {
				return err
			}
			if moving {
				fmt.Fprint(w, "\x1b[H\x1b[2J")
			}
			fmt.Fprint(w, code)
			shown++
			fmt.Fprintf(w, "part %d; %d are needed\n", shown, u.Fragments())
			if !moving {
				continue
			}
			select {
			case <-cmd.Context().Done():
				return nil
			case <-time.After(frameTime):
			}
		}
		if !moving || rounds > 0 {
			return nil
		}
		// Mixed parts beyond the ones before: whoever missed some needs no particular one.
		more, err := u.Parts(2 * len(parts))
		if err != nil {
			return err
		}
		parts = more
		if len(parts) > 1<<16 {
			shown, parts = 0, parts[:u.Fragments()]
		}
	}
}

// isTerminal reports whether f is a character device, such as a terminal.
func isTerminal(f *os.File) bool {
	s, err := f.Stat()
	return err == nil && s.Mode()&os.ModeCharDevice != 0
}
