package migrate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/replica/pair"
)

// A migration to another server is driven from here; package pair says in which order who
// records what. The record of the pair decides which side serves, and the record here says
// what is left to do.

const (
	// shortRemoteRound is how long a round of another server may take for a cut to follow. It
	// flushes both stores several times, which the cut does too.
	shortRemoteRound = 400 * time.Millisecond
	// askAgain is the pause before the destination is asked again whether it has taken over,
	// at first; it doubles each time, up to askAgainAtLast.
	askAgain       = 20 * time.Millisecond
	askAgainAtLast = time.Second
)

// prepareRemote is prepare for a destination of another server. It lets go of mu while that is
// asked.
func (m *Manager) prepareRemote(ctx context.Context, r admin.MigrationRequest, rec record, peer, volume string) (*migration, error) {
	from := conf.Device{Volume: r.Volume}
	switch err := conf.CheckVolumeName(volume); {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	case peer == "":
		return nil, fmt.Errorf("%w: no peer is named before the colon; use PEER:VOLUME", blockdev.ErrInvalid)
	case m.o.Pairs == nil:
		return nil, fmt.Errorf("peer %s: %w", peer, backstore.ErrNotFound)
	case r.Overwrite:
		return nil, fmt.Errorf("%w: a volume of another server is not overwritten; choose another name, or delete it there", blockdev.ErrInvalid)
	}
	if r.Portal != "" {
		if _, err := conf.ParseRemotePortal(r.Portal); err != nil {
			return nil, fmt.Errorf("%w: portal %w", blockdev.ErrInvalid, err)
		}
		if err := m.o.Server.CheckRedirect(from, r.Portal); err != nil {
			return nil, err
		}
	}
	rec.ToPeer, rec.ToVolume, rec.Portal = peer, volume, r.Portal
	_, _ = rand.Read(rec.Pair[:]) // never fails
	if err := m.o.Store.PutRecords(ctx, rec.encode()); err != nil {
		return nil, err
	}
	g := newMigration(m, rec)
	g.ending.Lock() // it is not aborted before it has begun
	defer g.ending.Unlock()
	m.all[r.Volume] = g
	m.running.Add(1)
	defer m.running.Done()
	m.mu.Unlock()
	err := g.begins(ctx)
	m.mu.Lock()
	if err == nil {
		return g, nil
	}
	delete(m.all, r.Volume)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.rec.State = admin.MigrationAborted // for an abort that waits
	return nil, err
}

// begins has the peer become the destination, or leaves nothing.
func (g *migration) begins(ctx context.Context) error {
	r := g.copyRecord()
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(g.m.base, cancel)()
	err := g.offer(limited)
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if ended := g.m.o.Pairs.EndMove(ctx, r.Pair, false); ended != nil {
		err = errors.Join(err, g.m.o.Pairs.EndMove(ctx, r.Pair, true))
	}
	return errors.Join(err, g.m.o.Store.PutRecords(ctx, backstore.Record{Key: r.key()}), g.m.o.Store.Flush(ctx))
}

// offer has the peer become the destination. It can be repeated.
func (g *migration) offer(ctx context.Context) error {
	r := g.copyRecord()
	identity, err := conf.ParseIdentity(r.Identity)
	if err != nil {
		return err
	}
	return g.m.o.Pairs.Offer(ctx, pair.Offer{ID: r.Pair, Peer: r.ToPeer, Volume: r.Volume, To: r.ToVolume, LUNs: g.m.o.Server.LUNs(g.from()), Identity: identity})
}

