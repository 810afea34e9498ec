package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"odx/api"
	"odx/conf"
	"odx/standby"
	"odx/target"
)

// takeOver waits as a standby until no process owns the store, and then serves it. It uses
// the configuration as it is then: the file may have changed while this process waited,
// which can be long. If it has an error, the one that was checked at the start is used.
func takeOver(ctx context.Context, cfg *conf.Config, o serveOptions, stdout io.Writer, log *logrus.Entry) (*running, error) {
	if err := errors.Join(target.CheckStandby(cfg, log), api.CheckTCP(cfg)); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, cfg.Problem("data_dir", "%v", err)
	}
	var held *standby.Held
	run, err := serveNext(ctx, cfg, o, stdout, "is a standby for", log, func() (in target.Inheritance, err error) {
		in.Claim, held, err = standby.Wait(ctx, cfg.DataDir, log)
		in.Held = held
		return in, err
	})
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	run.held = held
	return run, nil
}

// serveNext waits, until wait has claimed the store, and then serves it. does is what standard
// output says of this process until then.
func serveNext(ctx context.Context, cfg *conf.Config, o serveOptions, stdout io.Writer, does string, log *logrus.Entry, wait func() (target.Inheritance, error)) (*running, error) {
	if _, err := fmt.Fprintf(stdout, "odx %s %s the store in %s\n", buildVersion(), does, cfg.DataDir); err != nil {
		log.WithError(err).Warn("cannot write to standard output")
	}
	notify(log, standbyReady)
	defer reportAlive(log)()
	stop := answerReloads(cfg, o, log)
	in, err := wait()
	stop()
	if err != nil {
		return nil, err
	}
	log.WithField("epoch", in.Claim.Epoch()).Info("no other odx serves the store any more: taking over")
	notify(log, "STATUS=taking over")
	cfg = current(cfg, o, log)
	target.LimitMemory(cfg)
	service, err := target.TakeOver(ctx, cfg, log, in)
	if err != nil {
		return nil, err
	}
	return &running{service: service, log: log}, nil
}

// standbyReady is the state of a standby for systemd.
const standbyReady = daemon.SdNotifyReady + "\nSTATUS=standby: another odx serves the store"

// answerReloads checks the configuration file, until stop is called, when a signal asks for a
// reload: a standby applies it when it takes over.
func answerReloads(cfg *conf.Config, o serveOptions, log *logrus.Entry) (stop func()) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGHUP)
	var answering sync.WaitGroup
	answering.Go(func() {
		for range asked {
			notify(log, reloading(log))
			if current(cfg, o, log) != cfg {
				log.Info("configuration checked: this standby uses it when it takes over")
			}
			notify(log, standbyReady)
		}
	})
	return func() {
		signal.Stop(asked)
		close(asked)
		answering.Wait()
	}
}

// current returns the configuration as it is now, if it can be used in place of cfg.
func current(cfg *conf.Config, o serveOptions, log *logrus.Entry) *conf.Config {
	now, err := loadConfig(o)
	if err == nil && now.DataDir != cfg.DataDir {
		err = errors.New("data_dir is another one")
	}
	if err == nil {
		err = errors.Join(target.CheckStandby(now, log), api.CheckTCP(now))
	}
	if err != nil {
		log.WithError(err).Warn("configuration changed since the start of this standby and cannot be used: using that of the start")
		return cfg
	}
	return now
}
