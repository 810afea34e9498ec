package segment

import "fmt"

// Rest returns the newest segment, which Resume can go on with, or false if there is no
// reason to: the reserve is full, or there is a current segment.
func (s *Set) Rest() (id ID, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.current != nil || s.reserveFull() {
		return 0, false
	}
	for there := range s.ids {
		if there < s.next { // a file with a higher number is not of this Set
			id = max(id, there)
		}
	}
	return id, id > 0
}

// Resume makes the segment that Rest returned the current one, for AppendMoved, if it has
// blocks from block end on, the first one that no data is in which anything refers to. An
// earlier process may have begun to clean a segment and ended: it has used blocks of the
// reserve, and freed none. It returns the number of bytes that AppendMoved has by that.
//
// What Resume lets AppendMoved write over was never referred to durably, or is not any
// more: moves are stored by a checkpoint, which syncs the segments before.
func (s *Set) Resume(id ID, end uint32) (bytes int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, ErrClosed
	}
	if s.current != nil {
		return 0, nil
	}
	h, err := s.cache.acquire(id)
	if err != nil {
		return 0, err
	}
	size, err := h.blob.Size()
	if err != nil {
		h.release()
		return 0, fmt.Errorf("segment %08x: %w", uint32(id), err)
	}
	bytes = allocated(h.blob, min(size, s.o.bytes())) &^ (BlockLength - 1)
	if bytes <= int64(end)*BlockLength || size > s.o.bytes() {
		h.release()
		return 0, nil
	}
	delete(s.lengths, id)
	s.current, s.free, s.assigned, s.moved = h, max(end, 1), bytes, true
	return bytes - int64(s.free)*BlockLength, nil
}
