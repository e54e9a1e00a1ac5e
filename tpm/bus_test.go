package tpm

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/internal/testtpm"
)

// bus lies between the provider and a real TPM, as wires do: it can listen, and it
// can change, swallow or make up what passes. It has a socket and, when asked, a
// character device with the manners of /dev/tpmrm0.
type bus struct {
	path string // for Config.Path

	mu       sync.Mutex
	tpm      *testtpm.TPM // where the next connection leads; guarded by mu
	captured []byte       // both directions, in order; guarded by mu
	commands []tpm2.TPMCC
	// wire is the way to the TPM while answer or change runs, which may send commands
	// of its own on it.
	wire net.Conn
	// answer, if it returns bytes, answers a command in the TPM's place. change
	// sees each answer of the TPM; what it returns goes on, nothing: no answer.
	answer func(cc tpm2.TPMCC, command []byte) []byte
	change func(cc tpm2.TPMCC, answer []byte) []byte
}

// newBus serves tpm on a socket.
func newBus(t testing.TB, tpm *testtpm.TPM) *bus {
	t.Helper()
	b := &bus{tpm: tpm, path: emulatorPrefix + filepath.Join(tpm.Dir, "bus")}
	l, err := net.Listen("unix", b.path[len(emulatorPrefix):])
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.serve(c)
		}
	})
	t.Cleanup(func() {
		l.Close()
		served.Wait()
	})
	return b
}

// busRig is a rig behind a bus.
func busRig(t testing.TB, change ...func(*Config)) (*rig, *bus) {
	t.Helper()
	var b *bus
	r := newRig(t, append(change, func(c *Config) {
		// newRig has just started the TPM that c.Path names.
		socket := c.Path[len(emulatorPrefix):]
		b = newBus(t, &testtpm.TPM{Dir: filepath.Dir(socket), Socket: socket})
		c.Path = b.path
	})...)
	return r, b
}

// serve passes frames on until either side hangs up.
func (b *bus) serve(c io.ReadWriteCloser) {
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	b.mu.Lock()
	to := b.tpm.Socket
	b.mu.Unlock()
	tpm, err := dialSocket(ctx, to)
	if err != nil {
		return
	}
	defer tpm.Close()
	for {
		command, err := readCommand(c)
		if err != nil {
			return
		}
		answer, ok := b.pass(tpm, command)
		if !ok {
			return
		}
		if answer == nil {
			continue
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// readCommand reads one command frame.
func readCommand(r io.Reader) ([]byte, error) {
	head := make([]byte, headerLen)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[2:])
	if n < headerLen || n > maxFrame {
		return nil, errors.New("no command frame")
	}
	frame := append(head, make([]byte, n-headerLen)...)
	_, err := io.ReadFull(r, frame[headerLen:])
	return frame, err
}

func (b *bus) pass(tpm net.Conn, command []byte) (answer []byte, ok bool) {
	cc := tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
	b.mu.Lock()
	b.captured = append(b.captured, command...)
	b.commands = append(b.commands, cc)
	made, change := b.answer, b.change
	b.wire = tpm
	b.mu.Unlock()
	if made != nil {
		if answer := made(cc, command); answer != nil {
			return answer, true
		}
	}
	answer, err := socket{tpm}.roundTrip(command)
	if err != nil {
		return nil, false
	}
	b.mu.Lock()
	b.captured = append(b.captured, answer...)
	b.mu.Unlock()
	if change != nil {
		answer = change(cc, answer)
	}
	return answer, true
}

// inject has the TPM carry out a command of somebody else's; only for answer and
// change to call.
func (b *bus) inject(t testing.TB, command []byte) {
	b.mu.Lock()
	wire := b.wire
	b.mu.Unlock()
	answer, err := socket{wire}.roundTrip(command)
	if err != nil || code(answer) != tpm2.TPMRCSuccess {
		t.Errorf("injecting %x: %x, %v", command, answer, err)
	}
}

// lead has connections lead to another TPM, from the next one on, and ends this one.
// Only for answer and change to call.
func (b *bus) lead(to *testtpm.TPM) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tpm = to
	b.wire.Close()
}

// set changes what the bus does.
func (b *bus) set(answer, change func(tpm2.TPMCC, []byte) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer, b.change = answer, change
}

// capture gives what passed since the last capture.
func (b *bus) capture() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.captured
	b.captured, b.commands = nil, nil
	return c
}

// asked counts how often cc was sent since the last capture.
func (b *bus) asked(cc tpm2.TPMCC) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for _, c := range b.commands {
		if c == cc {
			n++
		}
	}
	return n
}

// only applies f to the answers, or commands, of one command code.
func only(cc tpm2.TPMCC, f func([]byte) []byte) func(tpm2.TPMCC, []byte) []byte {
	return func(got tpm2.TPMCC, frame []byte) []byte {
		if got != cc {
			return nil
		}
		return f(frame)
	}
}

// changing is only for change: other answers pass as they are.
func changing(cc tpm2.TPMCC, f func([]byte) []byte) func(tpm2.TPMCC, []byte) []byte {
	return func(got tpm2.TPMCC, frame []byte) []byte {
		if got != cc {
			return frame
		}
		return f(frame)
	}
}

// refusal is an answer that is nothing but a code.
func refusal(rc tpm2.TPMRC) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, headerLen}, uint32(rc))
}
