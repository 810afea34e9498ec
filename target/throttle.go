package target

import "sync"

// throttles hold LUNs back in addition to the limits of the configuration, by their media.
type throttles struct {
	mu sync.Mutex       // guards by
	by map[string]int64 // bytes a second
}

// set bounds the LUNs on a medium; 0 ends that.
func (t *throttles) set(medium string, bytesPerSecond int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[string]int64{}
	}
	if t.by[medium] = bytesPerSecond; bytesPerSecond == 0 {
		delete(t.by, medium)
	}
}

// bound returns the smaller one of a rate, in which 0 is none, and that of a medium.
func (t *throttles) bound(medium string, bytesPerSecond int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	own := t.by[medium]
	if own == 0 || bytesPerSecond != 0 && bytesPerSecond < own {
		return bytesPerSecond
	}
	return own
}
