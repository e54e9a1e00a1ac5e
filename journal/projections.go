package journal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/vault"
)

// State is where a request stands.
type State string

// The states of a request.
const (
	StateApproved       State = "approved"        // reserved, no outcome yet
	StateSigned         State = "signed"          // Answer holds the signature
	StateFailed         State = "failed"          // no signature; see Refunded
	StateOutcomeUnknown State = "outcome_unknown" // a crash came between; the charge stands
	StateDone           State = "done"            // an act; Answer holds its reply
)

// RequestState is what the journal knows of one request id.
type RequestState struct {
	Organization, RequestID string
	RequestHash             string // of the message that used the id first; hex
	Method                  string
	Wallet, Delegation      string
	ShareSet                string
	Digest                  string
	Rule                    string // that approved it
	State                   State
	Refunded                bool   // failed and its charges were given back: it may be approved anew
	ApprovedSeq             uint64 // 0 for an act
	EntrySeq                uint64 // the entry that made this state
	// ChargedAt is when its charges' windows began; zero while in flight and for an
	// act. A retry after a long time must look whether they still count.
	ChargedAt     time.Time
	Answer        []byte
	SignatureHash string
}

// RequestReusedError: an approval or act came with an id that the organization
// used for another message.
type RequestReusedError struct {
	Organization, RequestID string
	Have, Got               string // the two request hashes
}

func (e *RequestReusedError) Error() string {
	return fmt.Sprintf("request id %q was used for another message: its hash is %s, now %s", e.RequestID, e.Have, e.Got)
}

// ReplayError: an approval would sign something else under a replay key.
type ReplayError struct {
	Key       string
	Have, Got string // the two digests
}

func (e *ReplayError) Error() string {
	return fmt.Sprintf("replay key %q was used for digest %s, now %s", e.Key, e.Have, e.Got)
}

// Errors of entries that don't fit what came before. They are faults of the
// caller, who should have looked first; nothing is written.
var (
	// ErrRequestExists: the request was approved or done before.
	ErrRequestExists = errors.New("request exists already")
	// ErrNotApproved: there is no such approval, or it was signed or refunded.
	ErrNotApproved = errors.New("no approval is open under this number")
	// ErrNoRefund: an earlier attempt may have sent the last share.
	ErrNoRefund = errors.New("charge can't be refunded after an attempt of unknown outcome")
)

type requestKey struct{ organization, id string }

// reservation is an approval that is not signed or refunded.
type reservation struct {
	seq     uint64
	request requestKey
	shares  []share
	replay  []string
	flying  bool
	landed  int64      // ms at which its window began, when not flying
	spoiled bool       // an attempt ended without proof that nothing was sent
	over    *overtaken // what it took the place of; nil: nothing
}

// replayed is one replay key: what was signed under it, by how many approvals, and
// which was the first of them.
type replayed struct {
	digest string
	uses   int
	seq    uint64
}

// projections are the folds of the chain. They change by apply only, which is a
// function of the entry, so that a fold at Open gives the same.
type projections struct {
	requests     map[requestKey]*RequestState
	reservations map[uint64]*reservation
	replays      map[string]replayed
	accounts     map[accountKey]*account
	approvals    *uint256.Int      // what the lease of approvals has left; nil: there are no leases
	archived     vault.JournalHead // the last row in a segment of the archive
	segments     []boundary        // the ends of archived segments whose rows are here
	pruned       vault.JournalHead // the last row that is gone; the genesis never is

	pass uint64 // counts the passes of sharesOf
	// over and held index what the last snapshot took out of requests and replays.
	over, held runs
	read       entryReader // for what over names
}

func newProjections(read entryReader) *projections {
	return &projections{
		requests: make(map[requestKey]*RequestState), reservations: make(map[uint64]*reservation),
		replays: make(map[string]replayed), accounts: make(map[accountKey]*account),
		over: runs{size: requestTuple}, held: runs{size: replayTuple}, read: read,
	}
}

