package pool

import (
	"errors"
	"fmt"
	"io/fs"

	"odx/conf"
	"odx/pool/facts"
)

// Facts connects to the facts that the nodes of a pool share. A namespace that has a store of its
// own is refused.
func Facts(cfg *conf.Config) (_ *facts.Store, closing func() error, err error) {
	pool, closing, err := connect(cfg)
	if err != nil {
		return nil, nil, err
	}
	if _, err := pool.Length(rootObject); err == nil {
		err = cfg.Problem("ceph.shards", "%s has one store, which cannot become shards: use another namespace, and copy the LUNs", cfg.DataDir)
		return nil, nil, errors.Join(err, closing())
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", cfg.DataDir, err), closing())
	}
	return facts.New(pool), closing, nil
}

// sharedKey returns the key of fingerprints that the shards of a pool have, so that they find equal
// data of each other; nil for a store that is not a shard.
func sharedKey(cfg *conf.Config) (key *[32]byte, err error) {
	base, ok := cfg.Whole()
	if !ok {
		return nil, nil
	}
	pool, closing, err := connect(base)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closing()) }()
	f, err := facts.New(pool).Load()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", base.DataDir, err)
	}
	text, err := f.Key("fingerprints")
	if err != nil {
		return nil, err
	}
	return (*[32]byte)(text), nil
}
