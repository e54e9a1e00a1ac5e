//go:build cgo

package hsm

// The worker's side. One thread, one request at a time. It trusts its parent;
// it checks the messages all the same.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/sigild/sigild/internal/secmem"
	"github.com/sigild/sigild/seal"

	"golang.org/x/sys/unix"
)

// built says whether this binary can load a PKCS#11 module.
const built = true

// parentFD is the worker's end of the socketpair.
const parentFD = 3

// WorkerMain is the main function of `sigild hsm-worker`: it serves the parent
// on file descriptor 3 until the parent closes it. It returns the exit code: 0,
// 1 when it can't protect itself, 2 when it was not started by sigild, 3 when
// the parent does not speak the protocol.
func WorkerMain() int {
	runtime.LockOSThread()
	// The daemon may still need a checkpoint while a signal ends the whole
	// process group. We end when our socket does.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	if kind, err := unix.GetsockoptInt(parentFD, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		fmt.Fprintln(os.Stderr, "hsm-worker: file descriptor 3 is no socket; sigild starts this process by itself")
		return 2
	}
	unix.CloseOnExec(parentFD)
	if err := harden(); err != nil {
		fmt.Fprintln(os.Stderr, "hsm-worker:", err)
		return 1
	}
	if err := serveParent(os.NewFile(parentFD, "sigild"), &token{}); err != nil {
		fmt.Fprintln(os.Stderr, "hsm-worker:", err)
		return 3
	}
	return 0
}

// harden makes the process undumpable and checks what the parent arranged.
func harden() error {
	if err := secmem.HardenProcess(); err != nil {
		return err
	}
	set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err != nil {
		return fmt.Errorf("reading no-new-privs: %w", err)
	}
	if set != 1 {
		return errors.New("checking no-new-privs: it is not set")
	}
	return nil
}

// serveParent answers requests until opShutdown or the end of the stream.
func serveParent(parent io.ReadWriter, t *token) error {
	defer t.close()
	for {
		body, err := readBody(parent)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		request, err := decodeRequest(body)
		if err != nil {
			return err
		}
		o, seq := request.op, request.seq
		t.climb(request.rung)
		fields, err := dispatch(t, o, request.fields)
		request.wipe()
		frame, err := answerFrame(o, seq, fields, err)
		for _, f := range fields {
			clear(f)
		}
		if err != nil {
			return err
		}
		_, err = parent.Write(frame)
		clear(frame)
		if err != nil {
			return fmt.Errorf("answering %s: %w", o, err)
		}
		if o == opShutdown {
			return nil
		}
	}
}

// answerFrame encodes the outcome of a request.
func answerFrame(o op, seq uint32, fields [][]byte, err error) ([]byte, error) {
	if err == nil {
		frame, err := encodeReply(o, seq, fields...)
		if err == nil {
			return frame, nil
		}
		// The module gave something of a size that can't be right.
		return encodeFault(o, seq, newFault(seal.ErrUnavailable, "checking the module's output: %v", err))
	}
	var f *fault
	if !errors.As(err, &f) {
		f = newFault(seal.ErrUnavailable, "%v", err)
	}
	return encodeFault(o, seq, f)
}

// dispatch carries out one request. fields have been checked against shapes. The
// fields it returns are its own and will be wiped.
func dispatch(t *token, o op, fields [][]byte) ([][]byte, error) {
	switch o {
	case opShutdown:
		return nil, nil
	case opStart:
		who := selection{string(fields[1]), string(fields[2]), string(fields[3]), string(fields[4])}
		t.allowImported = fields[6][0] == 1
		if err := t.start(string(fields[0]), who, string(fields[5])); err != nil {
			return nil, err
		}
		return t.info()
	}
	if t.mod == nil {
		return nil, newFault(errRefused, "%s before start", o)
	}
	switch o {
	case opInfo:
		return t.info()
	case opProvision:
		return t.provision()
	case opMakeKEK:
		return one(t.makeAnotherKEK())
	case opRandom:
		return one(t.random(int(binary.BigEndian.Uint16(fields[0]))))
	case opGenerateRSA:
		return one(t.generateRSA(int(binary.BigEndian.Uint16(fields[0]))))
	case opImportRSA:
		return one(t.importRSA(fields[0]))
	case opPublicRSA:
		return t.publicRSA(fields[0])
	case opDecryptOAEP:
		return one(t.decryptOAEP(fields[0], fields[1]))
	case opListRSA:
		return one(t.list(webhookLabel, importedLabel))
	case opListP256:
		return one(t.list(checkpointLabel))
	case opModule:
		return t.module()
	case opDestroyRSA:
		return nil, t.destroyRSA(fields[0])
	case opHealth:
		if len(fields[0]) == 0 {
			return nil, t.alive()
		}
	case opCheckKey, opDescribe:
		fields = [][]byte{fields[1], fields[0]}
	}
	// The others begin with a key.
	if len(fields) == 0 || len(fields[0]) < boundKey.min {
		return nil, newFault(errRefused, "%s is not for the worker", o)
	}
	r, err := readWire(fields[0])
	if err != nil {
		return nil, err
	}
	switch o {
	case opHealth:
		return nil, t.health(r)
	case opCheckKey:
		return one(t.check(fields[1][0], r))
	case opDescribe:
		return one(t.describe(fields[1][0], r))
	case opWrap:
		return one(t.wrap(r, fields[1], fields[2]))
	case opUnwrap:
		return one(t.unwrap(r, fields[1], fields[2]))
	case opPublicP256:
		return one(t.public(r))
	case opSignP256:
		return t.sign(r, fields[1])
	case opBeginRoll:
		return one(t.beginRoll(r))
	case opEndRoll:
		return one(t.endRoll(r))
	}
	return nil, newFault(errRefused, "%s is not for the worker", o)
}

func one(field []byte, err error) ([][]byte, error) {
	if err != nil {
		return nil, err
	}
	return [][]byte{field}, nil
}
