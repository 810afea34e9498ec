package segment

import (
	"sync"
	"sync/atomic"
)

const maxShards = 16

// cache has open blobs by segment. A lookup briefly takes one shard's lock, shared. I/O
// uses a reference, with no lock held.
type cache struct {
	open   func(id ID) (Blob, error)
	shards []shard
}

type shard struct {
	mu      sync.RWMutex // guards the fields below
	handles map[ID]*handle
	busy    map[ID]bool // segments whose handle was evicted while in use
	limit   int
	closed  bool
}

// handle is a reference-counted open blob. The shard's map has one reference. New
// references are taken only from the map, so the count never rises from zero.
type handle struct {
	id   ID
	refs atomic.Int64
	used atomic.Bool // since the last scan for eviction
	once sync.Once   // opens blob
	blob Blob
	err  error
}

func (c *cache) init(open func(ID) (Blob, error), limit int) {
	c.open = open
	c.shards = make([]shard, min(limit, maxShards))
	for i := range c.shards {
		c.shards[i].handles, c.shards[i].busy = map[ID]*handle{}, map[ID]bool{}
		c.shards[i].limit = limit / len(c.shards)
	}
}

func (c *cache) shard(id ID) *shard { return &c.shards[int(id)%len(c.shards)] }

// acquire returns a reference to an open blob. The caller must release it.
func (c *cache) acquire(id ID) (*handle, error) {
	sh := c.shard(id)
	h, err := sh.lookup(id)
	if err != nil {
		return nil, err
	}
	h.once.Do(func() { h.blob, h.err = c.open(h.id) })
	if h.err != nil {
		err := h.err
		sh.forget(h)
		h.release()
		return nil, err
	}
	if !h.used.Load() {
		h.used.Store(true)
	}
	return h, nil
}

// lookup returns a reference to the handle of id, which may not be open yet.
func (sh *shard) lookup(id ID) (*handle, error) {
	sh.mu.RLock()
	h := sh.handles[id]
	if h != nil {
		h.refs.Add(1)
	}
	sh.mu.RUnlock()
	if h != nil {
		return h, nil
	}
	return sh.insert(&handle{id: id})
}

// add adds a newly created blob to the cache, replacing a handle that could not be
// opened, and returns a reference to it.
func (c *cache) add(id ID, blob Blob) (*handle, error) {
	h := &handle{id: id, blob: blob}
	h.once.Do(func() {})
	sh := c.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.drop(id)
	return sh.put(h)
}

// insert returns a reference to h, or to an existing handle of the segment.
func (sh *shard) insert(h *handle) (*handle, error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if other := sh.handles[h.id]; other != nil {
		other.refs.Add(1)
		return other, nil
	}
	return sh.put(h)
}

// put adds h to the map and returns a reference to it. mu is held.
func (sh *shard) put(h *handle) (*handle, error) {
	if sh.closed {
		return nil, ErrClosed
	}
	for len(sh.handles) >= sh.limit {
		sh.evict()
	}
	h.refs.Store(2) // the map's and the caller's
	sh.handles[h.id] = h
	return h, nil
}

// evict drops the first handle, in the random order of the map, that was not used since
// the last scan. mu is held.
func (sh *shard) evict() {
	var victim *handle
	for _, h := range sh.handles {
		if victim = h; !h.used.Swap(false) {
			break
		}
	}
	delete(sh.handles, victim.id)
	if victim.refs.Load() > 1 {
		sh.busy[victim.id] = true
	}
	victim.release()
}

// forget drops a handle, if it is in the map.
func (sh *shard) forget(h *handle) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.handles[h.id] == h {
		delete(sh.handles, h.id)
		h.release()
	}
}

// take removes the handle of a segment from the map and returns it with the map's
// reference, or nil. busy reports that another handle may exist.
func (c *cache) take(id ID) (h *handle, busy bool) {
	sh := c.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h, busy = sh.handles[id], sh.busy[id]
	delete(sh.handles, id)
	delete(sh.busy, id)
	return h, busy
}

// reading reports whether a caller has the handle of a segment. unsynced is whether the
// segment is in the unsynced list, which has a reference.
func (c *cache) reading(id ID, unsynced bool) bool {
	sh := c.shard(id)
	sh.mu.RLock()
	defer sh.mu.RUnlock()
	h := sh.handles[id]
	if h == nil {
		return false
	}
	refs := h.refs.Load() - 1
	if unsynced {
		refs--
	}
	return refs > 0
}

func (sh *shard) drop(id ID) {
	if h := sh.handles[id]; h != nil {
		delete(sh.handles, id)
		h.release()
	}
}

func (c *cache) close() {
	for i := range c.shards {
		sh := &c.shards[i]
		sh.mu.Lock()
		sh.closed = true
		for id := range sh.handles {
			sh.drop(id)
		}
		sh.mu.Unlock()
	}
}

// release drops a reference. Closing a written file loses no error: the unsynced list
// has a reference to each file that must be synced.
func (h *handle) release() {
	if h.refs.Add(-1) == 0 && h.blob != nil {
		h.blob.Close()
	}
}
