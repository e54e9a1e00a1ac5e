package server

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/client"
)

func status1(c *client.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := c.Status().GetStatus(ctx, &sigilv1.GetStatusRequest{})
	return err
}

func TestConnectionLimits(t *testing.T) {
	for name, limits := range map[string]Limits{"of a uid": {ConnectionsPerUID: 2}, "of the socket": {Connections: 2}} {
		h := newHouse(t, func(c *Config) { c.Limits = limits })
		first, second, third := dial(t, h.app), dial(t, h.app), dial(t, h.app)
		for _, c := range []*client.Client{first, second} {
			if err := status1(c); err != nil {
				t.Fatal(err)
			}
		}
		if err := status1(third); err == nil {
			t.Errorf("%s: the third connection was taken", name)
		}
		if !strings.Contains(h.log.String(), "too many connections") {
			t.Errorf("%s: the log is silent", name)
		}
		if err := status1(dial(t, h.admin)); err != nil {
			t.Errorf("%s: the applications keep the operator out: %v", name, err)
		}
		first.Close()
		deadline := time.Now().Add(10 * time.Second)
		for status1(third) != nil { // the server notices the closed one when it reads
			if time.Now().After(deadline) {
				t.Fatalf("%s: the place of a closed connection stays taken", name)
			}
		}
	}
}

// A connection that never says anything loses its place.
func TestSilentConnectionIsClosed(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Handshake = 50 * time.Millisecond; c.Limits.Connections = 1 })
	conn, err := net.Dial("unix", h.app)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if _, err = conn.Read(buf); err != nil { // first the server's settings, then the end
			break
		}
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the server keeps a silent connection")
	}
}

func TestHeadersAreBounded(t *testing.T) {
	h := newHouse(t)
	if err := dialRaw(t, h.app).call(statusMethod, nil, "x-noise", strings.Repeat("n", 17<<10)); err == nil {
		t.Error("17 KiB of metadata were taken")
	}
	h.handlers.untouched(t, "headers")
}

func TestGracefulStopLetsCallsEnd(t *testing.T) {
	h := newHouse(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	h.handlers.set(func(context.Context, *request) error { close(entered); <-leave; return nil })
	c := dial(t, h.app)
	answer := make(chan error, 1)
	go func() { answer <- status1(c) }()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	deadline := time.Now().Add(10 * time.Second)
	for { // until the socket takes nobody any more
		conn, err := net.Dial("unix", h.app)
		if err != nil {
			break
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the stopping server takes connections")
		}
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped while a call runs: %v", err)
	default:
	}
	close(leave)
	if err := <-answer; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
	for _, path := range []string{h.app, h.admin} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// A connection that Accept took just before the stop is greeted, and its call
// answered: by us, or by the next process on the same socket.
func TestStopDropsNoConnectionItTook(t *testing.T) {
	path, inherit := inherited(t)
	taken, goOn := make(chan struct{}, 2), make(chan struct{})
	h := newHouse(t, func(c *Config) { c.App = inherit(); c.testOnlyTaken = func() { taken <- struct{}{}; <-goOn } })
	first, second := dial(t, path), dial(t, path)
	answers := make(chan error, 2)
	go func() { answers <- status1(first) }()
	<-taken
	stopped := make(chan error, 1)
	go func() { stopped <- h.stop() }()
	for !h.server.doors[0].listen.draining.Load() {
		runtime.Gosched() // until the server is stopping
	}
	go func() { answers <- status1(second) }() // waits in the backlog
	close(goOn)
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
	newHouse(t, func(c *Config) { c.App = inherit() })
	for range 2 {
		if err := <-answers; err != nil {
			t.Errorf("a call around the stop: %v", err)
		}
	}
}

func TestRestartsFailNoCall(t *testing.T) {
	path, inherit := inherited(t)
	h := newHouse(t, func(c *Config) { c.App = inherit() })
	done := make(chan struct{})
	var calls atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				c, err := client.Dial(path) // a connection of its own for each call
				if err == nil {
					err = status1(c)
					c.Close()
				}
				if calls.Add(1); err != nil {
					t.Errorf("a call over a restart: %v", err)
				}
			}
		})
	}
	for range 50 {
		for now := calls.Load(); calls.Load() < now+8; {
			runtime.Gosched() // until this server has answered a few
		}
		if err := h.stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
		h = newHouse(t, func(c *Config) { c.App = inherit() })
	}
	close(done)
	wg.Wait()
	t.Logf("%d calls over 50 restarts", calls.Load())
}

