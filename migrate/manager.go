package migrate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/backstore"
	"odx/blockdev"
	"odx/conf"
	"odx/offload"
	"odx/replica/pair"
)

// Server is the server whose LUNs are moved.
type Server interface {
	// Serving returns the identity of the logical unit on a volume or a view, as initiators
	// see it; ok is false if it is no LUN of the configuration in force.
	Serving(d conf.Device) (identity [16]byte, ok bool)
	// Open opens what a LUN is to be moved to. The volume is used until the end of the
	// migration: the server refuses a configuration that uses the destination otherwise.
	Open(ctx context.Context, d conf.Device) (blockdev.Volume, error)
	// OpenForeign opens the LUN of another target that a cut is to move LUNs to, for a
	// migration. An error can be that the configuration after the cut would be invalid.
	OpenForeign(ctx context.Context, c Cut) (Foreign, error)
	// ForgetForeign forgets what the LUN of another target was, unless it is in use.
	ForgetForeign(ctx context.Context, url string) error
	// Cut moves the LUNs on a volume, and returns how long their commands were held. An error
	// means that they are where they were, whatever fails: see Cut.
	Cut(ctx context.Context, c Cut) (held time.Duration, err error)
	// Limit bounds reads and writes of the LUNs on a volume, in bytes a second, in addition
	// to what the configuration says; 0 ends that.
	Limit(d conf.Device, bytesPerSecond int64)

	// LUNs returns the LUNs of the configuration that are on a volume.
	LUNs(d conf.Device) []pair.MovedLUN
	// CheckRedirect returns why initiators cannot be redirected to a portal once the LUNs on a
	// volume have left.
	CheckRedirect(d conf.Device, portal string) error
	// Depart moves the LUNs on a volume to another server, and returns how long their commands
	// were held: see Departure.
	Depart(ctx context.Context, d Departure) (held time.Duration, err error)
	// Units returns what the logical unit on a volume keeps.
	Units(d conf.Device) ([]pair.UnitRecord, error)
	// Away has the logical unit on a volume be as is right for the outcome of a migration to
	// another server. Initiators are redirected once it has moved, if there is a portal.
	Away(ctx context.Context, d conf.Device, o pair.Outcome, portal string) error
	// Forget takes the LUNs on a volume out of the configuration.
	Forget(ctx context.Context, d conf.Device) error
}

// Departure is the last step of a migration to another server.
type Departure struct {
	From conf.Device
	// Portal is as in admin.MigrationRequest.
	Portal string
	// Last copies what is left, and gives the LUN up, durably. Commands are held while it runs,
	// for what ctx gives it. An error means that nothing has changed.
	Last func(ctx context.Context) error
	// Decide returns once it is known who serves the LUN, or once ctx has ended. Commands are
	// held until then.
	Decide func(ctx context.Context) pair.Outcome
	// Stays is as in Cut.
	Stays func(ctx context.Context)
}

// Bound is how long commands are held at most for a cut: what does not fit is given up before
// anything has changed.
const Bound = time.Second

// Cut is the last step of a migration.
type Cut struct {
	From, To conf.Device
	// Login is what To, if it is a LUN of another target, is logged in to with; nil: nothing.
	Login    *conf.Login
	Identity [16]byte
	// Last copies what is left, durably. Commands are held while it runs, for what ctx gives
	// it.
	Last func(ctx context.Context) error
	// Moved runs once the destination is what is served, Stays once it is certain that the
	// source is; either before commands go on.
	Moved, Stays func(ctx context.Context)
}

// References ends tokens that refer to the data of a volume in place; package tokens has it.
type References interface {
	EndReferences(ctx context.Context, volume [16]byte) error
}

