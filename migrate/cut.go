package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/admin"
	"odx/backstore"
)

// freeze begins the last round of a cut, while commands are held.
func (g *migration) freeze(ctx context.Context, src *backstore.Volume) error {
	g.m.step("commands held")
	// Nothing else writes to it from here on: no client of the API, no aborted command that is
	// still under way.
	if err := src.Protect(ctx, protector, g.frozen("")); err != nil {
		return err
	}
	g.m.step("source frozen")
	return nil
}

// frozen returns the protection of the source from the cut on.
func (g *migration) frozen(until string) *backstore.Protection {
	r := g.copyRecord()
	return &backstore.Protection{By: "the migration to " + r.destination() + until, Frozen: true}
}

// thaw returns what lets the source be written to again, before commands that were held go on.
// If that fails, their writes do, and the next start of the cut or of the process does it.
func (g *migration) thaw(src *backstore.Volume) func(ctx context.Context) {
	return func(ctx context.Context) {
		if err := src.Protect(context.WithoutCancel(ctx), protector, nil); err != nil {
			g.log.WithError(err).Error("migration: the volume stays frozen after a cut that was given up")
		}
	}
}

// countCut counts an attempt to move the LUN.
func (g *migration) countCut(held time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rec.Cuts++
	g.rec.Longest = max(g.rec.Longest, held)
}

// givenUp is the error of a cut that was given up.
func givenUp(held time.Duration, why error) error {
	return fmt.Errorf("the cut was given up after commands were held for %s: %w", held.Round(time.Millisecond), why)
}

// moved notes that the LUN is served from the destination. The source stays as it was at the
// cut.
func (g *migration) moved(ctx context.Context, held time.Duration) error {
	g.m.step("moved")
	g.m.o.Server.Limit(g.from(), 0)
	src, err := g.volume()
	switch {
	case errors.Is(err, backstore.ErrNotFound):
	case err != nil:
		return err
	default:
		err := src.Protect(ctx, protector, g.frozen(", until odx volume migrate finish "+src.Name()))
		if ended := g.m.o.References.EndReferences(ctx, src.ID()); err == nil {
			err = ended
		}
		if err != nil {
			return err
		}
	}
	if err := g.to.settle(ctx); err != nil {
		return err
	}
	if err := g.dropSnapshots(ctx); err != nil {
		return err
	}
	err = g.store(ctx, func(r *record) {
		r.State, r.Cut, r.Ended, r.Problem = admin.MigrationMoved, held, time.Now().UTC(), ""
	})
	if err == nil {
		err = g.m.o.Store.Flush(ctx)
	}
	if err == nil {
		g.log.WithField("took", held.Round(time.Millisecond).String()).Info("migration: the LUN has moved; the volume that it has left stays until the migration is finished")
	}
	return err
}
