// Package vhdxfile implements the VHDX format of virtual disks ([MS-VHDX]): fixed,
// dynamic and differencing disks. A file has a header section, a log, a metadata
// region, a block allocation table (BAT) and payload blocks, all at multiples of 1 MiB.
// Changes of the BAT and of sector bitmaps go through the log: an entry is written,
// then a barrier, then the entry is applied. A crash thus leaves either a log without
// the entry, or one that is replayed when the file is opened.
//
// An entry never overwrites another one that may have to be replayed, and never wraps
// around the end of the log. At the end of the log, the headers mark it empty, and
// entries continue at its start under a new identifier, which the headers refer to once
// the first of them is written. The headers thus never refer to a log without a valid
// sequence, and programs that replay all entries from the first one, instead of from
// the tail, are also correct.
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
	c       disk.Container // nil if the file was opened read-only
	view    view           // of the metadata
	headers headers
	regions regions
	meta    metadata
	table   table
	bat     bat
	space   space
	creator string

	log journal
	// flushed is the length of the file in bytes after a crash.
	flushed int64
	// wrote and changed: the file, and its payload, were changed since they were
	// opened, and the headers have new identifiers.
	wrote, changed bool
	closed         bool
	// logged: payload must be read through the log of the file.
	logged bool
	// broken is why no further change is possible: the contents of the log are unknown,
	// so a change that failed may have been made.
	broken error
}

var _ disk.Table = (*File)(nil)

// errClosed reports use of a closed file.
var errClosed = errors.New("virtual disk is closed")

// hasSignature reports whether r has the signature of a VHDX.
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

// Open opens a virtual disk for reading and writing. It replays the log, and repairs a
// header or region table of which one copy is damaged. Until the disk is closed, its
// table counts toward the bound of t.
func (t *Tables) Open(ctx context.Context, c disk.Container) (_ *File, err error) {
	f, err := t.load(ctx, c, refuse)
	if err != nil {
		return nil, err
	}
	defer f.releaseOn(&err)
	f.c, f.flushed = c, c.Size()
	f.log.length = int64(f.headers.logLength)
	if f.headers.logLength == 0 {
		return nil, bad("no log; the file can only be opened read-only")
	}
	if err := f.replay(ctx); err != nil {
		return nil, fmt.Errorf("replay the log: %w", err)
	}
	return f, f.repair(ctx)
}

// Open is Tables.Open with a bound of 16 MiB.
func Open(ctx context.Context, c disk.Container) (*File, error) {
	return NewTables(defaultBound).Open(ctx, c)
}

// Release frees the memory of the table of a disk without closing it, after read-only
// use or an error. It writes nothing.
func (f *File) Release() { f.bat.tables.release(&f.bat) }

// releaseOn calls Release if there is an error.
func (f *File) releaseOn(err *error) {
	if *err != nil {
		f.Release()
	}
}

// repair restores the damaged copy of headers and region table. The valid copy is not
// modified before the other one is durable.
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

// OpenReadOnly opens a virtual disk without writing to it. It applies the log in
// memory, so payload must be read through Payload. Until the disk is closed, its table
// counts toward the bound of t.
func (t *Tables) OpenReadOnly(ctx context.Context, r blockdev.Reader) (_ *File, err error) {
	f, err := t.load(ctx, r, refuse)
	if err != nil {
		return nil, err
	}
	defer f.releaseOn(&err)
	f.logged, err = f.changesPayload(ctx)
	return f, err
}

// OpenReadOnly is Tables.OpenReadOnly with a bound of 16 MiB.
func OpenReadOnly(ctx context.Context, r blockdev.Reader) (*File, error) {
	return NewTables(defaultBound).OpenReadOnly(ctx, r)
}

// refuse is the reporter for opening a file.
func refuse(s severity, format string, args ...any) error {
	if s == fatal {
		return bad(format, args...)
	}
	return nil
}

// Probe returns information about a virtual disk without reading the BAT: it reads the
// headers, one region table and the metadata, whatever the length of the file, and the
// log if it is in use.
func Probe(ctx context.Context, r blockdev.Reader) (disk.Info, error) {
	f, err := loadMetadata(ctx, r, refuse, readFirstRegions)
	if err != nil {
		return disk.Info{}, err
	}
	return f.Info(), nil
}

// load reads all metadata as of after the replay of the log.
func (t *Tables) load(ctx context.Context, r blockdev.Reader, report reporter) (_ *File, err error) {
	f, err := loadMetadata(ctx, r, report, readRegions)
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

// regionReader reads the region tables.
type regionReader func(ctx context.Context, v *view, report reporter) (regions, error)

// loadMetadata is load without the BAT.
func loadMetadata(ctx context.Context, r blockdev.Reader, report reporter, read regionReader) (*File, error) {
	switch is, err := hasSignature(ctx, r); {
	case err != nil:
		return nil, err
	case !is:
		return nil, bad("missing VHDX signature")
	case r.Size() > maxFile:
		return nil, bad("file of %d bytes; maximum is %d TiB", r.Size(), maxFile>>40)
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
	if f.regions, err = read(ctx, &f.view, report); err != nil {
		return nil, err
	}
	f.meta, err = readMetadata(ctx, &f.view, f.regions.metadata, report)
	return f, err
}

// Payload returns the reader of payload: the container of the file, unless the log
// changes payload or extends the file, as MS-VHDX 2.3 allows.
func (f *File) Payload() blockdev.Reader {
	if !f.logged {
		return f.view.r
	}
	return replayed{&f.view}
}

// replayed is a file as of after the replay of its log. It is a read-only blockdev.Volume.
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

// Block implements disk.Table. MS-VHDX 2.5.1.1 leaves the contents of unmapped and
// undefined blocks open, but they must not be those of the parent.
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
