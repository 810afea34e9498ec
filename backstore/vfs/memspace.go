package vfs

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"syscall"
)

// space counts the blocks of a Mem, of pageLength bytes, that files have.
type space struct {
	capacity atomic.Int64 // in bytes; 0: without bound
	used     atomic.Int64 // in bytes
}

// SetCapacity bounds what all files together can have, in bytes; 0 takes the
// bound away. With less than they have, as when another program has filled the
// disk, whatever needs a new block fails with ENOSPC.
func (m *Mem) SetCapacity(bytes int64) { m.space.capacity.Store(bytes) }

// Used returns how many bytes the blocks of all files have.
func (m *Mem) Used() int64 { return m.space.used.Load() }

func (s *space) free() int64 {
	capacity := s.capacity.Load()
	if capacity == 0 {
		return math.MaxInt64
	}
	return max(capacity-s.used.Load(), 0)
}

func (s *space) take(bytes int64) error {
	for {
		used, capacity := s.used.Load(), s.capacity.Load()
		if bytes > 0 && capacity > 0 && used+bytes > capacity {
			return syscall.ENOSPC
		}
		if s.used.CompareAndSwap(used, used+bytes) {
			return nil
		}
	}
}

// blocks are those of a file that have a place on the disk. The inode's mu guards
// them.
type blocks struct {
	assigned []uint64 // a bit for each
	unlinked bool     // they are free as soon as no handle of the file is open: at once, here
}

// assign gives a place to the blocks that bytes [from, to) are in, or to none.
func (b *blocks) assign(s *space, from, to int64) error {
	if from >= to || b.unlinked {
		return nil
	}
	first, end := from/pageLength, (to+pageLength-1)/pageLength
	missing := int64(0)
	for i := first; i < end; i++ {
		if !b.has(i) {
			missing++
		}
	}
	if missing == 0 {
		return nil
	}
	if err := s.take(missing * pageLength); err != nil {
		return err
	}
	for int64(len(b.assigned))*64 < end {
		b.assigned = append(b.assigned, 0)
	}
	for i := first; i < end; i++ {
		b.assigned[i/64] |= 1 << (i % 64)
	}
	return nil
}

func (b *blocks) has(i int64) bool {
	return i/64 < int64(len(b.assigned)) && b.assigned[i/64]&(1<<(i%64)) != 0
}

// cut takes their place from the blocks that lie past a size.
func (b *blocks) cut(s *space, size int64) {
	for i := (size + pageLength - 1) / pageLength; i < int64(len(b.assigned))*64; i++ {
		if b.has(i) {
			b.assigned[i/64] &^= 1 << (i % 64)
			_ = s.take(-pageLength)
		}
	}
}

// count adds them to a space.
func (b *blocks) count(s *space) {
	n := 0
	for _, word := range b.assigned {
		n += bits.OnesCount64(word)
	}
	s.used.Add(int64(n) * pageLength)
}

// clone is what a crash leaves: every block that had a place keeps it, though a disk
// can lose those that no Sync followed.
func (b *blocks) clone() blocks { return blocks{assigned: slices.Clone(b.assigned)} }

// unlink frees the blocks of a file that has lost its name.
func (n *inode) unlink(s *space) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.blocks.cut(s, 0)
	n.blocks.unlinked = true
}
