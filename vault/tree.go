package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"sync"
)

// The set root is a Merkle root over what records there are, because encryption
// alone doesn't notice a row that is missing or older. Its shape is fixed:
//
//	bucket  = SHA-256(0x00 | for each leaf, sorted by key: key 32 | type u16 | version u64 | SHA-256(envelope) 32)
//	node    = SHA-256(0x01 | left | right)
//
// 4096 buckets by the first 12 bits of the key, 12 levels of nodes above them.

const (
	treeBits    = 12
	treeBuckets = 1 << treeBits
	leafLen     = 32 + 2 + 8 + 32
)

// leaf is what the tree knows of one record.
type leaf struct {
	key     recordKey
	version uint64
	hash    [32]byte // SHA-256 of the envelope
	typ     Type
}

// tree holds all leaves in memory, about 100 bytes a record. Only the writer
// goroutine changes it; mu lets readers look up meanwhile.
type tree struct {
	mu      sync.RWMutex
	buckets [treeBuckets][]leaf       // sorted by key
	nodes   [2 * treeBuckets][32]byte // nodes[1] is the root, nodes[treeBuckets+i] bucket i
	count   uint64
}

// newTree builds the tree over leaves; false when two have the same key.
func newTree(leaves []leaf) (*tree, bool) {
	t := &tree{count: uint64(len(leaves))}
	for _, l := range leaves {
		b := bucketOf(l.key)
		t.buckets[b] = append(t.buckets[b], l)
	}
	for i := range t.buckets {
		slices.SortFunc(t.buckets[i], func(a, b leaf) int { return bytes.Compare(a.key[:], b.key[:]) })
		for j := 1; j < len(t.buckets[i]); j++ {
			if t.buckets[i][j].key == t.buckets[i][j-1].key {
				return nil, false
			}
		}
		t.nodes[treeBuckets+i] = t.bucketHash(i)
	}
	for i := treeBuckets - 1; i >= 1; i-- {
		t.nodes[i] = nodeHash(&t.nodes[2*i], &t.nodes[2*i+1])
	}
	return t, true
}

// lookup finds the leaf of a record.
func (t *tree) lookup(k recordKey) (leaf, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	b := t.buckets[bucketOf(k)]
	i, ok := find(b, k)
	if !ok {
		return leaf{}, false
	}
	return b[i], true
}

// ofTypes lists the leaves of some types, sorted by key, and says how many leaves
// there are of all.
func (t *tree) ofTypes(types ...Type) (ls []leaf, all int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, b := range t.buckets {
		for _, l := range b {
			if slices.Contains(types, l.typ) {
				ls = append(ls, l)
			}
		}
	}
	return ls, int(t.count)
}

// leaves lists all leaves, sorted by key.
func (t *tree) leaves() []leaf {
	t.mu.RLock()
	defer t.mu.RUnlock()
	ls := make([]leaf, 0, t.count)
	for _, b := range t.buckets {
		ls = append(ls, b...)
	}
	return ls
}

// leafChange sets or removes one leaf.
type leafChange struct {
	leaf   leaf
	remove bool
}

// apply makes the changes and returns those that undo them.
func (t *tree) apply(changes []leafChange) (undo []leafChange) {
	t.mu.Lock()
	defer t.mu.Unlock()
	undo = make([]leafChange, 0, len(changes))
	dirty := make([]int, 0, len(changes))
	for _, c := range changes {
		n := bucketOf(c.leaf.key)
		b := t.buckets[n]
		i, ok := find(b, c.leaf.key)
		switch {
		case ok && c.remove:
			undo = append(undo, leafChange{leaf: b[i]})
			t.buckets[n] = slices.Delete(b, i, i+1)
			t.count--
		case ok:
			undo = append(undo, leafChange{leaf: b[i]})
			b[i] = c.leaf
		case c.remove:
			continue
		default:
			undo = append(undo, leafChange{leaf: c.leaf, remove: true})
			t.buckets[n] = slices.Insert(b, i, c.leaf)
			t.count++
		}
		dirty = append(dirty, n)
	}
	slices.Reverse(undo)
	t.rehash(dirty)
	return undo
}

// rehash renews the buckets named and every node above them, once each.
func (t *tree) rehash(dirty []int) {
	slices.Sort(dirty)
	dirty = slices.Compact(dirty)
	for i, n := range dirty {
		t.nodes[treeBuckets+n] = t.bucketHash(n)
		dirty[i] = treeBuckets + n
	}
	for level := 0; level < treeBits; level++ {
		for i, n := range dirty {
			dirty[i] = n / 2
		}
		dirty = slices.Compact(dirty)
		for _, n := range dirty {
			t.nodes[n] = nodeHash(&t.nodes[2*n], &t.nodes[2*n+1])
		}
	}
}

func (t *tree) root() [32]byte { return t.nodes[1] }

func (t *tree) bucketHash(n int) (sum [32]byte) {
	h := sha256.New()
	h.Write([]byte{0})
	var b [leafLen]byte
	for i := range t.buckets[n] {
		l := &t.buckets[n][i]
		copy(b[:], l.key[:])
		binary.BigEndian.PutUint16(b[32:], uint16(l.typ))
		binary.BigEndian.PutUint64(b[34:], l.version)
		copy(b[42:], l.hash[:])
		h.Write(b[:])
	}
	h.Sum(sum[:0])
	return sum
}

func nodeHash(left, right *[32]byte) [32]byte {
	var b [65]byte
	b[0] = 1
	copy(b[1:], left[:])
	copy(b[33:], right[:])
	return sha256.Sum256(b[:])
}

func bucketOf(k recordKey) int { return int(k[0])<<4 | int(k[1])>>4 }

func find(b []leaf, k recordKey) (int, bool) {
	return slices.BinarySearchFunc(b, k, func(l leaf, k recordKey) int { return bytes.Compare(l.key[:], k[:]) })
}
