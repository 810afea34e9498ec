// Package target composes the server: configuration, open store, device servers and
// iSCSI transport. It closes them in the reverse order. Package admin administers the
// store.
//
// The start opens the store, checks the configuration against it and binds the portals
// before it creates or serves anything. A LUN that cannot be served is left out.
package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/audit"
	"odx/backstore"
	"odx/chap"
	"odx/conf"
	"odx/migrate"
	"odx/owner"
	"odx/replica/pair"
	"odx/snapshots"
	"odx/standby"
	"odx/target/copymgr"
	"odx/target/iscsi"
	"odx/target/qos"
	"odx/tokens"
)

// Service is a running target.
type Service struct {
	// state is what is served; before that, it is nil or a part of it.
	state atomic.Pointer[state]

	log    *logrus.Entry
	rescue bool
	admin  *admin.Store
	store  *backstore.Store // admin's
	tokens *tokens.Manager  // admin's
	copies *copymgr.Manager
	peers  peers
	// replicas follow peers, or are followed by them.
	replicas *pair.Manager
	users    *fileUsers
	space    *spaceWatch
	// challenges are those of all authentications, initiators the limits of initiators over
	// all LUNs.
	challenges *chap.Challenges
	initiators *qos.Initiators
	background qos.Limiter // of cleaning and scrubs
	audit      *audit.Log

	changes    changes
	leaveLimit time.Duration
	cutBound   time.Duration
	// reached is called by a reload after each of its steps, for tests; nil for none.
	reached   func(step string)
	followers []func(next *conf.Config) (Prepared, error)

	era        *era
	sightings  *sightings
	foreign    *foreignLUNs
	migrations *migrate.Manager                   // nil in a rescue
	policies   atomic.Pointer[snapshots.Policies] // nil until they are opened, and in a rescue
	throttled  throttles

	portals   portals
	addresses ownerAddresses
	server    *iscsi.Server
	// standbys wait to take over. It is nil where they have no socket.
	standbys  *standby.Server
	listening listening
	handovers failedHandovers
	unwatch   context.CancelFunc // ends the watch over space
	serving   sync.WaitGroup
	failed    chan error // has room for the first failure of listeners and guardOwnership

	stopOnce sync.Once
	stopErr  error
}

// Start opens the store and serves cfg. When it returns, at least one portal serves;
// portals that cannot be bound are retried. An error in the configuration is a
// conf.Problem or conf.Problems; after an error nothing is left running. ctx bounds the
// start alone.
func Start(ctx context.Context, cfg *conf.Config, log *logrus.Entry) (*Service, error) {
	return TakeOver(ctx, cfg, log, Inheritance{})
}

