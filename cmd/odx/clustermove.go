package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	v1 "odx/api/v1"
	"odx/pool/facts"
	"odx/pool/node"
	"odx/pool/placement"
)

const (
	// moveLimit is how long a command waits for shards to move.
	moveLimit = 2 * time.Minute
	// moveLook is how often it looks.
	moveLook = 100 * time.Millisecond
)

func newClusterDrain() *cobra.Command {
	var o clusterOptions
	cmd := &cobra.Command{
		Use:   "drain NODE",
		Short: "Move all shards of a node to the others, and give it none until it is undrained",
		Long: "Move all shards of a node to the others, one after the other, and give it none until odx cluster\n" +
			"undrain. Initiators log in again at the node that has their target then. The command ends when\n" +
			"the node has no shard any more.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCluster(cmd, &o, func(ctx context.Context, s *shared) error {
				if err := s.isNode(args[0]); err != nil {
					return err
				}
				if _, err := s.without(args[0]); err != nil {
					return err
				}
				before := s.having(args[0])
				if err := s.update(ctx, func(f *facts.Facts) { f.Drains[args[0]] = facts.Drain{At: time.Now().UTC()} }); err != nil {
					return err
				}
				return s.await(ctx, cmd, &o, before, func(k int) (bool, error) { return s.awayFrom(k, args[0]) })
			})
		},
	}
	addClusterFlags(cmd, &o)
	return cmd
}

func newClusterUndrain() *cobra.Command {
	var o clusterOptions
	cmd := &cobra.Command{
		Use:   "undrain NODE",
		Short: "Let a node have shards again",
		Long: "Let a drained node have shards again. None moves by that: it gets those that have no node from then\n" +
			"on, and its share by odx cluster balance.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCluster(cmd, &o, func(ctx context.Context, s *shared) error {
				if err := s.isNode(args[0]); err != nil {
					return err
				}
				if err := s.update(ctx, func(f *facts.Facts) { delete(f.Drains, args[0]) }); err != nil {
					return err
				}
				return s.await(ctx, cmd, &o, nil, nil)
			})
		},
	}
	addClusterFlags(cmd, &o)
	return cmd
}

func newClusterMove() *cobra.Command {
	var o clusterOptions
	cmd := &cobra.Command{
		Use:   "move SHARD NODE",
		Short: "Move a shard to a node",
		Long: "Move a shard to a node, which serves it as soon as the one that has it has stopped: initiators log\n" +
			"in again there. The command ends when it is served.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withCluster(cmd, &o, func(ctx context.Context, s *shared) error {
				shard, err := strconv.Atoi(args[0])
				if err != nil || shard < 0 || shard >= s.facts.Shards() {
					return usagef("there is no shard %q; they are 0 to %d", args[0], s.facts.Shards()-1)
				}
				if err := s.isNode(args[1]); err != nil {
					return err
				}
				return s.move(ctx, cmd, &o, map[int]string{shard: args[1]})
			})
		},
	}
	addClusterFlags(cmd, &o)
	return cmd
}

func newClusterHandover() *cobra.Command {
	var o clusterOptions
	cmd := &cobra.Command{
		Use:   "handover",
		Short: "Move the shards of this node to the others, before it is restarted",
		Long: "Move all shards of this node to the others, one after the other, for example before its program or\n" +
			"its machine is restarted: initiators notice less than when it stops with all of them. Unlike a\n" +
			"drained node it gets shards again that have no node. The command ends when the node has no shard\n" +
			"any more.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCluster(cmd, &o, func(ctx context.Context, s *shared) error {
				name, err := nodeNameOf(serveOptions{node: o.node})
				if err == nil {
					err = s.isNode(name)
				}
				if err != nil && o.node == "" {
					err = fmt.Errorf("%w; --node says which one this machine is", err)
				}
				if err != nil {
					return err
				}
				moves, err := s.without(name)
				if err != nil {
					return err
				}
				return s.move(ctx, cmd, &o, moves)
			})
		},
	}
	addClusterFlags(cmd, &o)
	cmd.Flags().StringVar(&o.node, "node", "", "`NAME` of this machine in ceph.nodes (default: its host name)")
	return cmd
}

func newClusterBalance() *cobra.Command {
	var o clusterOptions
	cmd := &cobra.Command{
		Use:   "balance",
		Short: "Move as few shards as needed so that all nodes have as many",
		Long: "Move as few shards as needed so that the nodes differ by one at most. Shards do not move back by\n" +
			"themselves to a node that was away: that would interrupt initiators a second time.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withCluster(cmd, &o, func(ctx context.Context, s *shared) error {
				view := node.View(s.facts, s.there, s.names())
				return s.move(ctx, cmd, &o, view.Balance())
			})
		},
	}
	addClusterFlags(cmd, &o)
	return cmd
}

// isNode returns an error unless a node has the name.
func (s *shared) isNode(name string) error {
	if _, ok := s.cfg.Pool.Node(name); !ok {
		return usagef("there is no node %s; the nodes are %v", name, s.names())
	}
	return nil
}

// having returns the shards of a node.
func (s *shared) having(name string) (shards []int) {
	for k := range s.facts.Shards() {
		if s.facts.Owners[k].Node == name {
			shards = append(shards, k)
		}
	}
	return shards
}

