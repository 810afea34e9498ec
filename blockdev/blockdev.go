// Package blockdev is the contract of a block device inside odx: what the device
// server, the copy engine, views, virtual disks and the extent store expect of one
// another. A Volume reads, writes, unmaps and flushes ranges of bytes; what some
// volumes can do beyond that is in interfaces of their own, which a caller finds by
// a type assertion. The package imports nothing of odx.
package blockdev

import (
	"context"
	"fmt"
)

const (
	// BlockLength is the unit of mapping in bytes. Copies between ranges aligned to
	// it share extents; everything smaller is read, merged and written.
	BlockLength = 4096
	// MaximumAtomicWrite is the longest range in bytes, counted in whole blocks of
	// BlockLength, that an Updater, an AtomicWriter or a ConditionalWriter changes in
	// one step.
	MaximumAtomicWrite = 1 << 20
)

// Reader is a block device that is only read.
type Reader interface {
	// Size returns the capacity in bytes.
	Size() int64
	// ReadAt fills p from byte off on, all of it unless it returns an error. Ranges
	// that were never written read as zeros.
	ReadAt(ctx context.Context, p []byte, off int64) error
}

// Volume is a block device. Offsets and lengths are bytes; a caller keeps to ranges
// inside [0, Size) and, unless the volume promises more, to multiples of its logical
// block length. Every method may be called concurrently; a method that finds ctx done
// returns its error as soon as it can. An error that a caller decides on wraps one of
// the kinds of this package.
type Volume interface {
	Reader
	// WriteAt writes p at byte off. When it returns, reads see the data; it is
	// durable only after a Flush that started later.
	WriteAt(ctx context.Context, p []byte, off int64) error
	// Unmap gives the range's space back; it reads as zeros afterwards.
	Unmap(ctx context.Context, off, length int64) error
	// Flush makes every write that returned before it durable.
	Flush(ctx context.Context) error
}

// ConditionalWriter is a volume that makes a read, a comparison and a write one
// atomic step (COMPARE AND WRITE).
type ConditionalWriter interface {
	// CompareAndWrite writes p at off if the range holds exactly compare
	// (len(compare) == len(p)); otherwise it writes nothing and returns the
	// index of the first differing byte. mismatch is -1 when p was written.
	CompareAndWrite(ctx context.Context, compare, p []byte, off int64) (mismatch int, err error)
}

// Updater is a volume that changes a range in one atomic step, depending on what it
// holds (ORWRITE).
type Updater interface {
	// Update calls fn to change the length bytes at off in place, at most
	// MaximumAtomicWrite. fn may be called again, with newer data.
	Update(ctx context.Context, off int64, length int, fn func(data []byte)) error
}

// AtomicWriter is a volume that writes a range so that neither a read nor a power
// cut shows a part of it (WRITE ATOMIC).
type AtomicWriter interface {
	// WriteAtomic writes p at off, both multiples of BlockLength, p at most
	// MaximumAtomicWrite.
	WriteAtomic(ctx context.Context, p []byte, off int64) error
}

// Mapper is a volume that knows which parts of it hold data (GET LBA STATUS).
type Mapper interface {
	// Extents calls fn with the mapped and the unmapped parts of a range, in order
	// and without gaps, until fn returns false. Parts end at multiples of
	// BlockLength and at the ends of the range.
	Extents(ctx context.Context, off, length int64, fn func(part Range, mapped bool) bool) error
}

// Range is a range of bytes of a block device.
type Range struct {
	Offset, Length int64
}

// In reports whether the range lies inside a device of size bytes. An empty range
// may begin at its end.
func (r Range) In(size int64) bool {
	return r.Offset >= 0 && r.Length >= 0 && r.Offset <= size && r.Length <= size-r.Offset
}

// End returns the first byte after the range.
func (r Range) End() int64 { return r.Offset + r.Length }

// Sum adds the lengths of ranges, each of which has to be whole blocks of blockLength
// bytes inside a device of size bytes; otherwise its error wraps ErrRange.
func Sum(ranges []Range, size int64, blockLength int) (int64, error) {
	var total int64
	for _, r := range ranges {
		if !r.In(size) {
			return 0, fmt.Errorf("%w: %d bytes at %d, volume of %d", ErrRange, r.Length, r.Offset, size)
		}
		if bl := int64(blockLength); bl <= 0 || r.Offset%bl != 0 || r.Length%bl != 0 {
			return 0, fmt.Errorf("%w: %d bytes at %d are not whole blocks of %d", ErrRange, r.Length, r.Offset, bl)
		}
		if total += r.Length; total < 0 {
			return 0, fmt.Errorf("%w: the lengths overflow", ErrRange)
		}
	}
	return total, nil
}