// Options are what a Manager works with.
type Options struct {
	Store      *backstore.Store
	Engine     *offload.Engine
	References References
	Server     Server
	// Pairs does what is done between servers; nil: there are no others.
	Pairs *pair.Manager
	Log   *logrus.Entry
	// Window is how many bytes of a volume are copied to the LUN of another target at a time;
	// once as many were copied, that is made durable and recorded. 0: 1 GiB.
	Window int64
	// Reached is called after each step of a migration, for tests that look at what is left
	// if the process ends there; nil for none.
	Reached func(step string)
}

// Manager has the migrations of a server. It implements admin.Migrator. Methods may be
// called concurrently.
type Manager struct {
	o Options

	running sync.WaitGroup
	base    context.Context
	stop    context.CancelFunc

	mu     sync.Mutex // guards what follows
	closed bool
	all    map[string]*migration // by name of the volume
}

// New returns a manager of the migrations that the store has records of. None goes on before
// Resume.
func New(o Options) (*Manager, error) {
	o.Window = cmp.Or(o.Window, defaultWindow)
	m := &Manager{o: o, all: map[string]*migration{}}
	m.base, m.stop = context.WithCancel(context.Background())
	err := o.Store.ScanRecords([]byte(recordPrefix), func(key, value []byte) error {
		r, err := decode(key, value)
		if err != nil {
			// It keeps its snapshots; the LUN is where the configuration says.
			o.Log.WithError(err).Error("record of a migration unreadable: it does not go on")
			return nil
		}
		m.all[r.Volume] = newMigration(m, r)
		return nil
	})
	var lost *backstore.LostRecordsError
	if errors.As(err, &lost) {
		o.Log.WithError(err).Error("records of migrations are lost: they do not go on")
		err = nil
	}
	return m, err
}

// Thaw has the volumes be written to that a cut, which the end of the process before this one has
// interrupted, has left frozen, unless their LUNs may have moved. It precedes the first command.
func (m *Manager) Thaw(ctx context.Context) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.all {
		if g.ended() || g.to.left() {
			continue
		}
		if src, err := g.volume(); err == nil {
			g.thaw(src)(ctx)
		}
	}
}

// Resume goes on with what the end of the process before this one has interrupted. The server
// serves by then.
func (m *Manager) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, g := range m.all {
		if !m.closed && !g.ended() {
			m.begin(g)
		}
	}
}

// begin runs a migration in the background. The caller holds mu.
func (m *Manager) begin(g *migration) {
	ctx, cancel := context.WithCancel(m.base)
	g.cancel, g.done = cancel, make(chan struct{})
	m.running.Go(func() {
		defer close(g.done)
		defer cancel()
		g.run(ctx)
	})
}

// Close stops the migrations, which go on after the next start, and waits for them.
func (m *Manager) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.stop()
	m.running.Wait()
}

// Destinations returns the destinations of migrations that have not ended, with the volumes
// that are moved there: nothing else may use them.
func (m *Manager) Destinations() map[conf.Device]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.destinations()
}

// HasMoved reports whether the LUNs on a volume have moved to another server, until that
// migration is finished.
func (m *Manager) HasMoved(volume string) bool {
	m.mu.Lock()
	g := m.all[volume]
	m.mu.Unlock()
	if g == nil {
		return false
	}
	r := g.copyRecord()
	return r.remote() && r.State == admin.MigrationMoved
}

// Migrations implements admin.Migrator.
func (m *Manager) Migrations(context.Context) ([]admin.Migration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := []admin.Migration{}
	for _, name := range slices.Sorted(maps.Keys(m.all)) {
		list = append(list, m.all[name].status())
	}
	return list, nil
}

// maxRunning bounds the migrations that run.
const maxRunning = 16

