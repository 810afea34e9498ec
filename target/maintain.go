package target

import (
	"context"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/conf"
)

// Upgrade gives the store of a configuration, which nothing serves, the format of
// this program.
func Upgrade(ctx context.Context, cfg *conf.Config, log *logrus.Entry) (backstore.Upgraded, error) {
	o, err := maintenanceOptions(cfg, log)
	if err != nil {
		return backstore.Upgraded{}, err
	}
	u, err := backstore.Upgrade(ctx, o)
	if err != nil {
		return u, storeProblem(cfg, err)
	}
	return u, nil
}

// SetIdentity gives the store of a configuration, which nothing serves, another
// identity, or, with keep, the one that it had where it was copied from.
func SetIdentity(ctx context.Context, cfg *conf.Config, log *logrus.Entry, keep bool) ([16]byte, error) {
	o, err := maintenanceOptions(cfg, log)
	if err != nil {
		return [16]byte{}, err
	}
	id, err := backstore.SetIdentity(ctx, o, keep)
	if err != nil {
		return id, storeProblem(cfg, err)
	}
	return id, nil
}

// maintenanceOptions are those with which a store is opened that is not served.
func maintenanceOptions(cfg *conf.Config, log *logrus.Entry) (backstore.Options, error) {
	if err := checkOwner(cfg); err != nil {
		return backstore.Options{}, err
	}
	return storeOptions(cfg, &conf.Memory{}, log), nil
}
