package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/sirupsen/logrus"

	"odx/conf"
	"odx/owner"
	"odx/pool"
	"odx/pool/shardserver"
	"odx/target"
)

// serveShard is the server of one shard, which the process of a node has started: it waits until it
// may claim the shard and nothing owns it, and serves it.
func serveShard(ctx context.Context, stdout, stderr io.Writer) error {
	program, _ := ownProgram()
	ctx, lost := context.WithCancel(ctx)
	defer lost()
	others, stop := notifySignals()
	defer stop()
	link, err := shardserver.Join(ctx, lost, others.reload)
	if err != nil {
		return err
	}
	cfg, err := planned(link)
	if err != nil {
		return errors.Join(err, link.Close())
	}
	log, err := newLog(cfg.Log, stderr)
	if err != nil {
		return errors.Join(err, link.Close())
	}
	shard := link.Plan().Shard
	log = log.WithField("shard", shard)
	target.LimitMemory(cfg)
	asked, err := serveAs(ctx, log, stdout, others, func(ctx context.Context) (*running, error) { return waitForShard(ctx, link, log) })
	if !asked && errors.Is(err, owner.ErrLost) {
		log.WithError(err).Warn("another process may serve the shard now")
		return errors.Join(err, link.Keep(), again(program, log))
	}
	return errors.Join(err, link.Close())
}

// planned returns the part of the configuration that a server is to serve now.
func planned(link *shardserver.Link) (*conf.Config, error) {
	plan := link.Plan()
	whole, err := conf.Parse(plan.Path, plan.Text)
	if err != nil {
		return nil, err
	}
	cfg, err := whole.Part(plan.Node, plan.Shard)
	if err == nil {
		cfg.Extend(func(c *conf.Config) { addPeers(c, link.Plan()) })
	}
	return cfg, err
}

// waitForShard waits for a shard, and then serves it by the configuration that the node has by then.
func waitForShard(ctx context.Context, link *shardserver.Link, log *logrus.Entry) (*running, error) {
	cfg, err := planned(link)
	if err != nil {
		return nil, err
	}
	local, err := claimRunDir(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var run *running
	if err = pool.LeaveAddresses(cfg); err == nil {
		run, err = serveClaimed(ctx, cfg, link, log)
	}
	if err != nil {
		return nil, errors.Join(err, local.Release())
	}
	run.local = local
	return run, nil
}

// serveClaimed is waitForShard with the directory of the sockets.
func serveClaimed(ctx context.Context, cfg *conf.Config, link *shardserver.Link, log *logrus.Entry) (*running, error) {
	var in target.Inheritance
	var err error
	failing := func(why error) { log.WithError(why).Warn("the pool does not answer; retrying") }
	in.Place, in.Claim, err = pool.WaitBy(ctx, cfg, failing, func(ctx context.Context, p *pool.Place) (*owner.Owner, error) {
		if err := p.Succeed(link.Plan().Line); err != nil {
			return nil, err
		}
		for {
			if err := link.Turn.Wait(ctx, p.Held); err != nil {
				return nil, err
			}
			claim, err := owner.Claim(ctx, p.Owner())
			if !errors.Is(err, owner.ErrHeld) {
				return claim, err
			}
		}
	})
	if err != nil {
		return nil, err
	}
	log.WithField("epoch", in.Claim.Epoch()).Info("nothing owns the shard any more: taking over")
	if now, err := planned(link); err == nil {
		cfg = now
	} else {
		log.WithError(err).Error("the configuration of the node cannot be used; using that of the start")
	}
	service, err := target.TakeOver(ctx, cfg, log, in)
	if err != nil {
		return nil, err
	}
	reportChanges(service, link, log)
	id := service.Admin().Backstore().ID()
	return &running{
		service: service, log: log,
		began:    func() error { return link.Serves(in.Claim.Epoch(), hex.EncodeToString(id[:])) },
		reloaded: func(err error) { reportRefused(link, err, log) },
	}, nil
}

// reportRefused has the process of the node know whether a reload was refused.
func reportRefused(link *shardserver.Link, refused error, log *logrus.Entry) {
	why := ""
	if refused != nil {
		why, _, _ = strings.Cut(refused.Error(), "\n")
	}
	if err := link.Refuses(why); err != nil {
		log.WithError(err).Warn("the process of the node does not know what came of a reload")
	}
}

// reportChanges has the process of the node know when an administrator has changed the configuration
// by this server.
func reportChanges(service *target.Service, link *shardserver.Link, log *logrus.Entry) {
	var once sync.Mutex
	before := string(service.Configuration().Text())
	service.Follow(func(next *conf.Config) (target.Prepared, error) {
		return target.Prepared{
			Commit: func() {
				once.Lock()
				defer once.Unlock()
				reportRefused(link, nil, log)
				text := string(next.Text())
				if text == before || text == string(link.Plan().Text) {
					before = text
					return
				}
				before = text
				if err := link.Changed(); err != nil {
					log.WithError(err).Warn("the process of the node does not know that the configuration has changed")
				}
			},
			Undo: func() {},
		}, nil
	})
}

// refuseShards returns an error for what a pool with shards has not.
func refuseShards(cfg *conf.Config, o serveOptions) error {
	if o.rescue {
		return cfg.Problem("data_dir", "--rescue is for a store in a directory; the shards of %s are in a pool", cfg.DataDir)
	}
	if o.standby {
		return fmt.Errorf("--standby is for a store in a directory: nodes of a pool wait for its shards in any case")
	}
	return nil
}