// TakeOver is Start of a service that goes on for another one, in this process or another.
func TakeOver(ctx context.Context, cfg *conf.Config, log *logrus.Entry, in Inheritance) (*Service, error) {
	s := newService(log)
	s.portals.held = in.Held
	err := s.start(ctx, cfg, admin.Options{ScrubEvery: cfg.Store.ScrubEvery, Owner: in.Claim, Place: in.Place}, in)
	if err != nil && in.Claim != nil {
		err = errors.Join(err, in.Claim.Release())
	}
	if err != nil && in.Place != nil {
		err = errors.Join(err, in.Place.Close())
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// resume goes on with sessions.
func (s *Service) resume(sessions *iscsi.Suspended) {
	s.space.goOn()
	sessions.Attached = s.copies.GoOn
	if closed := s.server.Resume(sessions); closed > 0 {
		s.log.WithField("connections", closed).Warn("connections of the process before this one that could not go on; their initiators log in again")
	}
}

// Rescue is Start for a damaged store, which it does not change: it serves what can be
// read, all LUNs read-only, and creates nothing. What initiators save, such as
// reservations, is kept in memory.
func Rescue(ctx context.Context, cfg *conf.Config, log *logrus.Entry) (*Service, error) {
	c := *cfg
	c.Targets = slices.Clone(cfg.Targets)
	for i := range c.Targets {
		t := &c.Targets[i]
		t.LUNs = slices.Clone(t.LUNs)
		for k := range t.LUNs {
			t.LUNs[k].ReadOnly, t.LUNs[k].Size = true, 0
		}
	}
	s := newService(log)
	s.rescue = true
	if noStore(c.DataDir) {
		return nil, c.Problem("data_dir", "there is no store in %s to rescue", c.DataDir)
	}
	if err := s.start(ctx, &c, admin.Options{ReadOnly: true}, Inheritance{}); err != nil {
		return nil, err
	}
	return s, nil
}

// newService returns a service that is not started.
func newService(log *logrus.Entry) *Service {
	return &Service{
		log: log, users: &fileUsers{by: map[string]string{}}, challenges: &chap.Challenges{}, initiators: &qos.Initiators{}, changes: newChanges(), leaveLimit: leaveLimit, cutBound: cutBound,
		portals: portals{retry: portalRetry}, failed: make(chan error, 1),
	}
}

// fail reports an error that ends the service.
func (s *Service) fail(err error) {
	select {
	case s.failed <- err:
	default: // an earlier one ends it
	}
}

// start starts a new service.
func (s *Service) start(ctx context.Context, cfg *conf.Config, o admin.Options, in Inheritance) (err error) {
	defer func() {
		if err == nil {
			return
		}
		if s.server != nil {
			err = errors.Join(err, s.server.Shutdown(ctx)) // no connection was accepted
		}
		err = errors.Join(err, s.release())
	}()
	secrets, unwise, err := readSecrets(cfg)
	if err != nil {
		return err
	}
	s.audit = audit.New(s.log, auditOptions(cfg))
	st, err := s.openAll(ctx, cfg, secrets, o, in)
	if err != nil {
		return err
	}
	st.unwise = append(unwise, warnings(cfg, s.portals.all())...)
	for _, w := range st.unwise {
		w.log(s.log)
	}
	if in.Ready != nil {
		if err := in.Ready(); err != nil {
			return err
		}
	}
	if in.Sessions != nil {
		s.resume(in.Sessions)
	}
	s.addresses.announce()
	s.startServing()
	return nil
}

// openAll opens the store, binds the portals, and makes everything that is served.
func (s *Service) openAll(ctx context.Context, cfg *conf.Config, all secrets, o admin.Options, in Inheritance) (st *state, err error) {
	// An existing store is opened first, because an error about another process that
	// has it open says more than one about the portals. A new store is created only
	// after the portals are bound.
	// In a pool the claim comes first.
	first := cfg.Pool == nil && noStore(cfg.DataDir)
	if first {
		if err := s.portals.bind(ctx, cfg, s.log); err != nil {
			return nil, err
		}
	}
	if err := s.openStore(ctx, cfg, o); err != nil {
		return nil, storeProblem(cfg, err)
	}
	if in.Sessions == nil && !s.rescue { // else the process before this one has asked
		s.inquireReplicas(ctx)
	}
	if st, err = s.newState(ctx, cfg, all, nil); err != nil {
		return nil, err
	}
	s.state.Store(st)
	if err := st.media.checkMedia(ctx); err != nil {
		return nil, err
	}
	if err := s.addresses.hold(cfg, s.store, s.log); err != nil {
		return nil, err
	}
	if !first {
		if err := s.portals.bind(ctx, cfg, s.log); err != nil {
			return nil, err
		}
	}
	if err := checkRedirects(ctx, cfg, s.portals.all()); err != nil {
		return nil, err
	}
	s.space, err = newSpaceWatch(s.store.LiveBytes, cfg.Store.SoftThreshold, s.store.FreeBytes, s.log)
	if err != nil {
		return nil, fmt.Errorf("free space of %s: %w", cfg.DataDir, err)
	}
	if s.era, err = loadEra(ctx, s.store, bootID(cfg), s.log); err != nil {
		return nil, fmt.Errorf("record of this start: %w", err)
	}
	if err := st.views.forgetOthers(ctx); err != nil {
		return nil, err
	}
	if !s.rescue {
		if err := s.openMigrations(); err != nil {
			return st, err
		}
	}
	if err := s.makeMedia(ctx, st); err != nil || s.rescue {
		return st, err
	}
	s.forgetForeign(ctx, cfg)
	return st, nil
}

// makeMedia makes the views, the logical units, the targets and the transport of a service
// that starts.
func (s *Service) makeMedia(ctx context.Context, st *state) error {
	st.views.makeAll(ctx)
	s.copies = copymgr.New(s.tokens, copyRules(st.cfg), s.log)
	numbers, err := loadPortNumbers(s.store, s.log)
	if err != nil {
		return err
	}
	s.makeUnits(ctx, st)
	if err := st.media.checkSome(); err != nil {
		return err
	}
	history, err := loadLUNHistory(s.store, s.log)
	if err != nil {
		return err
	}
	if s.sightings, err = loadSightings(s.store, s.era.id, s.log); err != nil {
		return err
	}
	replaced := history.compare(st)
	history.logDifferences(s.log)
	if err := s.makeDevices(st, numbers, replaced); err != nil {
		return err
	}
	s.storeDuplicates(st, nil)
	s.limit(st)
	s.store.SetBackground(func(ctx context.Context, operations, bytes int64) error {
		return s.background.Wait(ctx, qos.Cost{Operations: operations, Bytes: bytes})
	})
	if err := numbers.save(ctx, s.store); err != nil {
		return err
	}
	return s.makeServer(ctx, st, history)
}

// openStore opens the store, its tokens and its virtual disks, and removes unfinished
// volumes.
func (s *Service) openStore(ctx context.Context, cfg *conf.Config, o admin.Options) (err error) {
	o.Server = served{s}
	if s.admin, err = admin.Open(ctx, cfg, s.log, o); err != nil {
		return err
	}
	s.store = s.admin.Backstore()
	s.foreign = newForeignLUNs(s.store, s.log, s.resizeForeign)
	if s.tokens, err = s.admin.TokenManager(ctx); err != nil {
		return err
	}
	if err := s.openReplicas(ctx, cfg); err != nil {
		return err
	}
	if err := s.openPeers(cfg); err != nil {
		return err
	}
	return s.admin.RemoveUnfinishedVolumes(ctx)
}

// makeServer creates the transport, and stores the history of LUNs.
func (s *Service) makeServer(ctx context.Context, st *state, history *lunHistory) error {
	options := transportOptions(st.cfg.Limits, s.admin.Memory())
	options.SlowCommand = slowCommand(st.cfg.Log)
	options.Log, options.Settler, options.Owned = s.log, settler{s.store}, s.store.Owned
	targets, discovery, err := s.targetConfigs(st, history.replaced())
	if err != nil {
		return err
	}
	options.DiscoveryAuthentication = discovery
	if s.server, err = iscsi.NewServer(options, targets); err != nil {
		return fmt.Errorf("iSCSI: %w", err)
	}
	return history.save(ctx, s.store)
}

// startServing serves the bound portals, and starts the retries of the others and the
// watch over the store's space.
func (s *Service) startServing() {
	if err := s.acceptStandbys(); err != nil {
		s.log.WithError(err).Warn("no standby can attach to this server")
	}
	if s.migrations != nil {
		s.migrations.Thaw(context.Background())
	}
	for _, p := range s.portals.bound() {
		s.offer(p)
		s.serving.Go(func() { s.serve(p) })
	}
	var watching context.Context
	watching, s.unwatch = context.WithCancel(context.Background())
	s.serving.Go(func() {
		s.portals.bindMissing(watching, s.log, s.offer, func(p portal) { s.serving.Go(func() { s.serve(p) }) })
	})
	s.runReplicas(watching)
	s.serving.Go(func() { s.guardOwnership(watching) })
	s.serving.Go(func() { s.sample(watching) })
	s.serving.Go(func() { s.addresses.keepConnections(watching, s.server.Sessions) })
	s.serving.Go(func() { s.sightings.run(watching, s.log) })
	s.serving.Go(func() { s.space.run(watching, s.warnOfSpace, s.relieveStore) })
	if s.migrations != nil {
		s.migrations.Resume()
	}
	s.openPolicies(s.state.Load().cfg)
}

// acceptStandbys lets other processes wait to take over. A store that is only read is not
// taken over, and those that wait for one in a pool are on other machines.
func (s *Service) acceptStandbys() (err error) {
	if s.rescue || s.state.Load().cfg.Pool != nil {
		return nil
	}
	s.standbys, err = standby.Serve(s.state.Load().cfg.DataDir)
	return err
}

// OfferStandbys passes a listening socket to the processes that wait to take over, and to
// one that it is handed over to, with what it listens on in the words of the configuration.
func (s *Service) OfferStandbys(network, address string, l net.Listener) {
	if err := s.listening.add(network, address, l); err != nil {
		s.log.WithError(err).WithField("address", address).Warn("this socket cannot be handed over")
	}
	if err := s.standbys.Offer(network, address, l); err != nil {
		s.log.WithError(err).WithField("address", address).Warn("standbys do not hold this socket: while one takes over, connections are refused")
	}
}

// WithdrawSocket ends what OfferStandbys began, for a socket that is to be closed.
func (s *Service) WithdrawSocket(network, address string) {
	s.standbys.Withdraw(network, address)
	if err := s.listening.drop(network, address); err != nil {
		s.log.WithError(err).WithField("address", address).Warn("duplicate of a listening socket not closed")
	}
}

// warnOfSpace raises, at every LUN in the store, the unit attention for the soft
// threshold.
func (s *Service) warnOfSpace() {
	for _, u := range s.state.Load().units {
		u.lu.SoftThresholdReached()
	}
}

// noStore reports whether a directory has no store: nothing but the lock of a process that
// is about to make one.
func noStore(dir string) bool {
	names, err := os.ReadDir(dir)
	others := slices.DeleteFunc(names, func(e fs.DirEntry) bool { return e.Name() == owner.LockName })
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(others) == 0
}

// storeProblem is the error of a server that cannot open its store.
func storeProblem(cfg *conf.Config, err error) error {
	if errors.Is(err, backstore.ErrLocked) {
		return cfg.Problem("data_dir", "the store in %s is in use by another process, perhaps another odx; stop it, or choose another directory", cfg.DataDir)
	}
	return err
}

// offer is OfferStandbys for a portal. It is called before a reload can take the portal out:
// a duplicate that is made after its withdrawal would keep the address in use.
func (s *Service) offer(p portal) { s.OfferStandbys(p.Network(), p.String(), p.listener) }

// serve serves one portal until Stop.
func (s *Service) serve(p portal) {
	err := s.server.Serve(context.Background(), iscsi.Portal{Listener: p.listener, Group: p.Group, Advertise: p.Advertise})
	if !errors.Is(err, iscsi.ErrClosed) && !errors.Is(err, iscsi.ErrPortalClosed) && s.portals.has(p) {
		s.fail(fmt.Errorf("portal %s: %w", p.listener.Addr(), err))
	}
}

// guardOwnership ends every session when the store is not this process's any more, until
// ctx ends. What they would still send is held back by then (iscsi.Options.Owned).
func (s *Service) guardOwnership(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.store.Lost():
		s.server.CloseConnections()
		s.fail(s.store.Owned())
	}
}

// Failed delivers the error of a portal that stops serving before Stop, and one when the
// store is not this process's any more: then nothing is answered, and Stop is to follow.
func (s *Service) Failed() <-chan error { return s.failed }

// Admin returns the administration of the store, valid until Stop.
func (s *Service) Admin() *admin.Store { return s.admin }

// Stop ends the service: it closes the portals, lets commands finish until ctx ends and
// aborts the others, flushes everything acknowledged and closes the store. It may be
// called more than once.
func (s *Service) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		s.changes.last()
		s.closePolicies(ctx)
		s.stopMigrations()
		s.liftLimits()
		if s.store.Owned() != nil {
			var now context.CancelFunc
			ctx, now = context.WithCancel(ctx)
			now() // no command can finish
		}
		closing := errors.Join(s.listening.close()...) // connections are refused from here on
		err := s.server.Shutdown(ctx)
		if errors.Is(err, iscsi.ErrCommandsRunning) {
			// They find the store closed, and their results are dropped.
			s.log.WithError(err).Warn("commands did not end before the stop")
			err = nil
		}
		s.unwatch()
		s.serving.Wait()
		s.stopCopies(ctx)
		if s.store.Owned() == nil && s.standbys.Attached() == 0 && s.state.Load().cfg.Pool == nil {
			err = errors.Join(err, s.era.end(context.WithoutCancel(ctx)))
		}
		err = errors.Join(closing, err, s.standbys.Close())
		s.stopErr = errors.Join(err, s.release())
	})
	return s.stopErr
}