// StartMigration implements admin.Migrator.
func (m *Manager) StartMigration(ctx context.Context, r admin.MigrationRequest) (admin.Migration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return admin.Migration{}, admin.ErrChanging
	}
	if r.Rate < 0 || r.Throttle < 0 {
		return admin.Migration{}, fmt.Errorf("%w: a negative rate", blockdev.ErrInvalid)
	}
	if old := m.all[r.Volume]; old != nil {
		switch {
		case !old.ended():
			return admin.Migration{}, fmt.Errorf("volume %s: %w", r.Volume, admin.ErrMigrating)
		case old.status().State == admin.MigrationMoved:
			return admin.Migration{}, fmt.Errorf("volume %s: %w", r.Volume, admin.ErrMigrated)
		}
	}
	running := 0
	for _, g := range m.all {
		if !g.ended() {
			running++
		}
	}
	if running >= maxRunning {
		return admin.Migration{}, fmt.Errorf("%w: %d migrations are under way", blockdev.ErrInvalid, running)
	}
	g, err := m.prepare(ctx, r)
	if err != nil {
		return admin.Migration{}, err
	}
	if err := m.introduce(ctx, g); err != nil {
		return admin.Migration{}, err
	}
	m.o.Log.WithField("volume", r.Volume).WithField("to", r.To).Info("migration begins")
	return g.status(), nil
}

// prepare checks a request as far as nothing outside of this server has to be waited for.
func (m *Manager) prepare(ctx context.Context, r admin.MigrationRequest) (*migration, error) {
	src, err := m.o.Store.Volume(r.Volume)
	if err != nil {
		return nil, err
	}
	identity, ok := m.o.Server.Serving(conf.Device{Volume: r.Volume})
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: volume %s is no LUN; copy it with odx volume clone, or to another server with odx copy there", blockdev.ErrInvalid, r.Volume)
	case src.ReadOnly():
		return nil, fmt.Errorf("volume %s: %w; a snapshot is not written to, so that a clone of it is enough", r.Volume, blockdev.ErrReadOnly)
	}
	if m.o.Pairs != nil {
		if err := m.o.Pairs.CheckMove(src); err != nil {
			return nil, err
		}
	}
	rec := record{
		Volume: r.Volume, ID: fmt.Sprintf("%x", src.ID()), Identity: conf.FormatIdentity(identity), State: admin.MigrationCopying,
		Rate: r.Rate, Throttle: r.Throttle, Began: time.Now().UTC(),
	}
	foreign := conf.IsISCSI(r.To)
	peer, volume, remote := strings.Cut(r.To, ":")
	switch {
	case r.Login != nil && !foreign:
		err = fmt.Errorf("%w: a login, and no LUN of another target", blockdev.ErrInvalid)
	case remote && !foreign:
		err = m.chooseRemote(r, &rec, peer, volume)
	case r.Portal != "":
		err = fmt.Errorf("%w: a portal, and no other server", blockdev.ErrInvalid)
	case foreign:
		err = m.chooseForeign(r, &rec)
	default:
		err = m.chooseDestination(ctx, src, r, &rec)
	}
	if err != nil {
		return nil, err
	}
	return newMigration(m, rec), nil
}

