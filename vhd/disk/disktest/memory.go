// Package disktest provides a container in memory for tests of virtual disk formats. It
// records every change, so that a test can examine the result of any power cut.
package disktest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"odx/blockdev"
)

// Memory is a disk.Container in memory. It is safe for concurrent use.
type Memory struct {
	mu      sync.Mutex // guards the rest
	data    []byte
	changes []change
	hook    func(op string) error
}

// change is a write of data at off, or a new length; a barrier has neither.
type change struct {
	off      int64
	data     []byte
	truncate bool // to off
}

// New returns a container that holds data.
func New(data []byte) *Memory { return &Memory{data: slices.Clone(data)} }

// FailWith sets a hook, called before each operation with m locked. If it returns an
// error, the operation returns the error and has no effect. A nil hook disables this.
func (m *Memory) FailWith(hook func(op string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

// Bytes returns the content of the container.
func (m *Memory) Bytes() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.data)
}

// Size implements disk.Container.
func (m *Memory) Size() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int64(len(m.data))
}

// lockRange locks m for an operation on a range.
func (m *Memory) lockRange(ctx context.Context, op string, off, length int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	if size := int64(len(m.data)); !(blockdev.Range{Offset: off, Length: length}).In(size) {
		m.mu.Unlock()
		return fmt.Errorf("%w: %s of %d bytes at %d of a container of %d", blockdev.ErrRange, op, length, off, size)
	}
	if m.hook != nil {
		if err := m.hook(op); err != nil {
			m.mu.Unlock()
			return err
		}
	}
	return nil
}

// ReadAt implements disk.Container.
func (m *Memory) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := m.lockRange(ctx, "read", off, int64(len(p))); err != nil {
		return err
	}
	defer m.mu.Unlock()
	copy(p, m.data[off:])
	return nil
}

// WriteAt implements disk.Container.
func (m *Memory) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := m.lockRange(ctx, "write", off, int64(len(p))); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.apply(change{off: off, data: slices.Clone(p)})
	return nil
}

// Unmap implements disk.Container.
func (m *Memory) Unmap(ctx context.Context, off, length int64) error {
	if err := m.lockRange(ctx, "unmap", off, length); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.apply(change{off: off, data: make([]byte, length)})
	return nil
}

// Truncate implements disk.Container.
func (m *Memory) Truncate(ctx context.Context, size int64) error {
	if err := m.lockRange(ctx, "truncate", 0, 0); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.apply(change{off: size, truncate: true})
	return nil
}

// Barrier implements disk.Container.
func (m *Memory) Barrier(ctx context.Context) error {
	if err := m.lockRange(ctx, "barrier", 0, 0); err != nil {
		return err
	}
	defer m.mu.Unlock()
	m.changes = append(m.changes, change{})
	return nil
}

// Flush implements disk.Container.
func (m *Memory) Flush(ctx context.Context) error { return m.Barrier(ctx) }

// apply applies a change. m.mu is held.
func (m *Memory) apply(c change) {
	m.changes = append(m.changes, c)
	m.data = c.apply(m.data)
}

func (c change) apply(data []byte) []byte {
	if !c.truncate {
		copy(data[min(c.off, int64(len(data))):], c.data)
		return data
	}
	if grow := c.off - int64(len(data)); grow > 0 {
		return append(data, make([]byte, grow)...)
	}
	kept := data[:c.off]
	clear(data[c.off:])
	return kept
}

// Forget discards the recorded changes: the current content becomes the base of Cut.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changes = nil
}

// Changes returns the number of changes and barriers since Forget.
func (m *Memory) Changes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.changes)
}

// Cut returns a possible state after a power cut that follows the first n changes since
// Forget, when the content was base: all changes before the last barrier, and those
// after it that rng selects, or all if rng is nil.
func (m *Memory) Cut(base []byte, n int, rng *rand.Rand) *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := 0
	for i, c := range m.changes[:n] {
		if c.data == nil && !c.truncate {
			last = i
		}
	}
	data := slices.Clone(base)
	for i, c := range m.changes[:n] {
		if i < last || rng == nil || rng.IntN(2) == 0 {
			data = c.apply(data)
		}
	}
	return &Memory{data: data}
}