// apply folds one entry and returns how to take it back, nil if it changed
// nothing. On error nothing has changed.
func (p *projections) apply(e *Entry) (undo func(), err error) {
	switch e.Kind {
	case KindAct:
		return p.applyAct(e)
	case KindApproved:
		return p.applyApproved(e)
	case KindSigned, KindFailed, KindOutcomeUnknown:
		return p.applyEnd(e)
	case KindArchived:
		return p.applyArchived(e)
	case KindPruned:
		return p.applyPruned(e)
	case KindLease:
		return p.applyLease(e)
	}
	return nil, nil
}

// admit refuses a request id that is taken.
func (p *projections) admit(e *Entry) (requestKey, *RequestState, error) {
	k := requestKey{e.Organization, e.RequestID}
	have, err := p.lookup(k)
	switch {
	case err != nil:
		return k, nil, err
	case have == nil:
		return k, nil, nil
	case have.RequestHash != e.RequestHash:
		return k, have, &RequestReusedError{e.Organization, e.RequestID, have.RequestHash, e.RequestHash}
	case !have.Refunded:
		return k, have, fmt.Errorf("%w: %q is %s since entry %d", ErrRequestExists, e.RequestID, have.State, have.EntrySeq)
	}
	return k, have, nil
}

// setRequest replaces a state and returns how to take it back.
func (p *projections) setRequest(k requestKey, next *RequestState) func() {
	have := p.requests[k] // what the index names stays there
	p.requests[k] = next
	return func() {
		if have == nil {
			delete(p.requests, k)
		} else {
			p.requests[k] = have
		}
	}
}

func (p *projections) applyAct(e *Entry) (func(), error) {
	if e.RequestID == "" {
		return nil, nil
	}
	k, _, err := p.admit(e)
	if err != nil {
		return nil, err
	}
	s := stateOf(e, StateDone)
	s.Answer = e.Answer
	return p.setRequest(k, s), nil
}

func (p *projections) applyApproved(e *Entry) (func(), error) {
	k, _, err := p.admit(e)
	if err != nil {
		return nil, err
	}
	amounts, err := parseCharges(e.Charges)
	if err != nil {
		return nil, err
	}
	over, err := p.admitKeys(e)
	if err != nil {
		return nil, err
	}
	shares, restore := p.sharesOf(e, e.Charges, amounts), func() {}
	if over != nil {
		if shares, restore, err = p.overtake(e, over, shares); err != nil {
			return nil, err
		}
	}
	// Nothing fails from here on.
	s := stateOf(e, StateApproved)
	s.ApprovedSeq = e.Seq
	undoRequest := p.setRequest(k, s)
	r := &reservation{seq: e.Seq, request: k, replay: e.ReplayKeys, flying: true, shares: shares, over: over}
	p.reservations[e.Seq] = r
	p.hold(r, e.Digest)
	putBack := p.take(r)
	return func() {
		putBack()
		p.release(r)
		restore()
		delete(p.reservations, e.Seq)
		undoRequest()
	}, nil
}

// hold books a flying reservation's charges and replay keys; release is its inverse.
func (p *projections) hold(r *reservation, digest string) {
	for i := range r.shares {
		r.shares[i].acc.depart(&r.shares[i].sum)
	}
	for _, key := range r.replay {
		x := p.replays[key]
		if x.digest != digest { // it was free, the runs have it, or it is taken over
			x = replayed{digest: digest, seq: r.seq}
		}
		x.uses++
		p.replays[key] = x
	}
}

func (p *projections) release(r *reservation) {
	for i := range r.shares {
		r.shares[i].acc.recall(&r.shares[i].sum)
	}
	for _, key := range r.replay {
		if x := p.replays[key]; x.uses > 1 {
			x.uses--
			p.replays[key] = x
			continue
		}
		delete(p.replays, key)
		if r.over != nil && r.over.key == key {
			p.putBack(r.over)
		}
	}
}

