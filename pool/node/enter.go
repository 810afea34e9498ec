package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"odx/conf"
	"odx/pool/facts"
)

// DifferentError is the error of a node whose configuration is not that of the nodes that are there.
type DifferentError struct {
	// Keys are those of the file that differ.
	Keys []string
	// Node has set the configuration that counts, At.
	Node string
	At   time.Time
	// Present are other nodes that are there.
	Present []string
}

func (e *DifferentError) Error() string {
	return fmt.Sprintf("the configuration differs from that of the pool, which node %s has set on %s, in %s; copy the file from a node that serves (%s), or change it there and reload",
		e.Node, e.At.Format(time.DateTime+" MST"), strings.Join(e.Keys, ", "), strings.Join(e.Present, ", "))
}

const (
	// settle is how long nodes with another configuration have to stay until it is refused: those
	// that start together are all there before the configuration of one of them counts, and one that
	// was killed counts as being there for facts.PresenceLease.
	settle = facts.PresenceLease + 1500*time.Millisecond
	// outFirst and outMost are how long a node that was refused is away until it tries again, so
	// that another one finds it alone.
	outFirst, outMost = 100 * time.Millisecond, 700 * time.Millisecond
)

// Enter enters the pool: the node is there from then on. Leave ends that. A configuration that
// differs from that of nodes that are there, and stay, is refused; where none is, it counts from then
// on.
func Enter(ctx context.Context, o Options) (_ *Node, err error) {
	n := &Node{
		o: o, started: time.Now().UTC().Truncate(time.Microsecond), begun: time.Now(), wake: make(chan struct{}, 1), setup: o.Setup,
		serving: map[int]served{}, seen: map[int]time.Time{}, released: map[int]time.Time{}, orders: map[int]order{}, moves: map[int]planned{},
	}
	f, err := o.Facts.Make(o.Setup.Shards)
	if err != nil {
		return nil, err
	}
	if f.Shards() != o.Setup.Shards {
		return nil, fmt.Errorf("%w: the pool was made with %d, the configuration has %d", errOther, f.Shards(), o.Setup.Shards)
	}
	for end := time.Now().Add(settle); ; {
		if n.presence, err = enter(ctx, o.Facts, o.Name); err != nil {
			return nil, err
		}
		if err = n.configure(ctx); err == nil {
			return n, nil
		}
		last := time.Now().After(end)
		if leaving := n.presence.Leave(); leaving != nil {
			return nil, errors.Join(err, leaving)
		}
		if _, differs := errors.AsType[*DifferentError](err); !differs || last {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(outFirst + rand.N(outMost-outFirst)):
		}
	}
}

// enter enters as soon as the process that was the node before, if it was killed, does not count
// as being there any more.
func enter(ctx context.Context, s *facts.Store, name string) (*facts.Presence, error) {
	for end := time.Now().Add(facts.PresenceLease + time.Second); ; {
		p, err := s.Enter(name)
		if !errors.Is(err, facts.ErrPresent) || time.Now().After(end) {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(lookEvery):
		}
	}
}

// configure has the configuration of a node that enters count, or refuses it where nodes with
// another one are there.
func (n *Node) configure(ctx context.Context) error {
	setup := n.o.Setup
	_, err := n.o.Facts.Update(ctx, func(f *facts.Facts) error {
		if c := &f.Configuration; c.Generation == 0 || !maps.Equal(c.Digests, setup.Digests) {
			others, err := n.others(f, &setup)
			if err != nil {
				return err
			}
			if c.Generation > 0 && len(others) > 0 {
				return &DifferentError{conf.Differ(c.Digests, setup.Digests), c.Node, c.At, others}
			}
			f.Configuration = facts.Configuration{Generation: c.Generation + 1, Digests: setup.Digests, Node: n.o.Name, At: time.Now().UTC()}
		}
		n.correct(f, nil, &setup)
		return nil
	})
	return err
}

// others returns the other nodes that are there, with those that the configuration does not have.
func (n *Node) others(f *facts.Facts, setup *Setup) ([]string, error) {
	names := slices.Concat(setup.Nodes, slices.Collect(maps.Keys(f.Nodes)))
	there, err := n.o.Facts.Present(names)
	if err != nil {
		return nil, err
	}
	delete(there, n.o.Name)
	maps.DeleteFunc(there, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(there)), nil
}

// Reconfigure has another configuration count: nodes that do not have it keep their shards and take
// no others until they have it, too. After an error the node has the one before.
func (n *Node) Reconfigure(ctx context.Context, setup Setup) error {
	if setup.Shards != n.o.Setup.Shards {
		return errOther
	}
	before := n.setUp(setup)
	defer n.hurry()
	_, err := n.o.Facts.Update(ctx, func(f *facts.Facts) error {
		if c := &f.Configuration; !maps.Equal(c.Digests, setup.Digests) {
			f.Configuration = facts.Configuration{Generation: c.Generation + 1, Digests: setup.Digests, Node: n.o.Name, At: time.Now().UTC()}
		}
		f.Nodes[n.o.Name] = n.self(f, &setup)
		return nil
	})
	if err != nil {
		n.setUp(before)
	}
	return err
}

// setUp sets the configuration of the node, and returns the one before.
func (n *Node) setUp(next Setup) (before Setup) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before, n.setup = n.setup, next
	return before
}

// Leave says that the node is not there any more, so that others take its shards when they are
// released. Run has ended.
func (n *Node) Leave() error { return n.presence.Leave() }

// Forget says that no server of the node has a shard any more.
func (n *Node) Forget(ctx context.Context) error {
	_, err := n.o.Facts.Update(ctx, func(f *facts.Facts) error {
		for k, o := range f.Owners {
			if o.Node == n.o.Name {
				o.Node = ""
				f.Owners[k] = o
			}
		}
		return nil
	})
	return err
}
