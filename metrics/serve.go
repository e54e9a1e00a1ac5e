package metrics

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// The socket speaks HTTP/1.1 and knows one request, GET /metrics. Who may connect is
// said by the mode of its file alone; nothing on the page is a secret.

// maxConnections bounds what scrapers can take; more wait in the kernel.
const maxConnections = 8

// Serve answers scrapes on l until ctx ends; it closes l. gather fills in each page.
func Serve(ctx context.Context, l net.Listener, gather func(*Page)) error {
	s := &http.Server{
		Handler: handler(gather), ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 8 << 10,
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = s.Close() // a scrape that is cut is asked again
	})
	err := s.Serve(&bounded{Listener: l, places: make(chan struct{}, maxConnections), closed: make(chan struct{})})
	if stop() {
		return fmt.Errorf("serving metrics: %w", err)
	}
	<-stopped
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving metrics: %w", err)
	}
	return nil
}

func handler(gather func(*Page)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.Error(w, "ask for /metrics", http.StatusNotFound)
			return
		}
		if r.Method != http.MethodGet {
			http.Error(w, "GET alone", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Type", ContentType)
		_, _ = page(gather).WriteTo(w) // who hung up is not there to hear of it
	})
}

func page(gather func(*Page)) *Page {
	p := new(Page)
	gather(p)
	return p
}

// bounded takes so many connections at a time.
type bounded struct {
	net.Listener
	places chan struct{}
	once   sync.Once // of closed
	closed chan struct{}
}

func (b *bounded) Accept() (net.Conn, error) {
	select {
	case b.places <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	c, err := b.Listener.Accept()
	if err != nil {
		<-b.places
		return nil, err
	}
	return &placed{Conn: c, leave: b.places}, nil
}

func (b *bounded) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

// placed gives its place back once.
type placed struct {
	net.Conn
	once  sync.Once
	leave chan struct{}
}

func (p *placed) Close() error {
	p.once.Do(func() { <-p.leave })
	return p.Conn.Close()
}

// WriteFile puts a page at path, mode 0644, so that a reader sees the old one or the new:
// the textfile of node_exporter. The folder must exist.
func WriteFile(path string, gather func(*Page)) error {
	var b bytes.Buffer
	if _, err := page(gather).WriteTo(&b); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".sigild-*") // node_exporter reads *.prom
	if err != nil {
		return fmt.Errorf("writing metrics: %w", err)
	}
	_, err = f.Write(b.Bytes())
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("writing metrics: %w", err)
	}
	return nil
}
