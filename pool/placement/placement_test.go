package placement

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// views returns how many random views a test has.
func views(n uint64) uint64 {
	if testing.Short() {
		return n / 20
	}
	return n
}

// random returns a view of any kind.
func random(r *rand.Rand) View {
	v := View{Nodes: make([]Node, 1+r.IntN(5)), Shards: make([]Shard, 1+r.IntN(12))}
	for i := range v.Nodes {
		v.Nodes[i] = Node{string(rune('a' + i)), r.IntN(4) > 0, r.IntN(5) == 0, r.IntN(5) == 0}
	}
	name := func() string {
		if i := r.IntN(len(v.Nodes) + 2); i < len(v.Nodes) {
			return v.Nodes[i].Name
		} else if i == len(v.Nodes) {
			return "removed"
		}
		return ""
	}
	for k := range v.Shards {
		v.Shards[k].Owner = name()
		if r.IntN(3) == 0 {
			v.Shards[k].To = name()
		}
	}
	return v
}

// model gives shards away one by one, as a person would.
func model(v View) []string {
	state := map[string]Node{}
	for _, n := range v.Nodes {
		state[n.Name] = n
	}
	to := make([]string, len(v.Shards))
	have := func(name string) (n int) {
		for _, t := range to {
			if t == name {
				n++
			}
		}
		return n
	}
	for k, s := range v.Shards {
		if n := state[s.To]; n.Alive && !n.Drained && !n.Behind {
			to[k] = s.To
		} else if n := state[s.Owner]; n.Alive && !n.Drained {
			to[k] = s.Owner
		}
	}
	var free []int
	for k := range v.Shards {
		if to[k] == "" {
			free = append(free, k)
		}
	}
	for _, k := range free {
		best := ""
		for _, n := range v.Nodes {
			if n.Alive && !n.Drained && !n.Behind && (best == "" || have(n.Name) < have(best)) {
				best = n.Name
			}
		}
		if owner := v.Shards[k].Owner; best == "" && state[owner].Alive {
			best = owner
		}
		to[k] = best
	}
	if !slices.ContainsFunc(v.Nodes, func(n Node) bool { return n.takes() }) {
		return to
	}
	// Who gets how many is right; the first ones by rank get the first ones.
	var names []string
	for _, k := range free {
		names = append(names, to[k])
	}
	slices.Sort(names) // their ranks are in the order of their names
	for i, k := range free {
		to[k] = names[i]
	}
	return to
}

// TestView_AnyOrder: whichever shards were taken first by those that should have them, the others
// go where they would have gone.
func TestView_AnyOrder(t *testing.T) {
	for seed := range views(5000) {
		r := rand.New(rand.NewPCG(seed, 2))
		v := random(r)
		to := v.Destinations()
		for _, k := range r.Perm(len(v.Shards)) {
			if to[k] == "" {
				continue
			}
			v.Shards[k] = Shard{Owner: to[k]}
			if now := v.Destinations(); !slices.Equal(now, to) {
				t.Fatalf("%+v: %q after shard %d was taken, %q before", v, now, k, to)
			}
		}
	}
}

// TestView_Destinations: each view gives what the model gives; each shard has a place if any node
// can have it; what is served by a node that is to go on stays; what has no owner goes to
// the nodes with the fewest; exactly one node has the first place, and each that may take a shard
// has one.
func TestView_Destinations(t *testing.T) {
	for seed := range views(5000) {
		v := random(rand.New(rand.NewPCG(seed, 0)))
		to := v.Destinations()
		if want := model(v); !slices.Equal(to, want) {
			t.Fatalf("%+v:\n got %q\nwant %q", v, to, want)
		}
		for k, s := range v.Shards {
			owner, planned := v.find(s.Owner), v.find(s.To)
			moves := planned != nil && planned.takes()
			switch {
			case !moves && owner != nil && owner.keeps() && to[k] != s.Owner:
				t.Fatalf("%+v: shard %d moves from %s to %q without need", v, k, s.Owner, to[k])
			case to[k] == "" && slices.ContainsFunc(v.Nodes, func(n Node) bool { return n.takes() }):
				t.Fatalf("%+v: shard %d has no node", v, k)
			case to[k] != "" && !v.find(to[k]).Alive:
				t.Fatalf("%+v: shard %d goes to %s, which is not there", v, k, to[k])
			}
		}
		checkPlaces(t, &v, to)
	}
}

