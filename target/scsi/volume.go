package scsi

import (
	"context"

	"odx/backstore"
)

// Volume is what the device server needs of a block address space. Offsets and
// lengths are in bytes and multiples of the LU's logical block length, inside
// [0, Size). Every method may be called concurrently; a method that finds ctx
// done returns its error as soon as it can. Errors are the typed errors of
// package backstore, or anything that wraps them.
type Volume interface {
	// Size returns the capacity in bytes.
	Size() int64
	// ReadAt fills p from off. Ranges that were never written read as zeros.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt writes p at off. When it returns, reads see the data; it is
	// durable only after a Flush that started later.
	WriteAt(ctx context.Context, p []byte, off int64) error
	// Unmap gives the range's space back; it reads as zeros afterwards.
	Unmap(ctx context.Context, off, length int64) error
	// Flush makes every write that returned before it durable.
	Flush(ctx context.Context) error
}

// ConditionalWriter is the volume that can make a read, a comparison and a
// write one atomic step (COMPARE AND WRITE).
type ConditionalWriter interface {
	// CompareAndWrite writes p at off if the range holds exactly compare
	// (len(compare) == len(p)); otherwise it writes nothing and returns the
	// index of the first differing byte. mismatch is -1 when p was written.
	CompareAndWrite(ctx context.Context, compare, p []byte, off int64) (mismatch int, err error)
}

// Updater is the volume that can change a range in one atomic step, depending on
// what it holds (ORWRITE).
type Updater interface {
	// Update has fn change the length bytes at off in place, at most
	// backstore.MaximumAtomicWrite counted in whole blocks of the store. fn may be
	// called again, with newer data.
	Update(ctx context.Context, off int64, length int, fn func(data []byte)) error
}

// AtomicWriter is the volume that can write a range so that neither a read nor a
// power cut shows a part of it (WRITE ATOMIC).
type AtomicWriter interface {
	// WriteAtomic writes p at off, both multiples of backstore.BlockLength, p at
	// most backstore.MaximumAtomicWrite.
	WriteAtomic(ctx context.Context, p []byte, off int64) error
}

// Mapper is the volume that knows which parts of it hold data (GET LBA STATUS).
type Mapper interface {
	// Extents calls fn with the mapped and the unmapped parts of a range of
	// bytes, in order and side by side, until fn returns false. Parts are cut at
	// multiples of backstore.BlockLength and at the ends of the range.
	Extents(ctx context.Context, off, length int64, fn func(part backstore.Range, mapped bool) bool) error
}
