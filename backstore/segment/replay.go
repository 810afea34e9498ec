package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
)

// WriteAt rewrites whole blocks at their address before a crash, for the replay of a
// journal. It recreates a missing segment. The data is durable after Sync.
func (s *Set) WriteAt(a Addr, p []byte) error {
	n := len(p) / BlockLength
	if a.Segment == 0 || a.Block == 0 || n == 0 || len(p)%BlockLength != 0 || n > math.MaxUint32-int(a.Block) {
		return fmt.Errorf("write of %d bytes at %v: invalid address or length", len(p), a)
	}
	h, err := s.restore(a.Segment)
	if err != nil {
		return fmt.Errorf("write at %v: %w", a, err)
	}
	defer h.release()
	if _, err := h.blob.WriteAt(p, int64(a.Block)*BlockLength); err != nil {
		return fmt.Errorf("write at %v: %w", a, err)
	}
	s.note(h, span{a.Block, a.Block + uint32(n)})
	return nil
}

// NoteUnsynced lists n blocks at a, which were read, as possibly not durable. The next
// Sync makes them durable.
func (s *Set) NoteUnsynced(a Addr, n uint32) error {
	h, err := s.cache.acquire(a.Segment)
	if err != nil {
		return fmt.Errorf("note %v: %w", a, err)
	}
	defer h.release()
	// The segment's name and header may not be durable either.
	s.unsynced.noteCreated()
	s.note(h, span{0, 1})
	s.note(h, span{a.Block, a.Block + n})
	return nil
}

// restore returns a reference to a segment, and recreates its file or header if a power
// cut lost it.
func (s *Set) restore(id ID) (*handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	delete(s.lengths, id)
	h, err := s.cache.acquire(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.create(id, s.newBlob)
	case errors.Is(err, errBlank), errors.Is(err, errStale):
		return s.repair(id)
	}
	return h, err
}

// repair writes the header of a segment that has none, or has that of the file's
// previous segment. mu is held.
func (s *Set) repair(id ID) (*handle, error) {
	blob, err := s.o.Blobs.Open(id)
	if err != nil {
		return nil, err
	}
	if err := writeHeader(blob, s.o.StoreID, id); err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	h, err := s.cache.add(id, blob)
	if err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	s.note(h, span{0, 1})
	return h, nil
}
