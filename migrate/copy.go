package migrate

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"odx/backstore"
	"odx/blockdev"
	"odx/offload"
)

const (
	// unmapStep is how many bytes are unmapped at once, and ratedStep how many are copied at
	// once where there is a bound on the rate.
	unmapStep = 1 << 30
	ratedStep = 1 << 20
	// holeStep is how many bytes are unmapped at once where several parts are copied.
	holeStep = 32 << 20
	// defaultWindow is that of Options.
	defaultWindow = 1 << 30
)

// round implements destination: it copies what was written since the last one. A round that was
// interrupted comes first, with what it was to copy: parts of it are at the destination.
func (h *here) round(ctx context.Context, src *backstore.Volume) (took time.Duration, err error) {
	if r := h.copyRecord(); r.Next != 0 {
		if _, err := h.copyNext(ctx); err != nil {
			return 0, err
		}
	}
	if err := h.point(ctx, src); err != nil {
		return 0, err
	}
	return h.copyNext(ctx)
}

// point takes the next point in time, durably: a destination outside of the store is not in one
// order with its record, and must not keep what the source has lost with the power.
func (h *here) point(ctx context.Context, src *backstore.Volume) error {
	var n *backstore.Snapshot
	err := h.takeNext(func(recs func(id uint64) []backstore.Record) (err error) {
		n, err = src.Snapshot(ctx, []blockdev.Range{{Length: src.Size()}}, recs)
		return err
	})
	if err != nil {
		return err
	}
	n.Release() // the record keeps it
	h.m.step("point taken")
	return h.m.o.Store.Flush(ctx)
}

// takeNext has take make a snapshot and store the record with it.
func (h *here) takeNext(take func(recs func(id uint64) []backstore.Record) error) error {
	next := h.copyRecord()
	err := take(func(id uint64) []backstore.Record {
		next.Next = id
		return []backstore.Record{next.encode()}
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.rec.Next = next.Next
	return nil
}

// copyNext makes the destination equal to the next point in time, durably, which is the base
// of the one after it.
func (h *here) copyNext(ctx context.Context) (took time.Duration, err error) {
	began := time.Now()
	err = h.copyDifference(ctx, h.limiter())
	if err == nil {
		err = h.dst.Flush(ctx)
	}
	if err != nil {
		return 0, err
	}
	took = time.Since(began)
	h.m.step("difference copied")
	r := h.copyRecord()
	change := func(to *record) {
		h.mu.Lock()
		defer h.mu.Unlock()
		to.Base, to.Next, to.Done = r.Next, 0, 0
		to.Rounds++
		to.Copied += h.progress.copied
	}
	if r.Base == 0 {
		return took, h.store(ctx, change)
	}
	err = h.update(change, func(rec backstore.Record) error { return h.m.o.Store.DeleteSnapshot(ctx, r.Base, rec) })
	h.m.step("round ended")
	return took, err
}

// copyDifference copies what differs between the base and the next point in time, at a rate
// that limit, which may be nil, bounds.
func (h *here) copyDifference(ctx context.Context, limit *rate.Limiter) error {
	r := h.copyRecord()
	next, err := h.m.o.Store.Snapshot(r.Next)
	if err != nil {
		return err
	}
	defer next.Release()
	var base *backstore.Snapshot
	if r.Base != 0 {
		if base, err = h.m.o.Store.Snapshot(r.Base); err != nil {
			return err
		}
		defer base.Release()
	} else if h.copies == 0 {
		if err := unmap(ctx, h.dst, blockdev.Range{Length: h.dst.Size()}); err != nil {
			return err
		}
	}
	left := blockdev.Range{Offset: r.Done, Length: next.Length() - r.Done}
	var total int64
	count := func(d backstore.Difference) error {
		if !d.Hole {
			total += d.Length
		}
		return nil
	}
	if err := next.Diff(ctx, base, left.Offset, left.Length, count); err != nil {
		return err
	}
	h.beginRound(total)
	defer h.endRound()
	if h.copies > 0 {
		return h.copyWindows(ctx, next, base, left, limit)
	}
	return next.Diff(ctx, base, left.Offset, left.Length, func(d backstore.Difference) error {
		if d.Hole {
			return unmap(ctx, h.dst, d.Range)
		}
		return h.copyRange(ctx, next, d.Range, limit)
	})
}

// copyWindows is copyDifference for a destination outside of this machine. Where much is
// copied, what is there durably is noted from time to time: a copy that is interrupted goes on
// from there.
func (h *here) copyWindows(ctx context.Context, next, base *backstore.Snapshot, left blockdev.Range, limit *rate.Limiter) error {
	for left.Length > 0 {
		w := blockdev.Range{Offset: left.Offset, Length: min(left.Length, h.m.o.Window)}
		if err := h.copyWindow(ctx, next, base, w, limit); err != nil {
			return err
		}
		left.Offset, left.Length = left.Offset+w.Length, left.Length-w.Length
		if left.Length == 0 || h.copied() < h.m.o.Window {
			continue
		}
		if err := h.dst.Flush(ctx); err != nil {
			return err
		}
		if err := h.note(ctx, left.Offset); err != nil {
			return err
		}
	}
	return nil
}

// note records that the destination equals the next point in time up to an offset.
func (h *here) note(ctx context.Context, done int64) error {
	n := h.copied()
	err := h.store(ctx, func(r *record) { r.Done, r.Copied = done, r.Copied+n })
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.progress.total -= n
	h.progress.copied -= n
	h.mu.Unlock()
	h.m.step("part of a round noted")
	return nil
}

// copied returns what was copied and is not in the record yet.
func (h *here) copied() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.progress.copied
}

// copyWindow copies what differs in a range, several parts at once.
func (h *here) copyWindow(ctx context.Context, next, base *backstore.Snapshot, w blockdev.Range, limit *rate.Limiter) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(h.copies)
	err := differences(ctx, next, base, w, func(d backstore.Difference) error {
		step := int64(ratedStep)
		if d.Hole {
			step = holeStep
		}
		for r := d.Range; r.Length > 0; {
			part := blockdev.Range{Offset: r.Offset, Length: min(r.Length, step)}
			group.Go(func() error {
				if d.Hole {
					return h.dst.Unmap(ctx, part.Offset, part.Length)
				}
				return h.copyRange(ctx, next, part, limit)
			})
			r.Offset, r.Length = r.Offset+part.Length, r.Length-part.Length
		}
		return ctx.Err()
	})
	if failed := group.Wait(); failed != nil { // and err is that the others were to end
		return failed
	}
	return err
}

