package segment

import (
	"maps"
	"slices"
)

// maxAhead is how far the number in the name of a file alone can be ahead of the next id.
// A file with the name of a segment, and another content, uses up no more numbers.
const maxAhead = 1 << 20

func (s *Set) near(id ID) bool { return id < min(s.next, firstReserveID-maxAhead)+maxAhead }

// hasHeader reports whether a file is the segment whose name it has.
func (s *Set) hasHeader(id ID) bool {
	blob, err := s.openBlob(id)
	return err == nil && blob.Close() == nil
}

// named reports whether a file has the name of a segment, or of a spare file that was one.
// mu is held.
func (s *Set) named(id ID) bool {
	is := func(f spare) bool { return f.id == id }
	return s.ids[id] || slices.ContainsFunc(s.spares.files, is) || slices.ContainsFunc(s.spares.reserve, is)
}

// NextID is the lowest id of the next new segment, larger than all used.
func (s *Set) NextID() ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// Current is the segment being appended to, or false if there is none.
func (s *Set) Current() (ID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return 0, false
	}
	return s.current.id, true
}

// List returns the ids of all segments, ascending.
func (s *Set) List() []ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.ids))
}
