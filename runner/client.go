package runner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// Client is the daemon's side. It is safe for concurrent use.
type Client struct {
	// Socket is the unit's.
	Socket string
	// Timeout ends a run; the context may end it earlier.
	Timeout time.Duration
}

// dialWithin is how long the unit may take to be reached.
const dialWithin = 5 * time.Second

// Connection is one run.
type Connection struct {
	conn    net.Conn
	timeout time.Duration
}

// Connect reaches the unit; nothing secret has left.
func (c *Client) Connect(ctx context.Context) (*Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, dialWithin)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Socket)
	if err != nil {
		return nil, fmt.Errorf("reaching the vendor's program: %w", err)
	}
	return &Connection{conn, c.Timeout}, nil
}

// Sign hands everything over and returns at most 65 bytes, which may be anything.
// The secrets are lent. When ctx ends the connection does, and with it the program.
func (c *Connection) Sign(ctx context.Context, request, share, apiKey, token []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	end, _ := ctx.Deadline()
	err := writeRequest(c.conn, time.Until(end), [4][]byte{request, share, apiKey, token})
	var signature []byte
	if err == nil {
		signature, err = readAnswer(c.conn)
	}
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", ErrFailed, context.Cause(ctx))
	}
	if err != nil && !errors.Is(err, ErrFailed) {
		err = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return signature, err
}

// Close ends the run, if it goes on.
func (c *Connection) Close() error {
	if err := c.conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
