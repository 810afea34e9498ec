package backstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"sync"
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
	reader *reader
	opMu   *sync.RWMutex

	checkpoint func(context.Context) error // Store.Checkpoint

	// mu is held while a segment is cleaned: two at work on one would both copy what
	// only one of them moves. Outermost, like Store.auditMu.
	mu     sync.Mutex
	budget *rate.Limiter
}

// Cleaning moves what is still live out of segments that are mostly dead, so
// that the segments can be deleted. A move changes only the extent table: the
// old copy stays until a checkpoint has stored the new place, so a crash before
// that finds the old copy, and one after it the new one. No journal record is
// needed, and readers that are on their way to the old copy still find it.

const (
	// DefaultCleanBytesPerSecond bounds background cleaning.
	DefaultCleanBytesPerSecond = 64 << 20
	// cleanPeriod is how often the store looks whether cleaning is worth it.
	cleanPeriod = time.Second
	// Background cleaning starts when more than this part of the sealed
	// segments is dead, and takes segments of which at least the other part is.
	cleanStartPart   = 0.12
	cleanSegmentPart = 0.20
	// A segment waits as long as more than this part of it dies from one look to
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
// those with the largest dead part first, and the sums over them.
func (c *cleaner) sealedSegments() (sealed []segmentSpace, live, dead int64) {
	limit := c.writer.appends.min(c.writer.floor())
	for _, id := range c.parts.segments.List() {
		if id >= limit {
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

// looks remembers how much was alive in the segments a while ago.
type looks struct {
	live map[segment.ID]int64
	at   time.Time
}

// dying reports whether much of the segment has died since the last look, or
// since it was filled, if that was later.
func (l *looks) dying(sp segmentSpace) bool {
	size := sp.live + sp.dead
	before, seen := l.live[sp.id]
	if !seen {
		before = size
	}
	return before-sp.live > size/cleanDyingPart
}

// look takes a new look, if the last one is long ago.
func (l *looks) look(sealed []segmentSpace, now time.Time) {
	if now.Sub(l.at) < cleanPeriod {
		return
	}
	l.at, l.live = now, make(map[segment.ID]int64, len(sealed))
	for _, sp := range sealed {
		l.live[sp.id] = sp.live
	}
}

// loop cleans in the background within the budget until ctx ends.
func (c *cleaner) loop(ctx context.Context) {
	tick := time.NewTicker(cleanPeriod)
	defer tick.Stop()
	damaged := make(map[segment.ID]bool) // they cannot become empty
	var last looks
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.space.cleanNow:
		}
		for c.life.usable() == nil && c.space.scarce() && ctx.Err() == nil {
			more, err := c.cleanScarce(ctx, damaged)
			if err != nil && ctx.Err() == nil {
				c.log.WithError(err).Warn("cleaning on a full disk stopped; it is tried again")
			}
			if !more || err != nil {
				break
			}
		}
		for {
			all, live, dead := c.sealedSegments()
			// Segments without live data wait for a checkpoint, not for cleaning.
			sealed := slices.DeleteFunc(slices.Clone(all), func(sp segmentSpace) bool {
				return sp.live == 0 || damaged[sp.id] || last.dying(sp)
			})
			last.look(all, time.Now())
			sum := segmentSpace{live: live, dead: dead}
			// On a store that takes too much each segment needs a checkpoint, see above.
			if c.space.scarce() || len(sealed) == 0 || sum.deadPart() < cleanStartPart || sealed[0].deadPart() < cleanSegmentPart || c.life.usable() != nil {
				break
			}
			c.mu.Lock()
			err := c.cleanSegment(ctx, sealed[0].id, c.budget)
			c.mu.Unlock()
			if err = corrupt(err); errors.Is(err, ErrCorrupt) {
				c.log.WithError(err).Warn("a segment keeps its space, because not all of it can be read")
				damaged[sealed[0].id] = true
				continue
			}
			if err != nil {
				if ctx.Err() == nil {
					c.log.WithError(err).Warn("cleaning stopped; it is tried again")
				}
				break
			}
		}
	}
}

// Clean moves live data out of every segment that has dead data, as fast as
// the disk allows, and deletes the segments. Data of volumes and snapshots that
// were deleted before is dead. Operations go on meanwhile. Data that cannot be
// read stays where it is, and is an ErrCorrupt in the end.
func (s *Store) Clean(ctx context.Context) error {
	if err := s.life.writable(); err != nil {
		return err
	}
	if err := s.reapAll(ctx); err != nil {
		return err
	}
	s.cleaner.mu.Lock()
	defer s.cleaner.mu.Unlock()
	s.parts.segments.Seal()
	// What is moved is to end in files that are no longer than it. A store that is
	// full itself keeps what it frees.
	if !s.space.low.Load() {
		s.parts.segments.KeepSpares(false)
		defer s.parts.segments.KeepSpares(true)
		s.space.dropSpares(time.Now())
	}
	unlimited := rate.NewLimiter(rate.Inf, 0)
	sealed, _, _ := s.cleaner.sealedSegments()
	var damage error
	for _, sp := range sealed {
		if sp.dead == 0 || sp.live == 0 {
			continue
		}
		err := s.cleaner.cleanSegment(ctx, sp.id, unlimited)
		if errors.Is(err, ErrNoSpace) {
			// The files of those before it become the store's by a checkpoint.
			if err = s.Checkpoint(ctx); err == nil {
				err = s.cleaner.cleanSegment(ctx, sp.id, unlimited)
			}
		}
		if err = corrupt(err); errors.Is(err, ErrCorrupt) {
			damage = errors.Join(damage, err)
		} else if err != nil {
			return err
		}
	}
	s.parts.segments.Seal() // what is left of the last one is of use to others
	return errors.Join(s.Checkpoint(ctx), damage)
}

// reapAll frees the map nodes that were given up.
func (s *Store) reapAll(ctx context.Context) error {
	for {
		for more := true; more; {
			var err error
			if more, err = s.reapOnce(ctx); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		// None is waiting. With no operation in progress none is on its way to
		// that either, in the hands of the background.
		s.opMu.Lock()
		more, err := s.parts.forest.Reap(0)
		s.opMu.Unlock()
		if err != nil || !more {
			return err
		}
	}
}

// moving is an extent on its way to another segment.
type moving struct {
	id extent.ID
	x  extent.Extent
}

// cleanSegment moves what is live out of a segment. ErrCorrupt: some of it
// could not be read, and is still there; the rest was moved.
func (c *cleaner) cleanSegment(ctx context.Context, id segment.ID, limiter *rate.Limiter) error {
	m := mover{c: c, limiter: limiter}
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
	return m.damage
}

// mover moves extents of one segment, a batch at a time. Its memory serves one
// batch after the other.
type mover struct {
	c       *cleaner
	limiter *rate.Limiter
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
// table. Extents that went away meanwhile are left, and those that cannot be
// read.
func (m *mover) move(ctx context.Context) error {
	if len(m.batch) == 0 {
		return nil
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
		return cmp.Or(m.place(good[:half], data[:bytes]), m.place(good[half:], data[bytes:]))
	}
	if err != nil {
		return err
	}
	c.space.disk.Add(int64(len(data))) // the old copy stays until a checkpoint
	c.opMu.RLock()
	defer c.opMu.RUnlock()
	if err := c.life.usable(); err != nil {
		return err
	}
	for i := range good {
		x := &good[i].x
		if _, err := c.parts.extents.Move(good[i].id, x.Addr, to); err != nil {
			// Its row cannot be read: it stays where it is.
			c.damage.Note(fmt.Sprintf("extent %d", good[i].id), err)
			m.damage = errors.Join(m.damage, corrupt(err))
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
			m.c.reader.distrust(ctx, e.id, err)
			damage = errors.Join(damage, fmt.Errorf("extent %d in segment %08x: %w: %w", e.id, e.x.Addr.Segment, ErrCorrupt, err))
			data = data[:at]
			continue
		}
		good = append(good, e)
	}
	m.damage = errors.Join(m.damage, damage)
	return good, data
}

// checkExtent compares data with the extent's checksums.
func checkExtent(x *extent.Extent, data []byte) error {
	for k := range int(x.Blocks) {
		if crc32.Checksum(data[k*BlockLength:(k+1)*BlockLength], castagnoli) != x.CRC[k] {
			return errCRC
		}
	}
	return nil
}

// waitBudget waits until the limiter allows so many bytes.
func waitBudget(ctx context.Context, limiter *rate.Limiter, bytes int) error {
	for bytes > 0 {
		n := bytes
		if limiter.Limit() != rate.Inf {
			n = min(bytes, limiter.Burst())
		}
		if err := limiter.WaitN(ctx, n); err != nil {
			return err
		}
		bytes -= n
	}
	return nil
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
		if id < limit && c.parts.usage.Live(id) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}
