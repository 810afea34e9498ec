package backstore

import "context"

// OnFull sets what is called when a write finds the capacity used up, with the
// bytes that it needs. It returns whether it gave anything up, and is called
// again until it does not or the write fits. It is called with no lock held and
// by one write at a time.
func (s *Store) OnFull(giveUp func(ctx context.Context, need int64) bool) {
	s.space.onFull.Store(&giveUp)
}

// makeRoom is called by a write of length bytes that did not fit, and reports
// whether to try again.
func (s *Store) makeRoom(ctx context.Context, length int64) bool {
	if s.space.crowded(length) {
		return s.space.awaitCleaning(ctx, length)
	}
	giveUp := s.space.onFull.Load()
	// What is given up makes room under the capacity at once, and in the host's
	// file system only when segments are cleaned.
	if giveUp == nil || s.opts.CapacityBytes == 0 || s.space.low.Load() {
		return false
	}
	s.space.makingRoom.Lock()
	defer s.space.makingRoom.Unlock()
	if s.LiveBytes()+length <= s.opts.CapacityBytes {
		return true // another write made it
	}
	if !(*giveUp)(ctx, length) {
		return false
	}
	for {
		if more, err := s.reapOnce(ctx); !more || err != nil {
			return err == nil
		}
	}
}
