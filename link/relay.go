package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Relay carries bytes between connections that it accepts and ones that it makes,
// and looks at none of them. It is the body of `sigild link`, which alone has a
// network.
type Relay struct {
	// Listener is where connections come in; Serve closes it.
	Listener net.Listener
	// Network and Address are where each goes: "unix" and a path, or "tcp" and host:port.
	Network, Address string
	// MaxConnections at a time; zero means 64. PerHost of one remote host; zero means 8.
	MaxConnections, PerHost int
	// Idle ends a connection on which nothing passes; zero means 10 min.
	Idle time.Duration
	// Connect bounds the making of the second connection; zero means 10 s.
	Connect time.Duration
	Log     *slog.Logger

	// mu guards hosts and total.
	mu    sync.Mutex
	hosts map[string]int
	total int
}

func (r *Relay) defaults() {
	if r.MaxConnections == 0 {
		r.MaxConnections = 64
	}
	if r.PerHost == 0 {
		r.PerHost = 8
	}
	if r.Idle == 0 {
		r.Idle = 10 * time.Minute
	}
	if r.Connect == 0 {
		r.Connect = 10 * time.Second
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	r.hosts = map[string]int{}
}

// Serve relays until ctx ends, and then waits for every connection to end.
func (r *Relay) Serve(ctx context.Context) error {
	r.defaults()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { r.Listener.Close() })()
	for {
		conn, err := r.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("relaying: %w", err)
		case err != nil: // no descriptor left, or a connection that was gone
			r.Log.Warn("accepting a connection", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		host := hostOf(conn)
		if !r.enter(host) {
			r.Log.Warn("too many connections", "host", host)
			conn.Close()
			continue
		}
		running.Go(func() {
			defer r.leave(host)
			defer conn.Close()
			r.carry(ctx, conn, host)
		})
	}
}

// carry makes the second connection and copies until both directions have ended.
func (r *Relay) carry(ctx context.Context, in net.Conn, host string) {
	dialing, cancel := context.WithTimeout(ctx, r.Connect)
	var d net.Dialer
	out, err := d.DialContext(dialing, r.Network, r.Address)
	cancel()
	if err != nil {
		r.Log.Warn("connecting", "to", r.Address, "error", err)
		return
	}
	defer out.Close()
	start := time.Now()
	defer context.AfterFunc(ctx, func() { in.Close(); out.Close() })()
	var sent, received int64
	var both sync.WaitGroup
	both.Go(func() { sent = r.copy(out, in) })
	both.Go(func() { received = r.copy(in, out) })
	both.Wait()
	r.Log.Info("relayed", "host", host, "to", r.Address, "sent", sent, "received", received, "took", time.Since(start))
}

// copy carries one direction and then says that it has ended.
func (r *Relay) copy(to, from net.Conn) (n int64) {
	buf := make([]byte, 32<<10)
	for {
		_ = from.SetReadDeadline(time.Now().Add(r.Idle))
		k, err := from.Read(buf)
		if k > 0 {
			_ = to.SetWriteDeadline(time.Now().Add(r.Idle))
			w, err := to.Write(buf[:k])
			n += int64(w)
			if err != nil {
				from.Close() // the other direction has nobody to answer
				return n
			}
		}
		if err == nil {
			continue
		}
		half, ok := to.(interface{ CloseWrite() error })
		if !errors.Is(err, io.EOF) || !ok || half.CloseWrite() != nil {
			to.Close()
		}
		return n
	}
}

func (r *Relay) enter(host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total >= r.MaxConnections || host != "" && r.hosts[host] >= r.PerHost {
		return false
	}
	r.total++
	r.hosts[host]++
	return true
}

func (r *Relay) leave(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total--
	if r.hosts[host]--; r.hosts[host] == 0 {
		delete(r.hosts, host)
	}
}

// hostOf is the remote host without its port; "" on a unix socket.
func hostOf(c net.Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}
