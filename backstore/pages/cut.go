package pages

import (
	"cmp"
	"fmt"
	"slices"

	"odx/backstore/meta"
)

// Cut is the state of a cache's changed objects at a checkpoint cut.
type Cut[T Object] struct {
	cache   *Cache[T]
	gen     uint64
	objects []T
	saved   map[uint64][]byte // states saved before a later change, by id; guarded by cache.dirtyMu
}

// Cut returns the objects changed since the last cut. It must be called after
// Clock.Tick while no operation is in progress. Done or Abandon must end a cut before
// the next.
func (c *Cache[T]) Cut() *Cut[T] {
	c.dirtyMu.Lock()
	defer c.dirtyMu.Unlock()
	cut := &Cut[T]{cache: c, gen: c.cfg.Clock.gen.Load() - 1, objects: c.dirty, saved: make(map[uint64][]byte)}
	c.dirty, c.cut = nil, cut
	c.dirtyCount.Store(0)
	return cut
}

// Encode passes the row of each object at the cut to emit, once, in the order of keys.
// Operations may run concurrently.
func (k *Cut[T]) Encode(emit func(op meta.Op) error) error {
	slices.SortFunc(k.objects, func(a, b T) int { return cmp.Compare(a.header().id, b.header().id) })
	for _, o := range k.objects {
		h := o.header()
		h.mu.Lock()
		mine := h.gen == k.gen && !h.encoded
		var value []byte
		if mine {
			value, h.encoded = o.Encode(), true
		}
		h.mu.Unlock()
		if !mine {
			// A change after the cut has saved the state.
			k.cache.dirtyMu.Lock()
			saved, ok := k.saved[h.id]
			delete(k.saved, h.id)
			k.cache.dirtyMu.Unlock()
			if !ok {
				return fmt.Errorf("metadata object %c%d: changed after the cut and not saved", k.cache.cfg.Prefix, h.id)
			}
			value = saved
		}
		if err := emit(meta.Op{Key: k.cache.key(h.id), Value: value}); err != nil {
			return err
		}
	}
	return nil
}

// Done ends the cut after the engine has stored all rows of Encode. Objects not changed
// since the cut become clean.
func (k *Cut[T]) Done() {
	c := k.cache
	c.dirtyMu.Lock()
	c.cut = nil
	c.dirtyMu.Unlock()
	for _, o := range k.objects {
		h := o.header()
		h.mu.Lock()
		if h.gen == k.gen {
			h.gen, h.encoded = 0, false
		}
		h.mu.Unlock()
	}
	k.objects = nil
	c.shrink()
}

// Abandon ends a cut whose rows could not be stored. Its objects remain dirty, and the
// next cut includes them with their state at that cut.
func (k *Cut[T]) Abandon() {
	c := k.cache
	c.dirtyMu.Lock()
	c.cut = nil
	c.dirtyMu.Unlock()
	for _, o := range k.objects {
		h := o.header()
		h.mu.Lock()
		// Objects changed since the cut are already in dirty.
		if h.gen == k.gen {
			h.gen, h.encoded = 0, false
			c.Change(o)
		}
		h.mu.Unlock()
	}
	k.objects = nil
}

// shrink evicts clean objects down to the limit: while they were dirty, they exceeded
// it.
func (c *Cache[T]) shrink() {
	limit := max(c.cfg.MaxObjects/shardCount, 4)
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for _, o := range s.objects {
			if len(s.objects) <= limit {
				break
			}
			h := o.header()
			if !h.mu.TryLock() {
				continue
			}
			if h.gen == 0 {
				c.remove(s, o)
			}
			h.mu.Unlock()
		}
		s.mu.Unlock()
	}
}
