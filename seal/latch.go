package seal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	// LatchVersion is the version of the file.
	LatchVersion = 1
	maxLatch     = 4 << 10
)

// Latch is what is remembered of a refused PIN, so that no restart tries it
// again: many devices lock or erase themselves after a few wrong PINs. It holds
// no secret.
type Latch struct {
	Version     int       `json:"version"`      // 1
	Time        time.Time `json:"time"`         // UTC, whole seconds
	Provider    string    `json:"provider"`     // "pkcs11" or "tpm2"
	TokenLabel  string    `json:"token_label"`  // as configured, or the id of a TPM; may be empty
	TokenSerial string    `json:"token_serial"` // as configured or seen; may be empty
	Error       string    `json:"error"`        // name of the device's code
}

// ReadLatch reads the latch file at path. ok is false when there is none. A file
// that is not exactly what we write is an error: the caller must take it for a
// latch.
func ReadLatch(path string) (l Latch, ok bool, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Latch{}, false, nil
	}
	if err != nil {
		return Latch{}, false, fmt.Errorf("reading the PIN latch: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLatch+1))
	if err != nil {
		return Latch{}, false, fmt.Errorf("reading the PIN latch: %w", err)
	}
	l, err = parseLatch(b)
	if err != nil {
		return Latch{}, false, fmt.Errorf("reading the PIN latch %s: %w", path, err)
	}
	return l, true, nil
}

// ClearLatch removes the latch file; its directory is synced on return. No file
// is no error. A provider that is running tries the PIN again at its next call.
func ClearLatch(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("clearing the PIN latch: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// parseLatch accepts only the bytes that encodeLatch writes.
func parseLatch(b []byte) (Latch, error) {
	if len(b) > maxLatch {
		return Latch{}, fmt.Errorf("more than %d bytes", maxLatch)
	}
	var l Latch
	if err := json.Unmarshal(b, &l); err != nil {
		return Latch{}, err
	}
	if l.Version != LatchVersion {
		return Latch{}, fmt.Errorf("version %d, want %d", l.Version, LatchVersion)
	}
	if l.Provider == "" || l.Error == "" || l.Time.IsZero() {
		return Latch{}, errors.New("provider, error or time is missing")
	}
	canonical, err := encodeLatch(l)
	if err != nil {
		return Latch{}, err
	}
	if !bytes.Equal(b, canonical) {
		return Latch{}, errors.New("not in canonical form")
	}
	return l, nil
}

func encodeLatch(l Latch) ([]byte, error) {
	l.Time = l.Time.UTC().Truncate(time.Second)
	b, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encoding the PIN latch: %w", err)
	}
	return append(b, '\n'), nil
}

// Write puts l at path, mode 0600; file and directory are synced on return.
func (l Latch) Write(path string) error {
	b, err := encodeLatch(l)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".pin-latch-*") // O_EXCL, 0600
	if err != nil {
		return fmt.Errorf("writing the PIN latch: %w", err)
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // a leftover is harmless
		return fmt.Errorf("writing the PIN latch: %w", err)
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing the latch's directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing the latch's directory: %w", err)
	}
	return nil
}

// CheckLatch returns nil only when the file says for certain that no wrong PIN
// is latched; else [ErrLatched].
func CheckLatch(path string) error {
	l, ok, err := ReadLatch(path)
	if err != nil {
		return fmt.Errorf("%w: %w; hint: look at it, then run sigilctl pin clear", ErrLatched, err)
	}
	if ok {
		return l.Err()
	}
	return nil
}

// Err is [ErrLatched] with what is remembered.
func (l Latch) Err() error {
	return fmt.Errorf("%w since %s (token %q: %s); hint: correct the PIN file, then run sigilctl pin clear",
		ErrLatched, l.Time.Format(time.RFC3339), l.TokenLabel+l.serialSuffix(), l.Error)
}

func (l Latch) serialSuffix() string {
	if l.TokenSerial == "" {
		return ""
	}
	return " serial " + l.TokenSerial
}
