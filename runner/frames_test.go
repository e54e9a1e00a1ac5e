package runner

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A caller that is slow or says too much is cut off, its process ends, and no program ran.
func TestUnitCutsOffItsCaller(t *testing.T) {
	head := append(magic[:], 0, 0, 0, 100)
	for name, sent := range map[string][]byte{
		"nothing":              nil,
		"half a head":          head[:4],
		"half a part":          append(append([]byte{}, head...), 0, 0, 0, 9, 'a'),
		"another version":      append([]byte{'S', 'G', 'V', 'H', 9}, make([]byte, 20)...),
		"a part that is long":  binary.BigEndian.AppendUint32(append([]byte{}, head...), maxRequest+1),
		"a part of four GiB":   append(append([]byte{}, head...), 0xff, 0xff, 0xff, 0xff),
		"a second share, long": binary.BigEndian.AppendUint32(append(append([]byte{}, head...), 0, 0, 0, 0), maxShare+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // each waits for the deadline of a request
			u := newUnit(t, `touch "$DIR/ran"`)
			c, err := net.Dial("unix", filepath.Join(u.dir, "sock"))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			var late net.Error
			if len(got) > 0 || errors.As(err, &late) && late.Timeout() {
				t.Errorf("it answers %q, %v; want an end", got, err)
			}
			if _, err := os.Stat(filepath.Join(u.dir, "ran")); err == nil {
				t.Error("the program ran")
			}
		})
	}
}

// Who dribbles a request byte by byte gets no more time than who says nothing.
func TestUnitCutsOffWhoDribbles(t *testing.T) {
	t.Parallel()
	u := newUnit(t, `touch "$DIR/ran"`)
	c, err := net.Dial("unix", filepath.Join(u.dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := binary.BigEndian.AppendUint32(append(magic[:], 0, 0, 0, 100), maxRequest)
	for end := time.Now().Add(time.Minute); ; {
		if _, err := c.Write(append(request, 'a')); err != nil {
			break // it has hung up
		}
		request = nil
		if time.Now().After(end) {
			t.Fatal("it still reads")
		}
		time.Sleep(20 * time.Millisecond)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "ran")); err == nil {
		t.Error("the program ran")
	}
}

// What a unit says is bounded in length and time, whoever answers on its socket.
func TestClientBelievesNoUnit(t *testing.T) {
	for name, answer := range map[string]func(net.Conn){
		"hangs up":           func(c net.Conn) { c.Close() },
		"reads nothing":      func(net.Conn) {},
		"answers nothing":    func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"a cut answer":       func(c net.Conn) { _, _ = c.Write([]byte{ranSigned, 0, 64, 1, 2}); c.Close() },
		"a long signature":   func(c net.Conn) { _, _ = c.Write(append([]byte{ranSigned, 0, maxSignature + 1}, make([]byte, 66)...)) },
		"a long reason":      func(c net.Conn) { _, _ = c.Write(append([]byte{ranFailed, 1, 1}, make([]byte, 257)...)) },
		"an unknown outcome": func(c net.Conn) { _, _ = c.Write([]byte{7, 0, 0}) },
		"a failure":          func(c net.Conn) { _, _ = c.Write([]byte{ranFailed, 0, 2, 'n', 'o'}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			accepted := make(chan net.Conn, 1)
			go func() {
				c, err := l.Accept()
				if err == nil {
					accepted <- c
					answer(c)
				}
			}()
			run, err := (&Client{Socket: path, Timeout: time.Second}).Connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer run.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			// More than the kernel keeps for a reader that doesn't read.
			got, err := run.Sign(ctx, make([]byte, maxRequest), make([]byte, maxShare), nil, nil)
			if !errors.Is(err, ErrFailed) || ctx.Err() != nil {
				t.Errorf("%x, %v; want ErrFailed in good time", got, err)
			}
			(<-accepted).Close()
		})
	}
}
