// Command mk makes the packages; `make package` runs it. It refuses a release
// without a date: SOURCE_DATE_EPOCH, in seconds.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/sigild/sigild/packaging"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == packaging.ToolexecArg {
		os.Exit(packaging.Toolexec(os.Args[2:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mk:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	c := packaging.Config{Root: "."}
	flag.StringVar(&c.Version, "version", "", "`VERSION` of the release")
	flag.StringVar(&c.Out, "out", "dist", "`FOLDER` for what is made")
	flag.StringVar(&c.Nfpm, "nfpm", "bin/nfpm", "`PATH` of nfpm")
	flag.StringVar(&c.Compression, "compression", "xz", "of the packages: xz or gzip")
	flag.StringVar(&c.SigningKey, "key", "", "OpenSSH private key `FILE` that signs the bundle; without it nothing is signed")
	flag.Parse()
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return fmt.Errorf("reading SOURCE_DATE_EPOCH: %w", err)
		}
		c.Date = time.Unix(seconds, 0)
	}
	for _, path := range []*string{&c.Nfpm, &c.Out, &c.SigningKey} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	b, err := packaging.Build(ctx, c)
	defer os.RemoveAll(b.Tree)
	if err != nil {
		return err
	}
	for _, path := range []string{b.Deb, b.RPM, b.SBOM, b.Bundle} {
		fmt.Println(path)
	}
	return nil
}
