// Package node is a machine that shares the shards of a pool with others. It enters the pool with
// its configuration, says which shards its servers have, follows the facts that all nodes know,
// and says to its servers whether they may claim their shard, and when they have to give it up
// (package placement). It needs no leader, and nothing that it says is relied upon for safety.
package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"odx/pool/facts"
	"odx/pool/placement"
)

const (
	// begin is how long after its start a node leaves to other nodes of the configuration what
	// they would have if all started together.
	begin = 6 * time.Second
	// step is how much later each further node claims a shard that has no owner: more than the one
	// before takes to read the facts and to look at the lock.
	step = time.Second
	// doubt is how much later a node claims a shard whose owner seems to be there.
	doubt = time.Second
	// notice is how long an owner waits before it gives up a shard as planned: others have read
	// the facts by then.
	notice = 700 * time.Millisecond
	// giveUpLimit bounds how long one shard that was given up holds back the next.
	giveUpLimit = 20 * time.Second
	// moveLimit is how long a planned move stays planned, by the clock of each node.
	moveLimit = 2 * time.Minute
)

// Servers are the servers of the shards on this machine, one for each. Their methods are called
// by one goroutine and do not block.
type Servers interface {
	// May says whether a server may claim its shard, once nothing has owned that for a time.
	May(shard int, may bool, after time.Duration)
	// Release has a server stop and begin again as one that waits.
	Release(shard int)
}

// Options are what a node is.
type Options struct {
	// Name is that of the node.
	Name  string
	Facts *facts.Store
	Log   *logrus.Entry
	Setup Setup
}

// Setup is what a configuration says.
type Setup struct {
	// Nodes are the names of all nodes, by rank.
	Nodes  []string
	Shards int
	// Digests are conf.Config.Shared.
	Digests map[string]string
}

// State is what a node knows.
type State struct {
	Facts *facts.Facts
	// Present are the nodes that are there.
	Present map[string]bool
}

// Serves returns the node that serves a shard, "" for none.
func (s *State) Serves(shard int) string {
	if s == nil {
		return ""
	}
	if name := s.Facts.Owners[shard].Node; s.Present[name] {
		return name
	}
	return ""
}

// Node is a node. Its methods may be called concurrently.
type Node struct {
	o        Options
	started  time.Time // by the clock of the machine, for others to see
	begun    time.Time // by one that is never set
	presence *facts.Presence
	wake     chan struct{}
	state    atomic.Pointer[State]

	mu      sync.Mutex // guards what follows
	setup   Setup
	serving map[int]served

	// Of the goroutine of Run.
	servers  Servers
	seen     map[int]time.Time // when a shard was first to be given up
	released map[int]time.Time // when it was
	orders   map[int]order
	moves    map[int]planned // those that the facts have, by shard
	failing  string
}

// planned is a move, and when this node first saw it: clocks of machines differ.
type planned struct {
	facts.Move
	seen time.Time
}

// served is a shard that a server of this machine has.
type served struct {
	epoch uint64
	store string
	// refuses is facts.Owner.Refuses.
	refuses string
}

// order is what a server was told by May.
type order struct {
	may   bool
	after time.Duration
}

// State returns what the node knows; nil before it has entered.
func (n *Node) State() *State { return n.state.Load() }

// Serves says that a server has its shard, by an epoch.
func (n *Node) Serves(shard int, epoch uint64, store string) {
	n.mu.Lock()
	n.serving[shard] = served{epoch: epoch, store: store}
	n.mu.Unlock()
	n.hurry()
}

// Refuses says why the server of a shard goes on by the configuration that it had, in place of the
// one that it was sent last; "": it does not.
func (n *Node) Refuses(shard int, why string) {
	n.mu.Lock()
	if s, ok := n.serving[shard]; ok {
		s.refuses = strings.ToValidUTF8(why[:min(len(why), facts.MaxRefuses)], "")
		n.serving[shard] = s
	}
	n.mu.Unlock()
	n.hurry()
}

// Ended says that a server has not its shard any more.
func (n *Node) Ended(shard int) {
	n.mu.Lock()
	delete(n.serving, shard)
	n.mu.Unlock()
	n.hurry()
}

// hurry has Run look at once.
func (n *Node) hurry() {
	select {
	case n.wake <- struct{}{}:
	default: // it will
	}
}

// Run follows the facts until ctx ends, and says to servers what follows from them.
func (n *Node) Run(ctx context.Context, servers Servers) {
	n.servers = servers
	tick := time.NewTicker(facts.RenewEvery)
	defer tick.Stop()
	for {
		err := n.look(ctx)
		if text := fmt.Sprint(err); err != nil && ctx.Err() == nil && text != n.failing {
			n.o.Log.WithError(err).Warn("facts of the pool not read or written; retrying")
			n.failing = text
		} else if err == nil {
			n.failing = ""
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-n.wake:
		}
	}
}

