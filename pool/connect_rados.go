//go:build rados

package pool

import (
	"time"

	"odx/backstore/vfs/rados"
	"odx/backstore/vfs/rados/librados"
	"odx/conf"
)

// patience is when the outcome of an operation counts as unknown.
const patience = 8 * time.Second

// connect connects to the pool of a configuration.
func connect(cfg *conf.Config) (rados.Pool, func() error, error) {
	p, err := librados.Open(librados.Options{
		Conf: cfg.Pool.Conf, User: cfg.Pool.User, Keyring: cfg.Pool.Keyring,
		Pool: cfg.Pool.Name, Namespace: cfg.Pool.Namespace, Timeout: patience,
	})
	if err != nil {
		return nil, nil, cfg.Problem("data_dir", "%s cannot be reached: %v", cfg.DataDir, err)
	}
	return p, p.Close, nil
}

// Check returns why this program cannot have the store of a configuration, or nil.
func Check(*conf.Config) error { return nil }
