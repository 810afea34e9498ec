package pair

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/offload"
)

// model is what the kills are judged by.
type model struct {
	*world
	t *testing.T
	// states are all contents that a source has had, by object; a replica has one of them.
	states map[string]bool
	pairs  []*modelPair
}

// modelPair is a pair of the model: sides, and what they call the object.
type modelPair struct {
	name    string
	id      ID
	sides   [2]*server // first source, first replica
	objects [2]string
}

// TestManager_Kills: three servers, of which each can lose its power before any step of a
// round, a failover and a failback. A replica is never visible half received; the two sides
// never both forget what they have in common; no snapshot is pinned without a record, and
// nothing hidden is left.
func TestManager_Kills(t *testing.T) {
	all := sample.Size(5, 25, 500)
	for n := 0; n < all; {
		seed := uint64(time.Now().UnixNano())
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { n += killed(t, seed, min(all, 25)) }) {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestManager_KillsBefore: histories that have once found a mistake.
func TestManager_KillsBefore(t *testing.T) {
	for _, seed := range []uint64{1, 2, 1796094743736801674} {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { killed(t, seed, 25) })
	}
}

// killed runs a history with so many kills, and returns how many there were.
func killed(t *testing.T, seed uint64, kills int) int {
	ctx := context.Background()
	m := &model{world: newWorld(t, seed, "a", "b", "c"), t: t, states: map[string]bool{}}
	a, b, c := m.servers[0], m.servers[1], m.servers[2]
	_, err := a.store.CreateVolume(ctx, "web", 256<<10)
	must.Succeed(t, err)
	f, err := a.store.CreateFile(ctx, "disk")
	must.Succeed(t, err)
	must.Succeed(t, f.Truncate(ctx, 100_000), a.store.Flush(ctx))
	file := offload.FilePrefix + "disk"
	m.note(a, "web")
	m.note(a, file)
	m.pairs = []*modelPair{
		{name: "one", sides: [2]*server{a, b}, objects: [2]string{"web", "one"}},
		{name: "two", sides: [2]*server{a, c}, objects: [2]string{file, offload.FilePrefix + "two"}},
	}
	for _, p := range m.pairs {
		must.Succeed(t, p.sides[1].m.Start(ctx, StartRequest{Peer: "a", Source: p.objects[0], Name: p.name}))
		r, err := p.sides[1].m.named(p.name)
		must.Succeed(t, err)
		p.id = r.ID
	}
	for m.kills < kills {
		m.step()
	}
	m.settle()
	return m.kills
}

// note notes what an object has as a state.
func (m *model) note(s *server, object string) {
	if sum, ok := s.sum(object); ok {
		m.states[sum] = true
	}
}

// source returns the side that is the source with the greatest epoch; nil for none.
func (m *model) source(p *modelPair) (found *server, object string) {
	epoch := uint64(0)
	for i, s := range p.sides {
		if r := s.record(p.id); r != nil && r.Role == Source && r.Epoch > epoch {
			found, object, epoch = s, p.objects[i], r.Epoch
		}
	}
	return found, object
}

// step does something at random, during which power may be lost, and checks the servers.
func (m *model) step() {
	m.t.Helper()
	p := m.pairs[m.rng.IntN(len(m.pairs))]
	m.writeSome(p)
	if m.rng.IntN(3) > 0 {
		m.plan(p)
	}
	var before string
	from, object := m.source(p)
	if from != nil {
		before, _ = from.sum(object)
	}
	what, err := m.act(p)
	m.restart()
	if err == nil && before != "" {
		switch what {
		case "failover", "failback":
			if to, object := m.source(p); to != nil {
				if now, _ := to.sum(object); now != before {
					m.t.Fatalf("%s of %s has lost what was written: %s, was %s", what, p.name, now, before)
				}
			}
		}
	}
	m.check(what, err)
}

// plan has one or both servers of a pair lose power before one of the next steps.
func (m *model) plan(p *modelPair) {
	m.countdown = m.rng.IntN(24)
	m.victims = [][]*server{{p.sides[0]}, {p.sides[1]}, {p.sides[0], p.sides[1]}}[m.rng.IntN(3)]
}

// writeSome writes to the source of a pair.
func (m *model) writeSome(p *modelPair) {
	m.t.Helper()
	for i, s := range p.sides {
		if r := s.record(p.id); r == nil || r.Role != Source {
			continue
		}
		for range m.rng.IntN(4) {
			must.Succeed(m.t, s.write(p.objects[i]))
		}
		if m.rng.IntN(4) == 0 {
			m.resize(s, p.objects[i])
		}
		m.note(s, p.objects[i])
	}
}

// resize changes the size of an object.
func (m *model) resize(s *server, object string) {
	m.t.Helper()
	ctx := context.Background()
	v, err := s.m.lookUp(object)
	must.Succeed(m.t, err)
	if v.IsFile() {
		err = v.Truncate(ctx, 1+m.rng.Int64N(300_000))
	} else if v.Size() < 1<<20 {
		err = v.Grow(ctx, v.Size()+4096*m.rng.Int64N(20))
	}
	must.Succeed(m.t, err, s.store.Flush(ctx))
}

// act does one of the operations of an administrator.
func (m *model) act(p *modelPair) (what string, err error) {
	ctx := context.Background()
	replica := p.sides[1]
	if r := p.sides[0].record(p.id); r != nil && r.Role == Replica {
		replica = p.sides[0]
	}
	switch n := m.rng.IntN(12); {
	case n < 6:
		_, err = replica.m.Round(ctx, p.id.String(), RoundOptions{Full: m.rng.IntN(8) == 0})
		return "round", err
	case n < 7:
		return "failover", replica.failover(p.id.String(), false, RoundOptions{})
	case n < 8:
		return "forced failover", replica.failover(p.id.String(), true, RoundOptions{})
	case n < 10:
		former := p.sides[m.rng.IntN(2)]
		return "failback", former.failback(p.id.String(), FailbackOptions{Stay: m.rng.IntN(2) == 0})
	case n < 11: // back to the source, if the other side has not taken over
		former := p.sides[m.rng.IntN(2)]
		if r := former.record(p.id); r == nil || r.Role != Former {
			return "nothing", nil
		}
		return "resumption", former.failover(p.id.String(), false, RoundOptions{})
	}
	return "telling", errors.Join(p.sides[0].m.tell(ctx, p.id), p.sides[1].m.tell(ctx, p.id))
}

// check compares the servers with what must hold at any time.
func (m *model) check(what string, did error) {
	m.t.Helper()
	for _, s := range m.servers {
		if have, named := s.pins(); have != named {
			m.t.Fatalf("after a %s (%v), %s has %d snapshots, and its records name %d", what, did, s.name, have, named)
		}
	}
	for _, p := range m.pairs {
		first, second := p.sides[0].record(p.id), p.sides[1].record(p.id)
		if second == nil || first == nil && second.Common != nil {
			m.t.Fatalf("after a %s (%v), a record of %s is missing", what, did, p.name)
		}
		if first == nil {
			continue
		}
		m.checkCommon(what, p, first, second)
		for i, r := range []*record{first, second} {
			sum, ok := p.sides[i].sum(p.objects[i])
			if ok && r.Role == Replica && !m.states[sum] {
				m.t.Fatalf("after a %s (%v), the replica %s of %s has what no source ever had", what, did, p.objects[i], p.sides[i].name)
			}
		}
		if first.Role == Source && second.Role == Source && first.Epoch == second.Epoch {
			m.t.Fatalf("after a %s (%v), both sides of %s are the source in epoch %d", what, did, p.name, first.Epoch)
		}
	}
}

// checkCommon compares what both sides of a pair say that they have in common.
func (m *model) checkCommon(what string, p *modelPair, first, second *record) {
	m.t.Helper()
	if first.Common == nil || second.Common == nil {
		return // before the first round has ended
	}
	id := second.Common.ID
	at, other := second.find(id), first.find(id)
	if other == nil {
		id = first.Common.ID
		at, other = second.find(id), first.find(id)
	}
	if at == nil || other == nil {
		m.t.Fatalf("after a %s, the sides of %s have no point in common: %+v %+v", what, p.name, first, second)
	}
	if a, b := m.pointSum(p.sides[0], other), m.pointSum(p.sides[1], at); a != b {
		m.t.Fatalf("after a %s, the common point of %s is %s here and %s there", what, p.name, a, b)
	}
}

func (m *model) pointSum(s *server, p *point) string {
	m.t.Helper()
	n, err := s.store.Snapshot(p.Snapshot)
	must.Succeed(m.t, err)
	defer n.Release()
	return sumOf(m.t, n.ReadAt, n.Length())
}

// settle ends the kills: each pair gets one source and a replica that equals it, and is
// forgotten then. Nothing is left.
func (m *model) settle() {
	m.t.Helper()
	ctx := context.Background()
	for _, p := range m.pairs {
		from, _ := m.source(p)
		if from == nil { // between the halves of a planned failover
			for _, s := range p.sides {
				if s.record(p.id).Role == Former {
					must.Succeed(m.t, s.failover(p.id.String(), false, RoundOptions{}))
				}
			}
			from, _ = m.source(p)
		}
		replica, at := p.sides[0], 0
		if replica == from {
			replica, at = p.sides[1], 1
		}
		must.Succeed(m.t, from.m.tell(ctx, p.id), replica.failback(p.id.String(), FailbackOptions{Stay: true}))
		want, _ := from.sum(p.objects[1-at])
		if got, _ := replica.sum(p.objects[at]); got != want {
			m.t.Fatalf("the replica of %s has %s, the source %s", p.name, got, want)
		}
		must.Succeed(m.t, replica.m.Forget(ctx, p.id.String(), false))
	}
	for _, s := range m.servers {
		if have, named := s.pins(); have != 0 || named != 0 || s.hidden() != 0 {
			m.t.Fatalf("%s has %d snapshots, and %d hidden objects at the end", s.name, have, s.hidden())
		}
		for _, v := range append(s.store.Volumes(), s.store.Files()...) {
			if _, protected := v.Protected(); protected {
				m.t.Fatalf("%s is still protected", v)
			}
		}
		findings, err := s.store.Check(ctx)
		if err != nil || len(findings) > 0 {
			m.t.Fatalf("check of %s: %v %v", s.name, findings, err)
		}
	}
}
