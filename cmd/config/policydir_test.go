package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestPolicyDirIsRead(t *testing.T) {
	if files, err := (Config{}).ReadPolicyDir(); files != nil || err != nil {
		t.Errorf("none configured: %v, %v", files, err)
	}
	dir := t.TempDir()
	c := Config{PolicyDir: dir}
	for name, text := range map[string]string{"b.json": "two", "a.json": "one", ".b.json.swp": "an editor's"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.json", filepath.Join(dir, "c.json")); err != nil {
		t.Fatal(err)
	}
	files, err := c.ReadPolicyDir()
	if err != nil || len(files) != 3 || files[0].Name != "a.json" || string(files[1].Content) != "two" || string(files[2].Content) != "one" {
		t.Errorf("read %v, %v", files, err)
	}
}

func TestPolicyDirIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(dir, file string) error
		want  string
	}{
		"no folder":             {func(dir, _ string) error { return os.RemoveAll(dir) }, "no such file"},
		"a folder others write": {func(dir, _ string) error { return os.Chmod(dir, 0o770) }, "mode 0770 lets others write it"},
		"a file others write":   {func(_, file string) error { return os.Chmod(file, 0o602) }, "a.json: mode 0602 lets others write it"},
		"another name":          {func(dir, _ string) error { return os.WriteFile(filepath.Join(dir, "README"), nil, 0o600) }, "README: only names that end in .json"},
		"a folder inside":       {func(dir, _ string) error { return os.Mkdir(filepath.Join(dir, "b.json"), 0o700) }, "b.json: not a regular file"},
		"a FIFO":                {func(dir, _ string) error { return syscall.Mkfifo(filepath.Join(dir, "b.json"), 0o600) }, "b.json: not a regular file"},
		"a link to nowhere":     {func(dir, _ string) error { return os.Symlink("x", filepath.Join(dir, "b.json")) }, "b.json"},
		"too large":             {func(_, file string) error { return os.Truncate(file, maxPolicyFile+1) }, "a.json: larger than 512 KiB"},
		"a file for a folder": {func(dir, file string) error {
			return errors.Join(os.Remove(file), os.Remove(dir), os.WriteFile(dir, nil, 0o600))
		}, "not a directory"},
	} {
		dir := filepath.Join(t.TempDir(), "policies")
		file := filepath.Join(dir, "a.json")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.spoil(dir, file); err != nil {
			t.Fatal(err)
		}
		files, err := Config{PolicyDir: dir}.ReadPolicyDir()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q", name, files, err, c.want)
		}
	}
}
