package link

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
)

// told is a stream that says what it was told, and ends.
type told struct {
	messages [][]byte
	sent     int
}

func (s *told) Send(*sigilv1.SessionFrame) error { s.sent++; return nil }
func (s *told) Context() context.Context         { return context.Background() }
func (s *told) Recv() (*sigilv1.SessionFrame, error) {
	if len(s.messages) == 0 {
		return nil, io.EOF
	}
	m := new(sigilv1.SessionFrame)
	err := proto.Unmarshal(s.messages[0], m)
	s.messages = s.messages[1:]
	return m, err
}

// FuzzSession: whatever the other side sends on a session's stream, frames come out in
// order, anything else is told apart, and the end is reached.
func FuzzSession(f *testing.F) {
	message := func(m *sigilv1.SessionFrame) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return append([]byte{byte(len(b))}, b...)
	}
	frame := message(&sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_Frame{Frame: []byte("frame")}})
	signed := message(&sigilv1.SessionFrame{Content: &sigilv1.SessionFrame_Signed{Signed: &sigilv1.SignResponse{Signature: []byte{1}}}})
	f.Add([]byte{})
	f.Add(append(append([]byte{}, frame...), frame...))
	f.Add(append(append([]byte{}, frame...), signed...))
	f.Add([]byte{0, 3, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &told{}
		for len(b) > 0 && len(s.messages) < maxWaiting {
			n := min(int(b[0]), len(b)-1)
			s.messages = append(s.messages, b[1:1+n])
			b = b[1+n:]
		}
		all := append([][]byte{}, s.messages...)
		frames := NewFrames(s)
		for i := 0; ; i++ {
			got, err := frames.Recv(t.Context())
			if err != nil && !errors.Is(err, ErrNoFrame) {
				break // the end, or what is no message
			}
			m := new(sigilv1.SessionFrame)
			if i >= len(all) || proto.Unmarshal(all[i], m) != nil {
				t.Fatalf("message %d came out as %x, %v", i, got, err)
			}
			if _, is := m.GetContent().(*sigilv1.SessionFrame_Frame); is != (err == nil) || string(got) != string(m.GetFrame()) {
				t.Errorf("message %d, %v, came out as %x, %v", i, m, got, err)
			}
		}
		if _, err := frames.Recv(t.Context()); err == nil {
			t.Error("after the end something came")
		}
	})
}
