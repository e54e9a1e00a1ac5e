package packaging

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Where the binaries go in the tree.
const (
	daemonPath = "usr/sbin/sigild"
	toolPath   = "usr/bin/sigilctl"
	docPath    = "usr/share/doc/sigild"
)

// linkFlags: no build id, no debug information, all symbols bound at start.
const linkFlags = "-s -w -buildid= -X main.version=%s -extldflags '-Wl,-z,relro,-z,now'"

// copies are files of the repository, and where they go in the tree. The last
// rows go into the packages only as scripts or under other names (nfpm.yaml).
var copies = []struct{ from, to string }{
	{"packaging/sigild.yaml", "etc/sigild/sigild.yaml"},
	{"systemd/sigild.service", "usr/lib/systemd/system/sigild.service"},
	{"systemd/sigild.socket", "usr/lib/systemd/system/sigild.socket"},
	{"systemd/sigild-admin.socket", "usr/lib/systemd/system/sigild-admin.socket"},
	{"systemd/sigild-receive.service", "usr/lib/systemd/system/sigild-receive.service"},
	{"systemd/sigild-deliver.service", "usr/lib/systemd/system/sigild-deliver.service"},
	{"systemd/sigild-helper.socket", "usr/lib/systemd/system/sigild-helper.socket"},
	{"systemd/sigild-helper@.service", "usr/lib/systemd/system/sigild-helper@.service"},
	{"systemd/sigild-peer.socket", "usr/lib/systemd/system/sigild-peer.socket"},
	{"systemd/sigild-link.service", "usr/lib/systemd/system/sigild-link.service"},
	{"systemd/sigild.sysusers", "usr/lib/sysusers.d/sigild.conf"},
	{"systemd/sigild.tmpfiles", "usr/lib/tmpfiles.d/sigild.conf"},
	{"systemd/sigild.rules", "usr/lib/udev/rules.d/60-sigild.rules"},
	{"systemd/dropins/*.conf", "examples/"},
	{"packaging/receive.yaml", "examples/receive.yaml"},
	{"packaging/deliver.yaml", "examples/deliver.yaml"},
	{"packaging/helper.yaml", "examples/helper.yaml"},
	{"packaging/link.yaml", "examples/link.yaml"},
	{"systemd/sigild-metrics.socket", "examples/sigild-metrics.socket"},
	{"packaging/prometheus-rules.yml", "examples/prometheus-rules.yml"},
	{"packaging/copyright", docPath + "/copyright"},
	{"NOTICE", docPath + "/NOTICE"},
	{"docs/operating.md", docPath + "/operating.md"},
	{"docs/authority.md", docPath + "/authority.md"},
	{"docs/errors.md", docPath + "/errors.md"},
	{"docs/policy.md", docPath + "/policy.md"},

	{"packaging/lintian-overrides", "lintian-overrides"},
	{"packaging/deb/*", "deb/"},
	{"packaging/rpm/*", "rpm/"},
}

// stage fills tree and returns what the binaries consist of.
func stage(ctx context.Context, c Config, tree string) (parts, error) {
	if err := compile(ctx, c, tree); err != nil {
		return parts{}, err
	}
	for _, cp := range copies {
		if err := copyTo(c.Root, cp.from, tree, cp.to); err != nil {
			return parts{}, err
		}
	}
	if err := manual(ctx, c, tree); err != nil {
		return parts{}, err
	}
	p, err := readParts(filepath.Join(tree, daemonPath), filepath.Join(tree, toolPath))
	if err != nil {
		return parts{}, err
	}
	licences, err := p.licences(ctx, c)
	if err != nil {
		return parts{}, err
	}
	news, err := os.ReadFile(filepath.Join(c.Root, "NEWS.md"))
	if err != nil {
		return parts{}, err
	}
	for path, body := range map[string][]byte{
		docPath + "/THIRD-PARTY.gz": licences, docPath + "/NEWS.md.gz": news, "changelog.gz": c.changelog(),
	} {
		if err := write(tree, path, zip(body)); err != nil {
			return parts{}, err
		}
	}
	return p, nil
}

// compile builds both binaries. -trimpath, our own hand on the assembler and no
// version control information keep the machine out of them.
func compile(ctx context.Context, c Config, tree string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cache, err := c.run(ctx, c.Root, "go", "env", "GOMODCACHE")
	if err != nil {
		return err
	}
	c.env = append(c.env, cacheVariable+"="+strings.TrimSpace(string(cache)))
	if _, err := c.run(ctx, c.Root, "go", "build", "-trimpath", "-toolexec="+self+" "+ToolexecArg, "-buildvcs=false", "-buildmode=pie",
		"-ldflags="+fmt.Sprintf(linkFlags, c.Version), "-o", tree+"/", "./cmd/sigild", "./cmd/sigilctl"); err != nil {
		return err
	}
	for _, path := range []string{daemonPath, toolPath} {
		if err := os.MkdirAll(filepath.Join(tree, filepath.Dir(path)), 0o755); err != nil {
			return err
		}
		if err := os.Rename(filepath.Join(tree, filepath.Base(path)), filepath.Join(tree, path)); err != nil {
			return err
		}
	}
	return nil
}

