package pebblekv

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pvfs "github.com/cockroachdb/pebble/v2/vfs"

	"odx/backstore/vfs"
)

// writeBytes is how much of a file that is written from its beginning to its end is written
// at once: to a file system far away each call is a message.
const writeBytes = 256 << 10

// errBroken: the instance does not know what is in its list of tables, and is replaced.
var errBroken = errors.New("metadata could not be written")

// fileSystem is the file system of a store for one instance of Pebble. The store has an
// owner, so that nothing is locked here.
type fileSystem struct {
	base vfs.FS
	// later takes a removal that has to wait, and reports whether it has.
	later func(remove func()) bool
	// why, where it is not nil: nothing is changed any more; what Pebble removes may be
	// needed.
	why atomic.Pointer[error]
	// opening: Pebble opens. Where a change fails then, Pebble tries again without end. So it
	// is not told: nothing is changed from there on, and who opens looks at why.
	opening atomic.Bool

	mu     sync.Mutex // guards linked
	linked map[string]bool
}

func (s *fileSystem) change() error {
	if why := s.why.Load(); why != nil {
		return *why
	}
	return nil
}

// breaks: from here on nothing is changed.
func (s *fileSystem) breaks(why error) {
	err := fmt.Errorf("%w: %w", errBroken, why)
	s.why.CompareAndSwap(nil, &err)
}

func (s *fileSystem) broken() bool { return s.why.Load() != nil }

// void reports whether a change is to have no effect, without an error.
func (s *fileSystem) void() bool { return s.opening.Load() && s.broken() }

// changed returns the error that Pebble sees of a change that has ended with err, or nil.
func (s *fileSystem) changed(err error) error {
	if err == nil || !s.opening.Load() {
		return err
	}
	s.breaks(err)
	return nil
}

func (s *fileSystem) Create(name string, _ pvfs.DiskWriteCategory) (pvfs.File, error) {
	if s.void() {
		return nowhere{name: name}, nil
	}
	if err := s.change(); err != nil {
		return nil, err
	}
	err := s.settle(name)
	if err == nil {
		if err = s.base.Remove(name); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	var f vfs.File
	if err == nil {
		f, err = s.base.Create(name)
	}
	if err == nil {
		return &file{fs: s, f: f, name: name}, nil
	}
	if err := s.changed(err); err != nil {
		return nil, err
	}
	return nowhere{name: name}, nil
}

// settle makes earlier changes of names durable before that of a marker, whose name says which
// list of tables is the last one: a power cut may keep it and lose them.
func (s *fileSystem) settle(name string) error {
	if !strings.HasPrefix(filepath.Base(name), "marker.") {
		return nil
	}
	return s.base.SyncDir(filepath.Dir(name))
}

// Link renames: Pebble links a file that it ingests, and then removes the old name.
func (s *fileSystem) Link(from, to string) error {
	if err := s.Rename(from, to); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.linked == nil {
		s.linked = make(map[string]bool)
	}
	s.linked[from] = true
	return nil
}

func (s *fileSystem) Open(name string, _ ...pvfs.OpenOption) (pvfs.File, error) {
	open := s.base.Open
	if r, ok := s.base.(vfs.Reader); ok {
		open = r.OpenToRead
	}
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	return &file{fs: s, f: f, name: name}, nil
}

func (s *fileSystem) OpenReadWrite(name string, c pvfs.DiskWriteCategory, _ ...pvfs.OpenOption) (pvfs.File, error) {
	f, err := s.base.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return s.Create(name, c)
	}
	if err != nil {
		return nil, err
	}
	return &file{fs: s, f: f, name: name}, nil
}

func (s *fileSystem) OpenDir(name string) (pvfs.File, error) {
	if _, err := s.base.List(name); err != nil {
		return nil, err
	}
	return &file{fs: s, name: name}, nil
}

func (s *fileSystem) Remove(name string) error {
	if s.broken() {
		return nil
	}
	s.mu.Lock()
	linked := s.linked[name]
	delete(s.linked, name)
	s.mu.Unlock()
	if linked {
		return nil
	}
	if err := s.settle(name); err != nil {
		return err
	}
	// What is left behind is found again when the rows are opened.
	if s.later(func() { _ = s.base.Remove(name) }) {
		return nil
	}
	return s.base.Remove(name)
}

func (s *fileSystem) Rename(from, to string) error {
	if s.void() {
		return nil
	}
	if err := s.change(); err != nil {
		return err
	}
	return s.changed(s.base.Rename(from, to))
}

func (s *fileSystem) ReuseForWrite(from, to string, c pvfs.DiskWriteCategory) (pvfs.File, error) {
	if err := s.Remove(from); err != nil {
		return nil, err
	}
	return s.Create(to, c)
}

// MkdirAll does nothing: the directory is there.
func (s *fileSystem) MkdirAll(string, os.FileMode) error { return nil }

func (s *fileSystem) RemoveAll(name string) error { return s.Remove(name) }

type unlocked struct{}

func (unlocked) Close() error { return nil }

func (s *fileSystem) Lock(string) (io.Closer, error) { return unlocked{}, nil }

func (s *fileSystem) List(dir string) ([]string, error) { return s.base.List(dir) }

