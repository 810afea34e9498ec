// Package vhdfile implements the VHD format, version 1.0, of Virtual PC and Hyper-V
// (vpc in qemu): fixed, dynamic and differencing disks. A dynamic disk has a copy of
// the footer, a header, a block allocation table (BAT), blocks, each with a sector
// bitmap followed by its payload, and the footer. Files created by this package have
// payload at multiples of 4 KiB, so that the store can map it; files of other programs
// are read and written in their layout. "Specification" is Microsoft's "Virtual Hard
// Disk Image Format Specification", version 1.0, 2006, whose names are used.
package vhdfile

import (
	"context"
	"fmt"
	"sync/atomic"

	"odx/blockdev"
	"odx/vhd/disk"
)

// File is an open virtual disk. It is a disk.Table.
type File struct {
	*image
	r blockdev.Reader
	c disk.Container // nil: read-only
	// disagreed is how the footer differed from its copy when the file was opened.
	disagreed string

	// full has the allocated blocks known to have all sectors, so that their bitmaps
	// are not read again. A fixed disk does not use it.
	full blockSet
	// places are free locations for blocks; the last one is used first.
	places []place
}

var _ disk.Table = (*File)(nil)

// place is an unused range of the file for a block: bitmap and payload.
type place struct {
	off   int64
	zeros bool // reads as zeros
}

// blockSet is a set of blocks. It is safe for concurrent use.
type blockSet []atomic.Uint64

func newBlockSet(n int) blockSet    { return make(blockSet, (n+63)/64) }
func (s blockSet) has(i int64) bool { return s[i/64].Load()&(1<<(i%64)) != 0 }
func (s blockSet) add(i int64)      { s[i/64].Or(1 << (i % 64)) }

// OpenReadOnly opens a virtual disk for reading. Methods that change it return
// blockdev.ErrReadOnly. The error wraps disk.ErrFormat if the file is not valid, and
// errors.ErrUnsupported if its version or type is unknown.
func OpenReadOnly(ctx context.Context, r blockdev.Reader) (*File, error) {
	m, err := load(ctx, r)
	if err != nil {
		return nil, err
	}
	if bad := m.outside(); len(bad) > 0 {
		return nil, invalid("%s beyond the end of the file of %d bytes, which is truncated or damaged", some("block", bad, "is", "are"), m.fileSize)
	}
	f := &File{image: m, r: r, disagreed: m.disagreement()}
	f.full = newBlockSet(len(m.bat))
	return f, nil
}

// Open opens a virtual disk for reading and writing, with the errors of OpenReadOnly.
// It returns an error for a disk with overlapping blocks, where a write to one changes
// another, rewrites a missing or damaged footer, and completes a last block that ends
// with the disk.
func Open(ctx context.Context, c disk.Container) (*File, error) {
	f, err := OpenReadOnly(ctx, c)
	if err != nil {
		return nil, err
	}
	f.c = c
	f.planFooter()
	if err := f.findPlaces(); err != nil {
		return nil, err
	}
	if err := f.repairFooters(ctx); err != nil {
		return nil, fmt.Errorf("vhd: repair footer: %w", err)
	}
	if used := f.usedEnd(); f.kind != disk.Fixed && used > f.endAt {
		if err := f.moveFooter(ctx, roundUp(used, sectorLength)); err != nil {
			return nil, fmt.Errorf("vhd: complete the last block: %w", err)
		}
	}
	return f, nil
}

// Overlap returns an error if ranges of the file overlap: two blocks, or a block and a
// structure. What such a disk shows is what it has, but not what was written to it.
func (f *File) Overlap() (twice error) {
	f.survey(func(int64, int64) {}, func(a, b fileRange) {
		if twice == nil {
			twice = invalid("%s", f.usedTwice(a, b))
		}
	})
	return twice
}

// Probe returns the Info of a virtual disk without reading its BAT: the number of reads
// does not depend on its size.
func Probe(ctx context.Context, r blockdev.Reader) (disk.Info, error) {
	m, err := loadHead(ctx, r)
	if err != nil {
		return disk.Info{}, err
	}
	return m.info(), nil
}

// Info implements disk.Table.
func (f *File) Info() disk.Info { return f.info() }

// info describes the disk. A fixed disk, which has no blocks in the format, is shown
// with blocks of 2 MiB.
func (m *image) info() disk.Info {
	return disk.Info{
		Format: disk.VHD,
		Kind:   m.kind,
		Geometry: disk.Geometry{
			Size: m.size, BlockLength: m.blockLength,
			SectorLength: sectorLength, PhysicalSectorLength: sectorLength,
		},
		ID: m.footer.uniqueID, DiskID: m.footer.uniqueID,
		Parent:  m.parent,
		Creator: m.footer.creatorName(),
		Created: timeOf(m.footer.timeStamp),
	}
}

// Block implements disk.Table. A Partial block may have all sectors until Present or
// SetPresent reads its bitmap. Blocks of a dynamic disk can be Partial, too: a sector
// with a clear bit was never written, and the file's bytes there are not data
// (Specification, "Block Allocation Table and Data Blocks").
func (f *File) Block(_ context.Context, i int64) (disk.Block, error) { return f.block(i), nil }

func (f *File) block(i int64) disk.Block {
	switch {
	case f.kind == disk.Fixed:
		return disk.Block{State: disk.Full, Offset: i * f.blockLength}
	case f.bat[i] == unused:
		return disk.Block{State: disk.Absent}
	case !f.full.has(i):
		return disk.Block{State: disk.Partial, Offset: f.payloadAt(i)}
	}
	return disk.Block{State: disk.Full, Offset: f.payloadAt(i)}
}

// Changing implements disk.Table. The identifier by which children know a VHD does not
// change, so Changing writes nothing.
func (f *File) Changing(context.Context) error { return f.checkWritable() }

// Close implements disk.Table.
func (f *File) Close(ctx context.Context) error {
	if f.c == nil {
		return nil
	}
	if err := f.trim(ctx); err != nil {
		return fmt.Errorf("vhd: truncate the file: %w", err)
	}
	return f.c.Flush(ctx)
}

func (f *File) checkWritable() error {
	if f.c == nil {
		return fmt.Errorf("vhd: %w", blockdev.ErrReadOnly)
	}
	return nil
}

// checkChange returns an error if the disk is read-only or a block is out of range.
func (f *File) checkChange(blocks ...int64) error {
	if err := f.checkWritable(); err != nil {
		return err
	}
	for _, i := range blocks {
		if n := (f.size + f.blockLength - 1) / f.blockLength; i < 0 || i >= n {
			return fmt.Errorf("vhd: %w: block %d of %d", blockdev.ErrRange, i, n)
		}
	}
	return nil
}
