package segment

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// File is a segment of another store, open to be read.
type File interface {
	io.ReaderAt
	Size() (int64, error) // bytes
	Close() error
}

// Foreign opens segments of other stores that have numbers of this one: aliases. ok is false
// for a number that is none.
type Foreign func(id ID) (f File, ok bool, err error)

// errForeignWrite: a segment of another store is never written to.
var errForeignWrite = fmt.Errorf("segment of another store: %w", fs.ErrPermission)

// foreignBlob is a Blob that can only be read.
type foreignBlob struct{ File }

func (foreignBlob) WriteAt([]byte, int64) (int, error) { return 0, errForeignWrite }
func (foreignBlob) Sync() error                        { return nil } // nothing was written
func (foreignBlob) WriteBack(int64, int64) error       { return nil }
func (foreignBlob) Allocate(int64) error               { return errForeignWrite }
func (foreignBlob) Truncate(int64) error               { return errForeignWrite }

// openForeign opens a segment of another store. ok is false for one of this store.
func (s *Set) openForeign(id ID) (blob Blob, ok bool, err error) {
	if s.o.Foreign == nil {
		return nil, false, nil
	}
	f, ok, err := s.o.Foreign(id)
	if !ok || err != nil {
		return nil, ok, err
	}
	return foreignBlob{f}, true, nil
}

// CheckForeign returns nil if a file is a segment of a store, otherwise an error that wraps
// ErrCorrupt, or that of reading it.
func CheckForeign(f File, store [16]byte, id ID) error {
	return checkHeader(foreignBlob{f}, store, id)
}

// TakeID returns a number for an alias, which no segment gets.
func (s *Set) TakeID() (ID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.named(s.next) {
		s.next++
	}
	if s.next >= firstReserveID {
		return 0, errors.New("segment numbers exhausted")
	}
	s.next++
	return s.next - 1, nil
}

// Skip has no segment get the number of an alias.
func (s *Set) Skip(id ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = max(s.next, id+1)
}

// Forget closes the file of an alias that is none any more, or is to be opened again.
func (s *Set) Forget(id ID) {
	if h, _ := s.cache.take(id); h != nil {
		h.release()
	}
}
