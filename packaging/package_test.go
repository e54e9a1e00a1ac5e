package packaging

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Who rebuilds a release, in whatever folder, gets the same bytes, or it wasn't our source.
func TestRebuildIsTheSame(t *testing.T) {
	first := built(t)
	c := config(t, "again")
	c.Root = copySource(t, c.Root)
	again, err := Build(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(again.Tree)
	for _, pair := range [][2]string{{first.Deb, again.Deb}, {first.RPM, again.RPM}, {first.SBOM, again.SBOM}, {first.Bundle, again.Bundle}} {
		if filepath.Base(pair[0]) != filepath.Base(pair[1]) || !bytes.Equal(read(t, pair[0]), read(t, pair[1])) {
			t.Errorf("%s and %s differ", pair[0], pair[1])
		}
	}
}

// copySource copies what is ours into another folder.
func copySource(t *testing.T, root string) string {
	t.Helper()
	other := filepath.Join(t.TempDir(), "elsewhere")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "dist", "node_modules"}, d.Name()):
			return filepath.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(other, rel), 0o755)
		case !d.Type().IsRegular():
			return nil
		}
		return os.WriteFile(filepath.Join(other, rel), read(t, path), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The binaries say nothing about the machine that made them.
func TestBinariesHoldNoPathOfThisMachine(t *testing.T) {
	b := built(t)
	foreign := append(strings.Fields(command(t, "go", "env", "GOMODCACHE", "GOCACHE", "GOROOT")), config(t, "").Root, base, os.TempDir()+"/go-build")
	for _, path := range []string{daemonPath, toolPath} {
		body := read(t, filepath.Join(b.Tree, path))
		for _, foreign := range foreign {
			if bytes.Contains(body, []byte(foreign)) {
				t.Errorf("%s holds %s", path, foreign)
			}
		}
	}
}

func TestDebHoldsWhatItShould(t *testing.T) {
	deb := built(t).Deb
	var got []string
	for line := range strings.Lines(command(t, "dpkg-deb", "--contents", deb)) {
		f := strings.Fields(line)
		if f[1] != "root/root" {
			t.Errorf("not root's: %s", line)
		}
		if strings.HasPrefix(f[0], "d") {
			if f[0] != "drwxr-xr-x" {
				t.Errorf("a folder with other rights: %s", line)
			}
			continue
		}
		got = append(got, f[0]+" "+strings.TrimPrefix(f[5], "."))
	}
	slices.Sort(got)
	golden := strings.Split(strings.TrimSpace(string(read(t, "testdata/deb.txt"))), "\n")
	slices.Sort(golden)
	for _, g := range got {
		// A page for each verb of sigilctl, whichever there are.
		page := strings.HasPrefix(g, "-rw-r--r-- /usr/share/man/man1/sigilctl-")
		if !page && !slices.Contains(golden, g) {
			t.Errorf("not in testdata/deb.txt: %s", g)
		}
	}
	for _, g := range golden {
		if !slices.Contains(got, g) {
			t.Errorf("the package lacks: %s", g)
		}
	}
	conffiles := command(t, "dpkg-deb", "--info", deb, "conffiles")
	if conffiles != "/etc/sigild/sigild.yaml\n" {
		t.Errorf("conffiles are %q", conffiles)
	}
	if v := command(t, "dpkg-deb", "--field", deb, "Version"); v != "0.1.0-1\n" {
		t.Errorf("version is %q", v)
	}
}

func TestLintianIsSatisfied(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "lintian", "--allow-root", "--tag-display-limit", "0", "--fail-on", "error,warning", built(t).Deb).CombinedOutput()
	if err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}
}

