package segment

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Small pieces that are appended one after the other are gathered in memory and
// given to the kernel together, by WriteOut. They have their place and the blocks
// for it by then, so that a full disk refuses them when they are appended, and
// not later.

const (
	chunkBytes = 256 << 10
	maxChunks  = 4
	// assignBytes of a segment get their blocks at once.
	assignBytes = 4 << 20
)

// stage is what was appended and not given to the kernel. Readers find it here.
type stage struct {
	used atomic.Int32 // len(chunks)

	mu     sync.RWMutex // guards what follows
	chunks []*chunk     // the oldest first
	spare  *chunk
}

// chunk is a part of a segment. It holds a reference.
type chunk struct {
	h    *handle
	from uint32 // block
	data []byte
	// closed: it grows no more.
	closed bool
}

func (c *chunk) blocks() uint32 { return uint32(len(c.data) / BlockLength) }

// tryStage appends p to the current segment in memory; false when it must be
// written at once.
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

// assign sees to it that the current segment has blocks for its first n. mu is held.
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

// add copies p, which lies at block of the segment h; false when there is no room.
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

// WriteOut gives all that was appended before to the kernel. After an error what
// it could not write is still readable, and the next WriteOut tries again.
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

// oldest returns the chunk that is to be written, which grows no more; nil when
// there is none.
func (g *stage) oldest() *chunk {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.chunks) == 0 {
		return nil
	}
	g.chunks[0].closed = true
	return g.chunks[0]
}

// drop takes the oldest chunk away.
func (g *stage) drop(c *chunk) {
	g.mu.Lock()
	defer g.mu.Unlock()
	copy(g.chunks, g.chunks[1:])
	g.chunks[len(g.chunks)-1] = nil
	g.chunks = g.chunks[:len(g.chunks)-1]
	g.used.Store(int32(len(g.chunks)))
	g.release(c)
}

// forget takes away what belongs to a segment that is removed; to every one with
// id 0. No chunk is being written.
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

// release gives up a chunk that is in no list any more. mu is held.
func (g *stage) release(c *chunk) {
	c.h.release()
	c.h, g.spare = nil, c
}

// part is a range of bytes.
type part struct{ from, to int }

// read copies what is here of the bytes from off on of a block on to p, and
// returns which parts of p are not here, in missing.
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
		// Chunks ascend, so that only the last missing part can be cut.
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
