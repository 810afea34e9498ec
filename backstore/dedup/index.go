// Package dedup maps fingerprints to extents, so that data written again is
// referenced instead of stored. The index is a cache of fixed size: it evicts
// entries, those without a hit first, and may return extents that no longer exist.
// A result is a candidate, which the extent table verifies by the full
// fingerprint.
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

// bucket is a set of entries whose fingerprints share the low bits. An entry with ID
// 0 is free.
type bucket struct {
	ids  [ways]extent.ID
	tags [ways]uint32
	hits uint8 // bit i: entry i had a hit since the clock hand last passed
	hand uint8
}

// BytesPerEntry is the memory per entry in bytes.
const BytesPerEntry = 13

// Index maps fingerprints to extents. It is safe for concurrent use.
type Index struct {
	locks   [stripes]sync.Mutex // lock i guards the buckets n with n % stripes == i
	buckets []bucket
}

// New returns an index of at most maxBytes, and of at least one bucket per lock.
func New(maxBytes int64) *Index {
	n := max(maxBytes/(ways*BytesPerEntry), stripes)
	return &Index{buckets: make([]bucket, 1<<(bits.Len64(uint64(n))-1))}
}

// Entries returns the capacity of the index in fingerprints.
func (x *Index) Entries() int { return len(x.buckets) * ways }

func (x *Index) locate(fp *extent.Fingerprint) (*bucket, *sync.Mutex, uint32) {
	n := binary.LittleEndian.Uint64(fp[:]) & uint64(len(x.buckets)-1)
	return &x.buckets[n], &x.locks[n%stripes], binary.LittleEndian.Uint32(fp[8:])
}

// Lookup returns the extent that most likely has the fingerprint, or 0.
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

// Insert records that the extent has the fingerprint. It replaces an earlier entry
// for the same fingerprint.
func (x *Index) Insert(fp *extent.Fingerprint, id extent.ID) {
	b, mu, tag := x.locate(fp)
	mu.Lock()
	defer mu.Unlock()
	i := b.slot(tag)
	b.ids[i], b.tags[i] = id, tag
	b.hits &^= 1 << i
}

// slot returns the entry to overwrite: the one with this tag, else a free one, else
// the next without a hit since the clock hand passed it.
func (b *bucket) slot(tag uint32) int {
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
