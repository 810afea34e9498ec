// Package dedup remembers which extent holds which data, so that data written
// again is mapped instead of stored. The index is a cache of fixed size: it may
// forget entries, those that were never found again first, and it may name
// extents that are gone. Its answer is a candidate that the extent table
// confirms by the whole fingerprint.
package dedup

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"odx/backstore/extent"
)

const (
	ways    = 8
	stripes = 256
)

// bucket is a set of entries that share the low bits of their fingerprints.
// An entry of ID 0 is free.
type bucket struct {
	ids  [ways]extent.ID
	tags [ways]uint32
	hits uint8 // bit i: entry i was found since the hand last passed
	hand uint8
}

// BytesPerEntry is the memory that an entry of the index takes.
const BytesPerEntry = 13

// Index maps fingerprints to extents. It is safe for concurrent use.
type Index struct {
	locks   [stripes]sync.Mutex // lock i guards buckets whose number is i modulo stripes
	buckets []bucket
}

// New returns an index of at most maxBytes, at least one bucket for each lock.
func New(maxBytes int64) *Index {
	n := max(maxBytes/(ways*BytesPerEntry), stripes)
	return &Index{buckets: make([]bucket, 1<<(bits.Len64(uint64(n))-1))}
}

// Entries returns how many fingerprints the index can hold.
func (x *Index) Entries() int { return len(x.buckets) * ways }

func (x *Index) locate(fp *extent.Fingerprint) (*bucket, *sync.Mutex, uint32) {
	n := binary.LittleEndian.Uint64(fp[:]) & uint64(len(x.buckets)-1)
	return &x.buckets[n], &x.locks[n%stripes], binary.LittleEndian.Uint32(fp[8:])
}

// Lookup returns the extent that most likely has this fingerprint, 0 for none.
func (x *Index) Lookup(fp *extent.Fingerprint) extent.ID {
	b, mu, tag := x.locate(fp)
	mu.Lock()
	defer mu.Unlock()
	for i, id := range b.ids {
		if id != 0 && b.tags[i] == tag {
			b.hits |= 1 << i
			return id
		}
	}
	return 0
}

// Insert remembers that the extent has this fingerprint, in place of what the
// index knew for it.
func (x *Index) Insert(fp *extent.Fingerprint, id extent.ID) {
	b, mu, tag := x.locate(fp)
	mu.Lock()
	defer mu.Unlock()
	i := b.victim(tag)
	b.ids[i], b.tags[i] = id, tag
	b.hits &^= 1 << i
}

// victim returns the entry to overwrite: the one with this tag, a free one, or
// the next that was not found since the hand passed it.
func (b *bucket) victim(tag uint32) int {
	free := -1
	for i, id := range b.ids {
		if id == 0 {
			free = i
		} else if b.tags[i] == tag {
			return i
		}
	}
	if free >= 0 {
		return free
	}
	for {
		i := b.hand
		b.hand = (b.hand + 1) % ways
		if b.hits&(1<<i) == 0 {
			return int(i)
		}
		b.hits &^= 1 << i
	}
}