// differences calls fn with what differs in a range. Without a base that is all of it, as it is
// after the end of the base, which both sides have grown beyond: the destination can have had
// anything there.
func differences(ctx context.Context, next, base *backstore.Snapshot, w blockdev.Range, fn func(backstore.Difference) error) error {
	if base != nil {
		n := max(0, min(w.Length, base.Length()-w.Offset))
		if err := next.Diff(ctx, base, w.Offset, n, fn); err != nil {
			return err
		}
		w.Offset, w.Length = w.Offset+n, w.Length-n
	}
	at := w.Offset
	hole := func(end int64) error {
		if at == end {
			return nil
		}
		return fn(backstore.Difference{Range: blockdev.Range{Offset: at, Length: end - at}, Hole: true})
	}
	err := next.Diff(ctx, nil, w.Offset, w.Length, func(d backstore.Difference) error {
		if err := hole(d.Offset); err != nil {
			return err
		}
		at = d.Offset + d.Length
		return fn(d)
	})
	if err == nil {
		err = hole(w.Offset + w.Length)
	}
	return err
}

// limiter returns the bound on the rate; nil for none.
func (h *here) limiter() *rate.Limiter {
	r := h.copyRecord()
	if r.Rate == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(r.Rate), ratedStep)
}

// copyRange copies one range.
func (h *here) copyRange(ctx context.Context, from offload.Snapshot, r blockdev.Range, limit *rate.Limiter) error {
	moved := func(n int64) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.progress.copied += n
		h.progress.moved += n
	}
	for r.Length > 0 {
		n := r.Length
		if limit != nil {
			n = min(n, ratedStep)
			if err := limit.WaitN(ctx, int(n)); err != nil {
				return err
			}
		}
		if err := h.m.o.Engine.CopySnapshot(ctx, from, r.Offset, h.dst, r.Offset, n, moved); err != nil {
			return err
		}
		r.Offset, r.Length = r.Offset+n, r.Length-n
	}
	return nil
}

// unmap makes a range of a destination read as zeros.
func unmap(ctx context.Context, dst blockdev.Volume, r blockdev.Range) error {
	for r.Length > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(r.Length, unmapStep)
		if err := dst.Unmap(ctx, r.Offset, n); err != nil {
			return err
		}
		r.Offset, r.Length = r.Offset+n, r.Length-n
	}
	return nil
}
