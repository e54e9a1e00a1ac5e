package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// PolicyFile is one file of the policy directory, as it lies there.
type PolicyFile struct {
	Name    string
	Content []byte
}

// Bounds of the policy directory.
const (
	maxPolicyFile  = 512 << 10
	maxPolicyFiles = 256
)

// ReadPolicyDir reads the policy directory, ordered by name; nil when none is
// configured. Names that begin with a dot are skipped: editors leave them. Every
// other name must end in ".json" and be a regular file. The directory and the files
// must belong to root or to us, and nobody else may write them.
func (c Config) ReadPolicyDir() ([]PolicyFile, error) {
	if c.PolicyDir == "" {
		return nil, nil
	}
	files, err := readPolicyDir(c.PolicyDir)
	if err != nil {
		return nil, fmt.Errorf("reading policy_dir %s: %w", c.PolicyDir, err)
	}
	return files, nil
}

func readPolicyDir(dir string) ([]PolicyFile, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if err := trusted(info); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(dir) // ordered by name
	if err != nil {
		return nil, err
	}
	out := []PolicyFile{}
	for _, entry := range list {
		name := entry.Name()
		if strings.HasPrefix(name, ".") {
			continue
		}
		if !strings.HasSuffix(name, ".json") {
			return nil, fmt.Errorf("%s: only names that end in .json belong here", name)
		}
		if len(out) == maxPolicyFiles {
			return nil, fmt.Errorf("more than %d files", maxPolicyFiles)
		}
		content, err := readPolicyFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, PolicyFile{name, content})
	}
	return out, nil
}

func readPolicyFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait for its writer
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := checkOwner(f); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxPolicyFile+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxPolicyFile {
		return nil, errors.New("larger than 512 KiB")
	}
	return content, nil
}
