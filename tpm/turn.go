package tpm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sigild/sigild/seal"
)

// turn is one call's time with the TPM. It is the transport.TPM that go-tpm sends
// commands through, and it remembers what to flush.
type turn struct {
	ctx context.Context // the call's
	p   *Provider
	gen uint64 // generation of the link in which this attempt works
	// timeout of each command; 0: the link's.
	timeout time.Duration
	// loaded are objects and sessions to flush at the end, oldest first.
	loaded []tpm2.TPMHandle
}

// do takes a turn and works in it. When the connection or what was loaded is lost,
// it starts over on a fresh connection, once; so work must be repeatable. The
// TPM's codes become errors of ours.
func (p *Provider) do(ctx context.Context, work func(*turn) error) error {
	if err := p.take(ctx); err != nil {
		return err
	}
	defer func() { <-p.turns }()
	p.calls.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.life, func() { cancel(errClosed) })()

	t := &turn{ctx: ctx, p: p}
	err := t.attempt(work)
	if startOver(err) && ctx.Err() == nil {
		p.log.WarnContext(ctx, "starting over with the TPM", "path", p.link.path, "error", err)
		p.link.drop()
		err = t.attempt(work)
	}
	if errors.Is(err, tpm2.TPMRCFailure) {
		return t.failed(err)
	}
	if errors.Is(err, tpm2.TPMRCLockout) {
		return t.locked(err)
	}
	return explain(err)
}

// take waits for a turn.
func (p *Provider) take(ctx context.Context) error {
	if ctx.Err() != nil { // select would toss a coin
		return fmt.Errorf("%w: %w", seal.ErrUnavailable, context.Cause(ctx))
	}
	select {
	case <-p.shut:
		return fmt.Errorf("%w: %w", seal.ErrUnavailable, errClosed)
	case <-ctx.Done():
		return fmt.Errorf("%w: waiting for others who use the TPM: %w", seal.ErrUnavailable, context.Cause(ctx))
	case p.turns <- struct{}{}:
	}
	select {
	case <-p.shut:
		<-p.turns
		return fmt.Errorf("%w: %w", seal.ErrUnavailable, errClosed)
	default:
		return nil
	}
}

// startOver says whether a fresh connection may cure err.
func startOver(err error) bool {
	var l *linkError
	if errors.As(err, &l) {
		return l.lost
	}
	if err == nil || ours(err) {
		return false
	}
	m, _, _ := lookup(err)
	return m.again
}

// attempt works once. It leaves nothing loaded but the SRK.
func (t *turn) attempt(work func(*turn) error) (err error) {
	defer func() {
		if v := recover(); v != nil { // go-tpm met an answer it was not written for
			err = fmt.Errorf("go-tpm panicked: %v", v)
		}
		if _, _, coded := lookup(err); err != nil && !coded && !ours(err) {
			// Not a code and not ours: the answer could not be read, or its HMAC is
			// wrong. What else is on its way is not to be believed either.
			t.p.link.drop()
			err = &linkError{err: fmt.Errorf("believing the TPM's answer: %w", err), lost: true}
		}
		t.flush(0)
	}()
	if err := t.ready(); err != nil {
		return err
	}
	return work(t)
}

// ready connects when needed.
func (t *turn) ready() error {
	l := t.p.link
	t.loaded = nil
	fresh := l.conn == nil
	if fresh {
		ctx, cancel := context.WithTimeout(t.ctx, l.timeout)
		defer cancel()
		if err := l.connect(ctx); err != nil {
			return &linkError{err: err}
		}
	}
	t.gen = l.gen
	if fresh && l.emulator {
		return t.sweep()
	}
	return nil
}

// Send implements go-tpm's transport.TPM. It never reconnects: what the command
// refers to would be gone.
func (t *turn) Send(command []byte) ([]byte, error) {
	l := t.p.link
	if l.conn == nil || l.gen != t.gen {
		return nil, &linkError{err: errors.New("the connection was lost"), lost: true}
	}
	return l.exchange(t.ctx, command, max(t.timeout, l.timeout))
}

// sweep makes an emulator what the kernel makes of /dev/tpmrm0 when it is opened:
// started, and with nothing loaded. What a killed process left would otherwise fill
// its three places for ever.
func (t *turn) sweep() error {
	handles, err := t.handles(tpm2.TPMHTTransient)
	if errors.Is(err, tpm2.TPMRCInitialize) {
		if _, err := (tpm2.Startup{StartupType: tpm2.TPMSUClear}).Execute(t); err != nil {
			return fmt.Errorf("TPM2_Startup: %w", err)
		}
		handles, err = t.handles(tpm2.TPMHTTransient)
	}
	if err != nil {
		return err
	}
	sessions, err := t.handles(tpm2.TPMHTHMACSession) // all loaded sessions (Part 3 §30.2)
	if err != nil {
		return err
	}
	for _, h := range append(handles, sessions...) {
		if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(t); err != nil {
			return fmt.Errorf("TPM2_FlushContext: %w", err)
		}
	}
	return nil
}

