package offload

import (
	"context"
	"io"

	"odx/backstore"
	"odx/blockdev"
)

// Object is a volume or file of the engine's own store, which can be copied without
// moving its bytes. Accesses may have any alignment.
type Object interface {
	blockdev.Volume
	// ID is permanent, and no other object of the store ever has it.
	ID() [16]byte
	// Name is for people; it can change.
	Name() string
	// Snapshot pins the ranges as they are now and stores the records that recs
	// returns in the same atomic step.
	Snapshot(ctx context.Context, ranges []blockdev.Range, recs func(id uint64) []backstore.Record) (Snapshot, error)
	// Map makes [dst, dst+length) equal to [src, src+length) of the snapshot. It
	// returns the bytes done, contiguous from dst; fewer than length without an
	// error means that it stopped to bound its time.
	Map(ctx context.Context, dst int64, s Snapshot, src, length int64) (int64, error)
	// Watch stores recs and, from the same atomic step on, calls changing before the
	// first change of a 4 KiB block that the ranges touch; the change waits for it, and
	// fails if it fails. Deletion changes every block. The error wraps
	// backstore.ErrTooMany when the object has too many watches.
	Watch(ctx context.Context, ranges []blockdev.Range, recs []backstore.Record, changing func(context.Context) error) (Watch, error)
}

// Watch is a watch over ranges of an object.
type Watch interface {
	// Snapshot is Object.Snapshot while nothing has changed;
	// backstore.ErrChanged afterwards.
	Snapshot(ctx context.Context, ranges []blockdev.Range, recs func(id uint64) []backstore.Record) (Snapshot, error)
	// Stop ends the watch. It may be called again, and while changing runs.
	Stop()
}

// Snapshot is an open handle to pinned ranges, seen as one run of bytes in the
// order in which they were given. It stays readable until Release, even when
// the snapshot is deleted concurrently.
type Snapshot interface {
	ID() uint64
	Length() int64
	ReadAt(ctx context.Context, p []byte, off int64) error
	// Digest returns what the store's NewDigest gives for the same bytes.
	Digest(ctx context.Context, off, length int64) ([32]byte, error)
	Release()
}

// Foreign is a Snapshot of another store, which fills volumes by itself: it reads several
// pieces at once, and what an object of this store has had of it before needs no bytes.
type Foreign interface {
	Snapshot
	// MapTo is Object.Map from this snapshot to dst.
	MapTo(ctx context.Context, dst blockdev.Volume, off, src, length int64) (int64, error)
}

// Digest takes bytes and returns their digest, which depends on them and on a
// key of the store alone.
type Digest interface {
	io.Writer // without error
	Sum() [32]byte
}

// Store is what an Engine needs of the extent store. ExtentStore makes one of a
// *backstore.Store.
type Store interface {
	// WriteOut makes every call that returned before it survive the end of this
	// process, but not a power cut.
	WriteOut(ctx context.Context) error
	// DeleteSnapshot removes the snapshot and stores recs in one atomic step.
	DeleteSnapshot(ctx context.Context, id uint64, recs ...backstore.Record) error
	// PutRecords stores all of recs or none.
	PutRecords(ctx context.Context, recs ...backstore.Record) error
	// ScanRecords calls fn with each record whose key begins with prefix, in the order of
	// keys. fn may keep key and value.
	ScanRecords(prefix []byte, fn func(key, value []byte) error) error
	// Object returns v as an object of this store, if it is one.
	Object(v blockdev.Volume) (Object, bool)
	// CreateStage creates an empty object for bytes that are copied from outside the
	// store until a snapshot pins them. DeleteStages deletes every object whose name
	// begins with prefix.
	CreateStage(ctx context.Context, name string, size int64) (Object, error)
	DeleteStages(ctx context.Context, prefix string) error
}
