// Package segment keeps extents in append-only files.
package segment

import (
	"errors"
	"io"

	"odx/backstore/vfs"
)

// BlockLength is the unit of a segment in bytes.
const BlockLength = 4096

var (
	// ErrClosed: the Set was closed.
	ErrClosed = errors.New("segments are closed")
	// ErrCorrupt: the header of a segment is not what it must be.
	ErrCorrupt = errors.New("segment is corrupt")
)

// ID is the number of a segment; never used twice.
type ID uint32

// Addr is the place of an extent: Block counts blocks of 4096 bytes from the
// start of the segment's file, where block 0 is the header.
type Addr struct {
	Segment ID
	Block   uint32
}

// Blob is one open segment file.
type Blob interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // the data is durable
	Close() error
}

// Blobs is where segment files live.
type Blobs interface {
	Create(id ID) (Blob, error) // fs.ErrExist when it is there
	Open(id ID) (Blob, error)   // fs.ErrNotExist when it is not
	Remove(id ID) error
	List() ([]ID, error) // ascending
	SyncList() error     // creations and removals are durable
}

// Dir keeps blobs as files in a folder, made if missing: 0000002a.seg.
func Dir(fsys vfs.FS, dir string) (Blobs, error) { return nil, errors.New("not yet") }

// Options of Open.
type Options struct {
	Blobs   Blobs
	StoreID [16]byte // segments of another store are refused
	// SegmentBlocks is the size of a segment in blocks, header included;
	// 0 means 16384 (64 MiB).
	SegmentBlocks uint32
	// MaxOpen bounds the number of open blobs; 0 means 256.
	MaxOpen int
	// Next is the first id to use: larger than any ever used.
	Next ID
}

// Set is all segments of a store. All methods may be called side by side.
type Set struct{}

// Open opens the segments. Those that exist are never appended to.
func Open(o Options) (*Set, error) { return nil, errors.New("not yet") }

// Append writes p, whose length is a multiple of BlockLength, and returns
// where it lies.
func (s *Set) Append(p []byte) (Addr, error) { return Addr{}, nil }

// WriteAt puts p where it was before a crash.
func (s *Set) WriteAt(a Addr, p []byte) error { return nil }

// ReadAt reads len(p) bytes from the start of block a.
func (s *Set) ReadAt(a Addr, p []byte) error { return nil }

// ReadAtOffset reads len(p) bytes, off bytes after the start of block a.
func (s *Set) ReadAtOffset(a Addr, off int, p []byte) error { return nil }

// Sync returns when every Append and WriteAt that returned before is durable.
func (s *Set) Sync() error { return nil }

// Unsynced is the number of bytes appended and not synced.
func (s *Set) Unsynced() int64 { return 0 }

// Remove deletes a segment.
func (s *Set) Remove(id ID) error { return nil }

// NextID is the id that the next new segment will get.
func (s *Set) NextID() ID { return 0 }

// Current is the segment being appended to; false when there is none.
func (s *Set) Current() (ID, bool) { return 0, false }

// List returns the ids of all segments, ascending.
func (s *Set) List() []ID { return nil }

// Bytes is the length of a segment in bytes, header included; 0 if missing.
func (s *Set) Bytes(id ID) int64 { return 0 }

// Close syncs and closes all.
func (s *Set) Close() error { return nil }