func TestRPMHoldsWhatTheDebHolds(t *testing.T) {
	b := built(t)
	files := strings.Split(strings.TrimSpace(command(t, "rpm", "--query", "--package", "--list", b.RPM)), "\n")
	for line := range strings.Lines(command(t, "dpkg-deb", "--contents", b.Deb)) {
		path := strings.TrimPrefix(strings.Fields(line)[5], ".")
		path = strings.Replace(path, "/zsh/vendor-completions", "/zsh/site-functions", 1)
		if strings.HasSuffix(path, "/") || strings.Contains(path, "lintian") || strings.Contains(path, "changelog.Debian") {
			continue
		}
		if !slices.Contains(files, path) {
			t.Errorf("the rpm lacks %s", path)
		}
	}
	if got := command(t, "rpm", "--query", "--package", "--configfiles", b.RPM); got != "/etc/sigild/sigild.yaml\n" {
		t.Errorf("configuration files of the rpm: %q", got)
	}
	if got := command(t, "rpm", "--query", "--package", "--requires", b.RPM); !strings.Contains(got, "glibc >= 2.") || !strings.Contains(got, "systemd >= 252") {
		t.Errorf("the rpm requires %q", got)
	}
	if got := command(t, "rpm", "--query", "--package", "--scripts", b.RPM); !strings.Contains(got, "systemd-sysusers sigild.conf") || strings.Contains(got, "deb-systemd") {
		t.Errorf("scripts of the rpm: %s", got)
	}
}

// Every shell takes what we ship for it; sh stands for dash where they're scripts.
func TestScriptsParse(t *testing.T) {
	tree := built(t).Tree
	for _, dir := range []string{"deb", "rpm"} {
		scripts, err := filepath.Glob(filepath.Join(tree, dir, "*"))
		if err != nil || len(scripts) != 3 {
			t.Fatalf("%d scripts in %s (%v)", len(scripts), dir, err)
		}
		for _, s := range scripts {
			command(t, "sh", "-n", s)
		}
	}
	command(t, "bash", "-n", filepath.Join(tree, "completion/sigilctl.bash"))
}

func TestSBOMNamesEveryModule(t *testing.T) {
	b := built(t)
	var list cdx
	d := json.NewDecoder(bytes.NewReader(read(t, b.SBOM)))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		t.Fatal(err)
	}
	if list.Format != "CycloneDX" || list.SpecVersion != "1.5" || list.Metadata.Component.Version != "0.1.0" {
		t.Errorf("it begins with %+v", list.Metadata)
	}
	refs := map[string]bool{}
	names := map[string]string{}
	for _, c := range list.Components {
		if refs[c.Ref] || c.Version == "" {
			t.Errorf("%s: twice, or without a version", c.Ref)
		}
		refs[c.Ref], names[c.Name] = true, c.Version
	}
	for _, ref := range list.Dependencies[0].DependsOn {
		if !refs[ref] {
			t.Errorf("depends on %s, which is not there", ref)
		}
	}
	p, err := readParts(filepath.Join(b.Tree, daemonPath), filepath.Join(b.Tree, toolPath))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range p.modules {
		if names[used(m).Path] != used(m).Version {
			t.Errorf("%s is %q, linked is %s", used(m).Path, names[used(m).Path], used(m).Version)
		}
	}
	// A replacement is named as what it is.
	if names["github.com/agl/ed25519"] != "" || names["github.com/binance-chain/edwards25519"] == "" {
		t.Error("the replaced module is listed instead of its replacement")
	}
	for i, bin := range list.Metadata.Component.Components {
		if bin.Hashes[0].Content != p.binaries[i].sha256 {
			t.Errorf("%s has another hash than the file", bin.Name)
		}
	}
}

func TestLicencesAreAllThere(t *testing.T) {
	b := built(t)
	text := string(unzip(t, read(t, filepath.Join(b.Tree, docPath, "THIRD-PARTY.gz"))))
	for _, want := range []string{
		"github.com/ethereum/go-ethereum v", "GNU LESSER GENERAL PUBLIC LICENSE", "GNU GENERAL PUBLIC LICENSE",
		"github.com/miekg/pkcs11", "==== Go go1.", "modernc.org/sqlite", "google.golang.org/grpc v",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("THIRD-PARTY lacks %q", want)
		}
	}
}

