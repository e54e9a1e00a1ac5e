package sigild_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// pkg is what the checks know of a package. Paths of ours are relative to the
// module ("." is its root); imports are whole.
type pkg struct {
	path, name, doc string
	imports         []string // of every file, whatever its build constraint
	testImports     []string
	testsOnly       bool
}

// file is one text file of the repository, its path slash-separated and relative.
type file struct {
	path string
	body []byte
}

// confinement keeps one package, or all packages below a path, in some rooms.
type confinement struct {
	what      string
	rooms     string // path prefixes, space-separated
	testsFree bool   // tests of any room may import it
	why       string
}

func report(t *testing.T, found []string) {
	t.Helper()
	for _, f := range found {
		t.Error(f)
	}
}

// within says whether p is dir or lies below it.
func within(p, dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func withinAny(p string, dirs []string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return within(p, d) })
}

// ours strips the module path; ok is false for others' packages.
func ours(imp string) (rel string, ok bool) {
	if imp == modulePath {
		return ".", true
	}
	return strings.CutPrefix(imp, modulePath+"/")
}

// A house is the parsed order: what each room may reach.
type house struct {
	rooms  []string
	direct map[string][]string
}

func parseOrder(table string) (house, error) {
	h := house{direct: map[string][]string{}}
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		room, below, ok := strings.Cut(line, "->")
		room = strings.TrimSpace(room)
		if !ok || room == "" {
			return house{}, fmt.Errorf("reading %q: want room -> rooms", line)
		}
		if _, twice := h.direct[room]; twice {
			return house{}, fmt.Errorf("reading %q: the room has a row already", line)
		}
		h.rooms = append(h.rooms, room)
		h.direct[room] = strings.Fields(below)
	}
	for _, room := range h.rooms {
		for _, below := range h.direct[room] {
			if _, ok := h.direct[below]; !ok {
				return house{}, fmt.Errorf("row of %s: %s has no row", room, below)
			}
			if h.reach(below)[room] {
				return house{}, fmt.Errorf("row of %s: %s leads back to it", room, below)
			}
		}
	}
	return h, nil
}

// reach returns from and every room below it.
func (h house) reach(from ...string) map[string]bool {
	seen := map[string]bool{}
	for len(from) > 0 {
		room := from[0]
		from = from[1:]
		if !seen[room] {
			seen[room] = true
			from = append(from, h.direct[room]...)
		}
	}
	return seen
}

// room is the longest row that p begins with; "" if there is none.
func (h house) room(p string) string {
	best := ""
	for _, r := range h.rooms {
		if within(p, r) && len(r) > len(best) {
			best = r
		}
	}
	return best
}

func checkOrder(table, testsAlso string, pkgs []pkg) (found []string) {
	h, err := parseOrder(table)
	if err != nil {
		return []string{"import order: " + err.Error()}
	}
	also := h.reach(strings.Fields(testsAlso)...)
	for _, p := range pkgs {
		if p.path == "." && p.testsOnly {
			continue // this test
		}
		from := h.room(p.path)
		if from == "" {
			found = append(found, fmt.Sprintf("%s has no row in the import order: give it a place", p.path))
			continue
		}
		allowed := h.reach(from)
		for _, imp := range p.imports {
			if rel, ok := ours(imp); ok && !allowed[h.room(rel)] {
				found = append(found, fmt.Sprintf("%s imports %s: %s must not reach %s", p.path, rel, from, h.room(rel)))
			}
		}
		for _, imp := range p.testImports {
			if rel, ok := ours(imp); ok && !allowed[h.room(rel)] && !also[h.room(rel)] {
				found = append(found, fmt.Sprintf("a test of %s imports %s: not even tests of %s may reach %s", p.path, rel, from, h.room(rel)))
			}
		}
	}
	return found
}

func checkConfined(table []confinement, pkgs []pkg) (found []string) {
	for _, p := range pkgs {
		for _, c := range table {
			if withinAny(p.path, strings.Fields(c.rooms)) {
				continue
			}
			for _, imp := range p.imports {
				if within(imp, c.what) {
					found = append(found, fmt.Sprintf("%s imports %s, which stays in {%s}: %s", p.path, imp, c.rooms, c.why))
				}
			}
			for _, imp := range p.testImports {
				if within(imp, c.what) && !c.testsFree {
					found = append(found, fmt.Sprintf("a test of %s imports %s, which stays in {%s}: %s", p.path, imp, c.rooms, c.why))
				}
			}
		}
	}
	return found
}

func checkNames(bad []string, pkgs []pkg) (found []string) {
	for _, p := range pkgs {
		for _, name := range append(strings.Split(p.path, "/"), strings.TrimSuffix(p.name, "_test")) {
			if slices.Contains(bad, name) {
				found = append(found, fmt.Sprintf("%s: %q says nothing about what is inside", p.path, name))
				break
			}
		}
	}
	return found
}

func checkDocs(pkgs []pkg) (found []string) {
	for _, p := range pkgs {
		if !p.testsOnly && p.doc == "" {
			found = append(found, fmt.Sprintf("%s has no package comment: what, for whom, what it refuses", p.path))
		}
	}
	return found
}

func checkLength(limit int, files []file) (found []string) {
	for _, f := range files {
		if path.Ext(f.path) != ".go" || generated(f.body) {
			continue
		}
		if n := bytes.Count(f.body, []byte("\n")); n > limit {
			found = append(found, fmt.Sprintf("%s has %d lines, more than %d: is it still one thing you can name?", f.path, n, limit))
		}
	}
	return found
}

