package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TestDemo is `make demo`, on each sealing device, with freshly built programs: it
// passes only if every step of the story did what it says.
func TestDemo(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the demo works as two scratch users, which only root can start: run this test as root, as CI does")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin+string(filepath.Separator), "../cmd/sigild", "../cmd/sigilctl", ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	for _, device := range []string{"hsm", "tpm"} {
		t.Run(device, func(t *testing.T) { tell(t, bin, device) })
	}
}

// tell runs the story and logs what it says.
func tell(t *testing.T, bin, device string) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	story, tell := io.Pipe()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		for lines := bufio.NewScanner(story); lines.Scan(); {
			t.Log(lines.Text())
		}
	}()
	demo := exec.CommandContext(ctx, filepath.Join(bin, "demo"), "-bin", bin, "-seal", device)
	demo.Stdout, demo.Stderr = tell, tell
	demo.WaitDelay = 5 * time.Second
	err := demo.Run()
	tell.Close()
	<-heard
	if err != nil {
		t.Error(err)
	}
}
