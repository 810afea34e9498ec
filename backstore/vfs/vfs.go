// Package vfs is the store's interface to the file system. The journal and the segments
// access files only through FS and File, so that a test can substitute Mem, fail the
// power at any operation, and check every possible state of the disk.
//
// The guarantees are those of POSIX: written data is durable after Sync of the file, a
// name after SyncDir of its directory. Until then a power failure may keep or lose each
// of them independently.
package vfs

import (
	"io"

	"odx/owner"
)

// File is an open file. ReadAt and WriteAt are safe for concurrent use.
type File interface {
	// ReadAt returns io.EOF if fewer than len(p) bytes follow off.
	io.ReaderAt
	// WriteAt extends the file with zeros if necessary.
	io.WriterAt
	io.Closer
	// Sync makes the data and size of the file durable (fdatasync). After an error,
	// writes since the last successful Sync may be lost even if a later Sync succeeds,
	// so they must be repeated.
	Sync() error
	// WriteBack starts writing bytes [off, off+n) to the disk, to shorten a later Sync. It
	// makes nothing durable.
	WriteBack(off, n int64) error
	// Truncate sets the size in bytes. Growing adds zeros.
	Truncate(size int64) error
	// Allocate allocates the blocks of bytes [0, n) without changing the size, so that
	// later writes do not fail for lack of space. If it returns ENOSPC, some blocks may
	// be allocated. If the file system does not support it, Allocate writes zeros past
	// the end, which changes the size.
	Allocate(n int64) error
	// Size returns the size in bytes.
	Size() (int64, error)
}

// FS is a tree of files. Names are paths as in package filepath.
type FS interface {
	// Create creates a file and opens it for reading and writing. It returns
	// fs.ErrExist if the name exists.
	Create(name string) (File, error)
	// Open opens a file for reading and writing. It returns fs.ErrNotExist if the file
	// does not exist.
	Open(name string) (File, error)
	// Remove removes a file or an empty directory. Open files remain readable.
	Remove(name string) error
	// Rename moves a file and replaces an existing one.
	Rename(from, to string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// MkdirAll creates a directory and its parents durably.
	MkdirAll(dir string) error
	// SyncDir makes creations, renames and removals in a directory durable.
	SyncDir(dir string) error
	// Owner is where the ownership of a store in dir, which exists, is decided.
	Owner(dir string) owner.Driver
	// Free returns the bytes that can still be written in a directory.
	Free(dir string) (int64, error)
	// Place returns the identity of a directory.
	Place(dir string) (Place, error)
	// Total returns the size in bytes of the file system of a directory.
	Total(dir string) (int64, error)
}

// Reader is an FS that can open files without write permission.
type Reader interface {
	OpenToRead(name string) (File, error)
}

// Prober is an FS that can check permissions.
type Prober interface {
	// MayChange returns the reason why this process may not create and remove files in a
	// directory, such as fs.ErrNotExist, fs.ErrPermission or EROFS, or nil if it may.
	MayChange(dir string) error
}
