package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigOthersCouldHaveWrittenIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sigild.yaml")
	if err := os.WriteFile(path, []byte(small), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]string{0o620: "mode 0620 lets others write it; hint: chmod go-w", 0o602: "mode 0602", 0o644: "", 0o640: ""} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("mode %04o: error %v, want %q", mode, err, want)
		}
	}
	if _, err := Load(filepath.Dir(path)); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
}