func TestBundleIsVerifiedByStockTools(t *testing.T) {
	b := built(t)
	c := config(t, "bundle")
	if err := os.Mkdir(c.Out, 0o755); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c.SigningKey = filepath.Join(dir, "key")
	command(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", c.SigningKey)
	path, err := c.bundle(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	command(t, "tar", "-C", dir, "-xf", path)
	open := filepath.Join(dir, strings.TrimSuffix(filepath.Base(path), ".tar"))
	signers := "sigild " + string(read(t, c.SigningKey+".pub"))
	if err := os.WriteFile(filepath.Join(dir, "signers"), []byte(signers), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func() error {
		return exec.CommandContext(t.Context(), "sh", "-ec", `cd "$1"; sha256sum --check --strict --quiet SHA256SUMS
			ssh-keygen -Y verify -f ../signers -I sigild -n sigild-release -s SHA256SUMS.sig <SHA256SUMS`, "sh", open).Run()
	}
	if err := check(); err != nil {
		t.Fatalf("what we signed is refused: %v", err)
	}
	for _, name := range []string{filepath.Base(b.Deb), "INSTALL", "SHA256SUMS"} {
		file := filepath.Join(open, name)
		was := read(t, file)
		if err := os.WriteFile(file, append(slices.Clone(was), '\n'), 0o600); err != nil {
			t.Fatal(err)
		}
		if check() == nil {
			t.Errorf("%s was changed and nobody notices", name)
		}
		if err := os.WriteFile(file, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.bundle(t.Context(), b); err == nil {
		t.Error("a bundle was overwritten")
	}
}

func TestBuildRefuses(t *testing.T) {
	good := Config{Version: "1.2.3", Date: releaseDate, Compression: "xz"}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		want   string
		change func(*Config)
	}{
		{"is not MAJOR.MINOR.PATCH", func(c *Config) { c.Version = "" }},
		{"is not MAJOR.MINOR.PATCH", func(c *Config) { c.Version = "1.2.3-beta" }},
		{"is not MAJOR.MINOR.PATCH", func(c *Config) { c.Version = "1.02.3" }},
		{"is not MAJOR.MINOR.PATCH", func(c *Config) { c.Version = "1.2.3 -X main.version=4" }},
		{"no date", func(c *Config) { c.Date = time.Time{} }},
		{"not one of a release", func(c *Config) { c.Date = time.Now().Add(48 * time.Hour) }},
		{"compression", func(c *Config) { c.Compression = "zstd" }},
	} {
		c := good
		tc.change(&c)
		if _, err := Build(t.Context(), c); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", c, err, tc.want)
		}
	}
}

func TestBuildNeverOverwrites(t *testing.T) {
	b := built(t)
	for _, path := range []string{b.Deb, b.SBOM} {
		if _, err := keep(b.Bundle, filepath.Dir(path), filepath.Base(path)); err == nil || !strings.Contains(err.Error(), "file exists") {
			t.Errorf("a package was overwritten: %v", err)
		}
		if err := writeNew(path, nil); err == nil || !strings.Contains(err.Error(), "file exists") {
			t.Errorf("a file was overwritten: %v", err)
		}
	}
}

func TestExpandKnowsEveryName(t *testing.T) {
	got, err := expand("a: ${X}, b: $X ${Y}", map[string]string{"X": "1", "Y": ""})
	if err != nil || got != "a: 1, b: $X " {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := expand("${X}${Z}", map[string]string{"X": "1"}); err == nil || !strings.Contains(err.Error(), "nobody set ${Z}") {
		t.Errorf("an unknown name: %v", err)
	}
}

// The page is the file: nothing in it is taken for a request of roff.
func TestConfigPageIsTheFile(t *testing.T) {
	file := "# a-b\n.so /etc/passwd\n'br\nkey: \\fB\n"
	page := filepath.Join(t.TempDir(), "x.5")
	if err := os.WriteFile(page, configPage([]byte(file)), 0o600); err != nil {
		t.Fatal(err)
	}
	shown := command(t, "man", "--warnings", "-E", "ascii", "-l", "-Tascii", page)
	for line := range strings.Lines(file) {
		if !strings.Contains(shown, strings.TrimSpace(line)) {
			t.Errorf("the page lacks %q:\n%s", line, shown)
		}
	}
}

func unzip(t testing.TB, b []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
