package journal

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/holiman/uint256"

	"github.com/sigild/sigild/vault"
)

// The folds as bytes, canonical: the same folds give the same bytes, so that their
// hash, in the chain, says whether a snapshot is what the entries add up to.
// Integers are big-endian, texts and bytes have a u32 length before them, lists a
// u32 count.
//
//	"SGJP" | ver u8 | through u64 | hash 32 | last time_ms u64
//	| covered u64 | unsigned u64 | unarchived u64 | since ms u64 | archived ms u64
//	| archived u64, hash 32 | pruned u64, hash 32 | archived segments that are here: list of (last u64, hash 32, ms u64)
//	| runs of requests: next id u64, list of (id u64, tuples u32) | runs of replay keys: likewise
//	| accounts, sorted: scope u8, id, to, asset, what, history list of (from u64, ms u64, seq u64, total, count u64)
//	| requests, sorted: organization, id, request hash, method, wallet, delegation, share set, digest, rule, state u8,
//	  refunded u8, approved u64, entry u64, charged ms u64, answer, signature hash
//	| reservations by number: seq u64, organization, id, flags u8 (1 flying, 2 spoiled, 4 replaces), landed u64,
//	  list of replay keys, list of (account u32, total); where it replaces: seq u64 of the
//	  approval before, its replay key as below, list of (account u32, total)
//	| replay keys, sorted: key, digest, uses u32, seq u64
//	| leases, sorted: account u32, flags u8 (1 amount, 2 count), each left 32 | approvals: u8 1, left 32; or 0
//
// A total is lo 32 | hi u64 | unbounded u64. Requests that are over and replay keys
// that nothing can release any more are not here: the runs have them.

const (
	stateMagic   = "SGJP"
	stateVersion = 4
)

// position is where in the chain a state was taken.
type position struct {
	last       vault.JournalHead
	lastMS     int64
	covered    uint64
	unsigned   uint64
	unarchived uint64
	since      int64
	archivedMS int64
}

var requestStates = []State{StateApproved, StateSigned, StateFailed, StateOutcomeUnknown, StateDone}

// snapshot gives the folds at ms as bytes, and the runs they then have. p stays as it is.
func (p *projections) snapshot(at position, ms int64) (state []byte, over, held runs) {
	var requests, replays []byte
	hot := map[requestKey]*RequestState{}
	reserved := map[requestKey]bool{}
	releasable := map[string]bool{}
	for _, r := range p.reservations {
		reserved[r.request] = true
		for _, key := range r.replay {
			releasable[key] = releasable[key] || r.flying
		}
	}
	for k, s := range p.requests {
		if reserved[k] {
			hot[k] = s
			continue
		}
		key := k.index()
		requests = append(requests, key[:]...)
		requests = binary.BigEndian.AppendUint64(requests, s.ApprovedSeq)
		requests = binary.BigEndian.AppendUint64(requests, s.EntrySeq)
	}
	kept := map[string]replayed{}
	for key, r := range p.replays {
		digest, err := hex.DecodeString(r.digest)
		if releasable[key] || err != nil || len(digest) != 32 {
			kept[key] = r
			continue
		}
		k := replayIndex(key)
		replays = binary.BigEndian.AppendUint64(append(append(replays, k[:]...), digest...), r.seq)
	}
	sortTuples(requests, requestTuple)
	sortTuples(replays, replayTuple)
	over = p.over.with(requests, func(t []byte) bool {
		return binary.BigEndian.Uint64(t[24:]) > p.pruned.Seq
	})
	held = p.held.with(replays, nil)
	return p.pack(at, ms, hot, kept, over, held), over, held
}

