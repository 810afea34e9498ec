package migrate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
)

// cut moves the LUN, or gives up before anything has changed: then rounds go on.
func (g *migration) cut(ctx context.Context, src *backstore.Volume, dst blockdev.Volume) error {
	r := g.copyRecord()
	identity, err := conf.ParseIdentity(r.Identity)
	if err != nil {
		return err
	}
	c := Cut{From: g.from(), To: r.to(), Identity: identity}
	c.Last = func(ctx context.Context) error {
		g.m.step("commands held")
		// Nothing else writes to it from here on: no client of the API, no aborted command
		// that is still under way.
		err := src.Protect(ctx, protector, &backstore.Protection{By: "the migration to " + r.to().String(), Frozen: true})
		if err != nil {
			return err
		}
		g.m.step("source frozen")
		if dst.Size() != src.Size() {
			return fmt.Errorf("%w: volume %s has been resized", blockdev.ErrInvalid, src.Name())
		}
		if err := g.point(ctx, src); err != nil {
			return err
		}
		if err := g.copyDifference(ctx, dst, nil); err != nil {
			return err
		}
		g.m.step("last difference copied")
		if err := dst.Flush(ctx); err != nil {
			return err
		}
		return ctx.Err() // a flush that has begun is waited for, however long it takes
	}
	c.Moved = func(ctx context.Context) {
		if err := g.m.o.References.EndReferences(ctx, src.ID()); err != nil {
			g.log.WithError(err).Warn("tokens that refer to the data of the volume in place have not all ended")
		}
	}
	c.Stays = g.thaw(src)
	held, err := g.m.o.Server.Cut(ctx, c)
	g.mu.Lock()
	g.rec.Cuts++
	g.rec.Longest = max(g.rec.Longest, held)
	g.mu.Unlock()
	// Whatever failed: where the LUN is decides.
	if id, served := g.m.o.Server.Serving(r.to()); served && conf.FormatIdentity(id) == r.Identity {
		return g.moved(context.WithoutCancel(ctx), held)
	}
	if err == nil {
		err = errors.New("the LUN has not moved")
	}
	return fmt.Errorf("the cut was given up after commands were held for %s: %w", held.Round(time.Millisecond), err)
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

// moved notes that the LUN is served from the destination. The source stays as it was at the
// cut.
func (g *migration) moved(ctx context.Context, held time.Duration) error {
	g.m.step("moved")
	g.m.o.Server.Limit(g.from(), 0)
	r := g.copyRecord()
	src, err := g.volume()
	if err == nil {
		err = src.Protect(ctx, protector, &backstore.Protection{By: "the migration to " + r.to().String() + ", until odx volume migrate finish " + r.Volume, Frozen: true})
		if ended := g.m.o.References.EndReferences(ctx, src.ID()); err == nil {
			err = ended
		}
	} else if errors.Is(err, backstore.ErrNotFound) {
		err = nil
	}
	if err != nil {
		return err
	}
	if r.ToVolume != "" {
		dst, err := g.m.o.Store.Volume(r.ToVolume)
		if err == nil {
			err = dst.Protect(ctx, protector, nil)
		}
		if err != nil {
			return err
		}
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
