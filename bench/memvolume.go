package main

import (
	"context"
	"sync"
)

// memStripe is the number of bytes that a lock of a memVolume guards.
const memStripe = 1 << 20

// memVolume is a volume in memory, to measure only the transport and the device
// server.
type memVolume struct {
	data  []byte
	locks []sync.RWMutex // by stripe
}

func newMemVolume(size int64) *memVolume {
	return &memVolume{data: make([]byte, size), locks: make([]sync.RWMutex, (size+memStripe-1)/memStripe)}
}

// each calls f for each stripe in a range; from is the offset of the part in the range.
func (v *memVolume) each(off, length int64, f func(lock *sync.RWMutex, part []byte, from int64)) {
	for from := int64(0); from < length; {
		at := off + from
		n := min(length-from, memStripe-at%memStripe)
		f(&v.locks[at/memStripe], v.data[at:at+n], from)
		from += n
	}
}

func (v *memVolume) Size() int64 { return int64(len(v.data)) }

func (v *memVolume) ReadAt(_ context.Context, p []byte, off int64) error {
	v.each(off, int64(len(p)), func(lock *sync.RWMutex, part []byte, from int64) {
		lock.RLock()
		copy(p[from:], part)
		lock.RUnlock()
	})
	return nil
}

func (v *memVolume) WriteAt(_ context.Context, p []byte, off int64) error {
	v.each(off, int64(len(p)), func(lock *sync.RWMutex, part []byte, from int64) {
		lock.Lock()
		copy(part, p[from:])
		lock.Unlock()
	})
	return nil
}

func (v *memVolume) Unmap(_ context.Context, off, length int64) error {
	v.each(off, length, func(lock *sync.RWMutex, part []byte, _ int64) {
		lock.Lock()
		clear(part)
		lock.Unlock()
	})
	return nil
}

func (v *memVolume) Flush(context.Context) error { return nil }
