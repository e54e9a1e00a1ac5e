package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/cmd/sigilctl/decode"
)

// maxBare is the largest payload that is looked at without --jsonl, in bytes of text.
const maxBare = 8 << 20

// decodeCommand shows what a payload says and what would be signed, off-line.
func decodeCommand() *cobra.Command {
	var kind string
	var lines bool
	var kinds strings.Builder
	for _, k := range decode.Kinds() {
		fmt.Fprintf(&kinds, "\n  %-24s members: %s", k.Name, k.Members)
	}
	c := &cobra.Command{
		Use:   "decode --kind KIND [--jsonl] <PAYLOAD",
		Short: "Say what a payload does and what would be signed, with the decoders of the daemon",
		Long: `Reads a payload from stdin and prints in words what it does, and what a signature
would be made over. No key, daemon or network takes part.

With --jsonl every line of stdin is a JSON object and is answered by a line of
stdout, in order: {"id":...,"ok":true,"kind":...,"signing_hash":...,"view":{...},
"charges":[...],"summary":...} or {"id":...,"ok":false,"error":{"code":...,
"message":...,"offset":...}}. Members that a kind does not read are ignored; a
bad line is answered and the next one read. The exit code is 0 then.

Kinds:` + kinds.String(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := decode.Find(kind)
			if err != nil {
				return err
			}
			if lines {
				return k.Lines(cmd.InOrStdin(), cmd.OutOrStdout())
			}
			text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxBare+1))
			if err != nil {
				return fmt.Errorf("reading the payload: %w", err)
			}
			if len(text) > maxBare {
				return fmt.Errorf("reading the payload: more than %d bytes", maxBare)
			}
			said, err := k.Summary(text)
			var de *chains.DecodeError
			if errors.As(err, &de) {
				return fmt.Errorf("decoding %s: %w", k.Name, de)
			}
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), said)
			return err
		},
	}
	c.Flags().StringVar(&kind, "kind", "", "what the payload is, as listed above")
	c.Flags().BoolVar(&lines, "jsonl", false, "one JSON object a line in, one a line out")
	if err := c.MarkFlagRequired("kind"); err != nil {
		panic(err)
	}
	return c
}
