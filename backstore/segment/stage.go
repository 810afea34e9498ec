package segment

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Consecutive small Appends are gathered in memory and written to the kernel together
// by WriteOut. Their blocks are allocated before, so that on a full disk the Append
// fails, not WriteOut.

const (
	chunkBytes = 256 << 10
	maxChunks  = 4
	// assignBytes is the number of bytes for which blocks are allocated at once.
	assignBytes = 4 << 20
)

// stage is appended data not yet written to the kernel. Reads use it.
type stage struct {
	used atomic.Int32 // len(chunks)

	mu     sync.RWMutex // guards the fields below
	chunks []*chunk     // oldest first
	spare  *chunk
}

// chunk is a contiguous part of a segment. It has a reference to the handle.
type chunk struct {
	h    *handle
	from uint32 // block
	data []byte
	// closed reports that no data is added.
	closed bool
}

func (c *chunk) blocks() uint32 { return uint32(len(c.data) / BlockLength) }

// tryStage appends p to the current segment in memory. It returns false if p must be
// written immediately.
func (s *Set) tryStage(p []byte) (Addr, bool) {
	n := uint32(len(p) / BlockLength)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.moved || !s.fits(n) || !s.assign(s.free+n) {
		return Addr{}, false
	}
	if !s.stage.add(s.current, s.free, p) {
		return Addr{}, false
	}
	a := Addr{s.current.id, s.free}
	s.free += n
	return a, true
}

// assign allocates disk blocks for the first n blocks of the current segment. mu is
// held.
func (s *Set) assign(n uint32) bool {
	if int64(n)*BlockLength <= s.assigned {
		return true
	}
	bytes := min(s.o.bytes(), int64(n)*BlockLength+assignBytes)
	if s.current.blob.Allocate(bytes) != nil {
		return false
	}
	s.assigned = bytes
	return true
}

// add copies p, whose address is block of segment h. It returns false if there is no
// room.
func (g *stage) add(h *handle, block uint32, p []byte) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if k := len(g.chunks); k > 0 {
		c := g.chunks[k-1]
		if c.h == h && !c.closed && c.from+c.blocks() == block && len(p) <= chunkBytes-len(c.data) {
			c.data = append(c.data, p...)
			return true
		}
		if k == maxChunks {
			return false
		}
	}
	c := g.spare
	g.spare = nil
	if c == nil {
		c = &chunk{data: make([]byte, 0, chunkBytes)}
	}
	h.refs.Add(1)
	c.h, c.from, c.data, c.closed = h, block, append(c.data[:0], p...), false
	g.chunks = append(g.chunks, c)
	g.used.Store(int32(len(g.chunks)))
	return true
}

// WriteOut writes all data of previous Appends to the kernel. After an error unwritten
// data remains readable, and the next WriteOut retries.
func (s *Set) WriteOut() error {
	if s.stage.used.Load() == 0 {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	for n := s.stage.used.Load(); n > 0; n-- {
		c := s.stage.oldest()
		if c == nil {
			break
		}
		if _, err := c.h.blob.WriteAt(c.data, int64(c.from)*BlockLength); err != nil {
			return fmt.Errorf("write segment %08x: %w", uint32(c.h.id), err)
		}
		s.note(c.h, span{c.from, c.from + c.blocks()})
		s.stage.drop(c)
	}
	return nil
}

// oldest closes and returns the oldest chunk, or nil.
func (g *stage) oldest() *chunk {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.chunks) == 0 {
		return nil
	}
	g.chunks[0].closed = true
	return g.chunks[0]
}

// drop removes the oldest chunk.
func (g *stage) drop(c *chunk) {
	g.mu.Lock()
	defer g.mu.Unlock()
	copy(g.chunks, g.chunks[1:])
	g.chunks[len(g.chunks)-1] = nil
	g.chunks = g.chunks[:len(g.chunks)-1]
	g.used.Store(int32(len(g.chunks)))
	g.release(c)
}

// forget removes the chunks of a removed segment, or all with id 0. No chunk is being
// written.
func (g *stage) forget(id ID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	left := g.chunks[:0]
	for _, c := range g.chunks {
		if id != 0 && c.h.id != id {
			left = append(left, c)
			continue
		}
		g.release(c)
	}
	clear(g.chunks[len(left):])
	g.chunks = left
	g.used.Store(int32(len(left)))
}

// release releases a chunk removed from the list. mu is held.
func (g *stage) release(c *chunk) {
	c.h.release()
	c.h, g.spare = nil, c
}

// part is a range of bytes.
type part struct{ from, to int }

// read copies the staged part of the bytes from offset off of block a on to p, and
// returns the other parts of p in missing.
func (g *stage) read(a Addr, off int, p []byte, missing []part) []part {
	g.mu.RLock()
	defer g.mu.RUnlock()
	start := int64(a.Block)*BlockLength + int64(off)
	missing = append(missing, part{0, len(p)})
	for _, c := range g.chunks {
		if c.h.id != a.Segment {
			continue
		}
		from := int64(c.from)*BlockLength - start
		to := from + int64(len(c.data))
		if to <= 0 || from >= int64(len(p)) {
			continue
		}
		// Chunks ascend, so only the last missing part can be split.
		last := &missing[len(missing)-1]
		lo, hi := max(int(from), last.from), min(int(to), last.to)
		if lo >= hi {
			continue
		}
		copy(p[lo:hi], c.data[int64(lo)-from:])
		end := last.to
		if last.to = lo; last.from == lo {
			missing = missing[:len(missing)-1]
		}
		if hi < end {
			missing = append(missing, part{hi, end})
		}
		if len(missing) == 0 {
			break
		}
	}
	return missing
}