// look reads the facts once, corrects them, and acts on them.
func (n *Node) look(ctx context.Context) error {
	if err := n.presence.Renew(); err != nil {
		return err
	}
	f, err := n.o.Facts.Load()
	if err != nil {
		return err
	}
	n.mu.Lock()
	setup, serving := n.setup, maps.Clone(n.serving)
	n.mu.Unlock()
	if n.correct(f, serving, &setup) {
		f, err = n.o.Facts.Update(ctx, func(f *facts.Facts) error {
			n.correct(f, serving, &setup)
			return nil
		})
		if err != nil {
			return err
		}
	}
	there, err := n.o.Facts.Present(setup.Nodes)
	if err != nil {
		return err
	}
	there[n.o.Name] = true
	n.state.Store(&State{f, there})
	n.act(f, there, serving, &setup)
	return nil
}

// correct makes facts say of this node what is so, and reports whether that changes them.
func (n *Node) correct(f *facts.Facts, serving map[int]served, setup *Setup) (changed bool) {
	now := time.Now().UTC()
	for k := range f.Shards() {
		row := f.Owners[k]
		if mine, ok := serving[k]; !ok && row.Node == n.o.Name {
			row.Node, row.Refuses = "", ""
			f.Owners[k], changed = row, true
		} else if ok && row.Epoch <= mine.epoch {
			is := facts.Owner{Node: n.o.Name, Epoch: mine.epoch, Store: mine.store, Since: row.Since, Refuses: mine.refuses}
			if row.Node != is.Node || row.Epoch != is.Epoch {
				is.Since = now
			}
			if row != is {
				f.Owners[k], changed = is, true
			}
		}
		if m, ok := f.Moves[k]; !ok {
			delete(n.moves, k)
		} else if f.Owners[k].Node == m.To || n.since(k, m) > moveLimit {
			delete(f.Moves, k)
			changed = true
		}
	}
	if me := n.self(f, setup); f.Nodes[n.o.Name] != me {
		f.Nodes[n.o.Name], changed = me, true
	}
	return changed
}

// since returns for how long this node has known a move of a shard.
func (n *Node) since(shard int, m facts.Move) time.Duration {
	p, ok := n.moves[shard]
	if !ok || p.To != m.To || !p.At.Equal(m.At) {
		p = planned{m, time.Now()}
		n.moves[shard] = p
	}
	return time.Since(p.seen)
}

// self returns what the facts are to say of this node.
func (n *Node) self(f *facts.Facts, setup *Setup) facts.Node {
	me := facts.Node{Generation: f.Nodes[n.o.Name].Generation, Started: n.started}
	if maps.Equal(f.Configuration.Digests, setup.Digests) {
		me.Generation = f.Configuration.Generation
	} else if me.Generation == f.Configuration.Generation {
		me.Generation = 0
	}
	return me
}

// View returns what placement needs of the facts, for nodes in the order of their rank.
func View(f *facts.Facts, there map[string]bool, nodes []string) placement.View {
	v := placement.View{Shards: make([]placement.Shard, f.Shards())}
	for _, name := range nodes {
		_, drained := f.Drains[name]
		v.Nodes = append(v.Nodes, placement.Node{
			Name: name, Alive: there[name], Drained: drained, Behind: f.Nodes[name].Generation != f.Configuration.Generation,
		})
	}
	for k := range v.Shards {
		v.Shards[k] = placement.Shard{Owner: f.Owners[k].Node, To: f.Moves[k].To}
	}
	return v
}

// act says to the servers what follows from the facts.
func (n *Node) act(f *facts.Facts, there map[string]bool, serving map[int]served, setup *Setup) {
	v := View(f, there, setup.Nodes)
	young := time.Since(n.begun) < begin
	expected := v
	if young {
		expected.Nodes = slices.Clone(v.Nodes)
		for i := range expected.Nodes {
			p := &expected.Nodes[i]
			if _, entered := f.Nodes[p.Name]; !p.Alive || !entered { // it may start just now
				p.Alive, p.Behind = true, false
			}
		}
	}
	places := expected.Places(n.o.Name)
	for k, place := range places {
		o := order{may: place == 0 || place > 0 && !young}
		if place > 0 {
			o.after = time.Duration(place) * step
			if who := f.Owners[k].Node; there[who] {
				o.after += doubt
			}
		}
		if was, ok := n.orders[k]; !ok || was != o {
			n.orders[k] = o
			n.servers.May(k, o.may, o.after)
		}
	}
	n.giveUp(f, &v, serving)
}

// giveUp has a server release its shard that is to be at another node: one after the other, so
// that few initiators wait at a time.
func (n *Node) giveUp(f *facts.Facts, v *placement.View, serving map[int]served) {
	now := time.Now()
	for k, at := range n.released {
		if who := f.Owners[k].Node; who != "" && who != n.o.Name || now.Sub(at) > giveUpLimit {
			delete(n.released, k)
		}
	}
	for k, to := range v.Destinations() {
		if _, mine := serving[k]; !mine || to == "" || to == n.o.Name {
			delete(n.seen, k)
			continue
		}
		first, ok := n.seen[k]
		if !ok {
			n.seen[k], first = now, now
		}
		if now.Sub(first) < notice || len(n.released) > 0 {
			continue
		}
		n.o.Log.WithFields(logrus.Fields{"shard": k, "to": to}).Info("giving up a shard as planned")
		n.released[k] = now
		n.servers.Release(k)
	}
}

// errOther is a pool that was made with another number of shards.
var errOther = errors.New("the number of shards cannot change")