// applyEnd folds signed, failed and outcome_unknown.
func (p *projections) applyEnd(e *Entry) (func(), error) {
	r := p.reservations[e.ApprovedSeq]
	if r == nil {
		return nil, fmt.Errorf("%w: %d", ErrNotApproved, e.ApprovedSeq)
	}
	if e.Kind == KindOutcomeUnknown && !r.flying {
		return nil, fmt.Errorf("%w: %d has ended already", ErrNotApproved, e.ApprovedSeq)
	}
	if e.Refunded() && r.spoiled {
		return nil, fmt.Errorf("%w: approval %d", ErrNoRefund, e.ApprovedSeq)
	}
	have := p.requests[r.request]
	s := *have
	s.end(e)
	undoRequest := p.setRequest(r.request, &s)
	before := *r
	if e.Refunded() {
		p.release(r)
		putBack := p.giveBack(r)
		if r.over != nil {
			r.over.comeBack(e.TimeMS)
		}
		delete(p.reservations, r.seq)
		return func() {
			putBack()
			p.reservations[before.seq] = r
			if r.over != nil {
				r.over.leaveAgain()
			}
			p.hold(r, s.Digest)
			undoRequest()
		}, nil
	}
	histories := r.land(e.TimeMS)
	r.spoiled = true
	if e.Kind == KindSigned {
		delete(p.reservations, r.seq)
	}
	return func() {
		p.reservations[before.seq] = r
		r.unland(histories)
		*r = before
		undoRequest()
	}, nil
}

// land begins the windows of r's charges at ms, also when they had begun
// before: a later attempt of the same request counts from its own end. The
// accounts' histories are returned where they had begun.
func (r *reservation) land(ms int64) (histories [][]ended) {
	for i := range r.shares {
		sh := &r.shares[i]
		if !r.flying {
			histories = append(histories, sh.acc.relaunch(r.landed, r.seq, &sh.sum))
		}
		sh.acc.land(ms, r.seq, &sh.sum)
	}
	r.flying, r.landed = false, ms
	return histories
}

// unland takes land back.
func (r *reservation) unland(histories [][]ended) {
	for i := len(r.shares) - 1; i >= 0; i-- {
		sh := &r.shares[i]
		sh.acc.unland(&sh.sum)
		if histories != nil {
			sh.acc.unrelaunch(histories[i], &sh.sum)
		}
	}
}

func stateOf(e *Entry, s State) *RequestState {
	return &RequestState{
		Organization: e.Organization, RequestID: e.RequestID, RequestHash: e.RequestHash, Method: e.Method,
		Wallet: e.Wallet, Delegation: e.Delegation, ShareSet: e.ShareSet, Digest: e.Digest, Rule: e.Rule,
		State: s, EntrySeq: e.Seq,
	}
}

// end is what signed, failed and outcome_unknown make of an approved state.
func (s *RequestState) end(e *Entry) {
	s.EntrySeq, s.ChargedAt = e.Seq, time.UnixMilli(e.TimeMS).UTC()
	switch e.Kind {
	case KindSigned:
		s.State, s.Answer, s.SignatureHash = StateSigned, e.Answer, e.SignatureHash
	case KindFailed:
		s.State, s.Refunded = StateFailed, e.Refunded()
	case KindOutcomeUnknown:
		s.State = StateOutcomeUnknown
	}
	if s.Refunded {
		s.ChargedAt = time.Time{}
	}
}

// copy is what callers get.
func (s *RequestState) copy() RequestState {
	c := *s
	c.Answer = bytes.Clone(s.Answer)
	return c
}

// flying lists the approvals without an end, by number.
func (p *projections) flying() []uint64 {
	var seqs []uint64
	for seq, r := range p.reservations {
		if r.flying {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs
}