// checkPlaces proves that places are an order of the nodes that may claim.
func checkPlaces(t *testing.T, v *View, to []string) {
	t.Helper()
	for k := range v.Shards {
		var places []int
		for i := range v.Nodes {
			n := &v.Nodes[i]
			place := v.Places(n.Name)[k]
			if (place >= 0) != (n.takes() || to[k] == n.Name) || (place == 0) != (to[k] == n.Name) {
				t.Fatalf("%+v: node %s has place %d for shard %d, which goes to %q", v, n.Name, place, k, to[k])
			}
			if place >= 0 {
				places = append(places, place)
			}
		}
		slices.Sort(places)
		for i, p := range places {
			if p != i {
				t.Fatalf("%+v: places %v for shard %d", v, places, k)
			}
		}
	}
}

// TestView_Lost: nodes that share evenly share evenly after one is lost, however many there are,
// and after it was drained; those that are left keep what they had.
func TestView_Lost(t *testing.T) {
	most := 20
	if testing.Short() {
		most = 7
	}
	for nodes := 2; nodes <= 6; nodes++ {
		for shards := 1; shards <= most; shards++ {
			for lost := range nodes {
				for _, drained := range []bool{false, true} {
					v := View{Nodes: make([]Node, nodes), Shards: make([]Shard, shards)}
					for i := range v.Nodes {
						v.Nodes[i] = Node{Name: fmt.Sprint(i), Alive: true}
					}
					begin := v.Destinations() // all start together
					for k, d := range begin {
						v.Shards[k].Owner = d
					}
					if d := spread(&v, begin); d > 1 {
						t.Fatalf("%d nodes, %d shards: begin with %q", nodes, shards, begin)
					}
					v.Nodes[lost].Alive, v.Nodes[lost].Drained = drained, drained
					after := v.Destinations()
					if d := spread(&v, after); d > 1 {
						t.Fatalf("%d nodes, %d shards, %d lost: %q after %q", nodes, shards, lost, after, begin)
					}
					for k := range after {
						if begin[k] != fmt.Sprint(lost) && after[k] != begin[k] {
							t.Fatalf("shard %d moves from %s to %s when %d is lost", k, begin[k], after[k], lost)
						}
					}
				}
			}
		}
	}
}

// spread returns by how many shards nodes that take them differ.
func spread(v *View, to []string) int {
	var loads []int
	for i := range v.Nodes {
		n := 0
		for _, d := range to {
			if d == v.Nodes[i].Name {
				n++
			}
		}
		if v.Nodes[i].takes() {
			loads = append(loads, n)
		}
	}
	return slices.Max(loads) - slices.Min(loads)
}

// TestView_Balance: after the moves nodes that take shards differ by one at most, and no shard
// moves that need not.
func TestView_Balance(t *testing.T) {
	for seed := range views(3000) {
		v := random(rand.New(rand.NewPCG(seed, 1)))
		for i := range v.Nodes {
			v.Nodes[i].Behind = false
		}
		if !slices.ContainsFunc(v.Nodes, func(n Node) bool { return n.takes() }) {
			if m := v.Balance(); len(m) > 0 {
				t.Fatalf("%+v: moves %v to nowhere", v, m)
			}
			continue
		}
		before := v.Destinations()
		loads := map[string]int{}
		for _, d := range before {
			loads[d]++
		}
		moves := v.Balance()
		after := slices.Clone(before)
		for _, k := range slices.Sorted(maps.Keys(moves)) {
			after[k] = moves[k]
		}
		if d := spread(&v, after); d > 1 {
			t.Fatalf("%+v: %q becomes %q", v, before, after)
		}
		takers := 0
		for i := range v.Nodes {
			if v.Nodes[i].takes() {
				takers++
			}
		}
		most := (len(v.Shards) + takers - 1) / takers
		need, low := 0, 0 // what is above the highest share, or missing in the lowest
		for i := range v.Nodes {
			if n := &v.Nodes[i]; n.takes() {
				need += max(loads[n.Name]-most, 0)
				low += max(len(v.Shards)/takers-loads[n.Name], 0)
			}
		}
		if len(moves) > max(need, low) {
			t.Fatalf("%+v: %d moves from %q to %q, %d would do", v, len(moves), before, after, max(need, low))
		}
	}
}
