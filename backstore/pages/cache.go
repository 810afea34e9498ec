// Package pages implements a bounded cache of the store's metadata objects (map nodes,
// extent pages, count pages) over a key-value engine.
//
// Objects are changed in memory and written to the engine only by checkpoints. A
// checkpoint takes a cut at an instant in which no operation is in progress, and then
// stores the state of each object at the cut while operations continue. An operation
// that changes an object not yet encoded by the checkpoint encodes it first
// (copy-before-write). So a cut has no cost per object, and a checkpoint delays an
// operation by at most one encoding.
//
// An object is dirty until a finished checkpoint has its last change. Only clean
// objects are evicted, so that a reload from the engine returns the current state.
package pages

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"odx/backstore/meta"
)

// Clock numbers the generations between checkpoint cuts. All caches of a store share
// one.
type Clock struct {
	gen   atomic.Uint64
	guard *sync.RWMutex
}

// NewClock returns a clock in its first generation.
func NewClock() *Clock {
	c := &Clock{}
	c.gen.Store(1)
	return c
}

// Guard makes every change of an object verify, in builds with invariants, that mu is
// locked, at least shared, as by operations in progress. It is called before the first
// operation.
func (c *Clock) Guard(mu *sync.RWMutex) { c.guard = mu }

// Tick starts the next generation. A checkpoint calls it while no operation is in
// progress, before Cut of the caches.
func (c *Clock) Tick() { c.gen.Add(1) }

// Header is embedded in every object. Its mutex guards the cache's own fields and, if
// the object's type says so, the object's contents.
type Header struct {
	mu   sync.Mutex
	id   uint64
	self any         // the object
	used atomic.Bool // looked up since the last scan for eviction

	// Guarded by mu.
	gen     uint64 // generation of the last change; 0 when clean
	encoded bool   // the checkpoint in progress has encoded the state of generation gen
	evicted bool   // not in the cache: the holder must look it up again
}

func (h *Header) header() *Header { return h }

// ID returns the object's number.
func (h *Header) ID() uint64 { return h.id }

// Unlock unlocks an object that Lock returned.
func (h *Header) Unlock() { h.mu.Unlock() }

// Object is a pointer to a struct that embeds Header.
type Object interface {
	header() *Header
	// Encode returns the object's stored form, or nil if it has none: it is deleted or
	// has only default values. It is called with the object locked.
	Encode() []byte
}

// Config configures a Cache.
type Config[T Object] struct {
	KV     meta.Reader
	Clock  *Clock
	Prefix byte // first byte of the objects' keys; the id follows, big-endian
	// Decode returns the object of a stored form. If stored is nil, the engine has no
	// row, and Decode returns the default object or an error.
	Decode func(id uint64, stored []byte) (T, error)
	// MaxObjects bounds the number of clean objects.
	MaxObjects int
}

const (
	shardCount  = 64
	recentCount = 1024
)

// Cache is a set of objects by number. It is safe for concurrent use.
type Cache[T Object] struct {
	cfg    Config[T]
	shards [shardCount]shard[T]
	// recent is a direct-mapped cache of objects of the shards, for lookups without a
	// lock. An object is added under its shard's lock and removed before it is removed
	// from the shard.
	recent [recentCount]atomic.Pointer[Header]

	dirtyCount atomic.Int64 // len(dirty), readable without dirtyMu

	dirtyMu sync.Mutex
	dirty   []T     // changed in the current generation; guarded by dirtyMu
	cut     *Cut[T] // of the checkpoint in progress, or nil; guarded by dirtyMu
}

type shard[T Object] struct {
	mu      sync.RWMutex
	objects map[uint64]T // guarded by mu
}

// New returns an empty cache.
func New[T Object](cfg Config[T]) *Cache[T] {
	c := &Cache[T]{cfg: cfg}
	for i := range c.shards {
		c.shards[i].objects = make(map[uint64]T)
	}
	return c
}

func (c *Cache[T]) shard(id uint64) *shard[T] { return &c.shards[id%shardCount] }

// Get returns the object without locking it. The object's type defines what may be read
// without the lock.
func (c *Cache[T]) Get(id uint64) (T, error) {
	o, _, err := c.find(id)
	return o, err
}

