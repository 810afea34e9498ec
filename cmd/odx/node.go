package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"odx/api"
	"odx/conf"
	"odx/owner"
	"odx/pool"
	"odx/pool/facts"
	"odx/pool/node"
	"odx/pool/shardserver"
	"odx/target"
)

const (
	// shardsLimit bounds the stop of all servers of a node; each has stopLimit.
	shardsLimit = stopLimit + time.Second
	// directorLimit bounds the end of discovery sessions.
	directorLimit = time.Second
)

// sharing is a node that shares the shards of a pool with others.
type sharing struct {
	cfg     *conf.Config
	self    conf.Node
	options serveOptions
	log     *logrus.Entry

	local    *owner.Owner // of the directory of the sockets
	facts    *facts.Store
	closing  func() error // of the connection for them
	node     *node.Node
	director *target.Director
	servers  *shardserver.Group
	changed  chan int // the shard whose server has changed the configuration
	plans    []shardserver.Plan
	stores   []string // as the servers know them
}

// storesEvery is how often a node looks whether it knows stores of further shards.
const storesEvery = time.Second

// serveNode shares the shards of a pool until a signal ends it.
func serveNode(ctx context.Context, cfg *conf.Config, o serveOptions, program string, stdout io.Writer, log *logrus.Entry) error {
	ctx, release := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer release()
	defer ignoreSignals(log)()
	asked, stop := notifySignals()
	defer stop()
	s, err := share(ctx, cfg, o, program, log)
	if errors.Is(err, context.Canceled) {
		log.Info("stopped during the start")
		return nil
	}
	if err != nil {
		return err
	}
	following, end := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.node.Run(following, s.servers)
	}()
	if _, err := fmt.Fprintf(stdout, "odx %s shares %d shards of %s as node %s, on %s\n", buildVersion(), cfg.Pool.Shards, cfg.DataDir, s.self.Name, cfg.NodePortal(s.self)); err != nil {
		log.WithError(err).Warn("cannot write to standard output")
	}
	notify(log, daemon.SdNotifyReady+"\nSTATUS=sharing")
	defer reportAlive(log)()
	err = s.untilEnd(ctx, asked)
	release() // the next signal ends the process immediately
	log.Info("stopping")
	notify(log, daemon.SdNotifyStopping)
	end()
	<-ended
	return errors.Join(err, s.stop())
}

// share begins to share shards. After an error nothing is left.
func share(ctx context.Context, cfg *conf.Config, o serveOptions, program string, log *logrus.Entry) (_ *sharing, err error) {
	if program == "" {
		return nil, errors.New("the path of the program is not known: start odx by its path")
	}
	s := &sharing{cfg: cfg, options: o, log: log, changed: make(chan int, 1)}
	name, err := nodeNameOf(o)
	if err != nil {
		return nil, err
	}
	plans, err := s.check(cfg, name)
	if err != nil {
		return nil, err
	}
	s.self, _ = cfg.Pool.Node(name)
	if s.local, err = claimRunDir(ctx, cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.local.Release())
		}
	}()
	if s.facts, s.closing, err = pool.Facts(cfg); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closing())
		}
	}()
	setup, err := setupOf(cfg)
	if err != nil {
		return nil, err
	}
	if s.node, err = node.Enter(ctx, node.Options{Name: name, Facts: s.facts, Log: log, Setup: setup}); err != nil {
		return nil, s.entering(err)
	}
	if s.director, err = target.Direct(ctx, cfg, s.self, where{s.node}, log); err != nil {
		return nil, errors.Join(err, s.node.Leave())
	}
	stores, err := s.known(cfg)
	if err != nil {
		return nil, errors.Join(err, s.director.Close(ctx), s.node.Leave())
	}
	s.plan(plans, stores)
	s.servers = shardserver.Start(shardserver.Options{Program: program, Arguments: []string{"serve", "--" + shardserver.Flag}, Events: events{s.node, s.changed}, Log: log, Plans: plans})
	return s, nil
}

// entering explains why a node may not enter.
func (s *sharing) entering(err error) error {
	if d, ok := errors.AsType[*node.DifferentError](err); ok {
		return s.cfg.Problem(d.Keys[0], "%v", err)
	}
	if errors.Is(err, facts.ErrPresent) {
		return s.cfg.Problem("ceph.nodes", "%v: stop it, or give this machine another name of the list with --node", err)
	}
	return fmt.Errorf("%s: %w", s.cfg.DataDir, err)
}

// nodeNameOf returns the name of this machine among the nodes.
func nodeNameOf(o serveOptions) (string, error) {
	if o.node != "" {
		return o.node, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name of this machine: %w; give it with --node", err)
	}
	return name, nil
}

// setupOf returns what a node says of its configuration.
func setupOf(cfg *conf.Config) (node.Setup, error) {
	digests, err := cfg.Shared()
	if err != nil {
		return node.Setup{}, fmt.Errorf("digest of the configuration: %w", err)
	}
	setup := node.Setup{Shards: cfg.Pool.Shards, Digests: digests}
	for _, n := range cfg.Pool.Nodes {
		setup.Nodes = append(setup.Nodes, n.Name)
	}
	return setup, nil
}

