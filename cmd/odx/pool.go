package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/sirupsen/logrus"

	"odx/api"
	"odx/conf"
	"odx/owner"
	"odx/pool"
	"odx/target"
)

// inPool waits until no other server owns the store in a pool, and then serves it. It uses
// the configuration as it is then, as takeOver does.
func inPool(ctx context.Context, cfg *conf.Config, o serveOptions, stdout io.Writer, log *logrus.Entry) (*running, error) {
	if o.rescue {
		return nil, cfg.Problem("data_dir", "--rescue is for a store in a directory; the one in %s is in a pool", cfg.DataDir)
	}
	if err := errors.Join(target.CheckStandby(cfg, log), api.CheckTCP(cfg)); err != nil {
		return nil, err
	}
	local, err := claimRunDir(ctx, cfg)
	if err != nil {
		return nil, err
	}
	// The claim proves that no process of this machine has them.
	err = pool.LeaveAddresses(cfg)
	var run *running
	if err == nil {
		run, err = waitInPool(ctx, cfg, o, stdout, log)
	}
	if err != nil {
		return nil, errors.Join(err, local.Release())
	}
	run.local = local
	return run, nil
}

// claimRunDir claims the directory of the sockets on this machine for this process.
func claimRunDir(ctx context.Context, cfg *conf.Config) (*owner.Owner, error) {
	dir := cfg.LocalDir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, cfg.Problem("ceph.run_dir", "%v", err)
	}
	local, err := owner.Claim(ctx, owner.Directory(dir))
	if errors.Is(err, owner.ErrHeld) {
		return nil, cfg.Problem("ceph.run_dir", "%s is in use by another odx; stop it, or give this one another directory", dir)
	}
	if err != nil {
		return nil, cfg.Problem("ceph.run_dir", "%v", err)
	}
	return local, nil
}

// waitInPool is inPool with the directory of the sockets.
func waitInPool(ctx context.Context, cfg *conf.Config, o serveOptions, stdout io.Writer, log *logrus.Entry) (*running, error) {
	return serveNext(ctx, cfg, o, stdout, "waits for", log, func() (in target.Inheritance, err error) {
		in.Place, in.Claim, err = pool.Wait(ctx, cfg, func(why error) {
			log.WithError(why).Warn("the pool does not answer; retrying")
		})
		return in, err
	})
}

// again begins this process again, as the same process for who has started it: it has lost the
// store to another one, and nothing of what it knew counts. It returns only if that fails.
func again(program string, log *logrus.Entry) error {
	if program == "" {
		return errors.New("the path of the program is not known: start odx again")
	}
	log.Info("starting again as a standby")
	notify(log, daemon.SdNotifyReloading)
	return fmt.Errorf("start %s again: %w", program, syscall.Exec(program, os.Args, os.Environ()))
}

// standbyInPool describes, where no server of this machine answers, who serves a store in a pool.
// waits reports whether a process of this machine waits for the store.
func standbyInPool(ctx context.Context, cfg *conf.Config) (who pool.Tenure, waits bool, err error) {
	if who, err = pool.Look(cfg); err != nil {
		return who, false, err
	}
	claim, err := owner.ReadDirectory(cfg.LocalDir()).Claim(ctx)
	switch {
	case errors.Is(err, owner.ErrHeld):
		return who, true, nil
	case err != nil:
		return who, false, nil // no process was ever started here
	}
	return who, false, claim.Release()
}

// unownedPlace is unowned for a store in a pool.
func unownedPlace(ctx context.Context, cfg *conf.Config, do func() error) (err error) {
	place, err := pool.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, place.Close()) }()
	claim, err := owner.Claim(ctx, place.Owner())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, claim.Release()) }()
	return do()
}
