package server

import (
	"net"
	"sync"

	"github.com/sigild/sigild/link"
)

// peerConns are the connections of peer.sock by who is at their other end: a party that
// is removed loses those it has, and with them what runs over them.
type peerConns struct {
	mu   sync.Mutex // guards open
	open map[*peerConn]struct{}
}

// peerConn is one of them.
type peerConn struct {
	net.Conn
	pin link.Pin
	all *peerConns
}

// Close ends the connection, once or more often.
func (c *peerConn) Close() error {
	c.all.mu.Lock()
	delete(c.all.open, c)
	c.all.mu.Unlock()
	return c.Conn.Close()
}

// add counts a connection until its Close.
func (p *peerConns) add(conn net.Conn, pin link.Pin) *peerConn {
	c := &peerConn{conn, pin, p}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = map[*peerConn]struct{}{}
	}
	p.open[c] = struct{}{}
	return c
}

// cut closes the connections of whom admits doesn't know any more.
func (p *peerConns) cut(admits func(link.Pin) bool) {
	p.mu.Lock()
	var gone []*peerConn
	for c := range p.open {
		if !admits(c.pin) {
			gone = append(gone, c)
		}
	}
	p.mu.Unlock()
	for _, c := range gone {
		c.Close()
	}
}

// admits says whether a pinned key is a party's at this moment.
func (p *Parts) admits(pin link.Pin) bool { return p.Delegation.PartyOf(pin.String()) != "" }
