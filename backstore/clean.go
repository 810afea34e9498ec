package backstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"golang.org/x/time/rate"

	"odx/backstore/damage"
	"odx/backstore/extent"
	"odx/backstore/segment"
)

// cleaner moves what is live out of segments that are mostly dead.
type cleaner struct {
	parts  *parts
	opts   *Options
	log    *logrus.Entry
	life   *life
	damage *damage.Log
	space  *space
	writer *writer
	opMu   *sync.RWMutex

	aliases *aliases
	holds   *holds

	checkpoint func(context.Context) error // Store.Checkpoint
	distrust   func(context.Context, extent.ID, error)

	// mu is held while a segment is cleaned: two at work on one would both copy what
	// only one of them moves. Outermost, like Store.auditMu.
	mu         sync.Mutex
	budget     *rate.Limiter
	background *background

	// What cleaning has done since the store was opened: bytes moved, segments cleaned,
	// attempts that failed.
	moved, cleaned, failures atomic.Uint64
	broughtHome              atomic.Uint64 // bytes moved out of segments of other stores
}

// Cleaning moves what is still live out of segments that are mostly dead, so
// that the segments can be deleted. A move changes only the extent table: the
// old copy stays until a checkpoint has stored the new place, so a crash before
// that finds the old copy, and one after it the new one. No journal record is
// needed, and readers that are on their way to the old copy still find it.

const (
	// cleanPeriod is how often the store looks whether cleaning is worth it.
	cleanPeriod = time.Second
	// Background cleaning starts when more than this part of the sealed
	// segments is dead, and takes segments of which at least the other part is.
	cleanStartPart   = 0.12
	cleanSegmentPart = 0.20
	// A segment waits as long as more than this part of it is freed from one look to
	// the next: most of what would be moved is about to be written over.
	cleanDyingPart = 8
	// cleanBatch is the most bytes that are moved in one step, and one append.
	cleanBatch = 1 << 20
)

// segmentSpace is how a segment's blocks are used.
type segmentSpace struct {
	id         segment.ID
	live, dead int64
}

func (sp segmentSpace) deadPart() float64 {
	return float64(sp.dead) / float64(max(sp.live+sp.dead, 1))
}

// sealedSegments returns the segments that nothing is appended to any more,
// those with the largest dead part first, and the sums over them. Those that other
// stores hold are not among them: cleaning frees none of their space.
func (c *cleaner) sealedSegments() (sealed []segmentSpace, live, dead int64) {
	limit := c.writer.appends.min(c.writer.floor())
	for _, id := range c.parts.segments.List() {
		if id >= limit || c.holds.has(id) {
			continue
		}
		sp := segmentSpace{id: id, live: c.parts.usage.Live(id)}
		sp.dead = max(c.parts.segments.Bytes(id)/BlockLength-1-sp.live, 0)
		live += sp.live
		dead += sp.dead
		sealed = append(sealed, sp)
	}
	slices.SortFunc(sealed, func(a, b segmentSpace) int {
		return cmp.Compare(b.deadPart(), a.deadPart())
	})
	return sealed, live, dead
}

// moving is an extent on its way to another segment.
type moving struct {
	id extent.ID
	x  extent.Extent
}

// cleanSegment moves what is live out of a segment. ErrCorrupt: some of it
// could not be read, and is still there; the rest was moved.
func (c *cleaner) cleanSegment(ctx context.Context, id segment.ID, limiter *rate.Limiter) error {
	m := mover{c: c, limiter: limiter, home: c.aliases.is(id)}
	var found []moving
	for _, page := range c.parts.usage.Pages(id) {
		found = found[:0]
		if err := c.parts.extents.InSegment(page, id, func(id extent.ID, x *extent.Extent) {
			found = append(found, moving{id, *x})
		}); err != nil {
			return err
		}
		for i := range found {
			if err := m.add(ctx, &found[i]); err != nil {
				return err
			}
		}
	}
	if err := m.move(ctx); err != nil {
		return err
	}
	if !m.home {
		c.cleaned.Add(1)
	}
	return m.damage
}

// mover moves extents of one segment, a batch at a time. Its memory serves one
// batch after the other.
type mover struct {
	c       *cleaner
	limiter *rate.Limiter
	home    bool // the segment is that of another store
	batch   []moving
	bytes   int    // that the batch has
	buf     []byte // for its data
	damage  error  // what could not be read
}

