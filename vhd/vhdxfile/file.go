// Package vhdxfile has the VHDX format of virtual disks ([MS-VHDX]): fixed, dynamic
// and differencing disks. A file has a header section, a log, a metadata region, a
// block allocation table (BAT) and payload blocks, all at multiples of 1 MiB. What
// changes of the BAT and of sector bitmaps goes through the log: an entry is written,
// then a barrier, then what it says is applied. So a crash leaves either a log
// without the entry, or one that is replayed when the file is opened the next time.
//
// An entry is never written over another one that may have to be replayed, and never
// wraps around the end of the log. Where the log ends, the headers say that it is
// empty, and entries go on at its start under a new identifier, which the headers
// name when the first of them is there. So the headers never name a log without a
// valid sequence, and programs which replay all entries from the first one on,
// instead of those from the tail on, do the right thing.
package vhdxfile

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"odx/blockdev"
	"odx/vhd/disk"
)

// File is an open VHDX. It implements disk.Table.
type File struct {
	c       disk.Container // nil if the file was opened for reading
	view    view           // what the metadata is read through
	headers headers
	regions regions
	meta    metadata
	table   table
	bat     bat
	space   space
	creator string

	log journal
	// flushed is the length of the file, bytes, that is there after a crash.
	flushed int64
	// wrote and changed: the file, and its payload, were changed since they were
	// opened, and the headers say so.
	wrote, changed bool
	closed         bool
	// logged: payload is to be read through the log that the file has.
	logged bool
	// broken is why nothing can be changed any more: it is not known what the log
	// has, so a block that a change did not reach may have been changed all the same.
	broken error
}

var _ disk.Table = (*File)(nil)

// errClosed: the file was closed.
var errClosed = errors.New("the virtual disk is closed")

// hasSignature reports whether r begins as a VHDX does.
func hasSignature(ctx context.Context, r blockdev.Reader) (bool, error) {
	p := make([]byte, len(fileSignature))
	if r.Size() < headerSection {
		return false, nil
	}
	if err := r.ReadAt(ctx, p, 0); err != nil {
		return false, fmt.Errorf("read the signature: %w", err)
	}
	return string(p) == fileSignature, nil
}

// Open opens a virtual disk for reading and writing, after it has replayed its log, and
// repaired a header or region table of which only one copy is whole. Until it is closed,
// its table takes part in the bound of t.
func (t *Tables) Open(ctx context.Context, c disk.Container) (_ *File, err error) {
	f, err := t.load(ctx, c, refuse)
	if err != nil {
		return nil, err
	}
	defer f.releaseOn(&err)
	f.c, f.flushed = c, c.Size()
	f.log.length = int64(f.headers.logLength)
	if f.headers.logLength == 0 {
		return nil, bad("there is no log; the file can only be opened for reading")
	}
	if err := f.replay(ctx); err != nil {
		return nil, fmt.Errorf("replay the log: %w", err)
	}
	return f, f.repair(ctx)
}

// Open is Tables.Open for a disk with 16 MiB for its table.
func Open(ctx context.Context, c disk.Container) (*File, error) {
	return NewTables(aloneBound).Open(ctx, c)
}

// Release gives back the memory for the table of a disk that is not to be closed, as one
// that is only read, or that is given up. Nothing is written.
func (f *File) Release() { f.bat.tables.release(&f.bat) }

// releaseOn is Release if there is an error.
func (f *File) releaseOn(err *error) {
	if *err != nil {
		f.Release()
	}
}

// repair makes good what a crash leaves damaged of what there is twice. The copy that is
// whole is not touched before the other one is durable.
func (f *File) repair(ctx context.Context) error {
	if len(f.regions.torn) > 0 {
		if err := f.regions.repair(ctx, f.c); err != nil {
			return err
		}
		if err := f.barrier(ctx); err != nil {
			return err
		}
	}
	if !f.headers.torn {
		return nil
	}
	return f.headers.update(ctx, f.c, func(*header) {})
}

// OpenReadOnly opens a virtual disk that nothing is written to. What its log holds is
// applied in memory: payload has to be read through Payload. Until it is closed, its table
// takes part in the bound of t.
func (t *Tables) OpenReadOnly(ctx context.Context, r blockdev.Reader) (_ *File, err error) {
	f, err := t.load(ctx, r, refuse)
	if err != nil {
		return nil, err
	}
	defer f.releaseOn(&err)
	f.logged, err = f.changesPayload(ctx)
	return f, err
}

// OpenReadOnly is Tables.OpenReadOnly for a disk with 16 MiB for its table.
func OpenReadOnly(ctx context.Context, r blockdev.Reader) (*File, error) {
	return NewTables(aloneBound).OpenReadOnly(ctx, r)
}

