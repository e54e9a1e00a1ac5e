package hsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sigild/sigild/seal"
)

// The rules of the supervisor:
//
//   - Callers take turns: who has the turn owns the worker, and one request is with
//     the worker at a time. A request that is answered at once is served by its
//     caller's goroutine; starting and trying again go on in one of their own. A
//     caller that gives up leaves its request, and its turn, to such a goroutine.
//   - The ladder of a request that may be repeated, when the module says that the
//     device is unavailable: again on a fresh session; again on a fresh session, the
//     key found and checked anew; again in a new worker; then an error.
//   - A worker that died, hung past CallTimeout or broke the protocol is killed, and
//     so is one whose module still says no at the ladder's third rung. The next is
//     started at once.
//   - A request that lost two workers is answered with an error, never a third, and
//     one that ended two by crash or hang is refused for a while (poison.go).
//   - From the second loss without a success between, starting waits: 1 s, doubled
//     up to 60 s, with jitter. Calls in that time fail at once.
//   - A PIN that was refused is latched on disk. While it is, nothing starts.

const (
	backoffFirst = time.Second
	backoffMax   = time.Minute
	closeGrace   = time.Second // for the request that runs when close is called
)

var errClosed = fmt.Errorf("%w: the provider is closed", seal.ErrUnavailable)

// supervisor keeps one worker alive.
type supervisor struct {
	cfg  Config
	log  *slog.Logger
	turn chan struct{} // holds a value while somebody has the turn; close keeps it for ever
	quit chan struct{} // closed by close
	once sync.Once     // of close
	// current is the worker, for close to kill while somebody waits for its answer.
	current atomic.Pointer[child]
	// calls counts requests, by op.
	calls [len(shapes)]atomic.Uint64

	now    func() time.Time
	jitter func(time.Duration) time.Duration
	// onStart runs before a worker is started; tests count with it.
	onStart func()

	// The rest belongs to who has the turn.
	child      *child
	losses     int       // workers lost since the last success
	retryAt    time.Time // no start before, when losses ≥ 2
	lastErr    error     // why the last worker was lost; wraps a sentinel
	poison     poison    // requests that ended workers
	serial     string    // of the token; pinned by the first start
	refused    error     // the latch, when it could not be written to disk
	lastStderr string    // end of what the last worker wrote there
}

// job is one request. Who has the turn owns it.
type job struct {
	ctx     context.Context // carries the deadline of the caller
	frame   []byte
	op      op
	climbed rung // tries on one worker
	workers int  // lost to it
	fresh   bool // the worker has only logged in
}

type answer struct {
	reply message
	err   error
}

func newSupervisor(cfg Config) *supervisor {
	return &supervisor{
		cfg:    cfg,
		log:    cfg.Log,
		poison: newPoison(),
		turn:   make(chan struct{}, 1),
		quit:   make(chan struct{}),
		now:    time.Now,
		// 75 % to 125 %.
		jitter:  func(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2+1) },
		onStart: func() {},
	}
}

// call sends one request and lends the fields of the reply to use, which must
// not keep them. It returns by the deadline of ctx and within CallTimeout.
func (s *supervisor) call(ctx context.Context, o op, use func(fields [][]byte) error, fields ...[]byte) error {
	frame, err := encodeRequest(o, fields...)
	if err != nil {
		return err
	}
	callCtx, cancel := context.WithTimeout(ctx, s.cfg.CallTimeout)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
	case <-callCtx.Done():
		clear(frame)
		return s.gaveUp(ctx, o)
	case <-s.quit:
		clear(frame)
		return errClosed
	}
	s.calls[o].Add(1)
	a, err := s.serve(&job{ctx: callCtx, frame: frame, op: o})
	switch {
	case errors.Is(err, errInterrupted):
		return s.gaveUp(ctx, o)
	case err != nil:
		return err
	}
	defer a.wipe()
	return use(a.fields)
}

// serve runs one request and gives the turn back, now or, when the caller's context
// ends first, later: then it is errInterrupted.
func (s *supervisor) serve(j *job) (message, error) {
	if s.closing() {
		s.end(j)
		return message{}, errClosed
	}
	if s.poison.refuses(j.frame, s.now()) {
		s.end(j)
		return message{}, fmt.Errorf("%w (%s)", ErrPoisoned, j.op)
	}
	if c := s.child; c != nil && c.alive() {
		reply, err := s.ask(j.ctx, c, j)
		if errors.Is(err, errInterrupted) {
			go func() {
				reply, err := c.resume(context.Background())
				a, _ := s.judge(j, reply, err)
				a.reply.wipe()
				s.end(j)
			}()
			return message{}, err
		}
		if a, over := s.judge(j, reply, err); over {
			s.end(j)
			return a.reply, a.err
		}
	}
	out := make(chan answer)
	go func() {
		a := s.climb(j)
		s.end(j)
		select {
		case out <- a:
		case <-j.ctx.Done():
			a.reply.wipe()
		}
	}()
	select {
	case a := <-out:
		return a.reply, a.err
	case <-j.ctx.Done():
		return message{}, errInterrupted
	}
}