// add appends an extent to the batch; a batch that has no room for it is moved
// before. So a batch never exceeds what one append can take.
func (m *mover) add(ctx context.Context, x *moving) error {
	bytes := int(x.x.Blocks) * BlockLength
	if len(m.batch) > 0 && m.bytes+bytes > min(cleanBatch, m.c.parts.segments.MoveRoom()) {
		if err := m.move(ctx); err != nil {
			return err
		}
	}
	m.batch = append(m.batch, *x)
	m.bytes += bytes
	return nil
}

// move copies the batch, in the order of the extents' places, and changes the
// table. Extents that were freed or moved concurrently are left, and those that cannot be
// read.
func (m *mover) move(ctx context.Context) error {
	if len(m.batch) == 0 {
		return nil
	}
	if m.limiter.Limit() != rate.Inf {
		if err := m.c.background.wait(ctx, m.bytes); err != nil {
			return err
		}
	}
	if err := waitBudget(ctx, m.limiter, m.bytes); err != nil {
		return err
	}
	slices.SortFunc(m.batch, func(a, b moving) int { return int(a.x.Addr.Block) - int(b.x.Addr.Block) })
	good, data := m.read(ctx)
	m.batch, m.bytes = m.batch[:0], 0
	if len(good) == 0 {
		return nil
	}
	return m.place(good, data)
}

// place writes extents and changes the table. On a full disk, pieces of the reserve
// can have room for half of them.
func (m *mover) place(good []moving, data []byte) error {
	c := m.c
	floor := c.writer.floor()
	c.writer.appends.begin(floor)
	defer c.writer.appends.end(floor)
	to, err := c.parts.segments.AppendMoved(data)
	if err = spaceError(err); errors.Is(err, ErrNoSpace) && len(good) > 1 {
		half, bytes := len(good)/2, 0
		for i := range half {
			bytes += int(good[i].x.Blocks) * BlockLength
		}
		if err := m.place(good[:half], data[:bytes]); err != nil {
			return err
		}
		return m.place(good[half:], data[bytes:])
	}
	if err != nil {
		return err
	}
	if !m.home {
		c.moved.Add(uint64(len(data)))
	}
	c.space.disk.Add(int64(len(data))) // the old copy stays until a checkpoint
	c.opMu.RLock()
	defer c.opMu.RUnlock()
	if err := c.life.usable(); err != nil {
		return err
	}
	for i := range good {
		x := &good[i].x
		moved, err := c.parts.extents.Move(good[i].id, x.Addr, to)
		if err != nil {
			// Its row cannot be read: it stays where it is.
			c.damage.Note(fmt.Sprintf("extent %d", good[i].id), err)
			m.damage = errors.Join(m.damage, corrupt(err))
		}
		if moved && m.home {
			c.broughtHome.Add(uint64(x.Blocks) * BlockLength)
		}
		to.Block += uint32(x.Blocks)
	}
	return nil
}

// read returns the extents of the batch that could be read, and their data.
// Others are left where they are: moving them would give them a right checksum
// no more than they have now.
func (m *mover) read(ctx context.Context) (good []moving, data []byte) {
	m.buf = slices.Grow(m.buf[:0], m.bytes)
	good, data = m.batch[:0], m.buf
	var damage error
	for _, e := range m.batch {
		at := len(data)
		data = data[:at+int(e.x.Blocks)*BlockLength]
		err := m.c.parts.segments.ReadAt(e.x.Addr, data[at:])
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // a checkpoint found nothing live in it any more
		}
		if err == nil {
			err = checkExtent(&e.x, data[at:])
		}
		if err != nil {
			m.c.distrust(ctx, e.id, err)
			damage = errors.Join(damage, fmt.Errorf("extent %d in segment %08x: %w: %w", e.id, e.x.Addr.Segment, ErrCorrupt, err))
			data = data[:at]
			continue
		}
		good = append(good, e)
	}
	m.damage = errors.Join(m.damage, damage)
	return good, data
}

// emptySegments returns the segments that hold no live extent and that no
// writer can have appended to. opMu is held exclusively.
func (c *cleaner) emptySegments() []segment.ID {
	if c.opts.rebuilding != "" {
		return nil // what is in them may just not have been found yet
	}
	limit := c.writer.appends.min(c.writer.floor())
	var ids []segment.ID
	for _, id := range c.parts.segments.List() {
		if id < limit && c.parts.usage.Live(id) == 0 && !c.holds.has(id) {
			ids = append(ids, id)
		}
	}
	return ids
}