// find returns the object and its header.
func (c *Cache[T]) find(id uint64) (T, *Header, error) {
	if h := c.recent[id%recentCount].Load(); h != nil && h.id == id {
		if !h.used.Load() {
			h.used.Store(true)
		}
		return h.self.(T), h, nil
	}
	s := c.shard(id)
	s.mu.RLock()
	o, ok := s.objects[id]
	if ok {
		c.recent[id%recentCount].Store(o.header())
	}
	s.mu.RUnlock()
	if !ok {
		var err error
		if o, err = c.load(s, id); err != nil {
			return o, nil, err
		}
	}
	h := o.header()
	if !h.used.Load() {
		h.used.Store(true)
	}
	return o, h, nil
}

// load reads the object from the engine. The shard remains locked, so that this state
// cannot replace a newer one that another caller loads, changes and evicts
// concurrently.
func (c *Cache[T]) load(s *shard[T], id uint64) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[id]; ok {
		return o, nil
	}
	var none T
	stored, err := c.cfg.KV.Get(c.key(id))
	if errors.Is(err, meta.ErrNotFound) {
		stored = nil
	} else if err != nil {
		return none, fmt.Errorf("metadata object %c%d: %w", c.cfg.Prefix, id, err)
	}
	o, err := c.cfg.Decode(id, stored)
	if err != nil {
		return none, fmt.Errorf("metadata object %c%d: %w: %w", c.cfg.Prefix, id, meta.ErrDamaged, err)
	}
	c.name(o, id)
	c.evict(s)
	s.objects[id] = o
	return o, nil
}

// name initializes the header of an object that is not yet shared.
func (c *Cache[T]) name(o T, id uint64) {
	h := o.header()
	h.id, h.self = id, o
	h.used.Store(true)
}

// Lock returns the locked object. The caller must call its Unlock.
func (c *Cache[T]) Lock(id uint64) (T, error) {
	for {
		o, h, err := c.find(id)
		if err != nil {
			return o, err
		}
		h.mu.Lock()
		if !h.evicted {
			return o, nil
		}
		h.mu.Unlock()
	}
}

// Insert adds a new object. Its number must be new.
func (c *Cache[T]) Insert(id uint64, o T) {
	c.name(o, id)
	h := o.header()
	// The object is dirty before it is visible: a clean object could be evicted, and
	// the engine does not have it.
	h.mu.Lock()
	c.Change(o)
	h.mu.Unlock()
	s := c.shard(id)
	s.mu.Lock()
	c.evict(s)
	s.objects[id] = o
	s.mu.Unlock()
}

// Change marks the object dirty. It must be called with the object locked, before each
// change.
func (c *Cache[T]) Change(o T) {
	h := o.header()
	c.checkChange(h)
	now := c.cfg.Clock.gen.Load()
	if h.gen == now {
		return
	}
	c.dirtyMu.Lock()
	if h.gen != 0 && !h.encoded && c.cut != nil {
		c.cut.saved[h.id] = o.Encode()
	}
	c.dirty = append(c.dirty, o)
	c.dirtyCount.Store(int64(len(c.dirty)))
	c.dirtyMu.Unlock()
	h.gen, h.encoded = now, false
}

// Dirty returns the number of objects changed since the last checkpoint cut.
func (c *Cache[T]) Dirty() int { return int(c.dirtyCount.Load()) }

// evict removes a clean object from a shard that is at its limit. Dirty objects are not
// evicted; checkpoints bound their number. The shard is locked.
func (c *Cache[T]) evict(s *shard[T]) {
	limit := max(c.cfg.MaxObjects/shardCount, 4)
	if len(s.objects) < limit {
		return
	}
	tries := 16
	for _, o := range s.objects { // random map order replaces the clock hand
		if tries--; tries < 0 {
			return
		}
		h := o.header()
		if h.used.Swap(false) || !h.mu.TryLock() {
			continue
		}
		if h.gen == 0 {
			c.remove(s, o)
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
	}
}

// remove removes a clean object from its shard. Both are locked.
func (c *Cache[T]) remove(s *shard[T], o T) {
	c.checkStored(o)
	h := o.header()
	h.evicted = true
	c.recent[h.id%recentCount].CompareAndSwap(h, nil)
	delete(s.objects, h.id)
}

func (c *Cache[T]) key(id uint64) []byte {
	k := make([]byte, 9)
	k[0] = c.cfg.Prefix
	binary.BigEndian.PutUint64(k[1:], id)
	return k
}
