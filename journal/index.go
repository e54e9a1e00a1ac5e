package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"sort"
)

// The index is what memory keeps of requests that are over: 32 bytes each say
// which rows tell the rest. Replay keys keep 56: a key, the digest that was
// approved under it and by which approval, for ever, also when the rows are pruned. Both are sorted runs;
// a snapshot adds one run of each, and merges runs of like size, so that there are
// few and each byte is written again a few times only. Runs never change.

// indexKey is the first half of SHA-256 over a domain and the parts, each with its
// length before it.
type indexKey [16]byte

func indexKeyOf(domain string, parts ...string) indexKey {
	h := sha256.New()
	for _, p := range append([]string{domain}, parts...) {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return indexKey(h.Sum(nil)[:16])
}

func (k requestKey) index() indexKey {
	return indexKeyOf("sigild/journal/request", k.organization, k.id)
}
func replayIndex(key string) indexKey { return indexKeyOf("sigild/journal/replay", key) }

// The sizes of tuples: key ‖ approved seq u64 ‖ entry seq u64, and
// key ‖ digest ‖ approved seq u64.
const (
	requestTuple = 16 + 8 + 8
	replayTuple  = 16 + 32 + 8
)

// run is a sorted list of tuples, without two of one key.
type run struct {
	id   uint64 // names its records
	data []byte
}

// runs are all of one kind, the oldest first; a newer one wins.
type runs struct {
	size int // of a tuple
	list []run
	next uint64 // the id of the next run
	want []int  // while a snapshot is loaded: how many tuples each has
}

// find gives the newest tuple of the key, without the key; nil if there is none.
func (r *runs) find(k indexKey) []byte {
	for i := len(r.list) - 1; i >= 0; i-- {
		d := r.list[i].data
		n := len(d) / r.size
		at := sort.Search(n, func(j int) bool { return bytes.Compare(d[j*r.size:j*r.size+16], k[:]) >= 0 })
		if at < n && bytes.Equal(d[at*r.size:at*r.size+16], k[:]) {
			return d[at*r.size+16 : (at+1)*r.size]
		}
	}
	return nil
}

// with adds tuples, sorted, as a run, merged with those before it that are not twice
// as long. keep (nil: all) says which tuples stay in a merge. It returns the new list
// and leaves the old as it is.
func (r *runs) with(fresh []byte, keep func(tuple []byte) bool) runs {
	out := runs{size: r.size, list: append([]run(nil), r.list...), next: r.next}
	if len(fresh) == 0 {
		return out
	}
	for len(out.list) > 0 {
		last := out.list[len(out.list)-1]
		if len(last.data) > 2*len(fresh) {
			break
		}
		fresh = mergeTuples(last.data, fresh, r.size, keep)
		out.list = out.list[:len(out.list)-1]
	}
	out.list = append(out.list, run{id: out.next, data: fresh})
	out.next++
	return out
}

// mergeTuples merges two sorted lists; of one key the newer tuple stays.
func mergeTuples(older, newer []byte, size int, keep func([]byte) bool) []byte {
	out := make([]byte, 0, len(older)+len(newer))
	take := func(from *[]byte) {
		if t := (*from)[:size]; keep == nil || keep(t) {
			out = append(out, t...)
		}
		*from = (*from)[size:]
	}
	for len(older) > 0 && len(newer) > 0 {
		switch bytes.Compare(older[:16], newer[:16]) {
		case -1:
			take(&older)
		case 1:
			take(&newer)
		default:
			older = older[size:]
		}
	}
	for len(older) > 0 {
		take(&older)
	}
	for len(newer) > 0 {
		take(&newer)
	}
	return out
}

// sortTuples sorts a list of tuples by key.
func sortTuples(b []byte, size int) {
	sort.Sort(&tupleSorter{b, size, make([]byte, size)})
}

type tupleSorter struct {
	b    []byte
	size int
	tmp  []byte
}

func (t *tupleSorter) at(i int) []byte    { return t.b[i*t.size : (i+1)*t.size] }
func (t *tupleSorter) Len() int           { return len(t.b) / t.size }
func (t *tupleSorter) Less(i, j int) bool { return bytes.Compare(t.at(i)[:16], t.at(j)[:16]) < 0 }
func (t *tupleSorter) Swap(i, j int) {
	copy(t.tmp, t.at(i))
	copy(t.at(i), t.at(j))
	copy(t.at(j), t.tmp)
}

// checkTuples refuses what mergeTuples and sortTuples don't make.
func checkTuples(b []byte, size int) error {
	if len(b)%size != 0 {
		return errors.New("a run is cut off")
	}
	for i := size; i < len(b); i += size {
		if bytes.Compare(b[i-size:i-size+16], b[i:i+16]) >= 0 {
			return errors.New("a run is not sorted")
		}
	}
	return nil
}

// entryReader reads single entries that are on disk, authenticated where it can.
type entryReader func(seq uint64) (Entry, error)

// lookup finds what is known of a request: in memory, or by the index on disk.
func (p *projections) lookup(k requestKey) (*RequestState, error) {
	if s := p.requests[k]; s != nil {
		return s, nil
	}
	t := p.over.find(k.index())
	if t == nil {
		return nil, nil
	}
	return p.recall(k, binary.BigEndian.Uint64(t), binary.BigEndian.Uint64(t[8:]))
}

// recall makes the state of a request that is over, from its rows.
func (p *projections) recall(k requestKey, approved, end uint64) (*RequestState, error) {
	if end <= p.pruned.Seq {
		return nil, nil // forgotten with its rows
	}
	fail := func(err error) (*RequestState, error) {
		return nil, &VerifyError{Seq: end, Reason: "recalling request " + k.id + ": " + err.Error()}
	}
	e, err := p.read(end)
	if err != nil {
		return fail(err)
	}
	if approved == 0 {
		if e.Kind != KindAct || (requestKey{e.Organization, e.RequestID}) != k {
			return fail(errors.New("the index names another entry"))
		}
		s := stateOf(&e, StateDone)
		s.Answer = e.Answer
		return s, nil
	}
	a := e // says the same of the request, the rule apart
	if approved > p.pruned.Seq {
		if a, err = p.read(approved); err != nil {
			return fail(err)
		}
	}
	if (requestKey{a.Organization, a.RequestID}) != k || e.ApprovedSeq != approved {
		return fail(errors.New("the index names another entry"))
	}
	s := stateOf(&a, StateApproved)
	s.ApprovedSeq = approved
	s.end(&e)
	return s, nil
}

// holder is what holds a key; its digest is empty if nothing does.
func (p *projections) holder(key string) replayed {
	if r, ok := p.replays[key]; ok {
		return r
	}
	if t := p.held.find(replayIndex(key)); t != nil {
		return replayed{digest: hexOf(t[:32]), uses: 1, seq: binary.BigEndian.Uint64(t[32:])}
	}
	return replayed{}
}