// copyStopLimit bounds the wait for aborted background copies.
const copyStopLimit = 2 * time.Second

// stopCopies aborts the background copies.
func (s *Service) stopCopies(ctx context.Context) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyStopLimit)
	defer cancel()
	if err := s.copies.Close(limited); err != nil {
		s.log.WithError(err).Warn("copies did not end before the stop")
	}
}

// release closes what is open, in the reverse order of Start.
func (s *Service) release() error {
	err := errors.Join(s.addresses.close(), s.releaseMedia())
	s.closePeers()
	if s.admin != nil {
		err = errors.Join(err, s.admin.Close())
	}
	return errors.Join(err, s.closeAudit())
}

// releaseMedia closes what is open over the store.
func (s *Service) releaseMedia() error {
	var errs []error
	errs = append(errs, s.portals.close()...)
	errs = append(errs, s.listening.close()...)
	if st := s.state.Load(); st != nil {
		s.stopUnits(st, nil)
		errs = append(errs, st.close(nil))
	}
	if s.foreign != nil {
		errs = append(errs, s.foreign.close())
	}
	return errors.Join(errs...)
}

// settler makes changes of the store survive the end of the process before they are
// acknowledged.
type settler struct{ store *backstore.Store }

func (k settler) Unsettled() bool { return k.store.Unwritten() }
func (k settler) Settle() error   { return k.store.WriteOut(context.Background()) }