func (p *projections) pack(at position, ms int64, hot map[requestKey]*RequestState, replays map[string]replayed, over, held runs) []byte {
	w := &packer{}
	w.raw([]byte(stateMagic), []byte{stateVersion})
	w.head(at.last)
	w.u64(uint64(at.lastMS), at.covered, at.unsigned, at.unarchived, uint64(at.since), uint64(at.archivedMS))
	w.head(p.archived)
	w.head(p.pruned)
	w.u32(len(p.segments))
	for _, b := range p.segments {
		w.head(b.JournalHead)
		w.u64(uint64(b.ms))
	}
	for _, r := range []runs{over, held} {
		w.u64(r.next)
		w.u32(len(r.list))
		for _, x := range r.list {
			w.u64(x.id)
			w.u32(len(x.data) / r.size)
		}
	}

	numbers := map[*account]int{}
	used := map[*account]bool{}
	leased := p.leased()
	for _, k := range leased {
		used[p.accounts[k]] = true
	}
	for _, r := range p.reservations {
		for i := range r.shares {
			used[r.shares[i].acc] = true
		}
		if r.over != nil {
			for i := range r.over.shares {
				used[r.over.shares[i].acc] = true
			}
		}
	}
	var accounts []accountKey
	for k, a := range p.accounts {
		if len(a.history) > 0 || used[a] {
			accounts = append(accounts, k)
		}
	}
	slices.SortFunc(accounts, compareAccounts)
	w.u32(len(accounts))
	for i, k := range accounts {
		a := p.accounts[k]
		numbers[a] = i
		w.raw([]byte{byte(k.scope.kind)})
		w.text(k.scope.id, k.scope.to, k.asset, k.what)
		history := coarsen(a.history, ms)
		w.u32(len(history))
		for j := range history {
			e := &history[j]
			w.u64(uint64(e.from), uint64(e.ms), e.seq)
			w.total(&e.running)
			w.u64(e.count)
		}
	}

	w.u32(len(hot))
	for _, k := range slices.SortedFunc(maps.Keys(hot), compareRequests) {
		s := hot[k]
		w.text(s.Organization, s.RequestID, s.RequestHash, s.Method, s.Wallet, s.Delegation, s.ShareSet, s.Digest, s.Rule)
		w.raw([]byte{byte(slices.Index(requestStates, s.State)), bit(s.Refunded)})
		w.u64(s.ApprovedSeq, s.EntrySeq, uint64(msOf(s.ChargedAt)))
		w.text(string(s.Answer), s.SignatureHash)
	}
	w.u32(len(p.reservations))
	for _, seq := range slices.Sorted(maps.Keys(p.reservations)) {
		r := p.reservations[seq]
		w.u64(r.seq)
		w.text(r.request.organization, r.request.id)
		w.raw([]byte{bit(r.flying) | bit(r.spoiled)<<1 | bit(r.over != nil)<<2})
		w.u64(uint64(r.landed))
		w.u32(len(r.replay))
		w.text(r.replay...)
		w.shares(r.shares, numbers)
		if r.over != nil {
			w.u64(r.over.seq)
			w.replayed(r.over.key, r.over.was)
			w.shares(r.over.shares, numbers)
		}
	}
	w.u32(len(replays))
	for _, key := range slices.Sorted(maps.Keys(replays)) {
		w.replayed(key, replays[key])
	}
	w.leases(p, leased, numbers)
	return w.b
}

func compareAccounts(a, b accountKey) int {
	return cmp.Or(cmp.Compare(a.scope.kind, b.scope.kind), strings.Compare(a.scope.id, b.scope.id), strings.Compare(a.scope.to, b.scope.to), strings.Compare(a.asset, b.asset), strings.Compare(a.what, b.what))
}

func compareRequests(a, b requestKey) int {
	return cmp.Or(strings.Compare(a.organization, b.organization), strings.Compare(a.id, b.id))
}

func msOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// unpackState is the inverse of pack. The runs have their ids and lengths, their data
// is the caller's to bring. The bytes come from a record that the vault authenticates;
// what doesn't fit is refused all the same.
func unpackState(b []byte, read entryReader) (*projections, position, error) {
	r := &unpacker{b: b}
	var at position
	p := newProjections(read)
	if string(r.raw(4)) != stateMagic || r.u8() != stateVersion {
		return nil, at, errors.New("snapshot has a form that this build doesn't know")
	}
	at.last = r.head()
	at.lastMS, at.covered, at.unsigned, at.unarchived, at.since, at.archivedMS = int64(r.u64()), r.u64(), r.u64(), r.u64(), int64(r.u64()), int64(r.u64())
	p.archived, p.pruned = r.head(), r.head()
	for n := r.count(48); n > 0; n-- {
		p.segments = append(p.segments, boundary{r.head(), int64(r.u64())})
	}
	for _, list := range []*runs{&p.over, &p.held} {
		list.next = r.u64()
		for n := r.count(12); n > 0; n-- {
			x := run{id: r.u64()}
			size := int(r.u32())
			if size > 1<<26 {
				return nil, at, errors.New("snapshot has a run that is too long")
			}
			list.list = append(list.list, x)
			list.want = append(list.want, size)
		}
	}
	accounts := r.accounts(p)
	r.requests(p)
	r.reservations(p, accounts)
	for n := r.count(12); n > 0; n-- {
		key, x := r.replayed()
		p.replays[key] = x
	}
	r.leases(p, accounts)
	if r.bad || len(r.b) > 0 {
		return nil, at, errors.New("snapshot is cut off or has something behind it")
	}
	return p, at, nil
}

func (r *unpacker) accounts(p *projections) (list []*account) {
	for n := r.count(21); n > 0; n-- {
		k := accountKey{scope: Scope{kind: scopeKind(r.u8()), id: r.text(), to: r.text()}}
		k.asset, k.what = r.text(), r.text()
		a := &account{}
		m := r.count(80)
		a.history = make([]ended, 0, m)
		for ; m > 0; m-- {
			e := ended{from: int64(r.u64()), ms: int64(r.u64()), seq: r.u64(), running: r.total()}
			e.count = r.u64()
			a.history = append(a.history, e)
		}
		p.accounts[k] = a
		list = append(list, a)
	}
	return list
}

func (r *unpacker) requests(p *projections) {
	for n := r.count(66); n > 0; n-- {
		s := &RequestState{
			Organization: r.text(), RequestID: r.text(), RequestHash: r.text(), Method: r.text(),
			Wallet: r.text(), Delegation: r.text(), ShareSet: r.text(), Digest: r.text(), Rule: r.text(),
		}
		state := int(r.u8())
		if state >= len(requestStates) {
			r.bad = true
			return
		}
		s.State, s.Refunded = requestStates[state], r.u8() == 1
		s.ApprovedSeq, s.EntrySeq = r.u64(), r.u64()
		if ms := int64(r.u64()); ms != 0 {
			s.ChargedAt = time.UnixMilli(ms).UTC()
		}
		if answer := r.text(); answer != "" {
			s.Answer = []byte(answer)
		}
		s.SignatureHash = r.text()
		p.requests[requestKey{s.Organization, s.RequestID}] = s
	}
}

func (r *unpacker) reservations(p *projections, accounts []*account) {
	for n := r.count(33); n > 0; n-- {
		x := &reservation{seq: r.u64(), request: requestKey{r.text(), r.text()}}
		flags := r.u8()
		x.flying, x.spoiled, x.landed = flags&1 != 0, flags&2 != 0, int64(r.u64())
		for m := r.count(4); m > 0; m-- {
			x.replay = append(x.replay, r.text())
		}
		x.shares = r.shares(accounts)
		if flags&4 != 0 {
			x.over = &overtaken{seq: r.u64()}
			x.over.key, x.over.was = r.replayed()
			x.over.shares = r.shares(accounts)
		}
		if r.bad || p.requests[x.request] == nil {
			r.bad = true
			return
		}
		if x.flying {
			for i := range x.shares {
				x.shares[i].acc.depart(&x.shares[i].sum)
			}
		}
		p.reservations[x.seq] = x
	}
}

