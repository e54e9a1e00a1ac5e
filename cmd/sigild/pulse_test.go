package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/server"
)

// answering is a daemon whose status is as told.
type answering struct {
	sigilv1.UnimplementedStatusServiceServer
	err error
}

func (a answering) GetStatus(context.Context, *sigilv1.GetStatusRequest) (*sigilv1.GetStatusResponse, error) {
	return &sigilv1.GetStatusResponse{}, a.err
}

// door listens; serve gets each connection, nil leaves them unaccepted.
func door(t *testing.T, serve func(net.Conn)) server.Endpoint {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done })
	go func() {
		defer close(done)
		for serve != nil {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	return server.Endpoint{Path: path}
}

func TestPulse(t *testing.T) {
	speaks := door(t, func(c net.Conn) { c.Write([]byte{0, 0, 0}) })
	full := door(t, func(net.Conn) {})
	hangs := door(t, nil)
	gone := server.Endpoint{Path: filepath.Join(t.TempDir(), "nothing")}
	for _, tc := range []struct {
		name   string
		doors  []server.Endpoint
		status error
		want   string // of the error; "" means alive
	}{
		{"both speak", []server.Endpoint{speaks, speaks}, nil, ""},
		{"one has connections enough", []server.Endpoint{speaks, full}, nil, ""},
		{"one is never answered", []server.Endpoint{speaks, hangs}, nil, "nobody answers on " + hangs.Path},
		{"one is gone", []server.Endpoint{gone, speaks}, nil, "knocking: dial unix " + gone.Path},
		{"the status fails", []server.Endpoint{speaks, speaks}, errors.New("no rooms"), "asking ourselves for the status: no rooms"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			p := pulse{log: slog.New(slog.NewTextHandler(&log, nil)), status: answering{err: tc.status}, doors: tc.doors}
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			err := p.check(ctx)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("check says %v, want %q", err, tc.want)
			}
			if said := strings.Contains(log.String(), "not alive"); said != (tc.want != "") {
				t.Errorf("the log has %q", log.String())
			}
		})
	}
}

// A daemon that is told to stop while it looks doesn't say that it hangs.
func TestPulseStopsQuietly(t *testing.T) {
	var log bytes.Buffer
	p := pulse{log: slog.New(slog.NewTextHandler(&log, nil)), status: answering{}, doors: []server.Endpoint{door(t, nil)}}
	ctx, cancel := context.WithCancel(t.Context())
	go cancel()
	if err := p.check(ctx); err == nil {
		t.Error("an interrupted look says that all is well")
	}
	if log.Len() > 0 {
		t.Errorf("the log has %q", log.String())
	}
}
