package admin

import (
	"context"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/conf"
)

// Upgrade upgrades the store of a configuration, which is not served, to the format of
// this program.
func Upgrade(ctx context.Context, cfg *conf.Config, log *logrus.Entry) (backstore.Upgraded, error) {
	o, err := maintenanceOptions(cfg, log)
	if err != nil {
		return backstore.Upgraded{}, err
	}
	u, err := backstore.Upgrade(ctx, o)
	if err != nil {
		return u, lockedProblem(cfg, err)
	}
	return u, nil
}

// SetIdentity gives the store of a configuration, which is not served, a new identity,
// or, with keep, the one that it had where it was copied from.
func SetIdentity(ctx context.Context, cfg *conf.Config, log *logrus.Entry, keep bool) ([16]byte, error) {
	o, err := maintenanceOptions(cfg, log)
	if err != nil {
		return [16]byte{}, err
	}
	id, err := backstore.SetIdentity(ctx, o, keep)
	if err != nil {
		return id, lockedProblem(cfg, err)
	}
	return id, nil
}

// maintenanceOptions returns the options for opening a store that is not served.
func maintenanceOptions(cfg *conf.Config, log *logrus.Entry) (backstore.Options, error) {
	if cfg.Pool != nil {
		return backstore.Options{}, cfg.Problem("data_dir", "the store in %s is in a pool; this command is for a store in a directory", cfg.DataDir)
	}
	if err := checkOwner(cfg); err != nil {
		return backstore.Options{}, err
	}
	return storeOptions(cfg, &conf.Memory{}, log), nil
}

// Repair rebuilds the store of a configuration, which is not served, in the directory
// how.To, or in place if that is empty. It sets how.Options from the configuration.
func Repair(ctx context.Context, cfg *conf.Config, log *logrus.Entry, how backstore.RepairOptions) (backstore.Repaired, error) {
	var err error
	if how.Options, err = maintenanceOptions(cfg, log); err != nil {
		return backstore.Repaired{}, err
	}
	r, err := backstore.Repair(ctx, how)
	if err != nil {
		return r, lockedProblem(cfg, err)
	}
	return r, nil
}

// Dump calls emit with the contents of the files of the store of a configuration, which
// is not served. parts selects what; none means all.
func Dump(ctx context.Context, cfg *conf.Config, log *logrus.Entry, parts []string, emit func(backstore.DumpItem) error) error {
	o, err := maintenanceOptions(cfg, log)
	if err != nil {
		return err
	}
	if err := backstore.Dump(ctx, o, parts, emit); err != nil {
		return lockedProblem(cfg, err)
	}
	return nil
}
