// Package placement says which node of a pool should have which shard. It is a function of what
// the nodes know, so that all of them come to the same result from the same facts, without a
// leader. It only chooses: who owns a shard is decided by the lock of the shard, and nodes with
// other facts than their neighbors at worst try to take what another one has.
//
// A shard stays where it is while its owner serves it: nothing moves to make numbers even, and
// nothing moves back, unless an administrator says so (Balance). What has no owner goes to the
// node with the fewest shards. So nodes that differ by one shard at most still do after one of
// them was lost.
package placement

import (
	"cmp"
	"maps"
	"slices"
)

// Node is a machine that has the configuration of the pool.
type Node struct {
	Name string
	// Alive: it is there. Drained: an administrator wants it to have no shards. Behind: it has
	// not the configuration of the others; it keeps what it has, and takes nothing.
	Alive, Drained, Behind bool
}

func (n *Node) keeps() bool { return n.Alive && !n.Drained }
func (n *Node) takes() bool { return n.keeps() && !n.Behind }

// Shard is who has a shard, and who is to have it.
type Shard struct {
	// Owner is the name of the node that serves it, "" for none.
	Owner string
	// To is the name of the node to which an administrator moves it, "" for none.
	To string
}

// View is what a node knows.
type View struct {
	Nodes  []Node // in the order of their rank
	Shards []Shard
}

// find returns a node; nil if there is none of the name.
func (v *View) find(name string) *Node {
	if i := slices.IndexFunc(v.Nodes, func(n Node) bool { return n.Name == name }); i >= 0 {
		return &v.Nodes[i]
	}
	return nil
}

// Destinations returns for each shard the node that should have it: where an administrator moves
// it, else where it is, else one of the nodes with the fewest shards. It is "" where no node can
// take it. A drained node keeps what nothing else can take.
//
// What is free is divided so that it does not matter which of it was taken first: nodes that have
// seen different parts of that still come to the same result.
func (v *View) Destinations() []string {
	to := make([]string, len(v.Shards))
	loads := make(map[string]int, len(v.Nodes))
	for k, s := range v.Shards {
		if n := v.find(s.To); n != nil && n.takes() {
			to[k] = n.Name
		} else if n := v.find(s.Owner); n != nil && n.keeps() {
			to[k] = n.Name
		}
		loads[to[k]]++
	}
	free := 0
	for k := range to {
		if to[k] == "" {
			free++
		}
	}
	share := v.shares(loads, free)
	for k, s := range v.Shards {
		if to[k] != "" {
			continue
		}
		if len(share) > 0 {
			to[k], share = share[0], share[1:]
		} else if n := v.find(s.Owner); n != nil && n.Alive {
			to[k] = n.Name
		}
	}
	return to
}

// shares returns the nodes that take what is free, one for each shard, in the order of their rank:
// each time the one with the fewest shards. Nodes that differ by what they have taken of their
// shares get the same number in all.
func (v *View) shares(loads map[string]int, free int) []string {
	loads = maps.Clone(loads)
	takes := make([]int, len(v.Nodes))
	for range free {
		least := -1
		for rank := range v.Nodes {
			if n := &v.Nodes[rank]; n.takes() && (least < 0 || loads[n.Name] < loads[v.Nodes[least].Name]) {
				least = rank
			}
		}
		if least < 0 {
			return nil
		}
		takes[least]++
		loads[v.Nodes[least].Name]++
	}
	list := make([]string, 0, free)
	for rank, n := range takes {
		for range n {
			list = append(list, v.Nodes[rank].Name)
		}
	}
	return list
}

// takers returns the nodes that can take a shard, the one that should first. Of nodes with as many
// shards, it is the one whose turn it is, going round by rank.
func (v *View) takers(shard int, loads map[string]int) []string {
	type taker struct {
		name       string
		load, turn int
	}
	var list []taker
	for rank := range v.Nodes {
		if n := &v.Nodes[rank]; n.takes() {
			turn := (rank - shard%len(v.Nodes) + len(v.Nodes)) % len(v.Nodes)
			list = append(list, taker{n.Name, loads[n.Name], turn})
		}
	}
	slices.SortFunc(list, func(a, b taker) int { return cmp.Or(cmp.Compare(a.load, b.load), cmp.Compare(a.turn, b.turn)) })
	names := make([]string, len(list))
	for i, t := range list {
		names[i] = t.name
	}
	return names
}

// Places returns for each shard the place of a node among those that may claim it when nothing
// owns it: 0 for the one that should have it; -1: the node may not claim it.
func (v *View) Places(name string) []int {
	to := v.Destinations()
	loads := make(map[string]int, len(v.Nodes))
	for _, d := range to {
		loads[d]++
	}
	places := make([]int, len(v.Shards))
	for k := range v.Shards {
		order := slices.DeleteFunc(v.takers(k, loads), func(n string) bool { return n == to[k] })
		places[k] = slices.Index(order, name)
		switch {
		case to[k] == name:
			places[k] = 0
		case places[k] >= 0 && to[k] != "":
			places[k]++
		}
	}
	return places
}

// Balance returns the fewest moves after which nodes that take shards differ by one at most: to,
// by shard.
func (v *View) Balance() map[int]string {
	now := View{slices.Clone(v.Nodes), make([]Shard, len(v.Shards))}
	for k, to := range v.Destinations() {
		now.Shards[k].Owner = to
	}
	moves := map[int]string{}
	for {
		loads := map[string]int{}
		for _, s := range now.Shards {
			loads[s.Owner]++
		}
		most, least := "", ""
		for i := range now.Nodes {
			n := &now.Nodes[i]
			if n.keeps() && (most == "" || loads[n.Name] > loads[most]) {
				most = n.Name
			}
			if n.takes() && (least == "" || loads[n.Name] < loads[least]) {
				least = n.Name
			}
		}
		if least == "" || loads[most]-loads[least] < 2 {
			return moves
		}
		for k := range now.Shards {
			if _, moved := moves[k]; !moved && now.Shards[k].Owner == most {
				moves[k], now.Shards[k].Owner = least, least
				break
			}
		}
	}
}