// inherited is a socket that outlives the servers on it; each call of inherit
// hands it down once more, as systemd does.
func inherited(t *testing.T) (path string, inherit func() Endpoint) {
	path = filepath.Join(socketDir(t), "inherited.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return path, func() Endpoint {
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		heir, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		return Endpoint{Listener: heir.(*net.UnixListener)}
	}
}

func TestStopCutsCallsThatDontEnd(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Limits.Stop = 20 * time.Millisecond })
	entered := make(chan struct{})
	h.handlers.set(func(ctx context.Context, _ *request) error { close(entered); <-ctx.Done(); return ctx.Err() })
	answer := make(chan error, 1)
	c := dial(t, h.app)
	go func() { answer <- status1(c) }()
	<-entered
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if err := <-answer; err == nil {
		t.Error("a cut call succeeded")
	}
}

func TestOneFailedSocketEndsBoth(t *testing.T) {
	dir := socketDir(t)
	h := &house{handlers: &handlers{}}
	s, err := New(Config{App: Endpoint{Path: filepath.Join(dir, "a")}, Admin: Endpoint{Path: filepath.Join(dir, "b")}}, &register{}, h.services())
	if err != nil {
		t.Fatal(err)
	}
	s.doors[1].listen.UnixListener.Close()
	if err := s.Serve(context.Background()); err == nil || !strings.Contains(err.Error(), "admin.sock") {
		t.Errorf("got %v, want the failure of admin.sock", err)
	}
}

func TestNewRefusesWhatItCanNotServe(t *testing.T) {
	dir := socketDir(t)
	cfg := Config{App: Endpoint{Path: filepath.Join(dir, "a")}, Admin: Endpoint{Path: filepath.Join(dir, "b")}}
	missing := (&house{handlers: &handlers{}}).services()
	missing.Organization = nil // served on admin.sock, which is opened second
	if _, err := New(cfg, &register{}, missing); err == nil || !strings.Contains(err.Error(), "no handler was given") {
		t.Errorf("a missing handler: got %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("a failed New leaves %v, %v", left, err)
	}
	s := &Server{}
	if _, err := s.wrap(&grpc.ServiceDesc{ServiceName: "x", Streams: []grpc.StreamDesc{{}}}, onApp); err == nil || !strings.Contains(err.Error(), "streams") {
		t.Errorf("streams: got %v", err)
	}
	if _, err := s.wrap(&grpc.ServiceDesc{ServiceName: "x", Methods: []grpc.MethodDesc{{MethodName: "Y"}}}, onApp); err == nil || !strings.Contains(err.Error(), "no row") {
		t.Errorf("a method without a row: got %v", err)
	}
}

func TestCloseWithoutServe(t *testing.T) {
	dir := socketDir(t)
	s, err := New(Config{App: Endpoint{Path: filepath.Join(dir, "a")}, Admin: Endpoint{Path: filepath.Join(dir, "b")}}, &register{}, (&house{handlers: &handlers{}}).services())
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	s.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("Close leaves %v, %v", left, err)
	}
}

func TestHandlersCanNotBeCalledPastTheWrapper(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a handler ran without the wrapper's findings")
		}
	}()
	requestFrom(context.Background())
}

func TestServeInternals(t *testing.T) {
	h := newHouse(t)
	receive := func(any) error { t.Error("the message was received"); return nil }
	// A connection without a caller: no transport of ours makes one.
	_, err := h.server.serve(context.Background(), onApp, statusMethod, receive, nil)
	wantReason(t, "no caller", err, "CALLER_NOT_ALLOWED")
	if err := (rawCodec{}).Unmarshal(nil, &sigilv1.SignRequest{}); err == nil {
		t.Error("the codec decodes into a message past the wrapper")
	}
	if _, err := (rawCodec{}).Marshal("text"); err == nil {
		t.Error("the codec sends what is no message")
	}
	if err := checkEncoding(metadata.Pairs("content-type", "application/grpc", "content-type", "application/grpc+json")); err == nil {
		t.Error("one good content type hides another")
	}
}

