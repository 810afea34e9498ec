// Package pool finds the store of a configuration in a pool of a Ceph cluster: its files, who
// owns it, and what else a store has there that one in a directory has not. A program that is
// built with the tag rados reaches pools; another one refuses them.
package pool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"odx/backstore"
	"odx/backstore/meta/pebblekv"
	"odx/backstore/vfs/rados"
	"odx/conf"
	"odx/owner"
	"odx/pool/address"
	"odx/pool/facts"
)

const (
	// dir is the directory of the store among its files.
	dir = "/store"
	// rootObject has the lock of the owner; see package rados.
	rootObject = "root"
	// firsts bounds how often the directory of a store is made while others make it.
	firsts = 10
)

// Place is the files of the store in a pool, for one claim of it.
type Place struct {
	pool   rados.Pool
	files  *rados.FS
	others *siblings
	// key is that of the fingerprints of all shards of the pool; nil where it has one store.
	key    *[32]byte
	close  func() error
	stop   context.CancelFunc // ends asking
	asking sync.WaitGroup     // for the space of the pool
}

// Open connects to the pool of a configuration. A program that cannot reach any returns a
// conf.Problem.
func Open(cfg *conf.Config) (*Place, error) {
	pool, closing, err := connect(cfg)
	if err != nil {
		return nil, err
	}
	if shared, err := facts.New(pool).Exist(); err != nil || shared {
		if shared {
			err = cfg.Problem("data_dir", "%s has shards: give the configuration of its nodes, with ceph.shards and ceph.nodes", cfg.DataDir)
		}
		return nil, errors.Join(err, closing())
	}
	key, err := sharedKey(cfg)
	if err != nil {
		return nil, errors.Join(err, closing())
	}
	p := &Place{pool: pool, key: key, close: closing, others: newSiblings(cfg)}
	for range firsts {
		p.files = rados.New(pool)
		// Another process may be the first at the same moment, or become the owner.
		if err = p.files.MkdirAll(dir); !errors.Is(err, rados.ErrFenced) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", cfg.DataDir, err), closing())
	}
	ctx, stop := context.WithCancel(context.Background())
	p.stop = stop
	p.asking.Go(func() { p.files.KeepSpace(ctx) })
	return p, nil
}

// Close ends the connection. The claim was released, and no file is used any more.
func (p *Place) Close() error {
	p.stop()
	p.asking.Wait()
	return errors.Join(p.others.close(), p.close())
}

// Owner decides who owns the store.
func (p *Place) Owner() owner.Driver { return p.files.Owner(dir) }

// Succeed has this process own the store as one of a line (rados.Line), and ends the lock of an earlier
// one of it, which has ended. text is "" for a process that is in none.
func (p *Place) Succeed(text string) error {
	if text == "" {
		return nil
	}
	l, err := rados.ParseLine(text)
	if err != nil {
		return err
	}
	return p.files.Succeed(l)
}

// Exists reports whether there is a store.
func (p *Place) Exists() (bool, error) {
	names, err := p.files.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return len(names) > 0, err
}

// Set sets in the options of a store where it is, and what follows from that.
func (p *Place) Set(o *backstore.Options) {
	o.Dir, o.FS, o.Engine, o.Shared, o.Siblings, o.FingerprintKey = dir, p.files, pebblekv.Engine(), true, p.others, p.key
}

// Tenure says who owns a store, and since which claim.
type Tenure struct {
	// Host is the name of the machine, "" where no process owns the store; Address is where
	// the pool sees it.
	Host, Address string
	Epoch         uint64
}

// String returns it in words.
func (t Tenure) String() string {
	if t.Host == "" {
		return fmt.Sprintf("no owner, epoch %d", t.Epoch)
	}
	return fmt.Sprintf("owner %s (%s), epoch %d", t.Host, t.Address, t.Epoch)
}

// Look returns who owns the store of a configuration.
func Look(cfg *conf.Config) (t Tenure, err error) {
	pool, closing, err := connect(cfg)
	if err != nil {
		return t, err
	}
	defer func() { err = errors.Join(err, closing()) }()
	held, epoch, err := rados.New(pool).Tenure()
	if err != nil {
		return t, fmt.Errorf("%s: %w", cfg.DataDir, err)
	}
	return Tenure{held.Host(), held.Address, epoch}, nil
}

// LeaveAddresses removes the addresses of the owner that an earlier process of this machine has
// left, and returns why this one could not have them, or nil.
func LeaveAddresses(cfg *conf.Config) error {
	err := address.Check(cfg.Pool.Addresses)
	if err == nil {
		err = address.Remove(cfg.Pool.Addresses)
	}
	if err != nil {
		return cfg.Problem("ceph.addresses", "%v", err)
	}
	return nil
}

// Held reports whether a process owns the store.
func (p *Place) Held() (bool, error) {
	held, err := p.pool.Holder(rootObject)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return held != rados.Holder{}, err
}

// Wait waits until no other process owns the store, and takes it. While the pool does not
// answer it tries again, and calls failing with why. The place is that of the claim.
func Wait(ctx context.Context, cfg *conf.Config, failing func(error)) (*Place, *owner.Owner, error) {
	return WaitBy(ctx, cfg, failing, func(ctx context.Context, p *Place) (*owner.Owner, error) { return owner.Wait(ctx, p.Owner()) })
}

// WaitBy is Wait with a function that claims the store at its place when it may.
func WaitBy(ctx context.Context, cfg *conf.Config, failing func(error), claims func(context.Context, *Place) (*owner.Owner, error)) (*Place, *owner.Owner, error) {
	for first := true; ; first = false {
		place, err := Open(cfg)
		if err != nil && first {
			return nil, nil, err
		}
		if err == nil {
			var claim *owner.Owner
			if claim, err = claims(ctx, place); err == nil {
				return place, claim, nil
			}
			err = errors.Join(err, place.Close())
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
		failing(err)
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-time.After(again):
		}
	}
}

// again is how long Wait waits before it connects again.
const again = time.Second
