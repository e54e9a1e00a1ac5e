//go:build manual

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// With the build tag manual this is the program that writes its own man pages and
// completions into a folder; what ships is built without it and links none of it.
func init() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run -tags manual ./cmd/sigilctl FOLDER")
		os.Exit(2)
	}
	if err := writeManual(root(), os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "writing the manual:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func writeManual(c *cobra.Command, dir string) error {
	c.DisableAutoGenTag = true // the date comes from the package
	if err := doc.GenManTree(c, &doc.GenManHeader{Section: "1", Source: "sigild", Manual: "User commands"}, dir); err != nil {
		return err
	}
	for name, write := range map[string]func(string) error{
		"sigilctl.bash": func(p string) error { return c.GenBashCompletionFileV2(p, true) },
		"sigilctl.zsh":  c.GenZshCompletionFile,
		"sigilctl.fish": func(p string) error { return c.GenFishCompletionFile(p, true) },
	} {
		if err := write(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}
