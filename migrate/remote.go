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

// atPeer is a volume of another server.
type atPeer struct {
	*migration
	decided pair.Outcome // of the last cut
	refusal error        // why the destination did not take over
}

func (p *atPeer) short() time.Duration { return shortRemoteRound }

// release implements destination.
func (p *atPeer) release() {}

// chooseRemote checks a destination of another server as far as this one can.
func (m *Manager) chooseRemote(r admin.MigrationRequest, rec *record, peer, volume string) error {
	switch err := conf.CheckVolumeName(volume); {
	case err != nil:
		return fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	case peer == "":
		return fmt.Errorf("%w: no peer is named before the colon; use PEER:VOLUME", blockdev.ErrInvalid)
	case m.o.Pairs == nil:
		return fmt.Errorf("peer %s: %w", peer, backstore.ErrNotFound)
	case r.Overwrite:
		return fmt.Errorf("%w: a volume of another server is not overwritten; choose another name, or delete it there", blockdev.ErrInvalid)
	}
	if r.Portal != "" {
		if _, err := conf.ParseRemotePortal(r.Portal); err != nil {
			return fmt.Errorf("%w: portal %w", blockdev.ErrInvalid, err)
		}
		if err := m.o.Server.CheckRedirect(conf.Device{Volume: r.Volume}, r.Portal); err != nil {
			return err
		}
	}
	rec.ToPeer, rec.ToVolume, rec.Portal = peer, volume, r.Portal
	_, _ = rand.Read(rec.Pair[:]) // never fails
	return nil
}

// begin implements destination: the peer becomes the destination. After an error, a peer that does
// not answer is not waited for.
func (p *atPeer) begin(ctx context.Context) error {
	r := p.copyRecord()
	if err := p.m.o.Store.PutRecords(ctx, r.encode()); err != nil {
		return err
	}
	err := p.offer(ctx)
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if ended := p.m.o.Pairs.EndMove(ctx, r.Pair, false); ended != nil {
		err = errors.Join(err, p.m.o.Pairs.EndMove(ctx, r.Pair, true))
	}
	return err
}

// offer has the peer become the destination. It can be repeated.
func (p *atPeer) offer(ctx context.Context) error {
	r := p.copyRecord()
	identity, err := conf.ParseIdentity(r.Identity)
	if err != nil {
		return err
	}
	return p.m.o.Pairs.Offer(ctx, pair.Offer{ID: r.Pair, Peer: r.ToPeer, Volume: r.Volume, To: r.ToVolume, LUNs: p.m.o.Server.LUNs(p.from()), Identity: identity})
}

// resume implements destination.
func (p *atPeer) resume(ctx context.Context) (done bool, err error) {
	role, err := p.m.o.Pairs.RoleOf(p.copyRecord().Pair)
	switch {
	case errors.Is(err, pair.ErrNoPair):
		return false, nil
	case err != nil:
		return false, err
	case role == pair.Former: // given up by a cut that was interrupted
		return true, p.handOver(ctx)
	}
	return false, nil
}

// left implements destination.
func (p *atPeer) left() bool {
	role, err := p.m.o.Pairs.RoleOf(p.copyRecord().Pair)
	return role == pair.Former || err != nil && !errors.Is(err, pair.ErrNoPair)
}

// ready implements destination.
func (p *atPeer) ready(ctx context.Context, src *backstore.Volume) error {
	if err := p.serveHere(ctx, src); err != nil {
		return err
	}
	return p.offer(ctx)
}

// serveHere has the LUN be served here again, after a cut that was given up or interrupted.
func (p *atPeer) serveHere(ctx context.Context, src *backstore.Volume) error {
	err := src.Protect(ctx, protector, nil)
	if err == nil {
		err = p.m.o.Server.Away(ctx, p.from(), pair.Kept, "")
	}
	if err == nil && p.copyRecord().State != admin.MigrationCopying {
		err = p.store(ctx, func(r *record) { r.State = admin.MigrationCopying })
	}
	return err
}

// round implements destination: the peer does it.
func (p *atPeer) round(ctx context.Context, _ *backstore.Volume) (time.Duration, error) {
	r := p.copyRecord()
	p.beginRound(0)
	defer p.endRound()
	c, err := p.m.o.Pairs.CatchUp(ctx, r.Pair, r.Rate, p.heard)
	if err != nil {
		return 0, err
	}
	p.m.step("round of the destination")
	return c.Took, p.store(ctx, func(r *record) { r.Rounds++; r.Copied += c.Fetched })
}

// heard notes how far the round of the destination is.
func (p *atPeer) heard(far pair.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.moved += max(far.Fetched-p.progress.copied, 0)
	p.progress.total, p.progress.copied = far.Found, far.Fetched
}