func TestPeerCredentials(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			c.Close()
		}
	}()
	tcp, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	if _, _, err := (peerCreds{}).ServerHandshake(tcp); err == nil || !strings.Contains(err.Error(), "not a unix socket") {
		t.Errorf("TCP: got %v", err)
	}
	if _, _, err := (peerCreds{}).ClientHandshake(context.Background(), "", tcp); err == nil {
		t.Error("the credentials serve a client")
	}

	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[0]), "pair")
	defer f.Close()
	defer syscall.Close(fds[1])
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	caller, err := readCaller(conn.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	if caller.UID != uint32(os.Geteuid()) || caller.GID != uint32(os.Getegid()) || caller.PID != int32(os.Getpid()) {
		t.Errorf("got %+v", caller)
	}
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pidfd)
	var fs unix.Statfs_t
	var st unix.Stat_t
	if err := errors.Join(unix.Fstatfs(pidfd, &fs), unix.Fstat(pidfd, &st)); err != nil {
		t.Fatal(err)
	}
	want := uint64(0) // before Linux 6.9 all pidfds have one inode
	if fs.Type == pidfsMagic {
		want = st.Ino
	}
	if caller.Process != want {
		t.Errorf("process %d, want %d", caller.Process, want)
	}
	_, info, err := peerCreds{}.ServerHandshake(&callerConn{UnixConn: conn.(*net.UnixConn), caller: caller})
	if err != nil || info.(callerInfo).caller != caller || info.(callerInfo).SecurityLevel != credentials.PrivacyAndIntegrity {
		t.Errorf("got %+v, %v", info, err)
	}
	conn.Close()
	if _, err := readCaller(conn.(*net.UnixConn)); err == nil {
		t.Error("a closed connection has a caller")
	}
}

func TestEndpoints(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "s")
	open := func(e Endpoint) (*net.UnixListener, func()) {
		t.Helper()
		l, remove, err := e.listen()
		if err != nil {
			t.Fatal(err)
		}
		return l, remove
	}
	l, remove := open(Endpoint{Path: path, Group: "54321"})
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o660 || info.Sys().(*syscall.Stat_t).Gid != 54321 {
		t.Errorf("mode %04o gid %d, want 0660 and 54321", info.Mode().Perm(), info.Sys().(*syscall.Stat_t).Gid)
	}
	if _, _, err := (Endpoint{Path: path}).listen(); !errors.Is(err, ErrAnswered) {
		t.Errorf("second daemon: got %v, want ErrAnswered", err)
	}
	l.Close()
	// Now the file is stale: nobody answers, and a new daemon takes the path over.
	second, removeSecond := open(Endpoint{Path: path, Mode: 0o600})
	remove() // the first one's late end
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the first daemon removed the second one's socket: %v", err)
	}
	second.Close()
	removeSecond()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its own socket is left: %v", err)
	}

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign")
	lf, _ := open(Endpoint{Path: foreign})
	lf.Close()
	if err := os.Lchown(foreign, 54321, -1); err != nil {
		t.Fatalf("giving a socket away (this test needs root): %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(foreign, link); err != nil {
		t.Fatal(err)
	}
	for want, e := range map[string]Endpoint{
		"not absolute":          {Path: "s"},
		"at most 107":           {Path: filepath.Join(dir, strings.Repeat("x", 100))},
		"is not a socket; hint": {Path: file},
		"is a socket of uid":    {Path: foreign},
		"is not a socket":       {Path: link},
		"no such file":          {Path: filepath.Join(dir, "absent", "s")},
		"looking up group":      {Path: path, Group: "no-such-group-here"},
		"not absolute ":         {},
	} {
		if _, _, err := e.listen(); err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("%+v: got %v, want error with %q", e, err, want)
		}
	}
	for _, left := range []string{file, foreign, link} {
		if _, err := os.Lstat(left); err != nil {
			t.Errorf("%s was touched: %v", left, err)
		}
	}
	if gid, err := lookupGroup("root"); err != nil || gid != 0 {
		t.Errorf("group root: %d, %v", gid, err)
	}
}

// systemd's socket is used as it is, and stays.
func TestInheritedSocketStays(t *testing.T) {
	path := filepath.Join(socketDir(t), "inherited")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, func(c *Config) { c.App = Endpoint{Listener: l} })
	if err := status1(dial(t, path)); err != nil {
		t.Error(err)
	}
	if err := h.stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the inherited socket is gone: %v", err)
	}
}

func TestNames(t *testing.T) {
	got := []string{(onApp | onAdmin).String(), roleAuditor.String(), (owner | root).String(), byAPIKey.String(), signatory(0).String()}
	if want := []string{"sigild.sock, admin.sock", "auditor", "root, owner", "API key", ""}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