func (s *fileSystem) Stat(name string) (pvfs.FileInfo, error) {
	f, err := s.Open(name)
	if err != nil {
		if _, lerr := s.base.List(name); lerr == nil {
			return fileInfo{name: filepath.Base(name), dir: true}, nil
		}
		return nil, err
	}
	info, err := f.Stat()
	return info, errors.Join(err, f.Close())
}

func (s *fileSystem) PathBase(path string) string    { return filepath.Base(path) }
func (s *fileSystem) PathJoin(elem ...string) string { return filepath.Join(elem...) }
func (s *fileSystem) PathDir(path string) string     { return filepath.Dir(path) }
func (s *fileSystem) Unwrap() pvfs.FS                { return nil }
func (s *fileSystem) GetDiskUsage(string) (pvfs.DiskUsage, error) {
	return pvfs.DiskUsage{}, pvfs.ErrUnsupported
}

// file is an open file, or a directory, where f is nil. Pebble writes a file from its
// beginning to its end, in one goroutine.
type file struct {
	fs   *fileSystem
	f    vfs.File
	name string

	at      int64 // of the next Read
	written int64 // bytes that were written to f
	pending []byte
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.f.ReadAt(p, f.at)
	f.at += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	if err := f.flush(); err != nil {
		return 0, err
	}
	return f.f.ReadAt(p, off)
}

func (f *file) Write(p []byte) (int, error) {
	if f.fs.void() {
		return len(p), nil
	}
	if err := f.fs.change(); err != nil {
		return 0, err
	}
	f.pending = append(f.pending, p...)
	if len(f.pending) >= writeBytes {
		if err := f.fs.changed(f.flush()); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// flush writes what waits.
func (f *file) flush() error {
	if len(f.pending) == 0 {
		return nil
	}
	if err := f.fs.change(); err != nil {
		return err
	}
	n, err := f.f.WriteAt(f.pending, f.written)
	f.written += int64(n)
	f.pending = f.pending[:copy(f.pending, f.pending[n:])]
	return err
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if f.fs.void() {
		return len(p), nil
	}
	err := f.fs.change()
	if err == nil {
		err = f.flush()
	}
	n := 0
	if err == nil {
		n, err = f.f.WriteAt(p, off)
	}
	if err == nil {
		return n, nil
	}
	if err := f.fs.changed(err); err != nil {
		return n, err
	}
	return len(p), nil
}

func (f *file) Close() error {
	if f.f == nil {
		return nil
	}
	err := f.flush()
	if errors.Is(err, errBroken) {
		err = nil
	}
	return f.fs.changed(errors.Join(err, f.f.Close()))
}

func (f *file) Sync() error {
	if f.fs.void() {
		return nil
	}
	if err := f.fs.change(); err != nil {
		return err
	}
	if f.f == nil {
		// Pebble panics where it cannot make a name durable.
		if err := f.fs.base.SyncDir(f.name); err != nil {
			f.fs.breaks(err)
		}
		return nil
	}
	err := f.flush()
	if err == nil {
		err = f.f.Sync()
	}
	return f.fs.changed(err)
}

func (f *file) SyncData() error              { return f.Sync() }
func (f *file) SyncTo(int64) (bool, error)   { return false, nil }
func (f *file) Preallocate(_, _ int64) error { return nil }
func (f *file) Prefetch(_, _ int64) error    { return nil }
func (f *file) Fd() uintptr                  { return pvfs.InvalidFd }

func (f *file) Stat() (pvfs.FileInfo, error) {
	if f.f == nil {
		return fileInfo{name: filepath.Base(f.name), dir: true}, nil
	}
	if err := f.flush(); err != nil {
		return nil, err
	}
	size, err := f.f.Size()
	return fileInfo{name: filepath.Base(f.name), size: size}, err
}

// nowhere is a file that could not be made while Pebble opens, which does not read what it
// writes then.
type nowhere struct{ name string }

func (nowhere) Write(p []byte) (int, error)             { return len(p), nil }
func (nowhere) WriteAt(p []byte, _ int64) (int, error)  { return len(p), nil }
func (nowhere) Read([]byte) (int, error)                { return 0, io.EOF }
func (nowhere) ReadAt([]byte, int64) (int, error)       { return 0, io.EOF }
func (nowhere) Close() error                            { return nil }
func (nowhere) Sync() error                             { return nil }
func (nowhere) SyncData() error                         { return nil }
func (nowhere) SyncTo(int64) (fullSync bool, err error) { return false, nil }
func (nowhere) Preallocate(_, _ int64) error            { return nil }
func (nowhere) Prefetch(_, _ int64) error               { return nil }
func (nowhere) Fd() uintptr                             { return pvfs.InvalidFd }
func (n nowhere) Stat() (pvfs.FileInfo, error)          { return fileInfo{name: filepath.Base(n.name)}, nil }

type fileInfo struct {
	name string
	size int64
	dir  bool
}

func (i fileInfo) Name() string            { return i.name }
func (i fileInfo) Size() int64             { return i.size }
func (i fileInfo) IsDir() bool             { return i.dir }
func (i fileInfo) ModTime() time.Time      { return time.Time{} }
func (i fileInfo) Sys() any                { return nil }
func (i fileInfo) DeviceID() pvfs.DeviceID { return pvfs.DeviceID{} }

func (i fileInfo) Mode() os.FileMode {
	if i.dir {
		return os.ModeDir | 0o700
	}
	return 0o600
}
