package view

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"

	"odx/blockdev"
	"odx/offload"
)

// Each block of blockdev.BlockLength has sumBytes in another volume: the CRC-32C of the
// block and sumKnown, or zeros if the block has no checksum.
const (
	sumBytes = 8
	sumKnown = 0x53554D31
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SumsBytes returns the size of the volume for the checksums of size bytes.
func SumsBytes(size int64) int64 {
	blocks := (size + blockdev.BlockLength - 1) / blockdev.BlockLength
	return (blocks*sumBytes + blockdev.BlockLength - 1) / blockdev.BlockLength * blockdev.BlockLength
}

// ErrMismatch: a block does not match its checksum. It is the cause in a
// blockdev.CorruptError, so an initiator receives MEDIUM ERROR with the LBA.
var ErrMismatch = errors.New("does not match its checksum")

// Verify verifies reads with checksums computed at the write. An offload write and an
// unmap remove the checksums of their range: its blocks are not verified until they are
// written. An offload read verifies nothing.
//
// A checksum is removed before its block changes and computed afterwards, in the
// store's order, so that after a crash a block has its checksum or none. A device
// outside the store is not in that order, so both steps wait until the data is durable.
type Verify struct {
	name   string
	of     Device
	sums   blockdev.Volume
	shared bool // of and sums are in one store

	// regions: shared to read, exclusive to change a block or its checksum.
	regions regions
	buffers sync.Pool // of *[]byte
}

// NewVerify returns a view of a device with checksums in the volume sums, which is in
// the store and has at least SumsBytes(of.Size()) bytes.
func NewVerify(name string, of Device, sums blockdev.Volume, e *offload.Engine) (*Verify, error) {
	if need := SumsBytes(of.Size()); sums.Size() < need {
		return nil, fmt.Errorf("%w: view %s: the volume for checksums has to have %d bytes, has %d", blockdev.ErrInvalid, name, need, sums.Size())
	}
	v := &Verify{name: name, of: of, sums: sums, shared: e.Shares(inner{of})}
	v.buffers.New = func() any { return new([]byte) }
	return v, nil
}

// Size implements Volume.
func (v *Verify) Size() int64 { return v.of.Size() }

// Backing implements Device.
func (v *Verify) Backing() []blockdev.Volume { return v.of.Backing() }

func (v *Verify) copier(off, length int64) *offload.Engine { return copierOf(v.of, off, length) }

// Flush implements Volume.
func (v *Verify) Flush(ctx context.Context) error {
	if err := v.of.Flush(ctx); err != nil {
		return err
	}
	return v.sums.Flush(ctx)
}

// buffer returns n bytes and their pool entry.
func (v *Verify) buffer(n int64) ([]byte, *[]byte) {
	b := v.buffers.Get().(*[]byte)
	if int64(cap(*b)) < n {
		*b = make([]byte, n)
	}
	return (*b)[:n], b
}

// around returns the range of the blocks that contain a range.
func (v *Verify) around(off, length int64) (first, end int64) {
	const b = blockdev.BlockLength
	return off / b * b, min((off+length+b-1)/b*b, v.Size())
}

// sumsOf returns the range of the checksums of whole blocks.
func sumsOf(first, end int64) blockdev.Range {
	blocks := (end - first + blockdev.BlockLength - 1) / blockdev.BlockLength
	return blockdev.Range{Offset: first / blockdev.BlockLength * sumBytes, Length: blocks * sumBytes}
}

// ReadAt implements Volume. Data that has changed is a blockdev.CorruptError.
func (v *Verify) ReadAt(ctx context.Context, p []byte, off int64) error {
	held := v.regions.of(off, int64(len(p)))
	held.rlock()
	defer held.runlock()
	return v.read(ctx, p, off)
}

func (v *Verify) read(ctx context.Context, p []byte, off int64) error {
	first, end := v.around(off, int64(len(p)))
	data := p
	if first != off || end != off+int64(len(p)) {
		var b *[]byte
		data, b = v.buffer(end - first)
		defer v.buffers.Put(b)
	}
	if err := v.of.ReadAt(ctx, data, first); err != nil {
		return err
	}
	r := sumsOf(first, end)
	sums, b := v.buffer(r.Length)
	defer v.buffers.Put(b)
	if err := v.sums.ReadAt(ctx, sums, r.Offset); err != nil {
		return v.withoutSums(err, off)
	}
	if i := mismatch(data, sums); i >= 0 {
		return &blockdev.CorruptError{Name: "view " + v.name, Offset: first + int64(i)*blockdev.BlockLength, Err: ErrMismatch}
	}
	if len(data) != len(p) || first != off {
		copy(p, data[off-first:])
	}
	return nil
}

// withoutSums returns the error of reading from off where checksums cannot be read.
func (v *Verify) withoutSums(err error, off int64) error {
	if below, ok := errors.AsType[*blockdev.CorruptError](err); ok {
		off = max(off, below.Offset/sumBytes*blockdev.BlockLength)
	}
	return blockdev.Unreadable(fmt.Errorf("checksums of view %s: %w", v.name, err), off)
}

// mismatch returns the index of the first block of data that does not match its
// checksum, or -1.
func mismatch(data, sums []byte) int {
	for i := 0; len(data) > 0; i++ {
		n := min(len(data), blockdev.BlockLength)
		sum := binary.LittleEndian.Uint64(sums[i*sumBytes:])
		if sum != 0 && sum != sumOf(data[:n]) {
			return i
		}
		data = data[n:]
	}
	return -1
}

func sumOf(block []byte) uint64 {
	return uint64(crc32.Checksum(block, castagnoli))<<32 | sumKnown
}

// WriteAt implements Volume. It first verifies the blocks that it changes partly.
func (v *Verify) WriteAt(ctx context.Context, p []byte, off int64) error {
	held := v.regions.of(off, int64(len(p)))
	held.lock()
	defer held.unlock()
	first, end := v.around(off, int64(len(p)))
	data := p
	if first != off || end != off+int64(len(p)) {
		var b *[]byte
		data, b = v.buffer(end - first)
		defer v.buffers.Put(b)
		if err := v.fillEnds(ctx, data, first, off, int64(len(p))); err != nil {
			return err
		}
		copy(data[off-first:], p)
	}
	r := sumsOf(first, end)
	if err := v.drop(ctx, r); err != nil {
		return err
	}
	if err := v.of.WriteAt(ctx, p, off); err != nil {
		return err
	}
	if !v.shared {
		if err := v.of.Flush(ctx); err != nil {
			return err
		}
	}
	sums, b := v.buffer(r.Length)
	defer v.buffers.Put(b)
	for i := range len(sums) / sumBytes {
		at := i * blockdev.BlockLength
		binary.LittleEndian.PutUint64(sums[i*sumBytes:], sumOf(data[at:min(at+blockdev.BlockLength, len(data))]))
	}
	if err := v.sums.WriteAt(ctx, sums, r.Offset); err != nil {
		return fmt.Errorf("checksums of view %s: %w", v.name, err)
	}
	return nil
}

// fillEnds reads the first and the last block of data, whose offset is first, if the
// range covers them partly.
func (v *Verify) fillEnds(ctx context.Context, data []byte, first, off, length int64) error {
	const b = blockdev.BlockLength
	if first != off {
		if err := v.read(ctx, data[:min(b, len(data))], first); err != nil {
			return err
		}
	}
	last := (off + length - 1) / b * b
	if end := first + int64(len(data)); end != off+length && (last != first || first == off) {
		return v.read(ctx, data[last-first:], last)
	}
	return nil
}

// drop removes checksums, durably if the data is not in the store's order.
func (v *Verify) drop(ctx context.Context, r blockdev.Range) error {
	err := v.dropKnown(ctx, r)
	if err != nil {
		return fmt.Errorf("checksums of view %s: %w", v.name, err)
	}
	return nil
}

func (v *Verify) dropKnown(ctx context.Context, r blockdev.Range) error {
	if r.Length <= blockdev.BlockLength {
		// Blocks written for the first time have no checksum.
		sums, b := v.buffer(r.Length)
		defer v.buffers.Put(b)
		if err := v.sums.ReadAt(ctx, sums, r.Offset); err != nil {
			return err
		}
		if !hasSum(sums) {
			return nil
		}
	}
	if err := v.sums.Unmap(ctx, r.Offset, r.Length); err != nil || v.shared {
		return err
	}
	return v.sums.Flush(ctx)
}

func hasSum(sums []byte) bool {
	for ; len(sums) >= sumBytes; sums = sums[sumBytes:] {
		if binary.LittleEndian.Uint64(sums) != 0 {
			return true
		}
	}
	return false
}

// Unmap implements Volume.
func (v *Verify) Unmap(ctx context.Context, off, length int64) error {
	held := v.regions.of(off, length)
	held.lock()
	defer held.unlock()
	if err := v.drop(ctx, sumsOf(v.around(off, length))); err != nil {
		return err
	}
	return v.of.Unmap(ctx, off, length)
}

// mapStep is the maximum number of bytes per Map of views that do work for each mapped
// byte.
const mapStep = 1 << 30

// Map implements Device.
func (v *Verify) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	length = min(length, mapStep)
	held := v.regions.of(dst, length)
	held.lock()
	defer held.unlock()
	if err := v.drop(ctx, sumsOf(v.around(dst, length))); err != nil {
		return 0, err
	}
	return v.of.Map(ctx, dst, s, src, length)
}

// Locate implements Device.
func (v *Verify) Locate(ctx context.Context, off, length int64) ([]offload.Piece, error) {
	return v.of.Locate(ctx, off, length)
}
