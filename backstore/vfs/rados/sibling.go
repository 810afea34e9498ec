package rados

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
)

// Sibling reads files of a store that another process may own and change. It takes no part in
// that: it reads names from root, and objects, and changes nothing. It is safe for concurrent use.
//
// What it reads of a file that is only appended to was durable for its owner before this process
// heard of it. A name that it has met keeps its number until Forget: files of segments are never
// replaced, unless the store is deleted and made again.
type Sibling struct {
	pool Pool

	mu    sync.Mutex // guards files; held while names are read
	files map[string]uint64
}

// NewSibling returns the files of the store in p.
func NewSibling(p Pool) *Sibling { return &Sibling{pool: p} }

// Open opens a file that is only appended to. Its error wraps fs.ErrNotExist where there is none.
func (s *Sibling) Open(name string) (*SiblingFile, error) {
	key := clean(name)
	if inPlace(key) {
		return nil, pathError("open", name, errors.New("the file is changed in place by its owner"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	number, ok := s.files[key]
	if ok {
		if _, err := s.pool.Length(objectName(number, 0)); notThere(err) {
			ok = false // it was removed
		} else if err != nil {
			return nil, pathError("open", name, err)
		}
	}
	if !ok {
		if err := s.load(); err != nil {
			return nil, pathError("open", name, err)
		}
		if number, ok = s.files[key]; !ok {
			return nil, pathError("open", name, fs.ErrNotExist)
		}
	}
	return &SiblingFile{pool: s.pool, name: name, number: number}, nil
}

// Forget has the names be read again.
func (s *Sibling) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files = nil
}

// load reads the names. mu is held.
func (s *Sibling) load() error {
	rows, _, err := s.pool.Rows(rootObject)
	if err != nil {
		return err
	}
	s.files = make(map[string]uint64, len(rows))
	for name, b := range rows {
		if !strings.HasPrefix(name, "/") || inPlace(name) {
			continue
		}
		e, err := decodeEntry(b)
		if err != nil {
			return fmt.Errorf("directory: %q: %w", name, err)
		}
		if !e.dir {
			s.files[name] = e.number
		}
	}
	return nil
}

// SiblingFile is an open file of a Sibling.
type SiblingFile struct {
	pool   Pool
	name   string
	number uint64
}

// ReadAt implements io.ReaderAt. It keeps no length, since the owner may append at any time.
func (f *SiblingFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		at := off + int64(n)
		part := p[n:min(int64(len(p)), int64(n)+(at/chunkBytes+1)*chunkBytes-at)]
		k, err := f.pool.Read(objectName(f.number, at/chunkBytes), part, at%chunkBytes)
		n += k
		if err != nil {
			return n, pathError("read", f.name, err)
		}
		if k < len(part) {
			return n, io.EOF
		}
	}
	return n, nil
}

// Size returns the length in bytes, as of now.
func (f *SiblingFile) Size() (int64, error) {
	n := node{fs: &FS{pool: f.pool}, number: f.number, chunk: chunkBytes}
	last, length, err := n.lastChunk()
	return last*chunkBytes + length, pathError("stat", f.name, err)
}

// Close implements io.Closer. There is nothing to give back.
func (f *SiblingFile) Close() error { return nil }
