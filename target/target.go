// Package target is the server: it puts a configuration, an open store, the device
// servers and the iSCSI transport together, and takes them apart again in the reverse
// order. What an administrator does to the store is package admin's.
//
// The store is opened, everything that the configuration asks of it is checked,
// every portal is bound; only then is anything made, and only then does anything
// answer. A LUN that cannot be served is left out.
package target

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"odx/admin"
	"odx/backstore"
	"odx/conf"
	"odx/target/copymgr"
	"odx/target/iscsi"
	"odx/target/scsi"
	"odx/tokens"
)

// Service is a running target.
type Service struct {
	cfg    *conf.Config
	log    *logrus.Entry
	admin  *admin.Store
	store  *backstore.Store // admin's
	tokens *tokens.Manager  // admin's
	copies *copymgr.Manager
	users  *fileUsers
	media  *media
	views  *views
	units  map[string]*scsi.LogicalUnit // by conf.LUN.Medium
	space  *spaceWatch

	sightings *sightings

	portals portals
	server  *iscsi.Server
	unwatch context.CancelFunc // ends the watch over space
	serving sync.WaitGroup
	failed  chan error // from listeners, room for each

	stopOnce sync.Once
	stopErr  error
}

// Start opens the store and serves what cfg says. When it returns, every portal
// answers that can be bound, one at least; others are tried again. An error that the
// configuration is to blame for is a conf.Problem or conf.Problems; nothing is left
// running after an error. ctx bounds the start alone.
func Start(ctx context.Context, cfg *conf.Config, log *logrus.Entry) (*Service, error) {
	s := newService(cfg, log)
	if err := s.start(ctx, admin.Options{ScrubEvery: cfg.Store.ScrubEvery}); err != nil {
		return nil, err
	}
	return s, nil
}

// Rescue is Start of what can still be read of a store, which no file of is changed:
// every LUN is read-only, and none is made that is missing. What initiators save, as
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
	s := newService(&c, log)
	if noStore(c.DataDir) {
		return nil, c.Problem("data_dir", "there is no store in %s to rescue", c.DataDir)
	}
	if err := s.start(ctx, admin.Options{ReadOnly: true}); err != nil {
		return nil, err
	}
	return s, nil
}

// newService returns a service that has not started.
func newService(cfg *conf.Config, log *logrus.Entry) *Service {
	return &Service{
		cfg: cfg, log: log, users: &fileUsers{by: map[string]string{}},
		portals: portals{cfg: cfg, retry: portalRetry}, failed: make(chan error, len(cfg.Portals)),
	}
}

// start is Start of a new service.
func (s *Service) start(ctx context.Context, o admin.Options) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	secrets, err := readSecrets(s.cfg, s.log)
	if err != nil {
		return err
	}
	// Where there is a store, what keeps another process from it says more than the
	// portals that this one has. Where there is none, none is made for nothing.
	first := noStore(s.cfg.DataDir)
	if first {
		if err := s.portals.bind(ctx, s.log); err != nil {
			return err
		}
	}
	if err := s.openStore(ctx, o); err != nil {
		return storeProblem(s.cfg, err)
	}
	if err := s.media.checkMedia(ctx); err != nil {
		return err
	}
	if !first {
		if err := s.portals.bind(ctx, s.log); err != nil {
			return err
		}
	}
	if err := s.checkRedirects(ctx); err != nil {
		return err
	}
	s.space, err = newSpaceWatch(s.store.LiveBytes, s.cfg.Store.SoftThreshold, s.store.FreeBytes, s.log)
	if err != nil {
		return fmt.Errorf("free space of %s: %w", s.cfg.DataDir, err)
	}
	if s.views, err = makeViews(ctx, s.media); err != nil {
		return err
	}
	targets, err := s.makeTargets(ctx)
	if err != nil {
		return err
	}
	if err := s.makeServer(ctx, targets, secrets); err != nil {
		return err
	}
	s.startServing()
	return nil
}

// openStore opens the store, its tokens and its virtual disks, and removes what was
// never finished.
func (s *Service) openStore(ctx context.Context, o admin.Options) (err error) {
	o.Server = served{s}
	if s.admin, err = admin.Open(ctx, s.cfg, s.log, o); err != nil {
		return err
	}
	s.store = s.admin.Backstore()
	if s.tokens, err = s.admin.TokenManager(ctx); err != nil {
		return err
	}
	disks, err := s.admin.DiskManager(ctx)
	if err != nil {
		return err
	}
	s.media = &media{
		cfg: s.cfg, log: s.log, store: s.store, tokens: s.tokens, disks: disks, users: s.users, leftOut: map[string]error{},
	}
	return s.admin.SweepVolumes(ctx)
}

