package view

import (
	"container/list"
	"context"
	"fmt"
	"slices"
	"sync"

	"odx/blockdev"
	"odx/offload"
)

// lineBytes is the length of a cache line. The last line of a device can be shorter.
const lineBytes = blockdev.BlockLength

// minCacheBytes is the minimum size of a cache.
const minCacheBytes = 1 << 20

// CacheConfig describes a cache.
type CacheConfig struct {
	Of Device
	// Bytes bounds the cached data. Data of operations in progress is not included.
	Bytes int64
	// WriteBack keeps writes in memory until a flush, an eviction or an offload read of
	// the range. A process that ends without Close loses writes that were not flushed,
	// like a disk with a volatile write cache. Otherwise the cache is write-through.
	WriteBack bool
}

// Cache caches the last used data of a slower device in memory. An offload read first
// writes back the dirty lines of its range. An offload write and an unmap invalidate
// the lines of theirs.
type Cache struct {
	of        Device
	writeBack bool
	capacity  int // lines
	// evicts is the copier of a write-back: of any range, since any line can be evicted.
	evicts *offload.Engine

	// regions: shared to read, exclusive to change a line or its data on the device.
	regions regions

	mu    sync.Mutex // guards the fields below; innermost
	lines map[int64]*list.Element
	order *list.List // of *line, most recently used first
	dirty int
}

// line is lineBytes of the device. Its data changes with mu held and its region locked
// exclusively.
type line struct {
	number int64
	data   []byte
	dirty  bool // not written back
}

// NewCache returns an empty cache.
func NewCache(c CacheConfig) (*Cache, error) {
	if c.Bytes < minCacheBytes {
		return nil, fmt.Errorf("%w: cache of %d bytes", blockdev.ErrInvalid, c.Bytes)
	}
	v := &Cache{of: c.Of, writeBack: c.WriteBack, capacity: int(c.Bytes / lineBytes), lines: make(map[int64]*list.Element), order: list.New()}
	if c.WriteBack {
		v.evicts = copierOf(c.Of, 0, c.Of.Size())
	}
	return v, nil
}

// copier implements copying.
func (c *Cache) copier(off, length int64) *offload.Engine {
	if c.writeBack {
		return c.evicts
	}
	return copierOf(c.of, off, length)
}

// Size implements Volume.
func (c *Cache) Size() int64 { return c.of.Size() }

// Backing implements Device.
func (c *Cache) Backing() []blockdev.Volume { return c.of.Backing() }

// Held returns the number of bytes in the cache, and how many of them are dirty.
func (c *Cache) Held() (bytes, dirty int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(len(c.lines)) * lineBytes, int64(c.dirty) * lineBytes
}

// ReadAt implements Volume.
func (c *Cache) ReadAt(ctx context.Context, p []byte, off int64) error {
	held := c.regions.of(off, int64(len(p)))
	held.rlock()
	err := c.read(ctx, p, off)
	held.runlock()
	if err != nil {
		return err
	}
	// A read, which can be below locks of other views, takes no memory of copies. A failed
	// write-back is no error of it.
	if c.evicts != nil || c.trim(ctx) != nil {
		c.trimClean()
	}
	return nil
}

