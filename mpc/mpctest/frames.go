package mpctest

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/sigild/sigild/mpc"
)

// Liar is a connection whose messages, and nothing else, are changed on their way
// out: a hostile process that knows the format of frames (docs/formats.md; this is
// a second writing of it). Change gets each message; an empty kind drops it.
type Liar struct {
	mpc.Conn
	Change func(mpc.Envelope) mpc.Envelope
	// Dropped counts what was left out: the numbers of later frames close up.
	dropped uint64
}

// Send changes a message and sends it.
func (l *Liar) Send(ctx context.Context, frame []byte) error {
	if len(frame) < 10 {
		return errors.New("no frame")
	}
	seq := binary.BigEndian.Uint64(frame[2:10])
	if frame[1] == 6 {
		return nil
	}
	if frame[1] == 4 {
		e := l.Change(readMessage(frame[10:]))
		if e.Kind == "" {
			l.dropped++
			return nil
		}
		frame = append(append([]byte{}, frame[:10]...), writeMessage(e)...)
	}
	binary.BigEndian.PutUint64(frame[2:10], seq-l.dropped)
	return l.Conn.Send(ctx, frame)
}

func readMessage(b []byte) (e mpc.Envelope) {
	take := func(n int) []byte { f := b[:n]; b = b[n:]; return f }
	text := func() string { return string(take(int(take(1)[0]))) }
	member := func() mpc.Member { return mpc.Member{SetID: text(), Party: mpc.Party(text())} }
	e.Session = [32]byte(take(32))
	e.From = member()
	for n := take(1)[0]; n > 0; n-- {
		e.To = append(e.To, member())
	}
	e.Kind = text()
	e.Broadcast = take(1)[0] == 1
	e.Payload = append([]byte{}, take(int(binary.BigEndian.Uint32(take(4))))...)
	return e
}

func writeMessage(e mpc.Envelope) []byte {
	b := append([]byte{}, e.Session[:]...)
	text := func(s string) { b = append(append(b, byte(len(s))), s...) }
	member := func(m mpc.Member) { text(m.SetID); text(string(m.Party)) }
	member(e.From)
	b = append(b, byte(len(e.To)))
	for _, m := range e.To {
		member(m)
	}
	text(e.Kind)
	flags := byte(0)
	if e.Broadcast {
		flags = 1
	}
	b = binary.BigEndian.AppendUint32(append(b, flags), uint32(len(e.Payload)))
	return append(b, e.Payload...)
}
