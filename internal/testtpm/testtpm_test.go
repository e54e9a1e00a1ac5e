package testtpm

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// getRandom is TPM2_GetRandom for 8 bytes.
var getRandom = []byte{0x80, 0x01, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8}

// ask sends getRandom and returns the response code.
func ask(t *testing.T, c net.Conn, d time.Duration) (uint32, error) {
	t.Helper()
	if err := c.SetDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(getRandom); err != nil {
		return 0, err
	}
	head := make([]byte, 10)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0, err
	}
	body := make([]byte, binary.BigEndian.Uint32(head[2:])-10)
	if _, err := io.ReadFull(c, body); err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(head[6:]), nil
}

func dial(t *testing.T, tpm *TPM) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", tpm.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestTPMAnswersStopsAndRestarts(t *testing.T) {
	tpm := New(t)
	c := dial(t, tpm)
	if rc, err := ask(t, c, 5*time.Second); rc != 0 || err != nil {
		t.Fatalf("a fresh TPM answers %#x, %v, want success", rc, err)
	}
	if err := tpm.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, c, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a frozen TPM: %v, want a timeout", err)
	}
	if err := tpm.Cont(); err != nil {
		t.Fatal(err)
	}
	if err := tpm.Restart(); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, c, 5*time.Second); err == nil {
		t.Error("the old connection outlived the restart")
	}
	c = dial(t, tpm)
	if rc, err := ask(t, c, 5*time.Second); rc != 0 || err != nil {
		t.Errorf("a restarted TPM answers %#x, %v, want success", rc, err)
	}
	if err := tpm.Reset(); err != nil {
		t.Fatal(err)
	}
	if rc, err := ask(t, c, 5*time.Second); rc != 0x100 || err != nil {
		t.Errorf("a TPM that was reset answers %#x, %v, want TPM_RC_INITIALIZE", rc, err)
	}
}

func TestToolsReachTheTPM(t *testing.T) {
	tpm := New(t)
	if out := string(tpm.Run(t, "tpm2_getcap", "properties-fixed")); !strings.Contains(out, "TPM2_PT_MANUFACTURER") {
		t.Errorf("tpm2_getcap printed %q", out)
	}
}

func TestMakeRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	tpm, err := Make(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := tpm.Start(); err == nil {
		t.Error("a TPM that runs was started again")
	}
	for range 2 {
		if err := tpm.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	if err := tpm.Stop(); err == nil {
		t.Error("a TPM that is off was frozen")
	}
	if _, err := net.Dial("unix", tpm.Socket); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialing a TPM that is off: %v, want ECONNREFUSED", err)
	}
	if _, err := Make(dir); err == nil {
		t.Error("Make succeeded in a directory that holds a TPM")
	}
	if _, err := Make(filepath.Join(t.TempDir(), strings.Repeat("x", 200))); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Errorf("Make with a long path: %v, want advice", err)
	}
}