// advanceRemote does the next part of a migration to another server.
func (g *migration) advanceRemote(ctx context.Context, r *record) error {
	role, err := g.m.o.Pairs.RoleOf(r.Pair)
	if err != nil && !errors.Is(err, pair.ErrNoPair) {
		return err
	}
	if role == pair.Former { // given up by a cut that was interrupted
		return g.handOver(ctx)
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
	if err := g.serveHere(ctx, src); err != nil {
		return err
	}
	if err := g.offer(ctx); err != nil {
		return err
	}
	err = g.untilShort(shortRemoteRound, func() (time.Duration, error) { return g.remoteRound(ctx) })
	if err == nil {
		err = g.mayLeave(src)
	}
	if err != nil {
		return err
	}
	return g.depart(ctx, src)
}

// serveHere has the LUN be served here again, after a cut that was given up or interrupted.
func (g *migration) serveHere(ctx context.Context, src *backstore.Volume) error {
	err := src.Protect(ctx, protector, nil)
	if err == nil {
		err = g.m.o.Server.Away(ctx, g.from(), pair.Kept, "")
	}
	if err == nil && g.copyRecord().State != admin.MigrationCopying {
		err = g.store(ctx, func(r *record) { r.State = admin.MigrationCopying })
	}
	return err
}

// remoteRound has the destination do a round.
func (g *migration) remoteRound(ctx context.Context) (time.Duration, error) {
	r := g.copyRecord()
	g.beginRound(0)
	defer g.endRound()
	c, err := g.m.o.Pairs.CatchUp(ctx, r.Pair, r.Rate, g.heard)
	if err != nil {
		return 0, err
	}
	g.m.step("round of the destination")
	return c.Took, g.store(ctx, func(r *record) { r.Rounds++; r.Copied += c.Fetched })
}

// heard notes how far the round of the destination is.
func (g *migration) heard(p pair.Progress) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.progress.moved += max(p.Fetched-g.progress.copied, 0)
	g.progress.total, g.progress.copied = p.Found, p.Fetched
}

// depart hands the LUN over, or gives up before anything has changed: then rounds go on.
func (g *migration) depart(ctx context.Context, src *backstore.Volume) error {
	r := g.copyRecord()
	before, err := g.m.o.Pairs.Points(r.Pair)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.decided, g.refusal = pair.Unknown, nil
	g.mu.Unlock()
	d := Departure{From: g.from(), Portal: r.Portal}
	d.Last = func(ctx context.Context) error {
		g.m.step("commands held")
		// Nothing else writes to it from here on: no client of the API, no aborted command
		// that is still under way.
		err := src.Protect(ctx, protector, &backstore.Protection{By: "the migration to " + r.destination(), Frozen: true})
		if err != nil {
			return err
		}
		g.m.step("source frozen")
		c, err := g.m.o.Pairs.CatchUp(ctx, r.Pair, 0, nil)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		g.m.step("last difference copied")
		// What follows is durable, and cannot be given up once it has begun.
		err = g.m.o.Pairs.GiveUp(context.WithoutCancel(ctx), r.Pair, c.Point, before)
		if role, known := g.m.o.Pairs.RoleOf(r.Pair); known == nil && role == pair.Former {
			err = nil
		}
		if err == nil {
			g.m.step("given up")
		}
		return err
	}
	d.Decide, d.Stays = g.decide, g.thaw(src)
	held, err := g.m.o.Server.Depart(ctx, d)
	g.mu.Lock()
	g.rec.Cuts++
	g.rec.Longest = max(g.rec.Longest, held)
	g.mu.Unlock()
	return g.departed(context.WithoutCancel(ctx), src, held, err)
}

// departed does what is right for the outcome of a cut: the record of the pair says it.
func (g *migration) departed(ctx context.Context, src *backstore.Volume, held time.Duration, failed error) error {
	role, err := g.m.o.Pairs.RoleOf(g.copyRecord().Pair)
	switch {
	case err != nil:
		return errors.Join(failed, err)
	case role == pair.Former && g.outcome() == pair.Moved:
		return g.gone(ctx, held)
	case role == pair.Former:
		return errors.Join(failed, admin.ErrHandingOver)
	}
	g.mu.Lock()
	failed = errors.Join(failed, g.refusal)
	g.mu.Unlock()
	return errors.Join(fmt.Errorf("the cut was given up after commands were held for %s: %w", held.Round(time.Millisecond), failed), g.serveHere(ctx, src))
}

func (g *migration) outcome() pair.Outcome {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.decided
}

