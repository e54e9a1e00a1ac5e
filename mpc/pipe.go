package mpc

import (
	"context"
	"io"
	"slices"
	"sync"
)

// Pipe is a connection within this process: what one end sends the other receives.
// Closing either end ends both.
func Pipe() (a, b *PipeEnd) {
	p := &pipe{over: make(chan struct{})}
	ab, ba := make(chan []byte, maxAhead), make(chan []byte, maxAhead)
	return &PipeEnd{p, ba, ab}, &PipeEnd{p, ab, ba}
}

type pipe struct {
	once sync.Once
	over chan struct{}
}

// PipeEnd is one end of a [Pipe].
type PipeEnd struct {
	*pipe
	in  <-chan []byte
	out chan<- []byte
}

var _ Conn = (*PipeEnd)(nil)

// Send gives the other end a copy.
func (e *PipeEnd) Send(ctx context.Context, frame []byte) error {
	select {
	case <-e.over:
		return io.ErrClosedPipe
	default:
	}
	select {
	case e.out <- slices.Clone(frame):
		return nil
	case <-e.over:
		return io.ErrClosedPipe
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Recv returns what comes next; what was sent before the end is still there.
func (e *PipeEnd) Recv(ctx context.Context) ([]byte, error) {
	select {
	case b := <-e.in:
		return b, nil
	default:
	}
	select {
	case b := <-e.in:
		return b, nil
	case <-e.over:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Close ends the connection, once or more often.
func (e *PipeEnd) Close() { e.once.Do(func() { close(e.over) }) }
