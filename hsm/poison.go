package hsm

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"time"
)

// This file remembers requests that ended their worker by a crash or a hang, so
// that one which does it every time (a ciphertext made for a bug of the module,
// delivered again and again) does not cost everybody else two workers a time. Only
// requests that carry others' bytes are remembered: a worker lost in an Info says
// nothing about the next Info.

const (
	poisonLimit = 2                // workers that one request may end
	poisonFor   = 10 * time.Minute // since the last of them
	poisonMax   = 256              // requests remembered
)

// poison belongs to the supervisor's goroutine. It holds no request, only their
// HMACs under a key of this process.
type poison struct {
	key   []byte
	ended map[[sha256.Size]byte]poisoned
}

type poisoned struct {
	workers int
	last    time.Time
}

func newPoison() poison {
	key := make([]byte, 32)
	rand.Read(key) // never fails since Go 1.24
	return poison{key: key, ended: map[[sha256.Size]byte]poisoned{}}
}

func (p *poison) name(frame []byte) (name [sha256.Size]byte) {
	o, fields := content(frame)
	h := hmac.New(sha256.New, p.key)
	h.Write([]byte{o})
	h.Write(fields)
	h.Sum(name[:0])
	return name
}

// refuses says whether an encoded request is not to be tried.
func (p *poison) refuses(frame []byte, now time.Time) bool {
	if len(p.ended) == 0 {
		return false
	}
	name := p.name(frame)
	was, ok := p.ended[name]
	if ok && now.Sub(was.last) >= poisonFor {
		delete(p.ended, name)
		return false
	}
	return was.workers >= poisonLimit
}

// blame counts a worker that ended while it served the request.
func (p *poison) blame(frame []byte, o op, now time.Time) {
	if !shapes[o].has(foreign) {
		return
	}
	if len(p.ended) >= poisonMax {
		oldest, at := [sha256.Size]byte{}, now.Add(time.Hour)
		for name, was := range p.ended {
			if was.last.Before(at) {
				oldest, at = name, was.last
			}
		}
		delete(p.ended, oldest)
	}
	name := p.name(frame)
	p.ended[name] = poisoned{p.ended[name].workers + 1, now}
}

// forgive forgets a request that was served.
func (p *poison) forgive(frame []byte) {
	if len(p.ended) > 0 {
		delete(p.ended, p.name(frame))
	}
}