func copyTo(root, pattern, tree, to string) error {
	from, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(from) == 0 {
		return fmt.Errorf("copying %s: %d files (%w)", pattern, len(from), err)
	}
	for _, f := range from {
		body, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		path := to
		if strings.HasSuffix(to, "/") {
			path += filepath.Base(f)
		}
		if err := write(tree, path, body); err != nil {
			return err
		}
	}
	return nil
}

func write(tree, path string, body []byte) error {
	path = filepath.Join(tree, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, body, 0o644)
}

// zip compresses without a name or a time inside.
func zip(body []byte) []byte {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		panic(err) // the level is a constant
	}
	w.Write(body) // a bytes.Buffer takes everything
	w.Close()
	return b.Bytes()
}

// manual writes man pages and completions: those of sigilctl by itself, that of
// the configuration from the configuration.
func manual(ctx context.Context, c Config, tree string) error {
	made, err := os.MkdirTemp("", "sigild-manual-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(made)
	if _, err := c.run(ctx, c.Root, "go", "run", "-tags", "manual", "./cmd/sigilctl", made); err != nil {
		return err
	}
	files, err := os.ReadDir(made)
	if err != nil {
		return err
	}
	for _, f := range files {
		body, err := os.ReadFile(filepath.Join(made, f.Name()))
		if err != nil {
			return err
		}
		path := "completion/" + f.Name()
		if filepath.Ext(f.Name()) == ".1" {
			path, body = "usr/share/man/man1/"+f.Name()+".gz", zip(body)
		}
		if err := write(tree, path, body); err != nil {
			return err
		}
	}
	daemon, err := os.ReadFile(filepath.Join(c.Root, "packaging/sigild.8"))
	if err != nil {
		return err
	}
	if err := write(tree, "usr/share/man/man8/sigild.8.gz", zip(daemon)); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(c.Root, "packaging/sigild.yaml"))
	if err != nil {
		return err
	}
	return write(tree, "usr/share/man/man5/sigild.yaml.5.gz", zip(configPage(config)))
}

// configPage is sigild.yaml(5): the file as it is, since its comments are the manual.
func configPage(config []byte) []byte {
	text := strings.ReplaceAll(string(config), `\`, `\e`)
	text = strings.ReplaceAll(text, "-", `\-`)
	var b strings.Builder
	b.WriteString(`.TH SIGILD.YAML 5 "" sigild "File formats"
.SH NAME
sigild.yaml \- configuration of sigild and sigilctl
.SH DESCRIPTION
This is the file as it is installed, with the value of every key that has a
default.
.PP
.nf
`)
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			b.WriteString(`\&`) // no request
		}
		b.WriteString(line)
	}
	b.WriteString(".fi\n.SH SEE ALSO\n.BR sigild (8),\n.BR sigilctl (1)\n")
	return []byte(b.String())
}

// changelog is what Debian wants of every package; what has changed is in NEWS.
func (c Config) changelog() []byte {
	return fmt.Appendf(nil, "sigild (%s-1) unstable; urgency=medium\n\n  * What is new is in /usr/share/doc/sigild/NEWS.md.gz.\n\n -- The sigild authors <sigild@users.noreply.github.com>  %s\n",
		strings.Replace(c.Version, "-", "~", 1), c.Date.UTC().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
}

// neededGlibc is the newest version of the C library that a symbol of the
// binaries asks for, "2.34"; they need no other library.
func neededGlibc(binaries ...string) (string, error) {
	newest := []int{0}
	for _, path := range binaries {
		f, err := elf.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		libraries, err := f.ImportedLibraries()
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", path, err)
		}
		for _, l := range libraries {
			if l != "libc.so.6" && !strings.HasPrefix(l, "ld-linux") {
				return "", fmt.Errorf("%s needs %s, which no dependency of the packages brings", filepath.Base(path), l)
			}
		}
		symbols, err := f.ImportedSymbols()
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", path, err)
		}
		for _, s := range symbols {
			dotted, ok := strings.CutPrefix(s.Version, "GLIBC_")
			if !ok {
				continue
			}
			var v []int
			for _, n := range strings.Split(dotted, ".") {
				i, err := strconv.Atoi(n)
				if err != nil {
					break // GLIBC_PRIVATE or an ABI's name
				}
				v = append(v, i)
			}
			if slices.Compare(v, newest) > 0 {
				newest = v
			}
		}
	}
	if len(newest) < 2 {
		return "", fmt.Errorf("no symbol names a version of the C library")
	}
	return fmt.Sprintf("%d.%d", newest[0], newest[1]), nil
}
