package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/migrate"
	"odx/offload/view"
	"odx/target/scsi"
)

var _ migrate.Server = migrated{}

// migrated is a service as what package migrate needs of it.
type migrated struct{ *Service }

// Serving implements migrate.Server.
func (s migrated) Serving(d conf.Device) (identity [16]byte, ok bool) {
	st := s.state.Load()
	for _, l := range st.luns {
		if l.Medium() == mediumOf(d) {
			if lu := st.unit(l.Medium()); lu != nil {
				return lu.ID(), true
			}
			return l.Identity, true
		}
	}
	return identity, false
}

// mediumOf returns conf.LUN.Medium of a LUN on a device.
func mediumOf(d conf.Device) string {
	return (&conf.LUN{Volume: d.Volume, View: d.View, File: d.File, Backing: d.Backing, ISCSI: d.ISCSI}).Medium()
}

// Open implements migrate.Server.
func (s migrated) Open(_ context.Context, d conf.Device) (blockdev.Volume, error) {
	st := s.state.Load()
	switch {
	case d.View == "":
		return s.store.Volume(d.Volume)
	case st.views.devices[d.View] != nil:
		return view.NewStack(st.views.devices[d.View], st.views.gate(d.View)), nil
	}
	if why := st.media.leftOut[viewMedium(d.View)]; why != nil {
		return nil, why
	}
	return nil, fmt.Errorf("view %s: %w", d.View, backstore.ErrNotFound)
}

// Limit implements migrate.Server.
func (s migrated) Limit(d conf.Device, bytesPerSecond int64) {
	s.throttled.set(mediumOf(d), bytesPerSecond)
	s.limit(s.state.Load())
}

// cutLast is how much of the bound on a cut is left for what follows the last difference:
// the configuration file is replaced, durably.
const cutLast = migrate.Bound / 4

// cutBound is the bound on a cut until its last step.
const cutBound = migrate.Bound - cutLast

// Cut implements migrate.Server. It is a change of the configuration: the LUNs on the source
// get another medium, and their logical units go on.
func (s migrated) Cut(ctx context.Context, c migrate.Cut) (held time.Duration, err error) {
	m := &move{cut: c}
	_, err = s.change(ctx, "migrate volume "+c.From.String(), func(path string) (*proposal, error) {
		before, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("configuration %s: %w", path, err)
		}
		text, err := conf.Apply(path, before, s.movesOf(c)...)
		if err != nil {
			return nil, err
		}
		cfg, err := s.Configuration().Again(text)
		return &proposal{cfg: cfg, replaces: before, move: m}, err
	})
	return m.took, err
}

// movesOf returns the edits that move the LUNs on the source. The identity is left out where
// it is the destination's own.
func (s migrated) movesOf(c migrate.Cut) (edits []conf.Edit) {
	identity := c.Identity
	if v, err := s.store.Volume(c.To.Volume); c.To.Volume != "" && err == nil && s.store.Identify(v.ID()) == identity {
		identity = [16]byte{}
	}
	for t, l := range s.state.Load().luns {
		if l.Medium() == mediumOf(c.From) {
			edits = append(edits, conf.MoveLUN{Target: t.Name, Number: l.Number, To: c.To, Login: c.Login, Identity: identity})
		}
	}
	return edits
}

// move is the part of a transition that gives a logical unit another medium. nil: there is
// none.
type move struct {
	cut  migrate.Cut
	unit *unit           // with the medium that it gets
	to   blockdev.Volume // that medium
	name string          // of it, for the copy manager
	// freed ends the hold of commands; last: cut.Last was called, and the LUN is not there yet.
	freed func()
	last  bool
	began time.Time
	took  time.Duration
}

// takes reports whether LUNs on a medium take over the logical unit of the source.
func (m *move) takes(medium string) bool { return m != nil && medium == mediumOf(m.cut.To) }

// moveUnit makes the logical unit on the source that of a LUN on the destination.
func (t *transition) moveUnit(ctx context.Context, l *conf.LUN) error {
	m, s := t.move, t.service
	if m.unit != nil { // LUNs of several targets on one medium
		t.next.units[l.Medium()] = m.unit
		return nil
	}
	was := t.now.units[mediumOf(m.cut.From)]
	if was == nil || was.lu.ID() != m.cut.Identity {
		return fmt.Errorf("%w: %s is not served as the LUN that is to be moved", blockdev.ErrInvalid, mediumOf(m.cut.From))
	}
	u := &unit{lu: was.lu, identity: l.Identity, since: was.since}
	var c scsi.LUConfig
	if err := s.openMedium(ctx, t.next, l, u, &c); err != nil {
		return err
	}
	if u.snapshot || c.Volume.Size() != was.lu.Volume().Size() {
		return fmt.Errorf("%w: %s is read-only, or has another size than the source", blockdev.ErrInvalid, l.Medium())
	}
	m.unit, m.to, m.name = u, c.Volume, nameOfMedium(l)
	t.next.units[l.Medium()] = u
	return nil
}