// maxHandles is more than a TPM has; it ends a list that would never end.
const maxHandles = 4096

// handles lists the handles of a type, in ascending order; loaded sessions of both
// kinds are HMAC sessions here, in the order of their places.
func (t *turn) handles(kind tpm2.TPMHT) ([]tpm2.TPMHandle, error) {
	var all []tpm2.TPMHandle
	const place = 1<<24 - 1 // without the type
	for next := uint32(0); ; {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: uint32(kind)<<24 | next, PropertyCount: 64}.Execute(t)
		if err != nil {
			return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
		}
		list, err := rsp.CapabilityData.Data.Handles()
		if err != nil {
			return nil, fmt.Errorf("TPM2_GetCapability: %w", err)
		}
		for _, h := range list.Handle {
			is := tpm2.TPMHT(uint32(h) >> 24)
			if is == tpm2.TPMHTPolicySession {
				is = tpm2.TPMHTHMACSession // they are listed together
			}
			if uint32(h)&place < next || is != kind || len(all) == maxHandles {
				return nil, fmt.Errorf("TPM2_GetCapability: it listed handle %#x", uint32(h))
			}
			all = append(all, h)
			next = uint32(h)&place + 1
		}
		if !rsp.MoreData || len(list.Handle) == 0 {
			return all, nil
		}
	}
}

// keep remembers h for flush and returns its place.
func (t *turn) keep(h tpm2.TPMHandle) int {
	t.loaded = append(t.loaded, h)
	return len(t.loaded) - 1
}

// flush unloads what was kept from place from on, newest first. When the TPM does
// not do it, dropping the connection does.
func (t *turn) flush(from int) {
	if from >= len(t.loaded) {
		return
	}
	kept := t.loaded[from:]
	t.loaded = t.loaded[:from]
	for _, h := range slices.Backward(kept) {
		if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(t); err != nil {
			t.p.link.drop()
			return
		}
	}
}

// Parameter encryption of a session, both ways or one, always AES-128-CFB: a
// command has an encrypted parameter only where its first one is a sized buffer
// (Part 1 §21.1).
var (
	encryptBoth = tpm2.AESEncryption(128, tpm2.EncryptInOut)
	encryptIn   = tpm2.AESEncryption(128, tpm2.EncryptIn)
	encryptOut  = tpm2.AESEncryption(128, tpm2.EncryptOut)
	// encryptNone is for commands whose parameters are numbers: the session then
	// proves, by its HMAC, who asks and who answers.
	encryptNone tpm2.AuthOption = nil
)

// nonceLen is the size of session nonces in bytes; the least for SHA-256 is 16.
const nonceLen = 16

// session lends use a session that is salted to the SRK and proves auth, and
// flushes it. go-tpm's one-off sessions would leak when an answer is lost or
// unreadable.
func (t *turn) session(auth []byte, encryption tpm2.AuthOption, use func(root storageKey, s tpm2.Session) error) error {
	root, err := t.root()
	if err != nil {
		return err
	}
	options := []tpm2.AuthOption{tpm2.Salted(root.handle, root.public), tpm2.Auth(auth)}
	if encryption != nil {
		options = append(options, encryption)
	}
	s, _, err := tpm2.HMACSession(t, tpm2.TPMAlgSHA256, nonceLen, options...)
	if err != nil {
		return fmt.Errorf("TPM2_StartAuthSession: %w", err)
	}
	place := t.keep(s.Handle())
	defer t.flush(place)
	return use(root, s)
}

// alive has the TPM draw random bytes in an encrypted session. A wrong SRK or a
// changed answer fails its HMAC.
func (t *turn) alive() error {
	return t.session(nil, encryptOut, func(_ storageKey, s tpm2.Session) error {
		const n = 16
		rsp, err := tpm2.GetRandom{BytesRequested: n}.Execute(t, s)
		if err != nil {
			return fmt.Errorf("TPM2_GetRandom: %w", err)
		}
		if len(rsp.RandomBytes.Buffer) != n {
			return fmt.Errorf("TPM2_GetRandom: %d bytes, want %d", len(rsp.RandomBytes.Buffer), n)
		}
		return nil
	})
}

// locked says how long a lockout lasts.
func (t *turn) locked(err error) error {
	var l Lockout
	probe := t.attempt(func(t *turn) (err error) {
		l, err = t.lockout()
		return err
	})
	if probe != nil {
		return explain(err)
	}
	return fmt.Errorf("%w (%s)", explain(err), l)
}

// failed looks into TPM_RC_FAILURE, which some TPMs answer to one bad command and
// others when they have given up altogether.
func (t *turn) failed(err error) error {
	probe := t.attempt(func(t *turn) error {
		_, err := tpm2.GetRandom{BytesRequested: 1}.Execute(t)
		return err
	})
	if probe == nil {
		return fmt.Errorf("%w: %v; the TPM answers other commands", seal.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %v; hint: it answers nothing else either (%v): power the host off and on", seal.ErrUnavailable, err, probe)
}
