// Package vhdfile is the VHD format, version 1.0, of Virtual PC and Hyper-V (qemu
// calls it vpc): fixed, dynamic and differencing disks. A dynamic one is a copy of
// the footer, a header, a table of where each block is (BAT), blocks, each a bitmap
// of its sectors and then its payload, and the footer. Files made here have their
// payload at multiples of 4 KiB, so that the store can map it; those of others are
// read and written as they are. "Specification" is Microsoft's "Virtual Hard Disk
// Image Format Specification", version 1.0, of 2006, whose names are used.
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
	c disk.Container // nil: nothing is written

	// full has the blocks, of a disk that is not fixed, that are known to have all of
	// their sectors. The file does not say it without a look at each bitmap.
	full blockSet
	// places are those that a block can get, the next one last.
	places []place
}

var _ disk.Table = (*File)(nil)

// place is room for a block, bitmap and payload, that nothing uses.
type place struct {
	off   int64
	zeros bool // it reads as zeros already
}

// blockSet is a set of blocks. It may be used concurrently.
type blockSet []atomic.Uint64

func newBlockSet(n int) blockSet    { return make(blockSet, (n+63)/64) }
func (s blockSet) has(i int64) bool { return s[i/64].Load()&(1<<(i%64)) != 0 }
func (s blockSet) add(i int64)      { s[i/64].Or(1 << (i % 64)) }

// OpenReadOnly opens a virtual disk that nothing is written to: what would
// change it returns blockdev.ErrReadOnly. It wraps disk.ErrFormat if the file is not
// valid, and errors.ErrUnsupported if it is of a kind that is not known.
func OpenReadOnly(ctx context.Context, r blockdev.Reader) (*File, error) {
	m, err := load(ctx, r)
	if err != nil {
		return nil, err
	}
	if bad := m.outside(); len(bad) > 0 {
		return nil, invalid("%s beyond the end of the file, which has been cut off or damaged: it has %d bytes", some("block", bad, "is", "are"), m.fileSize)
	}
	f := &File{image: m, r: r}
	f.full = newBlockSet(len(m.bat))
	return f, nil
}

// Open opens a virtual disk for reading and writing, with errors as those of
// OpenReadOnly. It refuses one where a write to one block would change another,
// and rewrites a footer that a crash or damage left the file without.
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
	return f, nil
}

// Probe returns what a virtual disk is, without a look at where its blocks are: in a few
// reads, however large it is.
func Probe(ctx context.Context, r blockdev.Reader) (disk.Info, error) {
	m, err := loadHead(ctx, r)
	if err != nil {
		return disk.Info{}, err
	}
	return m.info(), nil
}

// Info implements disk.Table.
func (f *File) Info() disk.Info { return f.info() }

// info describes the disk. The blocks of a fixed one, of which the format knows nothing,
// have 2 MiB.
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

// Block implements disk.Table. A Partial block can have all sectors: that it does
// is only known after Present or SetPresent has seen it. Blocks of a dynamic disk can
// be Partial, too: a sector whose bit is clear was never written, and what is in the
// file there is not data (Specification, "Block Allocation Table and Data Blocks").
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

// Changing implements disk.Table. Children of a VHD know it by an identifier that
// lasts, so there is nothing to do.
func (f *File) Changing(context.Context) error { return f.checkWritable() }

// Close implements disk.Table.
func (f *File) Close(ctx context.Context) error {
	if f.c == nil {
		return nil
	}
	if err := f.trim(ctx); err != nil {
		return fmt.Errorf("vhd: shorten the file: %w", err)
	}
	return f.c.Flush(ctx)
}

func (f *File) checkWritable() error {
	if f.c == nil {
		return fmt.Errorf("vhd: %w", blockdev.ErrReadOnly)
	}
	return nil
}

// checkChange checks what a caller wants changed.
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