// shares reads what a reservation put into accounts.
func (r *unpacker) shares(accounts []*account) (list []share) {
	for m := r.count(52); m > 0; m-- {
		i := int(r.u32())
		if i >= len(accounts) {
			r.bad = true
			return nil
		}
		list = append(list, share{accounts[i], r.total()})
	}
	return list
}

func (r *unpacker) replayed() (key string, x replayed) {
	key, x.digest = r.text(), r.text()
	x.uses, x.seq = int(r.u32()), r.u64()
	return key, x
}

// packer writes the form.
type packer struct{ b []byte }

func (w *packer) raw(parts ...[]byte) {
	for _, p := range parts {
		w.b = append(w.b, p...)
	}
}

func (w *packer) u32(n int) { w.b = binary.BigEndian.AppendUint32(w.b, uint32(n)) }

func (w *packer) u64(ns ...uint64) {
	for _, n := range ns {
		w.b = binary.BigEndian.AppendUint64(w.b, n)
	}
}

func (w *packer) text(ss ...string) {
	for _, s := range ss {
		w.u32(len(s))
		w.b = append(w.b, s...)
	}
}

func (w *packer) head(h vault.JournalHead) {
	w.u64(h.Seq)
	w.raw(h.Hash[:])
}

func (w *packer) amount(n *uint256.Int) {
	b := n.Bytes32()
	w.raw(b[:])
}

func (w *packer) shares(list []share, numbers map[*account]int) {
	w.u32(len(list))
	for i := range list {
		w.u32(numbers[list[i].acc])
		w.total(&list[i].sum)
	}
}

func (w *packer) replayed(key string, x replayed) {
	w.text(key, x.digest)
	w.u32(x.uses)
	w.u64(x.seq)
}

func (w *packer) total(t *total) {
	lo := t.lo.Bytes32()
	w.raw(lo[:])
	w.u64(t.hi, t.unbounded)
}

// unpacker reads it; after the first thing that doesn't fit, bad is set and zeroes come.
type unpacker struct {
	b   []byte
	bad bool
}

func (r *unpacker) raw(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, n)
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *unpacker) u8() byte    { return r.raw(1)[0] }
func (r *unpacker) u32() uint32 { return binary.BigEndian.Uint32(r.raw(4)) }
func (r *unpacker) u64() uint64 { return binary.BigEndian.Uint64(r.raw(8)) }

// count reads how many things follow, each of at least size bytes.
func (r *unpacker) count(size int) int {
	n := int(r.u32())
	if r.bad || n > len(r.b)/size {
		r.bad = true
		return 0
	}
	return n
}

func (r *unpacker) text() string {
	n := int(r.u32())
	if r.bad || n > len(r.b) {
		r.bad = true
		return ""
	}
	return string(r.raw(n))
}

func (r *unpacker) head() (h vault.JournalHead) {
	h.Seq = r.u64()
	copy(h.Hash[:], r.raw(32))
	return h
}

func (r *unpacker) amount() *uint256.Int { return new(uint256.Int).SetBytes32(r.raw(32)) }

func (r *unpacker) total() (t total) {
	t.lo.SetBytes32(r.raw(32))
	t.hi, t.unbounded = r.u64(), r.u64()
	return t
}

func hexOf(b []byte) string { return hex.EncodeToString(b) }

// fill takes the data of run i, which must be what the state says.
func (r *runs) fill(i int, data []byte) error {
	if len(data) != r.want[i]*r.size {
		return fmt.Errorf("a run has %d bytes, want %d", len(data), r.want[i]*r.size)
	}
	if err := checkTuples(data, r.size); err != nil {
		return err
	}
	r.list[i].data = bytes.Clone(data)
	return nil
}
