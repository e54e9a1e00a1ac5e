package packaging

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

// parts is what two binaries consist of, read from themselves.
type parts struct {
	goVersion string
	modules   []debug.Module // sorted by path; without our own
	binaries  []binary
}

type binary struct{ name, sha256 string }

func readParts(paths ...string) (parts, error) {
	var p parts
	for _, path := range paths {
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return p, fmt.Errorf("reading the build information of %s: %w", path, err)
		}
		p.goVersion = info.GoVersion
		for _, m := range info.Deps {
			if !slices.ContainsFunc(p.modules, func(have debug.Module) bool { return have.Path == m.Path }) {
				p.modules = append(p.modules, *m)
			}
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return p, err
		}
		sum := sha256.Sum256(body)
		p.binaries = append(p.binaries, binary{filepath.Base(path), hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(p.modules, func(a, b debug.Module) int { return cmp.Compare(a.Path, b.Path) })
	return p, nil
}

// used is the module that was really linked, behind a replacement.
func used(m debug.Module) debug.Module {
	if m.Replace != nil {
		return *m.Replace
	}
	return m
}

// noText are the modules that bring no licence text; NOTICE says what holds.
var noText = []string{"github.com/otiai10/primes"}

// licences joins the licence texts of all modules and of Go itself.
func (p parts) licences(ctx context.Context, c Config) ([]byte, error) {
	var all bytes.Buffer
	goRoot, err := c.run(ctx, c.Root, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	if err := appendLicences(&all, "Go "+p.goVersion, strings.TrimSpace(string(goRoot))); err != nil {
		return nil, err
	}
	dirs, err := p.folders(ctx, c)
	if err != nil {
		return nil, err
	}
	for _, m := range p.modules {
		err = appendLicences(&all, used(m).Path+" "+used(m).Version, dirs[m.Path])
		if err != nil && !slices.Contains(noText, m.Path) {
			return nil, err
		}
	}
	return all.Bytes(), nil
}

// folders says where the sources of each module lie, those of its replacement if it has one.
func (p parts) folders(ctx context.Context, c Config) (map[string]string, error) {
	args := []string{"list", "-m", "-f", "{{.Path}}\t{{.Dir}}"}
	for _, m := range p.modules {
		args = append(args, m.Path)
	}
	out, err := c.run(ctx, c.Root, "go", args...)
	if err != nil {
		return nil, err
	}
	dirs := map[string]string{}
	for line := range strings.Lines(string(out)) {
		path, dir, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		dirs[path] = dir
	}
	return dirs, nil
}

// appendLicences adds every licence text at the top of a module.
func appendLicences(to *bytes.Buffer, name, dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("looking for the licence of %s: %w", name, err)
	}
	found := 0
	for _, f := range files {
		upper := strings.ToUpper(f.Name())
		if f.IsDir() || strings.HasSuffix(upper, ".GO") ||
			!slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE", "PATENTS", "AUTHORS"}, func(s string) bool { return strings.HasPrefix(upper, s) }) {
			continue
		}
		body, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return fmt.Errorf("reading the licence of %s: %w", name, err)
		}
		if !strings.HasPrefix(upper, "AUTHORS") {
			found++
		}
		fmt.Fprintf(to, "==== %s: %s\n\n%s\n", name, f.Name(), bytes.TrimSpace(body))
	}
	if found == 0 {
		return fmt.Errorf("%s brings no licence text", name)
	}
	return nil
}

// The part of CycloneDX 1.5 that we write, https://cyclonedx.org/docs/1.5/json.
type (
	cdx struct {
		Format       string          `json:"bomFormat"`
		SpecVersion  string          `json:"specVersion"`
		Version      int             `json:"version"`
		Metadata     cdxMetadata     `json:"metadata"`
		Components   []cdxComponent  `json:"components"`
		Dependencies []cdxDependency `json:"dependencies"`
	}
	cdxMetadata struct {
		Timestamp string       `json:"timestamp"`
		Component cdxComponent `json:"component"`
	}
	cdxComponent struct {
		Type       string         `json:"type"`
		Ref        string         `json:"bom-ref"`
		Name       string         `json:"name"`
		Version    string         `json:"version"`
		PURL       string         `json:"purl,omitempty"`
		Hashes     []cdxHash      `json:"hashes,omitempty"`
		Components []cdxComponent `json:"components,omitempty"`
	}
	cdxHash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	cdxDependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn"`
	}
)

// sbom lists the binaries, every module in them with its version, Go, and the C
// library that they load. go.sum's sums are not hashes of files, so modules have none.
func sbom(c Config, p parts, glibc string) ([]byte, error) {
	self := cdxComponent{Type: "application", Ref: "sigild", Name: "sigild", Version: c.Version}
	for _, b := range p.binaries {
		self.Components = append(self.Components, cdxComponent{
			Type: "application", Ref: "binary:" + b.name, Name: b.name, Version: c.Version,
			Hashes: []cdxHash{{"SHA-256", b.sha256}},
		})
	}
	goVersion := strings.TrimPrefix(p.goVersion, "go")
	list := []cdxComponent{
		{Type: "library", Ref: "golang:std", Name: "std", Version: goVersion, PURL: "pkg:golang/std@" + goVersion},
		{Type: "library", Ref: "glibc", Name: "glibc", Version: ">=" + glibc},
	}
	for _, m := range p.modules {
		m = used(m)
		purl := "pkg:golang/" + m.Path + "@" + url.PathEscape(m.Version)
		list = append(list, cdxComponent{Type: "library", Ref: purl, Name: m.Path, Version: m.Version, PURL: purl})
	}
	needs := cdxDependency{Ref: self.Ref}
	for _, part := range list {
		needs.DependsOn = append(needs.DependsOn, part.Ref)
	}
	self.PURL = "pkg:generic/sigild@" + c.Version + "?arch=" + runtime.GOARCH
	b, err := json.MarshalIndent(cdx{
		Format: "CycloneDX", SpecVersion: "1.5", Version: 1,
		Metadata:   cdxMetadata{Timestamp: c.Date.UTC().Format(time.RFC3339), Component: self},
		Components: list, Dependencies: []cdxDependency{needs},
	}, "", "  ")
	return append(b, '\n'), err
}
