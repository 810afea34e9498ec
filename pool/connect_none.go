//go:build !rados

package pool

import (
	"odx/backstore/vfs/rados"
	"odx/conf"
)

// connect connects to the pool of a configuration.
func connect(cfg *conf.Config) (rados.Pool, func() error, error) { return nil, nil, refusal(cfg) }

// Check returns why this program cannot have the store of a configuration, or nil.
func Check(cfg *conf.Config) error {
	if cfg.Pool == nil {
		return nil
	}
	return refusal(cfg)
}

func refusal(cfg *conf.Config) error {
	return cfg.Problem("data_dir", "this odx is built without Ceph and cannot reach %s: use odx-rados, or a directory", cfg.DataDir)
}
