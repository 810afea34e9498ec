package backstore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"

	"odx/backstore/extent"
	"odx/backstore/scrubplan"
	"odx/backstore/segment"
)

// scrubRead is the most that a scrub reads at once, in bytes.
const scrubRead = 1 << 20

// maxDamages bounds the damaged extents that a scrub describes; it counts all.
const maxDamages = 1000

// ScrubOptions configure a Scrub.
type ScrubOptions struct {
	// BytesPerSecond bounds what is read; 0 means as fast as the disk allows.
	BytesPerSecond int64
	// Progress, if there is one, is called after each read, at most 1 MiB apart,
	// and before the first. Scrub waits for it.
	Progress func(ScrubProgress)
}

// Scrub reads all metadata, in every copy, and mends what is damaged in one of
// them; then it reads every extent and verifies its checksums and its fingerprint. It
// holds no lock while it reads: operations continue, and what they free or move
// in the meantime is left out or found at its new place. Extents made after it began
// are left out. When ctx ends it returns what it found so far and the error.
func (s *Store) Scrub(ctx context.Context, o ScrubOptions) (ScrubResult, error) {
	if o.BytesPerSecond < 0 {
		return ScrubResult{}, fmt.Errorf("%w: scrub at %d bytes a second", ErrInvalid, o.BytesPerSecond)
	}
	c := &scrubber{store: s, budget: rate.NewLimiter(rate.Inf, 0), progress: o.Progress, buf: make([]byte, scrubRead)}
	if o.BytesPerSecond > 0 {
		c.budget = rate.NewLimiter(rate.Limit(o.BytesPerSecond), scrubRead)
	}
	c.result.TotalBytes = s.parts.usage.Total() * BlockLength
	c.result.Damages = []Damage{}
	start := time.Now()
	err := c.run(ctx)
	if err == nil && len(c.result.Damages) > 0 {
		err = s.findUses(ctx, c.result.Damages)
	}
	c.result.Mended = s.Mended()
	if err == nil && s.scrubs.Current() > 0 && !s.opts.ReadOnly {
		s.scrubs.Ended(ctx, scrubplan.Last{
			ReadBytes: c.result.ReadBytes, Damaged: c.result.Damaged, MendedBytes: c.result.MendedBytes, LostRows: len(c.result.Metadata),
		}, time.Since(start))
	}
	return c.result, err
}

// scrubber is one Scrub at work.
type scrubber struct {
	store    *Store
	budget   *rate.Limiter
	progress func(ScrubProgress)
	result   ScrubResult
	buf      []byte
}

// placed is an extent and its number.
type placed struct {
	id extent.ID
	extent.Extent
}

func (x *placed) bytes() int { return int(x.Blocks) * BlockLength }

// run verifies the extents of one page of the table after the other. Extents
// written together stand together in the table, so most of it is read in order.
func (c *scrubber) run(ctx context.Context) error {
	c.report()
	if err := c.removedFiles(ctx); err != nil {
		return err
	}
	if err := c.metadata(ctx); err != nil {
		return err
	}
	var found []placed
	for page := range c.store.parts.extents.Pages() {
		found = found[:0]
		err := c.store.parts.extents.Visit(page, func(id extent.ID, x *extent.Extent) {
			found = append(found, placed{id, *x})
		})
		if metadataDamage(err) {
			c.result.Metadata = append(c.result.Metadata, err.Error())
			continue
		}
		if err != nil {
			return err
		}
		slices.SortFunc(found, func(a, b placed) int {
			return cmp.Or(cmp.Compare(a.Addr.Segment, b.Addr.Segment), cmp.Compare(a.Addr.Block, b.Addr.Block))
		})
		for rest := found; len(rest) > 0; {
			n := adjoining(rest)
			if err := c.verify(ctx, rest[:n]); err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	return nil
}

// metadata verifies the metadata.
func (c *scrubber) metadata(ctx context.Context) error {
	before := c.store.parts.kv.Stats().MendedBytes
	budget := rate.NewLimiter(c.budget.Limit(), c.budget.Burst()) // nothing else is read at the same time
	err := c.store.parts.kv.Scrub(ctx, func(ctx context.Context, bytes int) error {
		if err := c.store.background.wait(ctx, bytes); err != nil {
			return err
		}
		return waitBudget(ctx, budget, bytes)
	})
	c.result.MendedBytes = c.store.parts.kv.Stats().MendedBytes - before
	if metadataDamage(err) {
		c.store.damage.Note("metadata", err)
		c.result.Metadata = append(c.result.Metadata, strings.Split(err.Error(), "\n")...)
		err = nil
	}
	if err := c.note(ctx, "metadata", err); err != nil {
		return err
	}
	return c.superblocksAndJournal(ctx)
}

// adjoining returns how many extents lie one after the other and fit into one
// read.
func adjoining(found []placed) int {
	end, bytes := found[0].Addr, 0
	for i := range found {
		x := &found[i]
		if x.Addr != end || bytes+x.bytes() > scrubRead {
			return i
		}
		end.Block += uint32(x.Blocks)
		bytes += x.bytes()
	}
	return len(found)
}

// verify reads extents that adjoin and verifies each.
func (c *scrubber) verify(ctx context.Context, found []placed) error {
	bytes := 0
	for i := range found {
		bytes += found[i].bytes()
	}
	if err := c.store.background.wait(ctx, bytes); err != nil {
		return err
	}
	if err := waitBudget(ctx, c.budget, bytes); err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), c.store.life.usable()); err != nil {
		return err
	}
	readErr := c.store.parts.segments.ReadAt(found[0].Addr, c.buf[:bytes])
	at := 0
	for i := range found {
		x := &found[i]
		data := c.buf[at : at+x.bytes()]
		at += len(data)
		if readErr == nil {
			if _, err := c.store.reader.verifyExtent(&x.Extent, data); err == nil {
				continue
			}
		}
		if err := c.again(ctx, x.id, data); err != nil {
			return err
		}
	}
	c.result.ReadBytes += int64(bytes)
	c.report()
	return nil
}

// again verifies an extent that was not right by itself, where it lies now: it
// can have been moved or freed after its place was looked up, and its segment
// deleted. buf is as long as the extent.
func (c *scrubber) again(ctx context.Context, id extent.ID, buf []byte) error {
	for {
		x, ok, err := c.store.parts.extents.Get(id)
		if err != nil || !ok {
			return err
		}
		bad := uint32(1)<<x.Blocks - 1
		reason := c.store.parts.segments.ReadAt(x.Addr, buf)
		if errors.Is(reason, segment.ErrClosed) {
			return ErrClosed
		}
		if reason == nil {
			bad, reason = c.store.reader.verifyExtent(&x, buf)
		}
		now, ok, err := c.store.parts.extents.Get(id)
		if err != nil || !ok || reason == nil {
			return err
		}
		if now.Addr == x.Addr {
			c.store.reader.distrust(ctx, id, reason)
			c.damaged(id, &x, bad, reason)
			return nil
		}
	}
}

func (c *scrubber) damaged(id extent.ID, x *extent.Extent, bad uint32, reason error) {
	c.result.Damaged++
	if len(c.result.Damages) == maxDamages {
		return
	}
	c.result.Damages = append(c.result.Damages, Damage{
		Extent: uint64(id), Segment: fmt.Sprintf("%08x", uint32(x.Addr.Segment)), Block: x.Addr.Block, Blocks: int(x.Blocks),
		Reason: reason.Error(), Uses: []Use{}, bad: bad,
	})
}

func (c *scrubber) report() {
	if c.progress != nil {
		c.progress(c.result.ScrubProgress)
	}
}
