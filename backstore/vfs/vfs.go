// Package vfs is the store's one door to the disk. Everything the journal and
// the segments read or write goes through its two small interfaces, so that a
// test can put Mem behind them, cut the power at any operation and look at
// every state that a disk may be left in.
//
// The promises are those of POSIX and no more: written data is durable after
// Sync of the file, a name after SyncDir of its folder. Until then a power cut
// may keep or lose each of them on its own, in any order.
package vfs

import (
	"errors"
	"io"
)

// ErrLocked: somebody else, in this process or another, holds the lock.
var ErrLocked = errors.New("locked by another holder")

// File is an open file. ReadAt and WriteAt may be called side by side.
type File interface {
	// ReadAt returns io.EOF when fewer than len(p) bytes lie after off.
	io.ReaderAt
	// WriteAt extends the file with zeros where it has to.
	io.WriterAt
	io.Closer
	// Sync makes the data and the size of the file durable (fdatasync). After
	// an error nothing is known about writes since the last good Sync: they
	// may be lost even if a later Sync succeeds, so they must be written again.
	Sync() error
	// WriteBack begins to write bytes [off, off+n) to the disk, so that a later
	// Sync has less to wait for. It makes nothing durable.
	WriteBack(off, n int64) error
	// Truncate sets the size in bytes; growing adds zeros.
	Truncate(size int64) error
	// Allocate assigns blocks of the disk to bytes [0, n) and keeps the size, so
	// that a later write there does not fail for want of space. ENOSPC means that
	// there are not that many; some of them may be assigned. A file system that
	// cannot do so gets zeros written past the end, which change the size.
	Allocate(n int64) error
	// Size is the size in bytes.
	Size() (int64, error)
}

// FS is a tree of files. Names are paths as in package filepath.
type FS interface {
	// Create makes a file and opens it for reading and writing; fs.ErrExist
	// when the name is taken.
	Create(name string) (File, error)
	// Open opens a file for reading and writing; fs.ErrNotExist when there is
	// none.
	Open(name string) (File, error)
	// Remove deletes a file or an empty folder. Open files stay readable.
	Remove(name string) error
	// Rename moves a file, replacing one that has the name already.
	Rename(from, to string) error
	// List returns the names in a folder, sorted.
	List(dir string) ([]string, error)
	// MkdirAll makes a folder, its parents included, and makes them durable.
	MkdirAll(dir string) error
	// SyncDir makes creations, renames and removals in a folder durable.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on name, which is created when missing, and
	// holds it until the Closer is closed or the process ends. It does not
	// wait: ErrLocked when there is another holder, in this process or not.
	Lock(name string) (io.Closer, error)
	// Free is the number of bytes that can still be written below a folder.
	Free(dir string) (int64, error)
	// Place says where a directory is.
	Place(dir string) (Place, error)
	// Total is the size in bytes of the file system that a directory is in.
	Total(dir string) (int64, error)
}

// Reader is an FS that can open files that may not be written.
type Reader interface {
	OpenToRead(name string) (File, error)
}

// Prober is an FS that knows permissions.
type Prober interface {
	// MayChange returns why this process may not make and remove files in a
	// directory: fs.ErrNotExist, fs.ErrPermission, or EROFS among others.
	MayChange(dir string) error
}
