package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	v1 "odx/api/v1"
	"odx/conf"
	"odx/pool"
	"odx/pool/facts"
	"odx/pool/node"
)

// clusterOptions are the flags of the commands for a pool with shards.
type clusterOptions struct {
	config string
	json   bool
	node   string
}

func newCluster() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cluster",
		Short: "Look after the nodes that share the shards of a pool",
		Long: "Look after the nodes that share the shards of a pool. These commands work on every machine that\n" +
			"has the configuration and reaches the pool: they read and change what all nodes know.",
	}
	cmd.AddCommand(newClusterStatus(), newClusterDrain(), newClusterUndrain(), newClusterMove(), newClusterHandover(), newClusterBalance())
	return cmd
}

func addClusterFlags(cmd *cobra.Command, o *clusterOptions) {
	addConfigFlag(cmd, &o.config)
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

// shared is what a command knows of a pool.
type shared struct {
	cfg   *conf.Config
	store *facts.Store
	facts *facts.Facts
	there map[string]bool
}

// withCluster calls do with what the nodes of a pool know.
func withCluster(cmd *cobra.Command, o *clusterOptions, do func(ctx context.Context, s *shared) error) (err error) {
	cfg, err := loadConfig(serveOptions{config: o.config})
	if err != nil {
		return err
	}
	if cfg.Pool == nil || cfg.Pool.Shards == 0 {
		return cfg.Problem("data_dir", "%s has no shards: this command is for a pool with ceph.shards", cfg.DataDir)
	}
	ctx, release := untilSignal(cmd.Context())
	defer release()
	store, closing, err := pool.Facts(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closing()) }()
	s := &shared{cfg: cfg, store: store}
	if err := s.look(); err != nil {
		return err
	}
	return do(ctx, s)
}

// look reads what the nodes know.
func (s *shared) look() (err error) {
	if s.facts, err = s.store.Load(); errors.Is(err, facts.ErrNone) {
		return &noServerError{s.cfg.DataDir + ", which no node has ever shared"}
	} else if err != nil {
		return err
	}
	if s.facts.Shards() != s.cfg.Pool.Shards {
		return s.cfg.Problem("ceph.shards", "the pool has %d shards, not %d", s.facts.Shards(), s.cfg.Pool.Shards)
	}
	s.there, err = s.store.Present(s.names())
	return err
}

func (s *shared) names() (names []string) {
	for _, n := range s.cfg.Pool.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// state is what is served where.
func (s *shared) state() *node.State { return &node.State{Facts: s.facts, Present: s.there} }

func newClusterStatus() *cobra.Command {
	var o clusterOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Print the nodes and shards of a pool",
		Long: "Print which nodes of a pool are there, which of them serves each shard and since which epoch, what\n" +
			"is drained or about to move, and which configuration counts.\n\n" +
			"The exit status is 0 if every shard is served and every node is there with the configuration that\n" +
			"counts, 1 otherwise, and 5 if no node has ever shared the pool.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCluster(cmd, &o, func(_ context.Context, s *shared) error {
				st, err := s.status()
				if err != nil {
					return err
				}
				if o.json {
					err = printJSON(cmd.OutOrStdout(), st)
				} else {
					err = printCluster(cmd.OutOrStdout(), &st)
				}
				if err == nil && len(st.Problems) > 0 {
					err = statusFailed
				}
				return err
			})
		},
	}
	addClusterFlags(cmd, &o)
	return cmd
}

// status returns what a command prints of a pool.
func (s *shared) status() (v1.ClusterStatus, error) {
	st := v1.ClusterStatus{Health: "healthy", Problems: []string{}, Pool: s.cfg.DataDir}
	digests, err := s.cfg.Shared()
	if err != nil {
		return st, err
	}
	c := &s.facts.Configuration
	st.Configuration = v1.ClusterConfiguration{Generation: c.Generation, Node: c.Node, At: c.At, Differs: append([]string{}, conf.Differ(c.Digests, digests)...)}
	problem := func(format string, args ...any) {
		st.Health, st.Problems = "degraded", append(st.Problems, fmt.Sprintf(format, args...))
	}
	view := node.View(s.facts, s.there, s.names())
	for i, n := range s.cfg.Pool.Nodes {
		known := &view.Nodes[i]
		out := v1.ClusterNode{Name: n.Name, Address: n.Address.String(), Present: known.Alive, Drained: known.Drained, Behind: known.Alive && known.Behind}
		if f, ok := s.facts.Nodes[n.Name]; ok {
			out.Started = &f.Started
		}
		for k := range view.Shards {
			if s.state().Serves(k) == n.Name {
				out.Shards++
			}
		}
		switch {
		case !out.Present:
			problem("node %s is not there", n.Name)
		case out.Behind:
			problem("node %s does not have the configuration that counts, and takes no shards: copy it from node %s, and reload", n.Name, c.Node)
		}
		st.Nodes = append(st.Nodes, out)
	}
	for k := range view.Shards {
		out := s.shard(k)
		if out.Node == "" {
			problem("no node serves shard %d", k)
		} else if why := s.facts.Owners[k].Refuses; why != "" {
			problem("the server of shard %d at node %s has refused the configuration that counts, and no node may be able to take the shard over by it: %s", k, out.Node, why)
		}
		st.Shards = append(st.Shards, out)
	}
	if len(st.Configuration.Differs) > 0 {
		problem("the configuration of this machine differs from the one that counts in %s", strings.Join(st.Configuration.Differs, ", "))
	}
	return st, nil
}

// shard returns what a command prints of a shard.
func (s *shared) shard(k int) v1.ClusterShard {
	o := s.facts.Owners[k]
	out := v1.ClusterShard{Shard: k, Node: s.state().Serves(k), Epoch: o.Epoch, Store: o.Store, MovesTo: s.facts.Moves[k].To, Targets: []string{}}
	if !o.Since.IsZero() {
		out.Since = &o.Since
	}
	if n, ok := s.cfg.Pool.Node(out.Node); ok {
		out.Portal, out.API = s.cfg.ShardPortal(n, k).String(), s.cfg.ShardAPI(n, k)
	}
	for i := range s.cfg.Targets {
		if t := &s.cfg.Targets[i]; t.Shard == k {
			out.Targets = append(out.Targets, t.Name)
		}
	}
	return out
}

// printCluster prints the status of a pool.
func printCluster(w io.Writer, st *v1.ClusterStatus) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "health\t%s\t%s\n", st.Health, st.Pool)
	for _, p := range st.Problems {
		fmt.Fprintf(table, "problem\t%s\n", p)
	}
	c := &st.Configuration
	fmt.Fprintf(table, "configuration\t%d\tset by node %s, %s\n", c.Generation, c.Node, c.At.Local().Format(time.DateTime))
	fmt.Fprintf(table, "\nNODE\tADDRESS\tSTATE\tSHARDS\n")
	for _, n := range st.Nodes {
		state := "there"
		if !n.Present {
			state = "NOT THERE"
		}
		if n.Drained {
			state += ", drained"
		}
		if n.Behind {
			state += ", BEHIND"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\n", n.Name, n.Address, state, n.Shards)
	}
	fmt.Fprintf(table, "\nSHARD\tNODE\tEPOCH\tPORTAL\tTARGETS\n")
	for _, k := range st.Shards {
		at := orDash(k.Node)
		if k.MovesTo != "" {
			at += " → " + k.MovesTo
		}
		fmt.Fprintf(table, "%d\t%s\t%d\t%s\t%s\n", k.Shard, at, k.Epoch, orDash(k.Portal), strings.Join(k.Targets, " "))
	}
	return table.Flush()
}