// read copies cached lines and fetches runs of missing lines.
func (c *Cache) read(ctx context.Context, p []byte, off int64) error {
	for len(p) > 0 {
		n, hit := c.copyOut(p, off)
		if !hit {
			if err := c.fetch(ctx, p[:n], off); err != nil {
				return err
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// copyOut fills the beginning of p from cached lines, or returns the length of the
// beginning without cached lines.
func (c *Cache) copyOut(p []byte, off int64) (n int, hit bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for n < len(p) {
		at := off + int64(n)
		in := int(at % lineBytes)
		e := c.lines[at/lineBytes]
		if n == 0 {
			hit = e != nil
		} else if hit != (e != nil) {
			break
		}
		if e == nil {
			n += min(lineBytes-in, len(p)-n)
			continue
		}
		c.order.MoveToFront(e)
		n += copy(p[n:], e.Value.(*line).data[in:])
	}
	return n, hit
}

// fetch reads p, which has no cached lines, from the device and caches its lines.
func (c *Cache) fetch(ctx context.Context, p []byte, off int64) error {
	first, end := off/lineBytes*lineBytes, min((off+int64(len(p))+lineBytes-1)/lineBytes*lineBytes, c.Size())
	data := p
	if first != off || end != off+int64(len(p)) {
		data = make([]byte, end-first)
	}
	if err := c.of.ReadAt(ctx, data, first); err != nil {
		return err
	}
	copy(p, data[off-first:])
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := first; at < end; at += lineBytes {
		c.put(at/lineBytes, data[at-first:min(at-first+lineBytes, end-first)], false)
	}
	return nil
}

// put stores data in a line. Clean data does not replace a line that another reader has
// cached. mu is held.
func (c *Cache) put(number int64, data []byte, dirty bool) {
	e := c.lines[number]
	if e == nil {
		e = c.order.PushFront(&line{number: number, data: make([]byte, len(data))})
		c.lines[number] = e
	} else {
		c.order.MoveToFront(e)
	}
	l := e.Value.(*line)
	copy(l.data, data)
	if dirty && !l.dirty {
		l.dirty = true
		c.dirty++
	}
}

// remove removes a line from the cache. mu is held.
func (c *Cache) remove(e *list.Element) {
	l := c.order.Remove(e).(*line)
	delete(c.lines, l.number)
	if l.dirty {
		c.dirty--
	}
}

// WriteAt implements Volume.
func (c *Cache) WriteAt(ctx context.Context, p []byte, off int64) error {
	held := c.regions.of(off, int64(len(p)))
	held.lock()
	err := c.write(ctx, p, off)
	held.unlock()
	if err != nil {
		return err
	}
	return c.trim(ctx)
}

func (c *Cache) write(ctx context.Context, p []byte, off int64) error {
	if !c.writeBack {
		if err := c.of.WriteAt(ctx, p, off); err != nil {
			c.invalidate(off, int64(len(p)), 0)
			return err
		}
	} else if err := c.fetchEnds(ctx, off, int64(len(p))); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(p) > 0 {
		number, in := off/lineBytes, int(off%lineBytes)
		n := min(lineBytes-in, len(p))
		if e := c.lines[number]; e != nil {
			copy(e.Value.(*line).data[in:], p[:n])
			c.put(number, nil, c.writeBack)
		} else if c.writeBack || n == lineBytes {
			c.put(number, p[:n], c.writeBack)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// fetchEnds caches the lines that a write changes partly.
func (c *Cache) fetchEnds(ctx context.Context, off, length int64) error {
	for _, at := range [...]int64{off, off + length} {
		first := at / lineBytes * lineBytes
		if at == first || at == c.Size() && first >= off {
			continue
		}
		var one [1]byte
		if err := c.read(ctx, one[:], first); err != nil {
			return err
		}
	}
	return nil
}

// invalidate removes the lines of a range, including partly covered ones. Past its
// first done bytes it removes only clean lines.
func (c *Cache) invalidate(off, length, done int64) {
	if length <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	drop := func(e *list.Element) {
		l := e.Value.(*line)
		if !l.dirty || l.number*lineBytes < off+done {
			c.remove(e)
		}
	}
	first, last := off/lineBytes, (off+length-1)/lineBytes
	if last-first < int64(len(c.lines)) {
		for number := first; number <= last; number++ {
			if e := c.lines[number]; e != nil {
				drop(e)
			}
		}
		return
	}
	for number, e := range c.lines {
		if number >= first && number <= last {
			drop(e)
		}
	}
}

// Unmap implements Volume.
func (c *Cache) Unmap(ctx context.Context, off, length int64) error {
	held := c.regions.of(off, length)
	held.lock()
	defer held.unlock()
	if err := c.writeBackEnds(ctx, off, length); err != nil {
		return err
	}
	if err := c.of.Unmap(ctx, off, length); err != nil {
		c.invalidate(off, length, 0)
		return err
	}
	c.invalidate(off, length, length)
	return nil
}

// Map implements Device.
func (c *Cache) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	held := c.regions.of(dst, length)
	held.lock()
	defer held.unlock()
	if err := c.writeBackEnds(ctx, dst, length); err != nil {
		return 0, err
	}
	n, err := c.of.Map(ctx, dst, s, src, length)
	for err == nil && n < length && (dst+n)%lineBytes != 0 {
		// A line changed partly on the device cannot be kept.
		var more int64
		more, err = c.of.Map(ctx, dst+n, s, src+n, min(length-n, lineBytes-(dst+n)%lineBytes))
		n += more
	}
	if err != nil {
		c.invalidate(dst, length, n)
	} else {
		c.invalidate(dst, n, n)
	}
	return n, err
}

// Locate implements Device.
func (c *Cache) Locate(ctx context.Context, off, length int64) ([]offload.Piece, error) {
	if err := c.writeBackRange(ctx, off, length); err != nil {
		return nil, err
	}
	return c.of.Locate(ctx, off, length)
}

// Flush implements Volume. Lines that cannot be written back remain dirty for the next
// flush.
func (c *Cache) Flush(ctx context.Context) error {
	if err := c.writeBackRange(ctx, 0, c.Size()); err != nil {
		return err
	}
	return c.of.Flush(ctx)
}

// writeBackRange writes back the dirty lines of a range.
func (c *Cache) writeBackRange(ctx context.Context, off, length int64) error {
	for _, number := range c.dirtyLines(off, length) {
		if err := c.writeBackRegion(ctx, number*lineBytes); err != nil {
			return err
		}
	}
	return nil
}

// dirtyLines returns the first dirty line of each region, in order.
func (c *Cache) dirtyLines(off, length int64) []int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dirty == 0 {
		return nil
	}
	first := make(map[int64]int64) // by region
	for number, e := range c.lines {
		at := number * lineBytes
		if e.Value.(*line).dirty && at < off+length && at+lineBytes > off {
			region := at / regionBytes
			if old, ok := first[region]; !ok || number < old {
				first[region] = number
			}
		}
	}
	numbers := make([]int64, 0, len(first))
	for _, number := range first {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	return numbers
}

// writeBackRegion writes back the dirty lines of the region around off.
func (c *Cache) writeBackRegion(ctx context.Context, off int64) error {
	start := off / regionBytes * regionBytes
	length := min(regionBytes, c.Size()-start)
	return withMemory(ctx, c.of, start, length, func(ctx context.Context) error {
		held := c.regions.of(start, 1)
		held.lock()
		defer held.unlock()
		return c.writeBackLocked(ctx, start, length)
	})
}

// writeBackEnds writes back the lines that a range covers partly. Their regions are
// locked.
func (c *Cache) writeBackEnds(ctx context.Context, off, length int64) error {
	for _, at := range [...]int64{off, off + length} {
		if at%lineBytes != 0 {
			first := at / lineBytes * lineBytes
			if err := c.writeBackLocked(ctx, first, min(lineBytes, c.Size()-first)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeBackLocked writes back the dirty lines of a range, run by run. Their regions are
// locked.
func (c *Cache) writeBackLocked(ctx context.Context, off, length int64) error {
	buf := make([]byte, 0, min(length, regionBytes))
	for end := off + length; off < end; {
		buf = c.dirtyRun(buf[:0], off, end)
		if len(buf) == 0 {
			off += lineBytes
			continue
		}
		if err := c.of.WriteAt(ctx, buf, off); err != nil {
			return err
		}
		c.clean(off, int64(len(buf)))
		off += int64(len(buf))
	}
	return nil
}

// dirtyRun appends the data of contiguous dirty lines, starting at off.
func (c *Cache) dirtyRun(buf []byte, off, end int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; off < end; off += lineBytes {
		e := c.lines[off/lineBytes]
		if e == nil || !e.Value.(*line).dirty {
			break
		}
		buf = append(buf, e.Value.(*line).data...)
	}
	return buf
}

func (c *Cache) clean(off, length int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for at := off; at < off+length; at += lineBytes {
		if e := c.lines[at/lineBytes]; e != nil && e.Value.(*line).dirty {
			e.Value.(*line).dirty = false
			c.dirty--
		}
	}
}

// trim evicts lines down to the capacity. It is called with no region locked.
func (c *Cache) trim(ctx context.Context) error {
	for {
		c.mu.Lock()
		for len(c.lines) > c.capacity && !c.order.Back().Value.(*line).dirty {
			c.remove(c.order.Back())
		}
		over := len(c.lines) > c.capacity
		var oldest int64
		if over {
			oldest = c.order.Back().Value.(*line).number
		}
		c.mu.Unlock()
		if !over {
			return nil
		}
		if err := c.writeBackRegion(ctx, oldest*lineBytes); err != nil {
			return err
		}
	}
}

// trimClean evicts clean lines down to the capacity. Dirty lines count as used, so that the
// next call does not meet them first.
func (c *Cache) trimClean() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range len(c.lines) {
		if len(c.lines) <= c.capacity {
			return
		}
		if e := c.order.Back(); e.Value.(*line).dirty {
			c.order.MoveToFront(e)
		} else {
			c.remove(e)
		}
	}
}