// generated looks for the line of https://go.dev/s/generatedcode.
func generated(src []byte) bool {
	for line := range bytes.Lines(src) {
		line = bytes.TrimRight(line, "\r\n")
		if bytes.HasPrefix(line, []byte("// Code generated ")) && bytes.HasSuffix(line, []byte(" DO NOT EDIT.")) {
			return true
		}
		if bytes.HasPrefix(line, []byte("package ")) {
			return false
		}
	}
	return false
}

func checkForeign(words []string, files []file) (found []string) {
	for _, f := range files {
		for i, line := range bytes.Split(f.body, []byte("\n")) {
			for _, w := range words {
				if bytes.Contains(line, []byte(w)) {
					found = append(found, fmt.Sprintf("%s:%d holds %q, which belongs to one machine or registry", f.path, i+1, w))
				}
			}
		}
	}
	return found
}

// checkSkips finds calls of Skip, Skipf and SkipNow in tests and in packages
// that help tests: a missing part must fail.
func checkSkips(files []file) (found []string) {
	for _, f := range files {
		if path.Ext(f.path) != ".go" {
			continue
		}
		set := token.NewFileSet()
		tree, err := parser.ParseFile(set, f.path, f.body, parser.SkipObjectResolution)
		if err != nil {
			found = append(found, err.Error())
			continue
		}
		if !strings.HasSuffix(f.path, "_test.go") && !slices.Contains(importsOf(tree), "testing") {
			continue
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if sel, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
				found = append(found, fmt.Sprintf("%s calls %s: a missing part must fail", set.Position(call.Pos()), sel.Sel.Name))
			}
			return true
		})
	}
	return found
}

// checkNotice compares the modules NOTICE names, indented by two spaces and
// followed by their licence, with those that link.
func checkNotice(notice []byte, linked []string) (found []string) {
	var named []string
	for line := range strings.Lines(string(notice)) {
		f := strings.Fields(line)
		if strings.HasPrefix(line, "  ") && !strings.HasPrefix(line, "   ") && len(f) >= 2 && strings.Contains(f[0], ".") && strings.Contains(f[0], "/") {
			named = append(named, f[0])
		}
	}
	for _, m := range linked {
		if !slices.Contains(named, m) {
			found = append(found, fmt.Sprintf("NOTICE doesn't name %s, which links into the binaries", m))
		}
	}
	for _, m := range named {
		if !slices.Contains(linked, m) {
			found = append(found, fmt.Sprintf("NOTICE names %s, which no longer links into the binaries", m))
		}
	}
	return found
}

func importsOf(tree *ast.File) (paths []string) {
	for _, spec := range tree.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// loadOnce runs go list once for all checks.
var loadOnce = sync.OnceValues(func() ([]pkg, error) {
	out, err := goList("-e", "-json=ImportPath,Name,Doc,Dir,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles", "./...")
	if err != nil {
		return nil, err
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var l struct {
			ImportPath, Name, Doc, Dir                                   string
			GoFiles, CgoFiles, IgnoredGoFiles, TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&l); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("decoding go list: %w", err)
		}
		rel, _ := ours(l.ImportPath)
		p := pkg{path: rel, name: l.Name, doc: l.Doc, testsOnly: len(l.GoFiles)+len(l.CgoFiles)+len(l.IgnoredGoFiles) == 0}
		for _, name := range slices.Concat(l.GoFiles, l.CgoFiles, l.IgnoredGoFiles, l.TestGoFiles, l.XTestGoFiles) {
			tree, err := parser.ParseFile(token.NewFileSet(), filepath.Join(l.Dir, name), nil, parser.ImportsOnly)
			if err != nil {
				return nil, fmt.Errorf("reading imports: %w", err)
			}
			if strings.HasSuffix(name, "_test.go") {
				p.testImports = append(p.testImports, importsOf(tree)...)
			} else {
				p.imports = append(p.imports, importsOf(tree)...)
			}
		}
		slices.Sort(p.imports)
		slices.Sort(p.testImports)
		p.imports, p.testImports = slices.Compact(p.imports), slices.Compact(p.testImports)
		pkgs = append(pkgs, p)
	}
})

func load(t *testing.T) []pkg {
	t.Helper()
	pkgs, err := loadOnce()
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 2 {
		t.Fatalf("go list names %d packages: the house can't be that empty", len(pkgs))
	}
	return pkgs
}

func goList(args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("running go list: %w\n%s", err, stderr.Bytes())
	}
	return out, nil
}

// linked returns the modules of others whose packages the patterns link.
func linked(t *testing.T, patterns ...string) []string {
	t.Helper()
	out, err := goList(append([]string{"-deps", "-f", "{{if not .Standard}}{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}{{end}}"}, patterns...)...)
	if err != nil {
		t.Fatal(err)
	}
	mods := strings.Fields(string(out))
	slices.Sort(mods)
	return slices.Compact(mods)
}

// files reads every text file of the repository.
func files(t *testing.T) (all []file) {
	t.Helper()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(skipDirs, d.Name()):
			return filepath.SkipDir
		case !d.Type().IsRegular(), p == ".git": // a file, in a worktree
			return nil
		}
		body, err := os.ReadFile(p)
		if err == nil && !bytes.ContainsRune(body, 0) {
			all = append(all, file{filepath.ToSlash(p), body})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return body
}