// decide asks the destination to take over until it has answered, or until ctx ends.
func (g *migration) decide(ctx context.Context) pair.Outcome {
	r := g.copyRecord()
	outcome, err := pair.Unknown, error(nil)
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.decided, g.refusal = outcome, err
	}()
	err = g.store(ctx, func(r *record) { r.State = admin.MigrationHandingOver })
	if err != nil {
		g.log.WithError(err).Warn("migration: its state is not recorded")
	}
	for pause := askAgain; ; pause = min(2*pause, askAgainAtLast) {
		var units []pair.UnitRecord
		if units, err = g.m.o.Server.Units(g.from()); err == nil {
			outcome, err = g.m.o.Pairs.HandOver(ctx, r.Pair, units)
		}
		g.mu.Lock()
		g.progress.problem = err
		g.mu.Unlock()
		if outcome != pair.Unknown {
			if outcome == pair.Kept {
				g.log.WithError(err).Warn("migration: the destination does not take over; the LUN is served here on")
			}
			return outcome
		}
		g.log.WithError(err).Warn("migration: whether the destination has taken over is not known; it is asked again")
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return outcome
		}
	}
}

// handOver goes on with a cut that was interrupted after the LUN was given up.
func (g *migration) handOver(ctx context.Context) error {
	src, err := g.volume()
	if err != nil {
		return err
	}
	if err := g.m.o.Server.Away(ctx, g.from(), pair.Unknown, ""); err != nil {
		return err
	}
	switch g.decide(ctx) {
	case pair.Moved:
		return g.gone(context.WithoutCancel(ctx), g.copyRecord().Cut)
	case pair.Kept:
		return g.serveHere(context.WithoutCancel(ctx), src)
	}
	return ctx.Err()
}

// gone notes that the LUN is served by the destination. The source stays as it was at the cut.
func (g *migration) gone(ctx context.Context, held time.Duration) error {
	g.m.step("moved")
	g.m.o.Server.Limit(g.from(), 0)
	r := g.copyRecord()
	src, err := g.volume()
	if err != nil {
		return err
	}
	err = src.Protect(ctx, protector, &backstore.Protection{By: "the migration to " + r.destination() + ", until odx volume migrate finish " + r.Volume, Frozen: true})
	if ended := g.m.o.References.EndReferences(ctx, src.ID()); err == nil {
		err = ended
	}
	if err != nil {
		return err
	}
	if err := g.m.o.Server.Away(ctx, g.from(), pair.Moved, r.Portal); err != nil {
		g.log.WithError(err).Warn("migration: the LUN has moved, and initiators are not redirected")
	}
	if err := g.m.o.Pairs.Unpin(ctx, r.Pair); err != nil {
		return err
	}
	err = g.store(ctx, func(r *record) {
		r.State, r.Cut, r.Ended, r.Problem = admin.MigrationMoved, held, time.Now().UTC(), ""
	})
	if err == nil {
		err = g.m.o.Store.Flush(ctx)
	}
	if err == nil {
		g.log.WithField("took", held.Round(time.Millisecond).String()).Info("migration: the LUN has moved to another server; the volume that it has left stays until the migration is finished")
	}
	return err
}

// stayHere makes sure that the destination does not take over, before a migration is aborted.
func (g *migration) stayHere(ctx context.Context) error {
	r := g.copyRecord()
	outcome, err := g.m.o.Pairs.TakeBack(ctx, r.Pair)
	switch {
	case errors.Is(err, pair.ErrNoPair):
		return nil
	case outcome == pair.Moved:
		return admin.ErrMigrated
	case outcome == pair.Unknown:
		return fmt.Errorf("%w: %w", admin.ErrHandingOver, err)
	}
	return g.m.o.Server.Away(ctx, g.from(), pair.Kept, "")
}

// dropRemote ends a migration that is aborting. What the source keeps goes at once; the
// destination is asked to end it until it has answered.
func (g *migration) dropRemote(ctx context.Context) error {
	r := g.copyRecord()
	if err := g.m.o.Pairs.Unpin(ctx, r.Pair); err != nil {
		return err
	}
	return g.m.o.Pairs.EndMove(ctx, r.Pair, false)
}

// leave ends a migration that has moved its LUN, on both sides, before its source is released.
func (g *migration) leave(ctx context.Context) error {
	if err := g.m.o.Server.Forget(ctx, g.from()); err != nil {
		return err
	}
	return g.m.o.Pairs.EndMove(ctx, g.copyRecord().Pair, false)
}

// restart has a migration go on that an abort has stopped and could not end.
func (m *Manager) restart(g *migration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed && !g.ended() {
		m.begin(g)
	}
}
