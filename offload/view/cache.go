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

// lineBytes is what a cache holds at a time. The last line of a device can be
// shorter.
const lineBytes = blockdev.BlockLength

// minCacheBytes is the least memory of a cache.
const minCacheBytes = 1 << 20

// CacheConfig describes a cache.
type CacheConfig struct {
	Of Device
	// Bytes is how much data it holds at most; what operations under way read and
	// write comes on top.
	Bytes int64
	// WriteBack keeps writes in memory until a flush, until room is needed or until
	// an offload read covers them: an end without Close loses what was not flushed,
	// as a disk with a volatile write cache does. Otherwise every write goes through.
	WriteBack bool
}

// Cache keeps what was last read and written of a slower device in memory. An
// offload read has what it covers written out first; an offload write, and an
// unmap, drop what they cover.
type Cache struct {
	of        Device
	writeBack bool
	capacity  int // lines

	// regions: shared to read, exclusive to change a line or what is behind it.
	regions regions

	mu    sync.Mutex // guards what follows; innermost
	lines map[int64]*list.Element
	order *list.List // of *line, the one used last in front
	dirty int
}

// line is lineBytes of the device. Its data changes with its region held
// exclusively and mu.
type line struct {
	number int64
	data   []byte
	dirty  bool // the device does not have it
}

// NewCache returns an empty cache.
func NewCache(c CacheConfig) (*Cache, error) {
	if c.Bytes < minCacheBytes {
		return nil, fmt.Errorf("%w: cache of %d bytes", blockdev.ErrInvalid, c.Bytes)
	}
	return &Cache{of: c.Of, writeBack: c.WriteBack, capacity: int(c.Bytes / lineBytes), lines: make(map[int64]*list.Element), order: list.New()}, nil
}

// Size implements Volume.
func (c *Cache) Size() int64 { return c.of.Size() }

// Leaves implements Device.
func (c *Cache) Leaves() []blockdev.Volume { return c.of.Leaves() }

// Held returns how many bytes are in memory, and how many of them the device does
// not have.
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
	if c.trim(ctx) != nil {
		c.dropClean() // a read does not fail for what cannot be written out
	}
	return nil
}

// read copies what is held and fetches the runs of lines that are missing.
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

// copyOut fills the beginning of p from lines that are held, or returns the length
// of the beginning that is in none.
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

// fetch reads p, which is in no line, and keeps the lines that it is in.
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

// put makes a line hold data. Who puts clean data may not know of another that did
// so before. mu is held.
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

// remove forgets a line. mu is held.
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
			c.forget(off, int64(len(p)), 0)
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

// fetchEnds makes sure that lines of which a write changes only a part are held.
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

// forget drops what is held of a range: lines that it has only a part of, too, and
// of the lines behind its first done bytes only those that the device has.
func (c *Cache) forget(off, length, done int64) {
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
	if err := c.writeOutEnds(ctx, off, length); err != nil {
		return err
	}
	if err := c.of.Unmap(ctx, off, length); err != nil {
		c.forget(off, length, 0)
		return err
	}
	c.forget(off, length, length)
	return nil
}

// Map implements Device.
func (c *Cache) Map(ctx context.Context, dst int64, s offload.Snapshot, src, length int64) (int64, error) {
	held := c.regions.of(dst, length)
	held.lock()
	defer held.unlock()
	if err := c.writeOutEnds(ctx, dst, length); err != nil {
		return 0, err
	}
	n, err := c.of.Map(ctx, dst, s, src, length)
	for err == nil && n < length && (dst+n)%lineBytes != 0 {
		// A line of which the device has one half from before is no line.
		var more int64
		more, err = c.of.Map(ctx, dst+n, s, src+n, min(length-n, lineBytes-(dst+n)%lineBytes))
		n += more
	}
	if err != nil {
		c.forget(dst, length, n)
	} else {
		c.forget(dst, n, n)
	}
	return n, err
}

// Locate implements Device.
func (c *Cache) Locate(ctx context.Context, off, length int64) ([]offload.Piece, error) {
	if err := c.writeOut(ctx, off, length); err != nil {
		return nil, err
	}
	return c.of.Locate(ctx, off, length)
}

// Flush implements Volume. What could not be written out stays, for the next flush.
func (c *Cache) Flush(ctx context.Context) error {
	if err := c.writeOut(ctx, 0, c.Size()); err != nil {
		return err
	}
	return c.of.Flush(ctx)
}

// writeOut writes out the lines of a range that the device does not have.
func (c *Cache) writeOut(ctx context.Context, off, length int64) error {
	for _, number := range c.dirtyLines(off, length) {
		if err := c.writeOutRegion(ctx, number*lineBytes); err != nil {
			return err
		}
	}
	return nil
}

// dirtyLines returns the first such line of each region, in order.
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

// writeOutRegion writes out the lines of the region around off.
func (c *Cache) writeOutRegion(ctx context.Context, off int64) error {
	start := off / regionBytes * regionBytes
	held := c.regions.of(start, 1)
	held.lock()
	defer held.unlock()
	return c.writeOutHeld(ctx, start, min(regionBytes, c.Size()-start))
}

// writeOutEnds writes out the lines that a range has only a part of. Their regions
// are held.
func (c *Cache) writeOutEnds(ctx context.Context, off, length int64) error {
	for _, at := range [...]int64{off, off + length} {
		if at%lineBytes != 0 {
			first := at / lineBytes * lineBytes
			if err := c.writeOutHeld(ctx, first, min(lineBytes, c.Size()-first)); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeOutHeld writes out the lines of a range, whose regions are held, run by run.
func (c *Cache) writeOutHeld(ctx context.Context, off, length int64) error {
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

// dirtyRun appends the data of lines that the device does not have, from off on.
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

// trim makes the cache as small as it has to be. It is called with no region held.
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
		if err := c.writeOutRegion(ctx, oldest*lineBytes); err != nil {
			return err
		}
	}
}

// dropClean forgets all lines that the device has.
func (c *Cache) dropClean() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for e := c.order.Front(); e != nil; {
		next := e.Next()
		if !e.Value.(*line).dirty {
			c.remove(e)
		}
		e = next
	}
}
