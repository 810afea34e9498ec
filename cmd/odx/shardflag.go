package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"odx/api"
	"odx/backstore"
	"odx/conf"
	"odx/owner"
	"odx/pool"
	"odx/pool/node"
)

// shardNumber is the value of --shard; its zero value: it is not given.
type shardNumber struct {
	given  bool
	number int
}

func (s *shardNumber) Type() string { return "NUMBER" }

func (s *shardNumber) String() string {
	if !s.given {
		return ""
	}
	return strconv.Itoa(s.number)
}

func (s *shardNumber) Set(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n >= conf.MaxShards {
		return fmt.Errorf("use a number from 0 to %d", conf.MaxShards-1)
	}
	s.given, s.number = true, n
	return nil
}

// load returns the configuration that a command is for: of a pool with shards, that of the shard
// that --shard gives, or that has the target, volume or file that an argument names.
func (o *adminOptions) load(cmd *cobra.Command) (*conf.Config, error) {
	cfg, err := loadConfig(serveOptions{config: o.config})
	if err != nil {
		return nil, err
	}
	if cfg.Pool == nil || cfg.Pool.Shards == 0 {
		if o.shard.given {
			return nil, usagef("--shard is for a pool with ceph.shards, and %s has none", cfg.DataDir)
		}
		return cfg, nil
	}
	shard := o.shard.number
	if !o.shard.given {
		if shard, err = o.chooseShard(cmd.Context(), cfg, cmd.Flags().Args()); err != nil {
			return nil, err
		}
	}
	return cfg.Part(partName(cfg), shard)
}

// partName returns a name by which this machine has parts of a configuration: a command also runs
// on machines that are no nodes.
func partName(cfg *conf.Config) string {
	if name, err := nodeNameOf(serveOptions{}); err == nil {
		if _, ok := cfg.Pool.Node(name); ok {
			return name
		}
	}
	return cfg.Pool.Nodes[0].Name
}

// chooseShard returns the shard that arguments name.
func (o *adminOptions) chooseShard(ctx context.Context, cfg *conf.Config, args []string) (int, error) {
	shard, found := 0, false
	for _, name := range args {
		switch k, ok := cfg.ShardOf(name); {
		case !ok:
		case found && k != shard:
			return 0, usagef("%v are in shards %d and %d; give --shard for one of them", args, shard, k)
		default:
			shard, found = k, true
		}
	}
	if !found && o.served {
		shard, found = servedHere(ctx, cfg)
	}
	if !found {
		return 0, usagef("%s has %d shards: give --shard, or the name of a target, or of a volume or file that is a LUN; odx cluster status prints all shards", cfg.DataDir, cfg.Pool.Shards)
	}
	return shard, nil
}

// servedHere returns a shard that this machine serves.
func servedHere(ctx context.Context, cfg *conf.Config) (shard int, ok bool) {
	for k := range cfg.Pool.Shards {
		client := api.NewClient(cfg.Pool.ShardDir(k))
		is := serves(ctx, client)
		client.Close()
		if is {
			return k, true
		}
	}
	return 0, false
}

// elsewhere explains the error of a command for a shard that another node has.
func elsewhere(cfg *conf.Config, err error) error {
	whole, isShard := cfg.Whole()
	if !isShard || !errors.Is(err, backstore.ErrLocked) && !errors.Is(err, owner.ErrHeld) {
		return err
	}
	shard, _ := cfg.Shard()
	store, closing, factsErr := pool.Facts(whole)
	if factsErr != nil {
		return err
	}
	defer func() { _ = closing() }() // the command has failed already
	f, factsErr := store.Load()
	if factsErr != nil {
		return err
	}
	there, factsErr := store.Present([]string{f.Owners[shard].Node})
	if factsErr != nil {
		return err
	}
	name := (&node.State{Facts: f, Present: there}).Serves(shard)
	n, ok := whole.Pool.Node(name)
	if !ok {
		return err
	}
	at := ", or give --api and --api-secret if it has an API over TCP"
	if address := whole.ShardAPI(n, shard); address != "" {
		at = fmt.Sprintf(", or give --api with https://%s or http://%s, and --api-secret", address, address)
	}
	return fmt.Errorf("node %s (%s) serves shard %d: run the command there%s (%w)", n.Name, n.Address, shard, at, err)
}