// errCopying: a copy is under way that would go on with the old volume.
var errCopying = errors.New("a copy in the background reads or writes the LUN; the cut waits for its end")

// hold holds the commands of the logical unit, and has the last difference copied. After an
// error they go on.
func (m *move) hold(ctx context.Context, t *transition) (err error) {
	if m == nil {
		return nil
	}
	if m.unit == nil {
		return fmt.Errorf("%w: no LUN is on %s any more", blockdev.ErrInvalid, mediumOf(m.cut.From))
	}
	if t.service.copies.Using(m.unit.lu) {
		return errCopying
	}
	m.began = time.Now()
	limited, cancel := context.WithTimeout(ctx, t.service.cutBound)
	defer cancel()
	if m.freed, err = m.unit.lu.Hold(limited); err != nil {
		m.took = time.Since(m.began)
		return err
	}
	defer func() {
		if err != nil {
			m.release()
		}
	}()
	if t.service.copies.Using(m.unit.lu) { // of a command that began before
		return errCopying
	}
	t.reached("held")
	m.last = true
	return m.cut.Last(limited)
}

// release lets the commands go on.
func (m *move) release() {
	if m != nil && m.freed != nil {
		if m.last {
			m.cut.Stays(context.Background())
			m.last = false
		}
		m.freed()
		m.freed = nil
		m.took = time.Since(m.began)
	}
}

// committed runs what follows the replacement of the volume, and lets the commands go on.
func (m *move) committed(ctx context.Context) {
	if m == nil {
		return
	}
	m.last = false
	m.cut.Moved(context.WithoutCancel(ctx))
	m.release()
}

// moveMedium replaces the volume below the logical unit that is moved.
func (t *transition) moveMedium() {
	m := t.move
	if m == nil {
		return
	}
	if err := m.unit.lu.SetVolume(m.to); err != nil { // of commands that are not held, or another size: moveUnit excludes it
		t.service.log.WithError(err).Error("volume of a logical unit not replaced; restart odx serve")
	}
	t.service.copies.Renamed(m.unit.lu, m.name)
}

// migrating returns an error for a configuration that uses the destination of a migration
// that has not ended.
func (t *transition) migrating() error {
	if t.service.migrations == nil {
		return nil
	}
	for to, volume := range t.service.migrations.Destinations() {
		if t.move != nil && t.move.cut.To == to {
			continue
		}
		for _, l := range t.next.luns {
			if l.Medium() == mediumOf(to) {
				return t.next.cfg.Problem(l.Key, "LUN %d: %s is the destination of the migration of volume %s; abort that, or wait for its end", l.Number, l.Medium(), volume)
			}
		}
		if to.View != "" && t.next.views.devices[to.View] == nil {
			return t.next.cfg.Problem("views", "view %s is the destination of the migration of volume %s, and stays as it is until that has ended", to.View, volume)
		}
		for i := range t.next.cfg.Views {
			v := &t.next.cfg.Views[i]
			for _, d := range v.Over {
				if d == to && t.now.views.devices[v.Name] == nil {
					return t.next.cfg.Problem(v.Key, "view %s: %s is the destination of the migration of volume %s; abort that, or wait for its end", v.Name, d, volume)
				}
			}
		}
	}
	return nil
}

// openMigrations reads the records of migrations. They go on once the service serves.
func (s *Service) openMigrations() (err error) {
	s.migrations, err = migrate.New(migrate.Options{
		Store: s.store, Engine: s.tokens.Engine(), References: s.tokens, Server: migrated{s}, Pairs: s.replicas, Log: s.log,
		Reached: func(step string) {
			if s.reached != nil {
				s.reached("migration: " + step)
			}
		},
	})
	return err
}

// stopMigrations stops the migrations, which the next start goes on with.
func (s *Service) stopMigrations() {
	if s.migrations != nil {
		s.migrations.Close()
	}
}

// Migrations implements admin.Live.
func (s *Service) Migrations(ctx context.Context) ([]admin.Migration, error) {
	if s.migrations == nil {
		return nil, admin.ErrRescue
	}
	return s.migrations.Migrations(ctx)
}

// StartMigration implements admin.Live.
func (s *Service) StartMigration(ctx context.Context, r admin.MigrationRequest) (admin.Migration, error) {
	if s.migrations == nil {
		return admin.Migration{}, admin.ErrRescue
	}
	return s.migrations.StartMigration(ctx, r)
}

// AbortMigration implements admin.Live.
func (s *Service) AbortMigration(ctx context.Context, volume string) (admin.Migration, error) {
	if s.migrations == nil {
		return admin.Migration{}, admin.ErrRescue
	}
	return s.migrations.AbortMigration(ctx, volume)
}

// FinishMigration implements admin.Live.
func (s *Service) FinishMigration(ctx context.Context, volume string, keepSource bool) (admin.Migration, error) {
	if s.migrations == nil {
		return admin.Migration{}, admin.ErrRescue
	}
	return s.migrations.FinishMigration(ctx, volume, keepSource)
}
