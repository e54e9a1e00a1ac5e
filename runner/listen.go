package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"sync"
)

// maxRuns are under way at a time; more wait in the socket's queue.
const maxRuns = 8

// Listen takes connections and starts a process of its own for each, this binary
// with args and the connection as descriptor 3: what the unit's socket does under
// systemd, for where there is none. It returns when ctx ends and all runs have.
func Listen(ctx context.Context, l *net.UnixListener, log *slog.Logger, args ...string) error {
	var runs sync.WaitGroup
	defer runs.Wait()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	places := make(chan struct{}, maxRuns)
	for {
		places <- struct{}{}
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("taking connections: %w", err)
		}
		runs.Go(func() {
			defer func() { <-places }()
			if err := spawn(ctx, conn, args); err != nil {
				log.Error("a run of the vendor's program", "error", err)
			}
		})
	}
}

func spawn(ctx context.Context, conn *net.UnixConn, args []string) error {
	f, err := conn.File()
	_ = conn.Close()
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	return cmd.Run()
}
