// Package packaging makes what a stranger installs: a .deb and an .rpm from one
// list (nfpm.yaml), and a bundle for machines without a network, with checksums, a
// list of all parts (SBOM) and, given a key, a signature that stock tools verify.
// The same source, Go and C compiler give the same bytes.
//
// It refuses a version that two package systems would sort differently, to guess
// the date of a release, to overwrite one, and to leave out a linked module's licence.
package packaging

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Config of one [Build].
type Config struct {
	// Root is the folder of the repository.
	Root string
	// Out gets the files; it is made. A file that exists there is an error.
	Out string
	// Nfpm is the path of nfpm, from tools/go.mod.
	Nfpm string
	// Version is MAJOR.MINOR.PATCH, or with -dev or -rcN after it.
	Version string
	// Date is the release's; every file carries it. It must be set.
	Date time.Time
	// Compression of the packages: xz for releases, gzip when it must go fast.
	Compression string
	// SigningKey is the path of an OpenSSH private key; "" signs nothing.
	SigningKey string

	env []string // of the tools, besides ours
}

// Built are the paths of what was made.
type Built struct {
	Deb, RPM string
	SBOM     string
	// Bundle is a tar with all of the above, SHA256SUMS and its signature.
	Bundle string
	// Tree is the installed tree that the packages were made from; the caller removes it.
	Tree string
}

var versionForm = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-dev|-rc[1-9]\d*)?$`)

func (c Config) check() error {
	switch {
	case !versionForm.MatchString(c.Version):
		return fmt.Errorf("version %q is not MAJOR.MINOR.PATCH, or that with -dev or -rcN", c.Version)
	case c.Date.IsZero():
		return errors.New("no date; hint: SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)")
	case c.Date.Unix() < 0 || c.Date.After(time.Now().Add(24*time.Hour)):
		return fmt.Errorf("the date %s is not one of a release", c.Date.UTC().Format(time.DateOnly))
	case c.Compression != "xz" && c.Compression != "gzip":
		return fmt.Errorf("compression must be xz or gzip, not %q", c.Compression)
	}
	return nil
}

// Build makes everything, from the sources under Root, into Out. The program that
// calls it is run again as [ToolexecArg] says.
func Build(ctx context.Context, c Config) (b Built, err error) {
	if err := c.check(); err != nil {
		return b, fmt.Errorf("checking the release: %w", err)
	}
	if err := os.MkdirAll(c.Out, 0o755); err != nil {
		return b, fmt.Errorf("making the output folder: %w", err)
	}
	// Step 1: the tree as it will be installed.
	if b.Tree, err = os.MkdirTemp("", "sigild-tree-"); err != nil {
		return b, fmt.Errorf("making the tree: %w", err)
	}
	parts, err := stage(ctx, c, b.Tree)
	if err != nil {
		return b, fmt.Errorf("making the tree: %w", err)
	}
	// Step 2: the packages.
	glibc, err := neededGlibc(filepath.Join(b.Tree, daemonPath), filepath.Join(b.Tree, toolPath))
	if err != nil {
		return b, fmt.Errorf("reading what the binaries need: %w", err)
	}
	if b.Deb, err = c.pack(ctx, b.Tree, glibc, "deb"); err != nil {
		return b, err
	}
	if b.RPM, err = c.pack(ctx, b.Tree, glibc, "rpm"); err != nil {
		return b, err
	}
	// Step 3: what they consist of.
	list, err := sbom(c, parts, glibc)
	if err != nil {
		return b, fmt.Errorf("writing the SBOM: %w", err)
	}
	b.SBOM = filepath.Join(c.Out, "sigild-"+c.Version+".cdx.json")
	if err := writeNew(b.SBOM, list); err != nil {
		return b, fmt.Errorf("writing the SBOM: %w", err)
	}
	// Step 4: all of it for whoever has no network.
	if b.Bundle, err = c.bundle(ctx, b); err != nil {
		return b, fmt.Errorf("making the bundle: %w", err)
	}
	return b, nil
}

// pack runs nfpm for one kind of package and returns the package's path.
func (c Config) pack(ctx context.Context, tree, glibc, kind string) (string, error) {
	text, err := os.ReadFile(filepath.Join(c.Root, "packaging/nfpm.yaml"))
	if err != nil {
		return "", fmt.Errorf("packing: %w", err)
	}
	list, err := expand(string(text), map[string]string{
		"ARCH": runtime.GOARCH, "VERSION": c.Version, "COMPRESSION": c.Compression, "GLIBC": glibc,
	})
	if err != nil {
		return "", fmt.Errorf("packing: reading nfpm.yaml: %w", err)
	}
	into, err := os.MkdirTemp(c.Out, ".nfpm-")
	if err != nil {
		return "", fmt.Errorf("packing: %w", err)
	}
	defer os.RemoveAll(into)
	described := filepath.Join(into, "nfpm.yaml")
	if err := os.WriteFile(described, []byte(list), 0o600); err != nil {
		return "", fmt.Errorf("packing: %w", err)
	}
	if _, err := c.run(ctx, tree, c.Nfpm, "package", "--config", described, "--packager", kind, "--target", into+"/"); err != nil {
		return "", fmt.Errorf("packing the %s: %w", kind, err)
	}
	made, err := filepath.Glob(filepath.Join(into, "*."+kind))
	if err != nil || len(made) != 1 {
		return "", fmt.Errorf("packing the %s: nfpm made %d files (%w)", kind, len(made), err)
	}
	return keep(made[0], c.Out, filepath.Base(made[0]))
}

// keep puts a file under its name into dir. A link, unlike a rename, never replaces.
func keep(made, dir, name string) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.Link(made, path); err != nil {
		return "", fmt.Errorf("keeping %s: %w", name, err)
	}
	return path, nil
}

// expand replaces ${NAME}; an unknown name is an error, a lone $ stays.
func expand(text string, known map[string]string) (string, error) {
	var err error
	text = regexp.MustCompile(`\$\{\w+\}`).ReplaceAllStringFunc(text, func(v string) string {
		value, ok := known[v[2:len(v)-1]]
		if !ok {
			err = errors.Join(err, fmt.Errorf("nobody set %s", v))
		}
		return value
	})
	return text, err
}

// run runs one of the tools with our date and returns what it prints; what it
// says when it fails is the error.
func (c Config) run(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH="+strconv.FormatInt(c.Date.Unix(), 10), "CGO_ENABLED=1", "GOTOOLCHAIN=local", "GOFLAGS=", "LC_ALL=C.UTF-8", "TZ=UTC")
	cmd.Env = append(cmd.Env, c.env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", filepath.Base(name), err, strings.TrimSpace(stderr.String()+string(out)))
	}
	return out, nil
}

// writeNew writes a file that must not exist yet.
func writeNew(path string, body []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if _, err := f.Write(body); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
