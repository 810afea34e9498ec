// Package bufpool pools the byte buffers that carry SCSI data between the network
// and the store, in power-of-two size classes, so that a steady load allocates
// nothing. A buffer has one owner at a time, which must not use it after Put.
package bufpool

import (
	"math/bits"
	"sync"

	"odx/backstore/invariant"
)

const (
	minShift = 9  // 512 bytes: one logical block, and the smallest class
	maxShift = 24 // 16 MiB: larger buffers are not pooled
)

// Pool is a set of free buffers by size class. The zero value is ready for use
// and safe for concurrent use.
type Pool struct {
	classes [maxShift - minShift + 1]sync.Pool
}

// Buffer is a pooled byte slice. The owner may reslice Bytes. The initial contents
// are undefined.
type Buffer struct {
	Bytes []byte

	whole []byte
	class int
}

// Get returns a buffer with len(Bytes) == n. The contents are not cleared.
func (p *Pool) Get(n int) *Buffer {
	class := classOf(n)
	if class < 0 {
		return &Buffer{Bytes: make([]byte, n), class: -1}
	}
	b, ok := p.classes[class].Get().(*Buffer)
	if !ok {
		b = &Buffer{whole: make([]byte, 1<<(class+minShift)), class: class}
	}
	b.Bytes = b.whole[:n]
	return b
}

// Size returns the bytes of memory that Get(n) occupies.
func Size(n int) int {
	class := classOf(n)
	if class < 0 {
		return n
	}
	return 1 << (class + minShift)
}

// Put returns b to the pool. A nil b is a no-op.
func (p *Pool) Put(b *Buffer) {
	if b == nil || b.class < 0 {
		return
	}
	b.Bytes = nil
	invariant.Scribble(b.whole)
	p.classes[b.class].Put(b)
}

// classOf returns the index of the smallest class that holds n bytes, or -1 if n
// exceeds the largest class.
func classOf(n int) int {
	if n <= 1<<minShift {
		return 0
	}
	shift := bits.Len(uint(n - 1))
	if shift > maxShift {
		return -1
	}
	return shift - minShift
}
