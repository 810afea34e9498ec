package pages

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"

	"odx/backstore/meta"
)

// number is an object with one number as its contents. Zero is not stored.
type number struct {
	Header
	n uint64
}

func (o *number) Encode() []byte {
	if o.n == 0 {
		return nil
	}
	return binary.BigEndian.AppendUint64(nil, o.n)
}

func newCache(kv *meta.Mem, clock *Clock, bound int) *Cache[*number] {
	return New(Config[*number]{
		KV: kv, Clock: clock, Prefix: 'x', MaxObjects: bound,
		Decode: func(_ uint64, stored []byte) (*number, error) {
			o := &number{}
			if stored != nil {
				o.n = binary.BigEndian.Uint64(stored)
			}
			return o, nil
		},
	})
}

func set(t *testing.T, c *Cache[*number], id, n uint64) {
	t.Helper()
	o, err := c.Lock(id)
	if err != nil {
		t.Fatal(err)
	}
	c.Change(o)
	o.n = n
	o.Unlock()
}

func get(t *testing.T, c *Cache[*number], id uint64) uint64 {
	t.Helper()
	o, err := c.Lock(id)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Unlock()
	return o.n
}

// store stores the rows of a cut.
func store(t *testing.T, kv *meta.Mem, k *Cut[*number]) {
	t.Helper()
	var ops []meta.Op
	err := k.Encode(func(op meta.Op) error {
		if n := len(ops); n > 0 && bytes.Compare(ops[n-1].Key, op.Key) >= 0 {
			t.Errorf("key %x comes after %x", op.Key, ops[n-1].Key)
		}
		ops = append(ops, op)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := kv.Update(ops); err != nil {
		t.Fatal(err)
	}
}

func stored(t *testing.T, kv *meta.Mem, id uint64) uint64 {
	t.Helper()
	return get(t, newCache(kv, NewClock(), 100), id)
}

// TestCut_Encode: a cut has the state at the cut of objects changed before and after
// they are encoded.
func TestCut_Encode(t *testing.T) {
	kv, clock := meta.NewMem(), NewClock()
	c := newCache(kv, clock, 100)
	set(t, c, 1, 10)
	set(t, c, 2, 20)
	set(t, c, 3, 30)
	clock.Tick()
	cut := c.Cut()
	set(t, c, 1, 11) // before it is encoded: saved by Change
	set(t, c, 1, 12)
	set(t, c, 4, 40) // not in the cut
	set(t, c, 3, 0)
	store(t, kv, cut)
	set(t, c, 2, 21) // after it was encoded
	cut.Done()
	for id, want := range map[uint64]uint64{1: 10, 2: 20, 3: 30, 4: 0} {
		if got := stored(t, kv, id); got != want {
			t.Errorf("object %d is stored as %d, want %d as at the cut", id, got, want)
		}
	}
	clock.Tick()
	cut = c.Cut()
	store(t, kv, cut)
	cut.Done()
	for id, want := range map[uint64]uint64{1: 12, 2: 21, 3: 0, 4: 40} {
		if got := stored(t, kv, id); got != want {
			t.Errorf("object %d is stored as %d after the second cut, want %d", id, got, want)
		}
	}
}

// TestCut_Abandon: the next cut includes the objects of an abandoned one.
func TestCut_Abandon(t *testing.T) {
	kv, clock := meta.NewMem(), NewClock()
	c := newCache(kv, clock, 100)
	set(t, c, 1, 10)
	set(t, c, 2, 20)
	clock.Tick()
	cut := c.Cut()
	set(t, c, 1, 11)
	cut.Abandon()
	if got := c.Dirty(); got != 2 {
		t.Errorf("%d objects are dirty, want 2", got)
	}
	clock.Tick()
	cut = c.Cut()
	store(t, kv, cut)
	cut.Done()
	for id, want := range map[uint64]uint64{1: 11, 2: 20} {
		if got := stored(t, kv, id); got != want {
			t.Errorf("object %d is stored as %d, want %d", id, got, want)
		}
	}
}

func TestCache_EvictsOnlyClean(t *testing.T) {
	const objects = 20_000
	kv, clock := meta.NewMem(), NewClock()
	c := newCache(kv, clock, 1000)
	for id := range uint64(objects) {
		set(t, c, id, id+1)
	}
	for id := range uint64(objects) {
		if got := get(t, c, id); got != id+1 {
			t.Fatalf("dirty object %d reads as %d", id, got)
		}
	}
	clock.Tick()
	cut := c.Cut()
	store(t, kv, cut)
	cut.Done()
	kept := 0
	for i := range c.shards {
		kept += len(c.shards[i].objects)
	}
	if kept > 1100 {
		t.Errorf("%d objects in memory, limit 1000", kept)
	}
	for id := range uint64(objects) {
		if got := get(t, c, id); got != id+1 {
			t.Fatalf("object %d reads as %d after it was evicted", id, got)
		}
	}
}

// TestCache_GetAfterEviction: Get does not return an evicted object.
func TestCache_GetAfterEviction(t *testing.T) {
	c := newCache(meta.NewMem(), NewClock(), 0)
	first, err := c.Lock(1)
	if err != nil {
		t.Fatal(err)
	}
	first.Unlock()
	get(t, c, 1) // adds the object to recent
	for id := uint64(1 + shardCount); !evicted(first); id += shardCount {
		get(t, c, id)
	}
	again, err := c.Get(1)
	if err != nil || again == first {
		t.Errorf("Get returns the evicted object, %v", err)
	}
}

func evicted(o *number) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.evicted
}

// TestCache_ConcurrentChanges: no change is lost with concurrent writers, checkpoints
// and evictions.
func TestCache_ConcurrentChanges(t *testing.T) {
	const objects, writers, changes = 40, 4, 3000
	kv, clock := meta.NewMem(), NewClock()
	c := newCache(kv, clock, 0)
	var operations sync.RWMutex
	clock.Guard(&operations)
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			for i := range uint64(changes) {
				operations.RLock()
				o, err := c.Lock((w + i*7) % objects * shardCount) // all in one shard
				if err != nil {
					t.Error(err)
				} else {
					c.Change(o)
					o.n++
					o.Unlock()
				}
				operations.RUnlock()
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		operations.Lock()
		clock.Tick()
		cut := c.Cut()
		operations.Unlock()
		store(t, kv, cut)
		cut.Done()
	}
	sum := uint64(0)
	for id := range uint64(objects) {
		sum += stored(t, kv, id*shardCount)
	}
	if sum != writers*changes {
		t.Errorf("%d changes are stored, want %d", sum, writers*changes)
	}
}

func BenchmarkCache_Get(b *testing.B) {
	c := newCache(meta.NewMem(), NewClock(), 1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Get(7); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCache_Lock(b *testing.B) {
	c := newCache(meta.NewMem(), NewClock(), 1000)
	b.ReportAllocs()
	for b.Loop() {
		o, err := c.Lock(7)
		if err != nil {
			b.Fatal(err)
		}
		o.Unlock()
	}
}
