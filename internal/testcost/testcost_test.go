package testcost

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// A child's processor time counts as its parent's. The child works until it is told
// to stop, so that the test waits for what it counts and for no time.
func TestChildrenAreCounted(t *testing.T) {
	child := exec.Command("sh", "-c", "while :; do :; done")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	for deadline := time.Now().Add(2 * time.Minute); ; {
		own, err := of(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		worked, err := of(child.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		if worked < 3*tick {
			if time.Now().After(deadline) {
				t.Fatal("the child never worked")
			}
			continue
		}
		if all, err := ofTree(os.Getpid()); err != nil || all < own+worked {
			t.Errorf("%v in all, %v; own %v, the child's %v", all, err, own, worked)
		}
		return
	}
}

func TestProcessThatIsGone(t *testing.T) {
	if d, err := ofTree(1 << 30); err == nil {
		t.Errorf("%v for no process", d)
	}
}