// introduce has a migration begin. It lets go of mu while the destination is made: that of
// another server is asked.
func (m *Manager) introduce(ctx context.Context, g *migration) error {
	volume := g.rec.Volume
	old := m.all[volume]
	if old != nil {
		g.before = new(old.copyRecord())
	}
	g.ending.Lock() // it is not aborted before it has begun
	defer g.ending.Unlock()
	m.all[volume] = g
	m.running.Add(1)
	defer m.running.Done()
	m.mu.Unlock()
	limited, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(m.base, cancel)
	err := g.to.begin(limited)
	stop()
	cancel()
	if err != nil {
		ctx := context.WithoutCancel(ctx)
		err = errors.Join(err, g.to.drop(ctx), g.unrecord(ctx))
	}
	m.mu.Lock()
	switch {
	case err != nil:
		g.to.release()
		if m.all[volume] = old; old == nil {
			delete(m.all, volume)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.rec.State = admin.MigrationAborted // for an abort that waits
	case m.closed: // it goes on after the next start
		g.to.release()
	default:
		m.begin(g)
	}
	return err
}

// protector owns the protections of migrations.
const protector = "migrate"

// chooseDestination finds out what the destination is, and checks it.
func (m *Manager) chooseDestination(ctx context.Context, src *backstore.Volume, r admin.MigrationRequest, rec *record) error {
	if r.To == r.Volume {
		return fmt.Errorf("%w: the destination is the volume itself", blockdev.ErrInvalid)
	}
	for to, other := range m.destinations() {
		if to.String() == r.To {
			return fmt.Errorf("%w: %s is the destination of the migration of %s", blockdev.ErrInvalid, r.To, other)
		}
	}
	view := conf.Device{View: r.To}
	if v, err := m.o.Server.Open(ctx, view); err == nil {
		rec.ToView = r.To
		return m.checkDestination(src, v, view, r)
	} else if !errors.Is(err, backstore.ErrNotFound) {
		return err
	}
	rec.ToVolume = r.To
	if err := conf.CheckVolumeName(r.To); err != nil {
		return fmt.Errorf("%w: %w", blockdev.ErrInvalid, err)
	}
	if v, err := m.o.Store.Volume(r.To); err == nil {
		return m.checkDestination(src, v, conf.Device{Volume: r.To}, r)
	}
	rec.Made = true
	return nil
}

// destinations is Destinations for a caller that holds mu.
func (m *Manager) destinations() map[conf.Device]string {
	found := map[conf.Device]string{}
	for name, g := range m.all {
		if r := g.copyRecord(); !g.ended() && !r.remote() {
			found[r.to()] = name
		}
	}
	return found
}

// checkDestination returns why a volume that is there cannot be the destination.
func (m *Manager) checkDestination(src *backstore.Volume, v blockdev.Volume, d conf.Device, r admin.MigrationRequest) error {
	if _, served := m.o.Server.Serving(d); served {
		return fmt.Errorf("%s: %w as a LUN", d, admin.ErrInUse)
	}
	if v.Size() != src.Size() {
		return fmt.Errorf("%w: %s has %s, and volume %s has %s; the destination needs the same size", blockdev.ErrInvalid, d, conf.FormatSize(v.Size()), r.Volume, conf.FormatSize(src.Size()))
	}
	below := []blockdev.Volume{v}
	if view, ok := v.(offload.View); ok {
		below = view.Backing()
	}
	for _, b := range below {
		if b == blockdev.Volume(src) {
			return fmt.Errorf("%w: %s is over volume %s, which would be copied to itself", blockdev.ErrInvalid, d, r.Volume)
		}
		if own, ok := b.(*backstore.Volume); ok && own.ReadOnly() {
			return fmt.Errorf("%v: %w", own, blockdev.ErrReadOnly)
		}
	}
	if !r.Overwrite {
		return fmt.Errorf("%w: %s is there already, and what it has would be lost; choose another name, or overwrite it", backstore.ErrExists, d)
	}
	return nil
}

// find returns the migration of a volume.
func (m *Manager) find(volume string) (*migration, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, admin.ErrChanging
	}
	if g := m.all[strings.TrimSpace(volume)]; g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("volume %s: %w", volume, admin.ErrNoMigration)
}

// AbortMigration implements admin.Migrator.
func (m *Manager) AbortMigration(ctx context.Context, volume string) (admin.Migration, error) {
	g, err := m.find(volume)
	if err != nil {
		return admin.Migration{}, err
	}
	if err := g.abort(ctx); err != nil {
		return g.status(), fmt.Errorf("volume %s: %w", volume, err)
	}
	return g.status(), nil
}

// FinishMigration implements admin.Migrator.
func (m *Manager) FinishMigration(ctx context.Context, volume string, keepSource bool) (admin.Migration, error) {
	g, err := m.find(volume)
	if err != nil {
		return admin.Migration{}, err
	}
	if err := g.finish(ctx, keepSource); err != nil {
		return g.status(), fmt.Errorf("volume %s: %w", volume, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.all[volume] == g {
		delete(m.all, volume)
	}
	return g.status(), nil
}
