package migrate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
)

// migration is one migration.
type migration struct {
	m   *Manager
	log *logrus.Entry
	to  destination
	// before is the record of an earlier migration of the volume that was aborted, if there
	// was one; written once.
	before *record

	cancel context.CancelFunc // of run; nil if it does not run
	done   chan struct{}      // closed once run has ended
	ending sync.Mutex         // serializes abort and finish

	mu       sync.Mutex // guards what follows
	rec      record     // as the store has it, or will have it next
	progress progress
}

// progress is what is known of the round that runs.
type progress struct {
	total, copied  int64         // bytes; total is 0 before it is known
	began          time.Time     // of the round
	moved          int64         // bytes, of all rounds of this process
	took           time.Duration // of all rounds of this process that have ended
	diverges, slow bool
	problem        error
}

func newMigration(m *Manager, r record) *migration {
	g := &migration{m: m, rec: r, log: m.o.Log.WithField("volume", r.Volume).WithField("to", r.destination())}
	g.to = newDestination(g)
	return g
}

func (g *migration) copyRecord() record {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rec
}

// ended reports whether nothing is left to do.
func (g *migration) ended() bool {
	switch g.copyRecord().State {
	case admin.MigrationMoved, admin.MigrationAborted:
		return true
	}
	return false
}

// update changes the record, and stores it in the same step as put does something else.
func (g *migration) update(change func(*record), put func(rec backstore.Record) error) error {
	g.mu.Lock()
	next := g.rec
	g.mu.Unlock()
	change(&next)
	if err := put(next.encode()); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if next.Rounds != g.rec.Rounds { // what was copied in the round is in the record now
		g.progress.total, g.progress.copied = 0, 0
	}
	g.rec = next
	return nil
}

// store is update with nothing else.
func (g *migration) store(ctx context.Context, change func(*record)) error {
	return g.update(change, func(rec backstore.Record) error { return g.m.o.Store.PutRecords(ctx, rec) })
}

// volume returns the volume that is moved.
func (g *migration) volume() (*backstore.Volume, error) {
	r := g.copyRecord()
	v, err := g.m.o.Store.Volume(r.Volume)
	if err == nil && fmt.Sprintf("%x", v.ID()) != r.ID {
		err = fmt.Errorf("volume %s: %w: another one has its name", r.Volume, backstore.ErrNotFound)
	}
	return v, err
}