// without returns where the shards of a node go when it is to have none, by shard.
func (s *shared) without(name string) (map[int]string, error) {
	view := node.View(s.facts, s.there, s.names())
	for i := range view.Nodes {
		view.Nodes[i].Drained = view.Nodes[i].Drained || view.Nodes[i].Name == name
	}
	to, moves := view.Destinations(), map[int]string{}
	for _, k := range s.having(name) {
		if moves[k] = to[k]; to[k] == name || to[k] == "" {
			return nil, fmt.Errorf("no other node can take the shards of %s: none is there that has the configuration that counts and is not drained; odx cluster status says why", name)
		}
	}
	return moves, nil
}

// takesNot returns why a node can take no shards and what to do, "" if it can.
func takesNot(n *placement.Node) string {
	switch {
	case !n.Alive:
		return "it is not there; start odx serve on it"
	case n.Drained:
		return "it is drained; odx cluster undrain " + n.Name + " ends that"
	case n.Behind:
		return "it does not have the configuration that counts; copy the file to it, and reload"
	}
	return ""
}

// update changes what the nodes know.
func (s *shared) update(ctx context.Context, change func(f *facts.Facts)) (err error) {
	s.facts, err = s.store.Update(ctx, func(f *facts.Facts) error {
		change(f)
		return nil
	})
	return err
}

// move moves shards and waits until they are served there.
func (s *shared) move(ctx context.Context, cmd *cobra.Command, o *clusterOptions, moves map[int]string) error {
	view := node.View(s.facts, s.there, s.names())
	for _, to := range moves {
		i := slices.IndexFunc(view.Nodes, func(n placement.Node) bool { return n.Name == to })
		if why := takesNot(&view.Nodes[i]); why != "" {
			return fmt.Errorf("node %s can take no shards: %s", to, why)
		}
	}
	err := s.update(ctx, func(f *facts.Facts) {
		for k, to := range moves {
			delete(f.Moves, k)
			if f.Owners[k].Node != to {
				f.Moves[k] = facts.Move{To: to, At: time.Now().UTC()}
			}
		}
	})
	if err != nil {
		return err
	}
	return s.await(ctx, cmd, o, slices.Sorted(maps.Keys(moves)), func(k int) (bool, error) { return s.movedTo(k, moves[k]) })
}

// awayFrom reports whether a shard of a node that was drained is elsewhere. An error says that it
// will not be.
func (s *shared) awayFrom(shard int, name string) (bool, error) {
	if at := s.state().Serves(shard); at != "" && at != name {
		return true, nil
	}
	if _, ok := s.facts.Drains[name]; !ok {
		return false, fmt.Errorf("node %s is not drained any more: another command has ended that", name)
	}
	return false, nil
}

// movedTo reports whether a shard is where it was to be moved. An error says that it will not be.
func (s *shared) movedTo(shard int, to string) (bool, error) {
	if s.facts.Owners[shard].Node == to { // it has arrived, and may be away for the moment
		return s.there[to], nil
	}
	switch m, ok := s.facts.Moves[shard]; {
	case ok && m.To != to:
		return false, fmt.Errorf("shard %d is to move to node %s, not to %s any more: another command came later", shard, m.To, to)
	case !ok:
		return false, fmt.Errorf("shard %d is not to move to node %s any more: the move was given up, or another command came later", shard, to)
	}
	if _, ok := s.facts.Drains[to]; ok {
		return false, fmt.Errorf("shard %d does not move to node %s, which was drained by another command", shard, to)
	}
	return false, nil
}

// await waits until some shards are where they are to be, and prints where they are. there reports
// whether one is, or why it never will be.
func (s *shared) await(ctx context.Context, cmd *cobra.Command, o *clusterOptions, shards []int, there func(shard int) (bool, error)) error {
	limited, cancel := context.WithTimeoutCause(ctx, moveLimit, fmt.Errorf("not done after %v", moveLimit))
	defer cancel()
	tick := time.NewTicker(moveLook)
	defer tick.Stop()
	out := v1.ClusterMoves{Moved: map[int]string{}}
	for {
		for _, k := range shards {
			if out.Moved[k] != "" {
				continue
			}
			is, err := there(k)
			if err != nil {
				return err
			}
			if is {
				out.Moved[k] = s.state().Serves(k)
				if err := reportMoved(cmd, o, k, out.Moved[k]); err != nil {
					return err
				}
			}
		}
		if len(out.Moved) == len(shards) {
			break
		}
		select {
		case <-limited.Done():
			return fmt.Errorf("%d of %d shards have moved: %w; odx cluster status says which others still are to", len(out.Moved), len(shards), context.Cause(limited))
		case <-tick.C:
		}
		if err := s.look(); err != nil {
			return errors.Join(err, errors.New("it is not known whether all shards have moved: see odx cluster status"))
		}
	}
	switch {
	case o.json:
		return printJSON(cmd.OutOrStdout(), out)
	case len(shards) == 0:
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "no shard moves")
		return err
	}
	return nil
}

// reportMoved prints where a shard is now.
func reportMoved(cmd *cobra.Command, o *clusterOptions, shard int, at string) error {
	if o.json {
		return nil
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "shard %d is at node %s\n", shard, at)
	return err
}
