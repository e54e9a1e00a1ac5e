package link

import (
	"context"
	"errors"
	"fmt"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/mpc"
)

// MaxMessage is the longest message of a session's stream, in bytes.
const MaxMessage = mpc.MaxFrame + 1<<10

// stream is either end of PeerService.Session. Send and Recv fail when it ends; what
// Recv returns is the caller's.
type stream interface {
	Send(*sigilv1.SessionFrame) error
	Recv() (*sigilv1.SessionFrame, error)
	Context() context.Context
}

// Frames is a session's stream as an [mpc.Conn].
type Frames struct {
	stream stream
	in     chan *sigilv1.SessionFrame
	// failed says why nothing comes any more; written before in is closed.
	failed error
}

var _ mpc.Conn = (*Frames)(nil)

// NewFrames reads the stream until it ends, which its owner brings about.
func NewFrames(s stream) *Frames {
	f := &Frames{stream: s, in: make(chan *sigilv1.SessionFrame)}
	go func() {
		defer close(f.in)
		for {
			m, err := s.Recv()
			if err != nil {
				f.failed = err
				return
			}
			select {
			case f.in <- m:
			case <-s.Context().Done():
				f.failed = s.Context().Err()
				return
			}
		}
	}()
	return f
}

// Send sends one frame.
func (f *Frames) Send(ctx context.Context, frame []byte) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return f.stream.Send(&sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_Frame{Frame: frame}})
}

// ErrNoFrame: something else than a frame came inside a session.
var ErrNoFrame = errors.New("not a frame")

// Recv returns the next frame.
func (f *Frames) Recv(ctx context.Context) ([]byte, error) {
	m, err := f.Next(ctx)
	if err != nil {
		return nil, err
	}
	frame, ok := m.GetContent().(*sigilv1.SessionFrame_Frame)
	if !ok {
		return nil, fmt.Errorf("%w: %T", ErrNoFrame, m.GetContent())
	}
	return frame.Frame, nil
}

// Next returns the next message, of whatever kind.
func (f *Frames) Next(ctx context.Context) (*sigilv1.SessionFrame, error) {
	select {
	case m, ok := <-f.in:
		if !ok {
			return nil, f.failed
		}
		return m, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
