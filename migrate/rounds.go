package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/offload"
)

const (
	// shortRound is how long the copying of a round may take for a cut to follow: what is
	// written in that time is copied in the cut.
	shortRound = 250 * time.Millisecond
	// growingRounds is how many rounds in a row that do not become shorter make a migration
	// one that diverges.
	growingRounds = 4
	// firstPause and longestPause bound the pause after an error or a cut that failed; it
	// doubles each time.
	firstPause   = 50 * time.Millisecond
	longestPause = 10 * time.Second
	// unmapStep is how many bytes are unmapped at once, and ratedStep how many are copied at
	// once where there is a bound on the rate.
	unmapStep = 1 << 30
	ratedStep = 1 << 20
)

// step calls the hook of tests.
func (m *Manager) step(name string) {
	if m.o.Reached != nil {
		m.o.Reached(name)
	}
}

// run goes on with a migration, until it has ended or ctx does.
func (g *migration) run(ctx context.Context) {
	pause := firstPause
	for ctx.Err() == nil {
		err := g.advance(ctx)
		if g.ended() {
			return
		}
		g.mu.Lock()
		g.progress.problem = err
		g.mu.Unlock()
		if err == nil {
			pause = firstPause
			continue
		}
		if ctx.Err() == nil {
			g.log.WithError(err).Warn("migration: tried again")
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		pause = min(2*pause, longestPause)
	}
}

// advance does the next part: what is left of an end, or rounds and a cut.
func (g *migration) advance(ctx context.Context) error {
	r := g.copyRecord()
	if r.State == admin.MigrationAborting {
		return g.clean(ctx)
	}
	if r.remote() {
		return g.advanceRemote(ctx, &r)
	}
	// Where the LUN is decides, not what the record says last.
	if id, served := g.m.o.Server.Serving(r.to()); served {
		if conf.FormatIdentity(id) == r.Identity {
			return g.moved(ctx, r.Cut)
		}
		return g.giveUp(ctx, "the destination has become a LUN of its own")
	}
	if id, served := g.m.o.Server.Serving(g.from()); !served || conf.FormatIdentity(id) != r.Identity {
		return g.giveUp(ctx, "the volume is no LUN any more")
	}
	src, err := g.volume()
	if errors.Is(err, backstore.ErrNotFound) {
		return g.giveUp(ctx, "the volume was deleted")
	}
	if err != nil {
		return err
	}
	// A cut that the end of the process interrupted has left it frozen.
	if err := src.Protect(ctx, protector, nil); err != nil {
		return err
	}
	dst, err := g.open(ctx)
	if err != nil {
		return err
	}
	return g.follow(ctx, src, dst)
}

// follow copies rounds until one is short, and cuts.
func (g *migration) follow(ctx context.Context, src *backstore.Volume, dst blockdev.Volume) error {
	if err := g.fit(ctx, src, dst); err != nil {
		return err
	}
	err := g.untilShort(shortRound, func() (time.Duration, error) { return g.round(ctx, src, dst) })
	if err == nil {
		err = g.mayLeave(src)
	}
	if err != nil {
		return err
	}
	return g.cut(ctx, src, dst)
}

// mayLeave returns why there must not be a cut: a replica can have begun since the start.
func (g *migration) mayLeave(src *backstore.Volume) error {
	if g.m.o.Pairs == nil {
		return nil
	}
	return g.m.o.Pairs.CheckMove(src)
}

// untilShort does rounds until one takes no longer than short.
func (g *migration) untilShort(short time.Duration, round func() (took time.Duration, err error)) error {
	last, growing := time.Duration(0), 0
	for {
		took, err := round()
		if err != nil || took <= short {
			return err
		}
		if last > 0 && took >= last*9/10 {
			growing++
		} else {
			growing = 0
		}
		g.watch(growing >= growingRounds)
		last = took
	}
}

// watch notes whether rounds become shorter, and holds initiators back if that was asked for.
func (g *migration) watch(diverges bool) {
	g.mu.Lock()
	changed := diverges && !g.progress.diverges
	g.progress.diverges = diverges
	throttle := g.rec.Throttle
	if changed && throttle > 0 {
		g.progress.slow = true
	}
	g.mu.Unlock()
	if !changed {
		return
	}
	if throttle > 0 {
		g.m.o.Server.Limit(g.from(), throttle)
		g.log.Warn("migration: rounds do not become shorter; initiators are held back from now on")
		return
	}
	g.log.Warn("migration: rounds do not become shorter, since as much is written as is copied; it goes on, and ends once less is written, or start it again with a throttle")
}

// fit makes the destination as large as the source, which can have grown.
func (g *migration) fit(ctx context.Context, src *backstore.Volume, dst blockdev.Volume) error {
	if dst.Size() == src.Size() {
		return nil
	}
	own, ok := dst.(*backstore.Volume)
	if !ok || dst.Size() > src.Size() {
		return fmt.Errorf("%w: volume %s has %s now, and the destination has %s", blockdev.ErrInvalid, src.Name(), conf.FormatSize(src.Size()), conf.FormatSize(dst.Size()))
	}
	return own.Grow(ctx, src.Size())
}

// round copies what was written since the last one. A round that was interrupted comes first,
// with what it was to copy: parts of it are at the destination. It returns how long the copying
// took.
func (g *migration) round(ctx context.Context, src *backstore.Volume, dst blockdev.Volume) (took time.Duration, err error) {
	if r := g.copyRecord(); r.Next != 0 {
		if _, err := g.copyNext(ctx, dst); err != nil {
			return 0, err
		}
	}
	if err := g.point(ctx, src); err != nil {
		return 0, err
	}
	g.m.step("point taken")
	// A destination outside of the store is not in one order with its record.
	if err := g.m.o.Store.Flush(ctx); err != nil {
		return 0, err
	}
	return g.copyNext(ctx, dst)
}

// point takes the next point in time.
func (g *migration) point(ctx context.Context, src *backstore.Volume) error {
	var n *backstore.Snapshot
	err := g.takeNext(func(recs func(id uint64) []backstore.Record) (err error) {
		n, err = src.Snapshot(ctx, []blockdev.Range{{Length: src.Size()}}, recs)
		return err
	})
	if err == nil {
		n.Release() // the record keeps it
	}
	return err
}

// takeNext has take make a snapshot and store the record with it.
func (g *migration) takeNext(take func(recs func(id uint64) []backstore.Record) error) error {
	next := g.copyRecord()
	err := take(func(id uint64) []backstore.Record {
		next.Next = id
		return []backstore.Record{next.encode()}
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rec.Next = next.Next
	return nil
}

// copyNext makes the destination equal to the next point in time, durably, which is the base
// of the one after it.
func (g *migration) copyNext(ctx context.Context, dst blockdev.Volume) (took time.Duration, err error) {
	began := time.Now()
	err = g.copyDifference(ctx, dst, g.limiter())
	if err == nil {
		err = dst.Flush(ctx)
	}
	if err != nil {
		return 0, err
	}
	took = time.Since(began)
	g.m.step("difference copied")
	r := g.copyRecord()
	change := func(to *record) {
		g.mu.Lock()
		defer g.mu.Unlock()
		to.Base, to.Next = r.Next, 0
		to.Rounds++
		to.Copied += g.progress.copied
	}
	if r.Base == 0 {
		return took, g.store(ctx, change)
	}
	err = g.update(change, func(rec backstore.Record) error { return g.m.o.Store.DeleteSnapshot(ctx, r.Base, rec) })
	g.m.step("round ended")
	return took, err
}

// copyDifference copies what differs between the base and the next point in time, at a rate
// that limit, which may be nil, bounds.
func (g *migration) copyDifference(ctx context.Context, dst blockdev.Volume, limit *rate.Limiter) error {
	r := g.copyRecord()
	next, err := g.m.o.Store.Snapshot(r.Next)
	if err != nil {
		return err
	}
	defer next.Release()
	var base *backstore.Snapshot
	if r.Base != 0 {
		if base, err = g.m.o.Store.Snapshot(r.Base); err != nil {
			return err
		}
		defer base.Release()
	} else if err := g.clear(ctx, dst); err != nil {
		return err
	}
	var total int64
	count := func(d backstore.Difference) error {
		if !d.Hole {
			total += d.Length
		}
		return nil
	}
	if err := next.Diff(ctx, base, 0, next.Length(), count); err != nil {
		return err
	}
	g.beginRound(total)
	defer g.endRound()
	return next.Diff(ctx, base, 0, next.Length(), func(d backstore.Difference) error {
		if d.Hole {
			return unmap(ctx, dst, d.Range)
		}
		return g.copyRange(ctx, next, dst, d.Range, limit)
	})
}

// limiter returns the bound on the rate; nil for none.
func (g *migration) limiter() *rate.Limiter {
	r := g.copyRecord()
	if r.Rate == 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(r.Rate), ratedStep)
}

func (g *migration) beginRound(total int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.progress.total, g.progress.copied, g.progress.began = total, 0, time.Now()
}

func (g *migration) endRound() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.progress.took += time.Since(g.progress.began)
	g.progress.began = time.Time{}
}

// copyRange copies one range.
func (g *migration) copyRange(ctx context.Context, from offload.Snapshot, dst blockdev.Volume, r blockdev.Range, limit *rate.Limiter) error {
	moved := func(n int64) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.progress.copied += n
		g.progress.moved += n
	}
	for r.Length > 0 {
		n := r.Length
		if limit != nil {
			n = min(n, ratedStep)
			if err := limit.WaitN(ctx, int(n)); err != nil {
				return err
			}
		}
		if err := g.m.o.Engine.CopySnapshot(ctx, from, r.Offset, dst, r.Offset, n, moved); err != nil {
			return err
		}
		r.Offset, r.Length = r.Offset+n, r.Length-n
	}
	return nil
}

// clear makes the destination read as zeros before the first round.
func (g *migration) clear(ctx context.Context, dst blockdev.Volume) error {
	return unmap(ctx, dst, blockdev.Range{Length: dst.Size()})
}

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
