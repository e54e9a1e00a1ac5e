package tpm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
)

// FuzzFrame: a frame is accepted or refused for what it is, in whatever pieces it
// comes.
func FuzzFrame(f *testing.F) {
	f.Add(refusal(tpm2.TPMRCSuccess), uint8(1))
	f.Add([]byte{0, 0xc4, 0, 0, 0, 10, 0, 0, 0, 0x1e}, uint8(3))
	f.Add(refit(append(refusal(0), make([]byte, 100)...)), uint8(7))
	f.Add(append(refusal(0), 0), uint8(1))
	f.Add([]byte{0x80, 0x02, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		read := func(size int) (frame []byte, whole bool, failed error) {
			var in inbox
			for rest := b; len(rest) > 0; {
				n := copy(in.room(), rest[:min(size, len(rest))])
				rest = rest[n:]
				whole, err := in.took(n)
				if err != nil {
					return nil, false, err
				}
				if whole && len(rest) == 0 {
					return in.frame(), true, nil
				}
				if whole {
					return nil, false, errFrame // more behind it, in another piece
				}
			}
			return nil, false, nil
		}
		frame, whole, err := read(maxFrame + 1)
		if err != nil && !errors.Is(err, errFrame) {
			t.Errorf("reading: %v, want errFrame", err)
		}
		if whole && !bytes.Equal(frame, b) {
			t.Errorf("%x was read as %x", b, frame)
		}
		_, again, err2 := read(int(piece) + 1)
		if again != whole || (err == nil) != (err2 == nil) {
			t.Errorf("in pieces of %d: whole %v, err %v; at once: whole %v, err %v", int(piece)+1, again, err2, whole, err)
		}
	})
}

// replay answers commands with what it was given, then with the end.
type replay struct{ answers *[][]byte }

func (r replay) roundTrip([]byte) ([]byte, error) {
	if len(*r.answers) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	next := (*r.answers)[0]
	*r.answers = (*r.answers)[1:]
	var in inbox
	if len(next) > maxFrame {
		return nil, errFrame
	}
	whole, err := in.took(copy(in.room(), next))
	if err != nil || !whole {
		return nil, errors.Join(errFrame, err)
	}
	return in.frame(), nil
}

func (replay) SetDeadline(time.Time) error { return nil }
func (replay) Close() error                { return nil }

// FuzzAnswers opens a provider on a TPM that answers anything. It must end with
// an error of ours: no answer can pass a session's HMAC.
func FuzzAnswers(f *testing.F) {
	var mu sync.Mutex
	var recorded [][]byte
	r, b := busRig(f)
	r.Close()
	b.set(nil, func(_ tpm2.TPMCC, a []byte) []byte {
		mu.Lock()
		recorded = append(recorded, bytes.Clone(a))
		mu.Unlock()
		return a
	})
	r.Provider = mustOpen(f, r.cfg)
	r.worked(f)
	r.Close()
	join := func(answers ...[]byte) (all []byte) {
		for _, a := range answers {
			all = append(binary.BigEndian.AppendUint16(all, uint16(len(a))), a...)
		}
		return all
	}
	mu.Lock()
	f.Add(join(recorded...))
	for i, a := range recorded { // each one alone in the place of the SRK
		if i > 1 {
			f.Add(join(recorded[0], recorded[1], a))
		}
	}
	mu.Unlock()
	f.Add(join(refusal(tpm2.TPMRCInitialize), refusal(0), refusal(0)))
	f.Add(join(recorded[0], recorded[1], refusal(0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var answers [][]byte
		for len(b) >= 2 {
			n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
			answers, b = append(answers, b[2:2+n]), b[2+n:]
		}
		cfg, err := Config{Path: "unix:/replay", Log: slog.New(slog.DiscardHandler)}.complete()
		if err != nil {
			t.Fatal(err)
		}
		l := newLink(cfg)
		l.dial = func(context.Context) (conn, error) { return replay{&answers}, nil }
		// A TPM that says "later" is given a moment, not ten seconds.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		p, err := open(ctx, cfg, l)
		if err == nil {
			p.Close()
			t.Fatal("a provider was opened on answers of no TPM")
		}
		if !ours(err) {
			t.Errorf("opening: %v, has no sentinel of ours", err)
		}
	})
}

// FuzzPublic reads public areas; what is taken for a key of ours is one.
func FuzzPublic(f *testing.F) {
	for _, p := range []tpm2.TPMTPublic{checkpointTemplate, sealedTemplate(form{}), tpm2.ECCSRKTemplate, tpm2.RSASRKTemplate} {
		f.Add(tpm2.Marshal(p))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		public, name, err := decode(b)
		if err != nil {
			return
		}
		if !isName(name) {
			t.Errorf("the Name is %x", name)
		}
		if likeTemplate(public, checkpointTemplate) {
			if pub, err := point(public); err == nil && pub.Curve == nil {
				t.Error("a public key without a curve")
			}
		}
		likeTemplate(public, tpm2.ECCSRKTemplate)
	})
}

// decode is decodePublic as an attempt calls it, which recovers go-tpm's panics.
func decode(b []byte) (public tpm2.TPMTPublic, name []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errors.New("panic")
		}
	}()
	return decodePublic(tpm2.BytesAs2B[tpm2.TPMTPublic](b))
}
