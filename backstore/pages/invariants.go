package pages

import (
	"bytes"
	"errors"

	"odx/backstore/invariant"
	"odx/backstore/meta"
)

// checkChange panics, in builds with invariants, if the object about to be changed is
// not locked or is evicted, or if a cut could be taken concurrently.
func (c *Cache[T]) checkChange(h *Header) {
	if !invariant.Enabled {
		return
	}
	if h.mu.TryLock() {
		h.mu.Unlock()
		invariant.Violated("object %c%d: changed without its lock", c.cfg.Prefix, h.id)
	}
	if h.evicted {
		invariant.Violated("object %c%d: changed after eviction", c.cfg.Prefix, h.id)
	}
	if g := c.cfg.Clock.guard; g != nil && g.TryLock() {
		g.Unlock()
		invariant.Violated("object %c%d: changed outside an operation", c.cfg.Prefix, h.id)
	}
}

// checkStored panics, in builds with invariants, if a clean object differs from its
// stored form: it was changed without a call of Change. The object is locked.
func (c *Cache[T]) checkStored(o T) {
	if !invariant.Enabled {
		return
	}
	h := o.header()
	stored, err := c.cfg.KV.Get(c.key(h.id))
	if errors.Is(err, meta.ErrNotFound) {
		stored, err = nil, nil
	}
	// The engine may be closed, or a test may make it fail.
	if err == nil && !bytes.Equal(stored, o.Encode()) {
		invariant.Violated("object %c%d: clean and different from its stored form", c.cfg.Prefix, h.id)
	}
}