// abort ends a migration whose LUN has not moved. What a destination that does not answer has
// is removed later.
func (g *migration) abort(ctx context.Context) error {
	g.ending.Lock()
	defer g.ending.Unlock()
	if g.cancel != nil {
		g.cancel()
		select { // a cut that is under way comes to its end first, one way or the other
		case <-g.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	switch g.copyRecord().State {
	case admin.MigrationMoved:
		return admin.ErrMigrated
	case admin.MigrationAborted:
		return nil
	}
	if err := g.to.stay(ctx); err != nil {
		g.m.restart(g)
		return err
	}
	err := g.giveUp(ctx, "aborted by an administrator")
	if err == nil {
		return nil
	}
	g.mu.Lock()
	g.progress.problem = err
	aborting := g.rec.State == admin.MigrationAborting
	g.mu.Unlock()
	g.m.restart(g)
	if aborting { // it is decided, and what is left goes on in the background
		return nil
	}
	return err
}

// giveUp makes a migration aborted for good, and removes what was made for it. The LUN is
// served from the source.
func (g *migration) giveUp(ctx context.Context, why string) error {
	err := g.store(ctx, func(r *record) { r.State, r.Problem = admin.MigrationAborting, why })
	if err == nil {
		err = g.m.o.Store.Flush(ctx) // from here on it does not go on
	}
	if err != nil {
		return err
	}
	g.m.step("aborting")
	return g.clean(ctx)
}

// clean ends a migration that is aborting.
func (g *migration) clean(ctx context.Context) error {
	g.m.o.Server.Limit(g.from(), 0)
	if src, err := g.volume(); err == nil {
		if err := src.Protect(ctx, protector, nil); err != nil {
			return err
		}
	}
	if err := errors.Join(g.dropSnapshots(ctx), g.to.drop(ctx)); err != nil {
		return err
	}
	g.m.step("cleaned")
	err := g.store(ctx, func(r *record) { r.State, r.Ended = admin.MigrationAborted, time.Now().UTC() })
	if err == nil {
		err = g.m.o.Store.Flush(ctx)
	}
	if err == nil {
		g.log.WithField("cause", g.copyRecord().Problem).Warn("migration aborted: the LUN stays where it is")
	}
	return err
}

// unrecord removes the record of a migration that has not begun.
func (g *migration) unrecord(ctx context.Context) error {
	r := g.copyRecord()
	rec := backstore.Record{Key: r.key()}
	if g.before != nil {
		rec = g.before.encode()
	}
	return errors.Join(g.m.o.Store.PutRecords(ctx, rec), g.m.o.Store.Flush(ctx))
}

// dropSnapshots deletes the snapshots of the record.
func (g *migration) dropSnapshots(ctx context.Context) error {
	for _, field := range []func(*record) *uint64{func(r *record) *uint64 { return &r.Next }, func(r *record) *uint64 { return &r.Base }} {
		r := g.copyRecord()
		id := *field(&r)
		if id == 0 {
			continue
		}
		err := g.update(func(r *record) { *field(r) = 0 }, func(rec backstore.Record) error {
			return g.m.o.Store.DeleteSnapshot(ctx, id, rec)
		})
		if errors.Is(err, backstore.ErrNotFound) {
			err = g.store(ctx, func(r *record) { *field(r) = 0 })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// finish forgets a migration that has ended.
func (g *migration) finish(ctx context.Context, keepSource bool) error {
	g.ending.Lock()
	defer g.ending.Unlock()
	r := g.copyRecord()
	switch r.State {
	case admin.MigrationMoved:
		if err := g.to.leave(ctx); err != nil {
			return err
		}
		if err := g.releaseSource(ctx, !keepSource); err != nil {
			return err
		}
	case admin.MigrationAborted:
	default:
		return admin.ErrMigrating
	}
	err := g.m.o.Store.PutRecords(ctx, backstore.Record{Key: r.key()})
	if err == nil {
		err = g.m.o.Store.Flush(ctx)
	}
	return err
}

// releaseSource gives the source of a migration that has moved its LUN back to the
// administrator, or deletes it.
func (g *migration) releaseSource(ctx context.Context, remove bool) error {
	if err := g.dropSnapshots(ctx); err != nil {
		return err
	}
	src, err := g.volume()
	if errors.Is(err, backstore.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = src.Protect(ctx, protector, nil)
	}
	if err != nil || !remove {
		return err
	}
	if _, served := g.m.o.Server.Serving(g.from()); served {
		return fmt.Errorf("%w as a LUN: take that out of the configuration, or keep it", admin.ErrInUse)
	}
	return g.m.o.Store.DeleteVolume(ctx, g.copyRecord().Volume)
}

func (g *migration) from() conf.Device { return conf.Device{Volume: g.copyRecord().Volume} }

// status describes the migration.
func (g *migration) status() admin.Migration {
	g.mu.Lock()
	defer g.mu.Unlock()
	r, p := &g.rec, &g.progress
	s := admin.Migration{
		Volume: r.Volume, To: r.destination(), Peer: r.ToPeer, State: r.State, Rounds: r.Rounds, CopiedBytes: r.Copied, RoundBytes: p.total, RoundCopied: p.copied,
		Diverges: p.diverges, Throttled: p.slow, Cuts: r.Cuts, Cut: r.Cut, LongestCut: r.Longest, Problem: r.Problem, Began: r.Began, Ended: r.Ended,
	}
	if v, err := g.m.o.Store.Volume(r.Volume); err == nil {
		s.SizeBytes = v.Size()
	}
	if p.problem != nil && s.Ended.IsZero() { // afterwards the record has why it has ended
		s.Problem = p.problem.Error()
	}
	took := p.took
	if !p.began.IsZero() {
		took += time.Since(p.began)
	}
	if seconds := took.Seconds(); seconds > 0 {
		s.BytesPerSecond = int64(float64(p.moved) / seconds)
	}
	if s.State == admin.MigrationCopying && s.BytesPerSecond > 0 {
		s.Remaining = time.Duration(float64(max(p.total-p.copied, 0)) / float64(s.BytesPerSecond) * float64(time.Second))
	}
	return s
}
