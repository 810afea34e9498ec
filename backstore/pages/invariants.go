package pages

import (
	"bytes"
	"errors"

	"odx/backstore/invariant"
	"odx/backstore/meta"
)

// proveChange panics, in builds with invariants, when an object is about to be
// changed that is not locked, has left the cache, or belongs to a cut that may
// be taken at the same time.
func (c *Cache[T]) proveChange(h *Header) {
	if !invariant.Enabled {
		return
	}
	if h.mu.TryLock() {
		h.mu.Unlock()
		invariant.Violated("object %c%d is changed and not locked", c.cfg.Prefix, h.id)
	}
	if h.evicted {
		invariant.Violated("object %c%d is changed after it was evicted", c.cfg.Prefix, h.id)
	}
	if g := c.cfg.Clock.guard; g != nil && g.TryLock() {
		g.Unlock()
		invariant.Violated("object %c%d is changed outside an operation", c.cfg.Prefix, h.id)
	}
}

// proveStored panics, in builds with invariants, when a clean object is not
// what the engine has: somebody changed it and did not call Change. The object
// is locked.
func (c *Cache[T]) proveStored(o T) {
	if !invariant.Enabled {
		return
	}
	h := o.header()
	stored, err := c.cfg.KV.Get(c.key(h.id))
	if errors.Is(err, meta.ErrNotFound) {
		stored, err = nil, nil
	}
	// The engine may be closed, or broken by a test: that proves nothing.
	if err == nil && !bytes.Equal(stored, o.Encode()) {
		invariant.Violated("object %c%d is clean and differs from what is stored", c.cfg.Prefix, h.id)
	}
}