// end gives the turn back.
func (s *supervisor) end(j *job) {
	clear(j.frame)
	<-s.turn
}

// ask sends the request to the worker and waits for its answer, CallTimeout at most.
func (s *supervisor) ask(ctx context.Context, c *child, j *job) (message, error) {
	j.fresh = c.served == 1
	setRung(j.frame, j.climbed)
	return c.exchange(ctx, j.frame, time.Now().Add(s.cfg.CallTimeout))
}

// climb starts a worker if need be and asks until there is an answer, or nobody
// waits for one.
func (s *supervisor) climb(j *job) answer {
	for {
		// The deadline itself is asked: the context learns of it a moment later.
		if until, ok := j.ctx.Deadline(); j.ctx.Err() != nil || ok && !time.Now().Before(until) {
			return answer{err: s.gaveUp(j.ctx, j.op)}
		}
		c, err := s.ensure()
		if err != nil {
			return answer{err: err}
		}
		reply, err := s.ask(context.Background(), c, j)
		if a, over := s.judge(j, reply, err); over {
			return a
		}
	}
}

// judge decides what an answer of the worker means: for the worker, and whether the
// request is tried again (over is false).
func (s *supervisor) judge(j *job, reply message, err error) (a answer, over bool) {
	var f *fault
	switch {
	case err == nil:
		s.losses = 0
		s.poison.forgive(j.frame)
		return answer{reply: reply}, true
	case !errors.As(err, &f):
		err = fmt.Errorf("%w: %s: %w", seal.ErrUnavailable, j.op, err)
		s.lose(err)
		s.poison.blame(j.frame, j.op, s.now())
	case f.class == classUnavailable && j.climbed < rungFind && !j.fresh && shapes[j.op].has(again):
		j.climbed++
		return answer{}, false // on the same worker
	case f.class == classUnavailable:
		s.lose(err)
	case f.class == classAuth:
		s.latch(f)
		return answer{err: err}, true
	case f.class == classNotFound && !j.fresh:
		// A module that lost its token for a while finds nothing for ever
		// after. A fresh one is believed.
		s.stopChild()
	default:
		s.losses = 0
		return answer{err: err}, true
	}
	// The worker is gone.
	j.workers++
	switch {
	case j.workers == 2:
		return answer{err: fmt.Errorf("failing after two HSM workers: %w", err)}, true
	case !shapes[j.op].has(again) || s.closing():
		return answer{err: err}, true
	}
	j.climbed = rungPlain
	return answer{}, false
}

func (s *supervisor) gaveUp(ctx context.Context, o op) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("waiting for the HSM worker (%s): %w", o, ctx.Err())
	}
	return fmt.Errorf("%w: no answer to %s in time: %w", seal.ErrUnavailable, o, context.DeadlineExceeded)
}

func (s *supervisor) closing() bool {
	select {
	case <-s.quit:
		return true
	default:
		return false
	}
}

