package segment

// Bytes is the length of a segment's file in bytes, including the header and blocks
// allocated past its end. It is 0 if the segment does not exist or cannot be opened.
func (s *Set) Bytes(id ID) int64 {
	s.mu.Lock()
	size, known := s.length(id)
	s.mu.Unlock()
	if known {
		return size
	}
	size = s.FileBytes(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.length(id); !known && s.ids[id] && size > 0 {
		s.lengths[id] = size
	}
	return size
}

// FileBytes is the current length of a segment's file, without appended data not yet
// written. It is 0 if the segment does not exist or cannot be opened.
func (s *Set) FileBytes(id ID) int64 {
	h, err := s.cache.acquire(id)
	if err != nil {
		return 0
	}
	defer h.release()
	size, err := h.blob.Size()
	if err != nil {
		return 0
	}
	return size
}

// length returns the length of a segment, if known. mu is held.
func (s *Set) length(id ID) (bytes int64, known bool) {
	if s.current != nil && s.current.id == id {
		return max(int64(s.free)*BlockLength, s.assigned), true
	}
	bytes, known = s.lengths[id]
	return bytes, known
}

// TotalBytes is the length of all segments and spare files. A segment whose length is
// not known yet counts as full.
func (s *Set) TotalBytes() (total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.ids {
		if bytes, known := s.length(id); known {
			total += bytes
		} else {
			total += s.o.bytes()
		}
	}
	for _, f := range s.spares.files {
		total += f.bytes
	}
	return total
}
