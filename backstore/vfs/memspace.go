package vfs

import (
	"math"
	"math/bits"
	"slices"
	"sync/atomic"
	"syscall"
)

// space counts the allocated blocks of a Mem, of pageLength bytes.
type space struct {
	capacity atomic.Int64 // in bytes; 0 for no limit
	used     atomic.Int64 // in bytes
	taken    atomic.Bool  // what is freed is lost
}

// SetCapacity bounds the allocated bytes of all files; 0 removes the bound. If more is
// allocated, as when another program has filled the disk, allocating a block fails with
// ENOSPC.
func (m *Mem) SetCapacity(bytes int64) { m.space.capacity.Store(bytes) }

// SetTaken says whether another program takes each block of a bounded disk as soon
// as a file frees it.
func (m *Mem) SetTaken(taken bool) { m.space.taken.Store(taken) }

// Used returns the allocated bytes of all files.
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
			if bytes < 0 && capacity > 0 && s.taken.Load() {
				s.capacity.Add(bytes)
			}
			return nil
		}
	}
}

// blocks has the allocated blocks of a file; guarded by the inode's mu.
type blocks struct {
	assigned []uint64 // bitmap
	unlinked bool     // blocks are freed at once, not when the last handle is closed
}

// assign allocates the blocks of bytes [from, to), all or none.
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

// truncate frees the blocks beyond size.
func (b *blocks) truncate(s *space, size int64) {
	for i := (size + pageLength - 1) / pageLength; i < int64(len(b.assigned))*64; i++ {
		if b.has(i) {
			b.assigned[i/64] &^= 1 << (i % 64)
			_ = s.take(-pageLength)
		}
	}
}

// count adds the blocks to s.
func (b *blocks) count(s *space) {
	n := 0
	for _, word := range b.assigned {
		n += bits.OnesCount64(word)
	}
	s.used.Add(int64(n) * pageLength)
}

// clone returns the blocks after a crash: all of them, although a disk may lose those
// without a Sync.
func (b *blocks) clone() blocks { return blocks{assigned: slices.Clone(b.assigned)} }

// unlink frees the blocks of a file without a name.
func (n *inode) unlink(s *space) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.blocks.truncate(s, 0)
	n.blocks.unlinked = true
}