// ensure returns a worker that is logged in.
func (s *supervisor) ensure() (*child, error) {
	if s.child != nil && !s.child.alive() {
		s.lose(fmt.Errorf("%w: the HSM worker ended while idle", seal.ErrUnavailable))
	}
	if s.child != nil {
		return s.child, nil
	}
	if s.refused != nil {
		return nil, s.refused
	}
	if err := seal.CheckLatch(s.cfg.LatchFile); err != nil {
		return nil, err
	}
	if wait := s.retryAt.Sub(s.now()); s.losses >= 2 && wait > 0 {
		return nil, fmt.Errorf("waiting %s before starting the HSM worker again; the last one: %w", wait.Round(time.Millisecond), s.lastErr)
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s.child, nil
}

// start starts a worker and logs in. There is no second try here: a login that
// failed for whatever reason may have cost a try of the PIN.
func (s *supervisor) start() error {
	s.onStart()
	began := time.Now()
	who := s.cfg.selection()
	if s.serial != "" {
		who.serial = s.serial
	}
	imported := []byte{0}
	if s.cfg.AllowImportedKEK {
		imported[0] = 1
	}
	frame, err := encodeRequest(opStart, []byte(s.cfg.Module), []byte(who.label), []byte(who.serial), []byte(who.manufacturer), []byte(who.model),
		[]byte(s.cfg.PINFile), imported)
	if err != nil {
		return err
	}
	c, err := startChild(s.cfg)
	if err != nil {
		s.lose(fmt.Errorf("%w: %w", seal.ErrUnavailable, err))
		return s.lastErr
	}
	s.child = c
	s.current.Store(c)
	reply, err := c.exchange(context.Background(), frame, began.Add(s.cfg.CallTimeout))
	var f *fault
	switch {
	case err == nil:
	case !errors.As(err, &f):
		s.lose(fmt.Errorf("%w: starting the HSM worker: %w", seal.ErrUnavailable, err))
		return s.lastErr
	case f.class == classAuth || f.class == classLocked && f.code != 0:
		// A lock that C_Login told may have cost a try; one seen in the token's
		// flags has not, and is looked at anew each time.
		s.latch(f)
		return f
	default:
		s.lose(f)
		return f
	}
	defer reply.wipe()
	info := decodeInfo(reply.fields)
	if s.serial == "" {
		s.serial = info.Serial
	}
	s.log.Info("hsm worker started", "token", info.Label, "serial", info.Serial, "pid", c.cmd.Process.Pid, "took", time.Since(began))
	if info.PINCountLow {
		s.log.Warn("token reports earlier wrong PINs", "token", info.Label, "serial", info.Serial)
	}
	return nil
}

// lose kills the worker, if there is one, and sets the time of the next start.
func (s *supervisor) lose(err error) {
	s.lastErr = err
	s.losses++
	wait := time.Duration(0)
	if s.losses >= 2 {
		wait = backoffMax
		if n := s.losses - 2; n < 6 {
			wait = backoffFirst << n
		}
		wait = min(s.jitter(wait), backoffMax)
	}
	s.retryAt = s.now().Add(wait)
	attrs := []any{"err", err, "losses", s.losses, "retry_in", wait}
	if s.child != nil {
		s.killChild()
		attrs = append(attrs, "stderr", s.lastStderr)
	}
	s.log.Warn("hsm worker lost", attrs...)
}

// latch remembers a refused PIN on disk, or in memory when the disk fails.
func (s *supervisor) latch(f *fault) {
	s.killChild()
	name, _ := lookupCKR(uint(f.code))
	l := seal.Latch{
		Version:     seal.LatchVersion,
		Time:        s.now().UTC().Truncate(time.Second),
		Provider:    "pkcs11",
		TokenLabel:  s.cfg.selection().label,
		TokenSerial: s.cfg.selection().serial,
		Error:       name,
	}
	if s.serial != "" {
		l.TokenSerial = s.serial
	}
	if err := l.Write(s.cfg.LatchFile); err != nil {
		s.refused = fmt.Errorf("%w (in memory only: %w)", l.Err(), err)
		s.log.Error("the device refused the PIN and the latch could not be written; do not restart before the PIN is right", "err", err, "ckr", name)
		return
	}
	s.log.Error("the device refused the PIN; latched until sigilctl pin clear", "ckr", name, "latch", s.cfg.LatchFile)
}

// killChild ends the worker without ceremony.
func (s *supervisor) killChild() {
	if s.child == nil {
		return
	}
	s.child.kill()
	s.lastStderr = s.child.stderr.String()
	s.child = nil
	s.current.Store(nil)
}

// stopChild asks the worker to end, then kills it.
func (s *supervisor) stopChild() {
	if s.child == nil {
		return
	}
	if frame, err := encodeRequest(opShutdown); err == nil && s.child.alive() {
		if _, err := s.child.exchange(context.Background(), frame, time.Now().Add(closeGrace/2)); err == nil {
			s.child.await(closeGrace / 2)
		}
	}
	s.killChild()
}

// close ends the worker. A request that runs gets a second to finish.
func (s *supervisor) close() {
	s.once.Do(func() {
		close(s.quit)
		timer := time.NewTimer(closeGrace)
		defer timer.Stop()
		select {
		case s.turn <- struct{}{}:
		case <-timer.C:
			if c := s.current.Load(); c != nil {
				_ = c.cmd.Process.Kill() // who waits for its answer then ends
			}
			s.turn <- struct{}{}
		}
		s.stopChild()
	})
}

// decodeInfo reads the fields of opStart and opInfo.
func decodeInfo(f [][]byte) Info {
	return Info{
		Label:        printable(f[0]),
		Serial:       printable(f[1]),
		Manufacturer: printable(f[2]),
		Model:        printable(f[3]),
		Firmware:     printable(f[4]),
		PINCountLow:  binary.BigEndian.Uint32(f[5])&flagPINCountLow != 0,
	}
}

// flagPINCountLow is the one flag of ours in opInfo.
const flagPINCountLow = 1