// refuse is the reporter of those who open a file.
func refuse(s severity, format string, args ...any) error {
	if s == fatal {
		return bad(format, args...)
	}
	return nil
}

// Probe returns what a virtual disk is, without a look at where its blocks are: in a few
// reads, however large it is.
func Probe(ctx context.Context, r blockdev.Reader) (disk.Info, error) {
	f, err := loadMetadata(ctx, r, refuse)
	if err != nil {
		return disk.Info{}, err
	}
	return f.Info(), nil
}

// load reads all metadata as it is once the log has been replayed.
func (t *Tables) load(ctx context.Context, r blockdev.Reader, report reporter) (_ *File, err error) {
	f, err := loadMetadata(ctx, r, report)
	if err != nil {
		return nil, err
	}
	f.table = tableOf(f.meta.Geometry, f.meta.kind)
	if err := f.bat.open(&f.view, f.regions.bat, f.table, t); err != nil {
		return nil, err
	}
	defer f.releaseOn(&err)
	return f, f.claim(ctx, report)
}

// loadMetadata is load without the BAT.
func loadMetadata(ctx context.Context, r blockdev.Reader, report reporter) (*File, error) {
	switch is, err := hasSignature(ctx, r); {
	case err != nil:
		return nil, err
	case !is:
		return nil, bad("the signature of a VHDX is missing")
	case r.Size() > maxFile:
		return nil, bad("a file of %d bytes; up to %d TiB are possible", r.Size(), maxFile>>40)
	}
	f := &File{view: view{r: r, size: r.Size()}}
	creator := make([]byte, creatorLength)
	err := f.view.readAt(ctx, creator, int64(len(fileSignature)))
	if err != nil {
		return nil, err
	}
	f.creator, _, _ = strings.Cut(fromUTF16(creator), "\x00")
	if f.headers, err = readHeaders(ctx, &f.view, report); err != nil {
		return nil, err
	}
	if f.view.log, f.view.size, err = readLog(ctx, &f.view, f.headers.header); err != nil {
		return nil, err
	}
	if f.regions, err = readRegions(ctx, &f.view, report); err != nil {
		return nil, err
	}
	f.meta, err = readMetadata(ctx, &f.view, f.regions.metadata, report)
	return f, err
}

// Payload returns what payload is to be read from: what the file was opened over, unless
// its log changes payload or makes the file longer, as MS-VHDX 2.3 allows.
func (f *File) Payload() blockdev.Reader {
	if !f.logged {
		return f.view.r
	}
	return replayed{&f.view}
}

// replayed is a file as it is once its log was replayed. It is a blockdev.Volume that
// nothing is written to.
type replayed struct{ v *view }

func (r replayed) Size() int64 { return r.v.size }

func (r replayed) ReadAt(ctx context.Context, p []byte, off int64) error {
	return r.v.readAt(ctx, p, off)
}

func (replayed) WriteAt(context.Context, []byte, int64) error { return blockdev.ErrReadOnly }
func (replayed) Unmap(context.Context, int64, int64) error    { return blockdev.ErrReadOnly }
func (replayed) Flush(context.Context) error                  { return nil }

// Info implements disk.Table.
func (f *File) Info() disk.Info {
	info := disk.Info{
		Format:   disk.VHDX,
		Kind:     f.meta.kind,
		Geometry: f.meta.Geometry,
		ID:       f.headers.dataWrite,
		DiskID:   f.meta.diskID,
		Creator:  f.creator,
	}
	if f.meta.parent != nil {
		info.Parent = f.meta.parent.parent()
	}
	return info
}

// Block implements disk.Table. What a block that was unmapped, or that is undefined, reads
// as is left open by MS-VHDX 2.5.1.1, but not that it is no longer what the parent has.
func (f *File) Block(ctx context.Context, i int64) (disk.Block, error) {
	if i < 0 || i >= f.table.blocks {
		return disk.Block{}, nil
	}
	e, err := f.bat.get(ctx, f.table.payload(i))
	if err != nil {
		return disk.Block{}, err
	}
	switch stateOf(e) {
	case zero, undefined, unmapped, unmappedOld:
		return disk.Block{State: disk.Zero}, nil
	case fullyPresent:
		return disk.Block{State: disk.Full, Offset: int64(offsetOf(e))}, nil
	case partiallyPresent:
		return disk.Block{State: disk.Partial, Offset: int64(offsetOf(e))}, nil
	}
	return disk.Block{State: disk.Absent}, nil
}
