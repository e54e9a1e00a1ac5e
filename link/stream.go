package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/status"

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

// maxWaiting bounds the messages that came and were not asked for yet; a session reads
// as fast as they come.
const maxWaiting = 256

// Frames is a session's stream as an [mpc.Conn].
type Frames struct {
	stream stream
	// came has one token when waiting may have grown; it is closed at the end.
	came chan struct{}
	// mu guards what follows.
	mu      sync.Mutex
	waiting []*sigilv1.SessionFrame
	// failed says why nothing comes any more.
	failed error
	// last is the message that was no frame, if one came; of whoever receives.
	last *sigilv1.SessionFrame
}

var _ mpc.Conn = (*Frames)(nil)

// NewFrames reads the stream until it ends, which its owner brings about. What came
// before the end can still be received after it.
func NewFrames(s stream) *Frames {
	f := &Frames{stream: s, came: make(chan struct{}, 1)}
	go func() {
		defer close(f.came)
		for {
			m, err := s.Recv()
			f.mu.Lock()
			if err == nil && len(f.waiting) >= maxWaiting {
				err = fmt.Errorf("%w: %d messages that nobody asked for", ErrNoFrame, maxWaiting)
			}
			if f.failed = err; err == nil {
				f.waiting = append(f.waiting, m)
			}
			f.mu.Unlock()
			if err != nil {
				return
			}
			select {
			case f.came <- struct{}{}:
			default:
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
		f.last = m
		return nil, fmt.Errorf("%w: %T", ErrNoFrame, m.GetContent())
	}
	return frame.Frame, nil
}

// Signed waits for the appliance's answer to an OpenSignature, past the frames that
// are left. Nobody else may receive any more.
func (f *Frames) Signed(ctx context.Context) (*sigilv1.SignResponse, error) {
	for f.last == nil {
		if _, err := f.Recv(ctx); err != nil && f.last == nil {
			return nil, err
		}
	}
	if s := f.last.GetSigned(); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("waiting for the signature: %w: %T", ErrNoFrame, f.last.GetContent())
}

// Why is err, or the other side's own word on it: a stream that ended may carry a
// status that says more than that it ended.
func (f *Frames) Why(err error) error {
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for {
		if _, ended := f.Next(ctx); ended != nil {
			if st, said := status.FromError(ended); said && len(st.Details()) > 0 {
				return ended // a refusal with its reason
			}
			return err
		}
	}
}

// Next returns the next message, of whatever kind.
func (f *Frames) Next(ctx context.Context) (*sigilv1.SessionFrame, error) {
	for {
		f.mu.Lock()
		if len(f.waiting) > 0 {
			m := f.waiting[0]
			f.waiting = f.waiting[1:]
			f.mu.Unlock()
			return m, nil
		}
		failed := f.failed
		f.mu.Unlock()
		if failed != nil {
			return nil, failed
		}
		select {
		case <-f.came:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