// makeServer makes the transport, and notes what is served from now on.
func (s *Service) makeServer(ctx context.Context, targets []iscsi.TargetConfig, secrets secrets) error {
	options := transportOptions(s.cfg.Limits, s.admin.Memory())
	options.Log, options.Settler = s.log, settler{s.store}
	history, err := loadLUNHistory(s.store)
	if err != nil {
		return err
	}
	if s.sightings, err = loadSightings(s.store, s.log); err != nil {
		return err
	}
	for i := range targets {
		targets[i].DeviceServer.(*scsi.Target).KeepSightings(s.sightings)
	}
	if err := s.secure(&options, targets, secrets, s.compareLUNs(history, targets)); err != nil {
		return err
	}
	if s.server, err = iscsi.NewServer(options, targets); err != nil {
		return fmt.Errorf("iSCSI: %w", err)
	}
	return history.save(ctx, s.store)
}

// startServing serves the portals that are bound, and watches over those that are not
// and over the space of the store.
func (s *Service) startServing() {
	for _, p := range s.portals.bound() {
		s.serving.Go(func() { s.serve(p) })
	}
	var watching context.Context
	watching, s.unwatch = context.WithCancel(context.Background())
	s.serving.Go(func() {
		s.portals.bindMissing(watching, s.log, func(p portal) { s.serving.Go(func() { s.serve(p) }) })
	})
	s.serving.Go(func() { s.sightings.run(watching, s.log) })
	s.serving.Go(func() { s.space.run(watching, s.warnOfSpace, s.relieveStore) })
}

// warnOfSpace tells the initiators of every LUN in the store that space runs
// short.
func (s *Service) warnOfSpace() {
	for _, lu := range s.units {
		lu.SoftThresholdReached()
	}
}

// noStore reports that nothing is in the directory of a store.
func noStore(dir string) bool {
	names, err := os.ReadDir(dir)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(names) == 0
}

// storeProblem is the error of a server that cannot open its store.
func storeProblem(cfg *conf.Config, err error) error {
	if errors.Is(err, backstore.ErrLocked) {
		return cfg.Problem("data_dir", "the store in %s is in use by another process, perhaps another odx; stop it, or choose another directory", cfg.DataDir)
	}
	return err
}

// serve answers on one portal until Stop.
func (s *Service) serve(p portal) {
	err := s.server.Serve(context.Background(), iscsi.Portal{Listener: p.listener, Group: p.Group, Advertise: p.Advertise})
	if !errors.Is(err, iscsi.ErrClosed) {
		s.failed <- fmt.Errorf("portal %s: %w", p.listener.Addr(), err)
	}
}

// Failed delivers an error when a portal has stopped answering by itself.
func (s *Service) Failed() <-chan error { return s.failed }

// Admin returns what administers the store, until Stop.
func (s *Service) Admin() *admin.Store { return s.admin }

// Stop ends the service: portals close, commands finish until ctx ends and are
// aborted then, everything acknowledged is flushed and the store is closed. It
// may be called more than once.
func (s *Service) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() {
		err := s.server.Shutdown(ctx)
		if errors.Is(err, iscsi.ErrCommandsRunning) {
			// They find the store closed; nobody waits for what they say.
			s.log.WithError(err).Warn("stopping without commands that do not end")
			err = nil
		}
		s.unwatch()
		s.serving.Wait()
		s.stopCopies(ctx)
		s.stopErr = errors.Join(err, s.release())
	})
	return s.stopErr
}

// copyStopLimit bounds the wait for copies in the background, whose work is
// aborted then.
const copyStopLimit = 2 * time.Second

// stopCopies ends the copies that no command waits for.
func (s *Service) stopCopies(ctx context.Context) {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyStopLimit)
	defer cancel()
	if err := s.copies.Close(limited); err != nil {
		s.log.WithError(err).Warn("stopping without copies that do not end")
	}
}

// release closes whatever is open, in the reverse order of Start.
func (s *Service) release() error {
	var errs []error
	errs = append(errs, s.portals.close()...)
	s.stopUnits()
	if s.views != nil {
		errs = append(errs, s.views.close())
	}
	if s.media != nil {
		errs = append(errs, s.media.close()...)
	}
	if s.admin != nil {
		errs = append(errs, s.admin.Close())
	}
	return errors.Join(errs...)
}

// settler has the store's changes outlive the process before they are
// acknowledged.
type settler struct{ store *backstore.Store }

func (k settler) Unsettled() bool { return k.store.Unwritten() }
func (k settler) Settle() error   { return k.store.WriteOut(context.Background()) }