// check checks what all servers of shards are to serve, and returns their plans.
func (s *sharing) check(cfg *conf.Config, name string) ([]shardserver.Plan, error) {
	plans := make([]shardserver.Plan, cfg.Pool.Shards)
	for k := range plans {
		part, err := cfg.Part(name, k)
		if err == nil {
			err = errors.Join(target.CheckStandby(part, s.log), api.CheckTCP(part))
		}
		if err != nil {
			return nil, err
		}
		plans[k] = shardserver.Plan{Path: cfg.File, Text: cfg.Text(), Node: name, Shard: k}
	}
	return plans, nil
}

// where is the target.Where of a node.
type where struct{ *node.Node }

func (w where) Serves(shard int) string { return w.State().Serves(shard) }

// events are the shardserver.Events of a node.
type events struct {
	*node.Node
	changed chan<- int
}

// Changed implements shardserver.Events.
func (e events) Changed(shard int) {
	select {
	case e.changed <- shard:
	default: // the file is read once for several changes
	}
}

// untilEnd shares until ctx ends or the portal fails, and takes other configurations.
func (s *sharing) untilEnd(ctx context.Context, asked *signals) error {
	tick := time.NewTicker(storesEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.learnStores()
		case <-ctx.Done():
			return nil
		case err := <-s.director.Failed():
			return err
		case <-asked.reloads:
			notify(s.log, reloading(s.log))
			s.reload(ctx, -1)
			notify(s.log, daemon.SdNotifyReady)
		case shard := <-s.changed:
			s.reload(ctx, shard)
		case <-asked.handovers:
			s.log.Warn("the shards of a pool are handed over to other nodes: odx cluster handover")
		}
	}
}

// reload has the configuration file count for the pool. but is the shard whose server has changed
// it, -1 for none.
func (s *sharing) reload(ctx context.Context, but int) {
	if err := s.reconfigure(ctx, but); err != nil {
		s.log.WithError(err).Error("configuration not changed")
		return
	}
	s.log.Info("configuration read again; copy it to the other nodes and reload them")
}

func (s *sharing) reconfigure(ctx context.Context, but int) error {
	next, err := s.cfg.Reload()
	if err != nil {
		return err
	}
	if next.Pool == nil || next.DataDir != s.cfg.DataDir || next.Pool.Shards != s.cfg.Pool.Shards || next.Pool.RunDir != s.cfg.Pool.RunDir {
		return next.Problem("data_dir", "the pool, ceph.shards and ceph.run_dir cannot change while shards are served; stop all nodes for that")
	}
	self, ok := next.Pool.Node(s.self.Name)
	if !ok || self != s.self || next.NodePortal(self) != s.cfg.NodePortal(s.self) {
		return next.Problem("ceph.nodes", "the name, address and port of a node cannot change while it runs; stop this one (%s) for that", s.self.Name)
	}
	plans, err := s.check(next, self.Name)
	if err != nil {
		return err
	}
	setup, err := setupOf(next)
	if err != nil {
		return err
	}
	direct, err := s.director.Prepare(next)
	if err != nil {
		return err
	}
	stores, err := s.known(next)
	if err != nil {
		return err
	}
	if err := s.node.Reconfigure(ctx, setup); err != nil {
		return err
	}
	s.cfg = next // nothing fails from here on
	s.plan(plans, stores)
	s.servers.Replan(plans, but)
	direct()
	return nil
}

// learnStores has the servers know stores that were served for the first time.
func (s *sharing) learnStores() {
	if st := s.node.State(); st == nil || slices.Equal(storesOf(st.Facts), s.stores) {
		return
	}
	stores, err := s.known(s.cfg)
	if err != nil {
		s.log.WithError(err).Warn("servers of shards do not know each other")
		return
	}
	s.plan(s.plans, stores)
	s.servers.Replan(s.plans, -1)
}

// known writes by what the servers of shards know each other, and returns the IDs of their stores.
func (s *sharing) known(cfg *conf.Config) (stores []string, err error) {
	f, err := s.facts.Load()
	if err == nil {
		err = writePeers(cfg, f)
	}
	if err != nil {
		return nil, err
	}
	return storesOf(f), nil
}

// plan makes plans, with the stores of all shards, those of the servers.
func (s *sharing) plan(plans []shardserver.Plan, stores []string) {
	for k := range plans {
		plans[k].Stores = stores
	}
	s.plans, s.stores = plans, stores
}

// stop gives the shards to the other nodes.
func (s *sharing) stop() error {
	err := s.node.Leave() // others take what is released from here on
	limited, cancel := context.WithTimeout(context.Background(), shardsLimit)
	defer cancel()
	s.servers.Stop(limited)
	err = errors.Join(err, s.node.Forget(limited))
	quick, end := context.WithTimeout(context.Background(), directorLimit)
	defer end()
	err = errors.Join(err, s.director.Close(quick), s.closing(), s.local.Release())
	if err == nil {
		s.log.Info("stopped")
	}
	return err
}
