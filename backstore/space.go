package backstore

// LiveBytes returns the length of all extents that something refers to.
func (s *Store) LiveBytes() int64 { return s.usage.Total() * BlockLength }

// PhysicalBytes returns the length of all segments, and of the files that wait
// to become segments again. It asks for each.
func (s *Store) PhysicalBytes() int64 {
	bytes := s.segments.SpareBytes()
	for _, id := range s.segments.List() {
		bytes += s.segments.Bytes(id)
	}
	return bytes
}

// FreeBytes returns how many bytes of new data fit: into the capacity, if there
// is one, and onto the host's file system.
func (s *Store) FreeBytes() (int64, error) {
	free, err := s.opts.FS.Free(s.opts.Dir)
	if err != nil {
		return 0, err
	}
	free -= lowSpace
	if s.opts.CapacityBytes > 0 {
		free = min(free, s.opts.CapacityBytes-s.LiveBytes())
	}
	return max(free, 0), nil
}