// cut implements destination: it hands the LUN over.
func (p *atPeer) cut(ctx context.Context, src *backstore.Volume) error {
	r := p.copyRecord()
	before, err := p.m.o.Pairs.Points(r.Pair)
	if err != nil {
		return err
	}
	p.decided, p.refusal = pair.Unknown, nil
	d := Departure{From: p.from(), Portal: r.Portal}
	d.Last = func(ctx context.Context) error {
		if err := p.freeze(ctx, src); err != nil {
			return err
		}
		c, err := p.m.o.Pairs.CatchUp(ctx, r.Pair, 0, nil)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		p.m.step("last difference copied")
		// What follows is durable, and cannot be given up once it has begun.
		err = p.m.o.Pairs.GiveUp(context.WithoutCancel(ctx), r.Pair, c.Point, before)
		if role, known := p.m.o.Pairs.RoleOf(r.Pair); known == nil && role == pair.Former {
			err = nil
		}
		if err == nil {
			p.m.step("given up")
		}
		return err
	}
	d.Decide, d.Stays = p.decide, p.thaw(src)
	held, err := p.m.o.Server.Depart(ctx, d)
	p.countCut(held)
	return p.departed(context.WithoutCancel(ctx), src, held, err)
}

// departed does what is right for the outcome of a cut: the record of the pair says it.
func (p *atPeer) departed(ctx context.Context, src *backstore.Volume, held time.Duration, failed error) error {
	role, err := p.m.o.Pairs.RoleOf(p.copyRecord().Pair)
	switch {
	case err != nil:
		return errors.Join(failed, err)
	case role == pair.Former && p.decided == pair.Moved:
		return p.moved(ctx, held)
	case role == pair.Former:
		return errors.Join(failed, admin.ErrHandingOver)
	}
	return errors.Join(givenUp(held, errors.Join(failed, p.refusal)), p.serveHere(ctx, src))
}

// decide asks the destination to take over until it has answered, or until ctx ends.
func (p *atPeer) decide(ctx context.Context) pair.Outcome {
	r := p.copyRecord()
	outcome, err := pair.Unknown, error(nil)
	defer func() { p.decided, p.refusal = outcome, err }()
	err = p.store(ctx, func(r *record) { r.State = admin.MigrationHandingOver })
	if err != nil {
		p.log.WithError(err).Warn("migration: its state is not recorded")
	}
	for pause := askAgain; ; pause = min(2*pause, askAgainAtLast) {
		var units []pair.UnitRecord
		if units, err = p.m.o.Server.Units(p.from()); err == nil {
			outcome, err = p.m.o.Pairs.HandOver(ctx, r.Pair, units)
		}
		p.mu.Lock()
		p.progress.problem = err
		p.mu.Unlock()
		if outcome != pair.Unknown {
			if outcome == pair.Kept {
				p.log.WithError(err).Warn("migration: the destination does not take over; the LUN is served here on")
			}
			return outcome
		}
		p.log.WithError(err).Warn("migration: whether the destination has taken over is not known; it is asked again")
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
func (p *atPeer) handOver(ctx context.Context) error {
	src, err := p.volume()
	if err != nil {
		return err
	}
	if err := p.m.o.Server.Away(ctx, p.from(), pair.Unknown, ""); err != nil {
		return err
	}
	switch p.decide(ctx) {
	case pair.Moved:
		return p.moved(context.WithoutCancel(ctx), p.copyRecord().Cut)
	case pair.Kept:
		return p.serveHere(context.WithoutCancel(ctx), src)
	}
	return ctx.Err()
}

// settle implements destination: initiators are redirected.
func (p *atPeer) settle(ctx context.Context) error {
	r := p.copyRecord()
	if err := p.m.o.Server.Away(ctx, p.from(), pair.Moved, r.Portal); err != nil {
		p.log.WithError(err).Warn("migration: the LUN has moved, and initiators are not redirected")
	}
	return p.m.o.Pairs.Unpin(ctx, r.Pair)
}

// stay implements destination: the peer does not take over any more.
func (p *atPeer) stay(ctx context.Context) error {
	r := p.copyRecord()
	outcome, err := p.m.o.Pairs.TakeBack(ctx, r.Pair)
	switch {
	case errors.Is(err, pair.ErrNoPair):
		return nil
	case outcome == pair.Moved:
		return admin.ErrMigrated
	case outcome == pair.Unknown:
		return fmt.Errorf("%w: %w", admin.ErrHandingOver, err)
	}
	return p.m.o.Server.Away(ctx, p.from(), pair.Kept, "")
}

// drop implements destination. What the source keeps goes at once; the peer is asked to end
// the migration until it has answered.
func (p *atPeer) drop(ctx context.Context) error {
	r := p.copyRecord()
	if err := p.m.o.Pairs.Unpin(ctx, r.Pair); err != nil {
		return err
	}
	return p.m.o.Pairs.EndMove(ctx, r.Pair, false)
}

// leave implements destination: the migration ends on both sides.
func (p *atPeer) leave(ctx context.Context) error {
	if err := p.m.o.Server.Forget(ctx, p.from()); err != nil {
		return err
	}
	return p.m.o.Pairs.EndMove(ctx, p.copyRecord().Pair, false)
}
