package migrate

import (
	"context"
	"errors"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
)

const (
	// growingRounds is how many rounds in a row that do not become shorter make a migration
	// one that diverges.
	growingRounds = 4
	// firstPause and longestPause bound the pause after an error or a cut that failed; it
	// doubles each time.
	firstPause   = 50 * time.Millisecond
	longestPause = 10 * time.Second
)

// step calls the hook of tests.
func (m *Manager) step(name string) {
	if m.o.Reached != nil {
		m.o.Reached(name)
	}
}

// run goes on with a migration, until it has ended or ctx does.
func (g *migration) run(ctx context.Context) {
	defer g.to.release()
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
	if done, err := g.to.resume(ctx); done || err != nil {
		return err
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
	// Where thaw failed after a cut that was given up, or Thaw at the start, it is frozen still.
	if err := src.Protect(ctx, protector, nil); err != nil {
		return err
	}
	if err := g.to.ready(ctx, src); err != nil {
		return err
	}
	err = g.untilShort(func() (time.Duration, error) { return g.to.round(ctx, src) })
	if err == nil {
		err = g.mayLeave(src)
	}
	if err != nil {
		return err
	}
	return g.to.cut(ctx, src)
}

// mayLeave returns why there must not be a cut: a replica can have begun since the start.
func (g *migration) mayLeave(src *backstore.Volume) error {
	if g.m.o.Pairs == nil {
		return nil
	}
	return g.m.o.Pairs.CheckMove(src)
}

// untilShort does rounds until one is short enough for a cut.
func (g *migration) untilShort(round func() (took time.Duration, err error)) error {
	last, growing := time.Duration(0), 0
	for {
		took, err := round()
		if err != nil || took <= g.to.short() {
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

// restart has a migration go on that an abort has stopped and could not end. Resume does that for
// one that has not run yet.
func (m *Manager) restart(g *migration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed && !g.ended() && g.done != nil {
		m.begin(g)
	}
}
