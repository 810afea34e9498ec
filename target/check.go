package target

import (
	"errors"

	"github.com/sirupsen/logrus"

	"odx/backstore"
	"odx/conf"
	"odx/pool"
)

// Check returns why this program cannot serve a configuration, or open its store, that
// another process has.
func Check(cfg *conf.Config, log *logrus.Entry) error {
	_, unwise, err := readSecrets(cfg)
	for _, w := range unwise {
		w.log(log)
	}
	if cfg.Pool != nil {
		return errors.Join(err, pool.Check(cfg))
	}
	return errors.Join(err, backstore.CheckFormat(cfg.DataDir))
}

// CheckStandby returns why a configuration cannot be that of a standby, or why its store
// could not be opened.
func CheckStandby(cfg *conf.Config, log *logrus.Entry) error {
	if err := checkWriteThrough(cfg); err != nil {
		return err
	}
	return Check(cfg, log)
}

// checkWriteThrough returns an error for a cache that a standby could not go on with.
func checkWriteThrough(cfg *conf.Config) error {
	for i := range cfg.Views {
		if v := &cfg.Views[i]; v.Kind == conf.ViewCache && v.WriteBack {
			return cfg.Problem(v.Key+".cache.mode", "view %s: a write-back cache is lost with the process, so that a standby would serve older data to hosts that go on; make it write-through", v.Name)
		}
	}
	return nil
}
