package pair

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	v1 "odx/api/v1"
	"odx/backstore"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
)

// Check implements Arrivals.
func (s *server) Check(context.Context, string, ID, []MovedLUN) error { return s.refuses }

// Keep implements Arrivals.
func (s *server) Keep(_ context.Context, _ ID, units []UnitRecord) error {
	if len(units) != 1 || string(units[0].Value) != "kept" {
		s.w.t.Fatalf("%s gets %+v", s.name, units)
	}
	return s.reached("keep")
}

// Units implements Arrivals.
func (s *server) Units(string, ID) ([]UnitRecord, error) { return s.units, nil }

// PowerOff implements Arrivals.
func (s *server) PowerOff(context.Context, string, ID) error {
	s.offs++
	return s.reached("power off")
}

// Adopt implements Arrivals.
func (s *server) Adopt(_ context.Context, object string, _ ID, units []UnitRecord) (int, error) {
	s.adopted[object] = units
	return s.dropped, s.reached("adopt")
}

// failover and failback are those of the manager without what was taken along.
func (s *server) failover(name string, force bool, o RoundOptions) error {
	_, err := s.m.Failover(context.Background(), name, force, o)
	return err
}

func (s *server) failback(name string, o FailbackOptions) error {
	_, err := s.m.Failback(context.Background(), name, o)
	return err
}

// Serve implements Arrivals.
func (s *server) Serve(context.Context, string, ID, []MovedLUN) error { return s.reached("serve") }

var keptUnits = []UnitRecord{{Key: "reservations", Value: []byte("kept")}}

// mover moves a volume to and fro, as package migrate does.
type mover struct {
	*world
	t      *testing.T
	a, b   *server // source and destination
	volume string  // at a
	to     string  // at b
	id     ID
	n      int
	frozen string // what the volume had when it was frozen last
	// moved: the destination has answered that it serves; ending: the pair is to end.
	moved, ending bool
	moves, aborts int
}

// TestManager_Moves: a volume moves between two servers, each of which can lose its power
// before any step; answers are lost, and requests come late. At no time do both serve it; as
// soon as both are up one of them does, with all that was written; and nothing is left.
func TestManager_Moves(t *testing.T) {
	all := sample.Size(25, 200, 2000)
	for n := 0; n < all; {
		seed := uint64(time.Now().UnixNano())
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { n += moved(t, seed, min(all, 25)) }) {
			t.Fatalf("seed %d", seed)
		}
	}
}

func moved(t *testing.T, seed uint64, kills int) int {
	ctx := context.Background()
	w := newWorld(t, seed, "a", "b")
	w.loses = 16
	m := &mover{world: w, t: t, a: w.servers[0], b: w.servers[1], volume: "web"}
	_, err := m.a.store.CreateVolume(ctx, "web", 256<<10)
	must.Succeed(t, err, m.a.store.Flush(ctx))
	m.next()
	for m.kills < kills {
		if m.rng.IntN(3) > 0 {
			m.countdown = m.rng.IntN(30)
			m.victims = [][]*server{{m.a}, {m.b}, {m.a, m.b}}[m.rng.IntN(3)]
		}
		err := m.step()
		m.restart()
		for n := len(m.late); n > 0 && m.rng.IntN(2) == 0; {
			m.late[n-1-m.rng.IntN(min(n, 3))]()
		}
		m.check(err)
	}
	m.settle()
	t.Logf("%d moves, %d aborts, %d kills", m.moves, m.aborts, m.kills)
	return m.kills
}

// next begins another migration.
func (m *mover) next() {
	m.n++
	m.id, m.to, m.moved, m.ending = newID(), fmt.Sprint("moved", m.n), false, false
}

// source returns the volume that is moved.
func (m *mover) source() *backstore.Volume {
	m.t.Helper()
	v, err := m.a.store.Volume(m.volume)
	must.Succeed(m.t, err)
	return v
}

// step does the next step of the source.
func (m *mover) step() error {
	ctx := context.Background()
	if m.ending {
		return m.end(ctx)
	}
	role, err := m.a.m.RoleOf(m.id)
	switch {
	case role == Former:
		return m.decide(ctx)
	case err != nil && !errors.Is(err, ErrNoPair):
		return err
	}
	if err := m.source().Protect(ctx, "test", nil); err != nil {
		return err
	}
	for range m.rng.IntN(3) {
		must.Succeed(m.t, m.a.write(m.volume))
	}
	err = m.a.m.Offer(ctx, Offer{ID: m.id, Peer: m.b.name, Volume: m.volume, To: m.to, LUNs: []MovedLUN{{Target: "iqn", BlockLength: 512}}, Identity: ID{1}})
	if err != nil {
		return err
	}
	if m.rng.IntN(8) == 0 {
		m.ending = true
		return m.end(ctx)
	}
	if _, err := m.a.m.CatchUp(ctx, m.id, 0, nil); err != nil {
		return err
	}
	if m.rng.IntN(2) == 0 {
		return nil
	}
	return m.giveUp(ctx)
}

// giveUp freezes the volume, and hands it over.
func (m *mover) giveUp(ctx context.Context) error {
	before, err := m.a.m.Points(m.id)
	if err == nil {
		err = m.source().Protect(ctx, "test", &backstore.Protection{By: "the test", Frozen: true})
	}
	if err != nil {
		return err
	}
	m.frozen, _ = m.a.sum(m.volume)
	c, err := m.a.m.CatchUp(ctx, m.id, 0, nil)
	if err == nil {
		err = m.a.m.GiveUp(ctx, m.id, c.Point, before)
	}
	if err != nil {
		return err
	}
	return m.decide(ctx)
}

// decide hands the volume over, or takes it back.
func (m *mover) decide(ctx context.Context) error {
	outcome, err := Unknown, error(nil)
	lossy, quiet := m.loses, m.countdown < 0
	if quiet {
		m.loses = 0
	}
	if m.rng.IntN(4) == 0 { // requests are on their way, and arrive late or never
		m.b.off = true
		if outcome, _ = m.a.m.HandOver(ctx, m.id, keptUnits); outcome == Moved {
			m.t.Fatal("moved without an answer")
		}
	}
	if m.rng.IntN(3) == 0 {
		outcome, err = m.a.m.TakeBack(ctx, m.id)
	} else {
		m.b.refuses = nil
		if m.rng.IntN(6) == 0 {
			m.b.refuses = errors.New("refused")
		}
		outcome, err = m.a.m.HandOver(ctx, m.id, keptUnits)
	}
	m.b.refuses, m.b.off = nil, false
	defer func() { m.loses = lossy }()
	if quiet && outcome == Unknown && !m.a.dead && !m.b.dead {
		m.b.m.serveArrivals(ctx)
		if outcome, err = m.a.m.TakeBack(ctx, m.id); outcome == Unknown {
			m.t.Fatalf("both servers are up, and neither serves: %v", err)
		}
	}
	switch outcome {
	case Moved:
		m.moved, m.ending = true, true
	case Kept:
		if again, why := m.a.m.HandOver(ctx, m.id, keptUnits); again == Kept && why == nil {
			m.t.Fatal("kept here, and no error says why")
		}
	}
	return err
}

// end ends the migration on both sides.
func (m *mover) end(ctx context.Context) error {
	if err := m.a.m.EndMove(ctx, m.id, false); err != nil {
		return err
	}
	if !m.moved {
		m.aborts++
		if _, err := m.b.store.Volume(m.to); !errors.Is(err, backstore.ErrNotFound) {
			m.t.Fatalf("an aborted migration leaves a volume: %v", err)
		}
		m.next()
		return nil
	}
	m.moves++
	if now, _ := m.b.sum(m.to); now != m.frozen {
		m.t.Fatalf("the destination has %s, the source had %s", now, m.frozen)
	}
	must.Succeed(m.t, m.source().Protect(ctx, "test", nil), m.a.store.DeleteVolume(ctx, m.volume), m.a.store.Flush(ctx))
	m.a, m.b, m.volume = m.b, m.a, m.to
	m.next()
	return nil
}

// check compares the servers with what must hold at any time.
func (m *mover) check(did error) {
	m.t.Helper()
	first, second := m.a.record(m.id), m.b.record(m.id)
	here := first == nil && !m.moved || first != nil && first.Role == Source
	there := second != nil && second.Role == Source
	if here && there {
		m.t.Fatalf("after %v, both serve: %+v %+v", did, first, second)
	}
	if there {
		if now, _ := m.b.sum(m.to); now != m.frozen {
			m.t.Fatalf("the destination serves %s, the source had %s", now, m.frozen)
		}
	}
	for _, s := range m.servers {
		if have, named := s.pins(); have != named {
			m.t.Fatalf("after %v, %s has %d snapshots, and its records name %d", did, s.name, have, named)
		}
	}
}

// settle ends the kills: what was begun ends, and nothing is left.
func (m *mover) settle() {
	m.t.Helper()
	ctx := context.Background()
	m.loses, m.countdown = 0, -1
	if role, _ := m.a.m.RoleOf(m.id); role == Former && !m.moved {
		if err := m.decide(ctx); err != nil && !m.moved {
			if role, _ := m.a.m.RoleOf(m.id); role != Source {
				m.t.Fatal(err)
			}
		}
	}
	must.Succeed(m.t, m.end(ctx))
	must.Succeed(m.t, m.source().Protect(ctx, "test", nil))
	for _, s := range m.servers {
		if s.hidden() > 0 { // of a process that ended before it had removed it
			must.Succeed(m.t, s.m.sweep(ctx))
		}
		if have, named := s.pins(); have != 0 || named != 0 || s.hidden() != 0 {
			m.t.Fatalf("%s has %d snapshots, and %d hidden objects at the end", s.name, have, s.hidden())
		}
		findings, err := s.store.Check(ctx)
		if err != nil || len(findings) > 0 {
			m.t.Fatalf("check of %s: %v %v", s.name, findings, err)
		}
	}
	if n := len(m.a.store.Volumes()) + len(m.b.store.Volumes()); n != 1 {
		m.t.Fatalf("%d volumes are left", n)
	}
	if _, protected := m.source().Protected(); protected {
		m.t.Fatal("the volume is still protected")
	}
}

// A server that is asked for something out of turn, or by another store, does nothing.
func TestManager_ServeMove_Refused(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, rand.Uint64(), "a", "b", "c")
	a, b, c := w.servers[0], w.servers[1], w.servers[2]
	_, err := a.store.CreateVolume(ctx, "web", 64<<10)
	must.Succeed(t, err)
	o := Offer{ID: newID(), Peer: "b", Volume: "web", To: "there", LUNs: []MovedLUN{{Target: "iqn", BlockLength: 512}}, Identity: ID{1}}
	must.Succeed(t, a.m.Offer(ctx, o), a.m.Offer(ctx, o))
	caught, err := a.m.CatchUp(ctx, o.ID, 0, nil)
	must.Succeed(t, err)
	if err := a.m.GiveUp(ctx, o.ID, caught.Point, nil); !errors.Is(err, ErrRole) {
		t.Errorf("a source that can be written to gives up: %v", err)
	}
	take := func(change func(q *v1.PeerMove)) error {
		q := v1.PeerMove{Op: moveTake, Pair: o.ID.String(), From: ID(a.id).String(), Epoch: 1, Point: caught.Point.String(), Units: unitsV1(keptUnits)}
		change(&q)
		_, err := b.m.ServeMove(ctx, "a", q)
		return err
	}
	for name, change := range map[string]func(q *v1.PeerMove){
		"another store": func(q *v1.PeerMove) { q.From = ID(c.id).String() },
		"another pair":  func(q *v1.PeerMove) { q.Pair = newID().String() },
		"no pair":       func(q *v1.PeerMove) { q.Pair = "" },
		"another point": func(q *v1.PeerMove) { q.Point = newID().String() },
		"no point":      func(q *v1.PeerMove) { q.Point = "" },
		"another epoch": func(q *v1.PeerMove) { q.Epoch = 2 },
		"no request":    func(q *v1.PeerMove) { q.Op = "" },
		"many records":  func(q *v1.PeerMove) { q.Units = make([]v1.UnitRecord, maxUnits+1) },
		"damaged ID":    func(q *v1.PeerMove) { q.From = "x" },
	} {
		if err := take(change); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if role, _ := b.m.RoleOf(o.ID); role != Replica {
		t.Errorf("the destination is %s", role)
	}
	// An administrator does not change the roles of a migration, and neither does its
	// destination by other requests.
	for name, err := range map[string]error{
		"failover": b.failover("migration-of-web", true, RoundOptions{}),
		"forget":   a.m.Forget(ctx, "migration-of-web", true),
		"pause":    b.m.Pause(ctx, "migration-of-web", true),
	} {
		if !errors.Is(err, ErrRole) {
			t.Errorf("%s of a migration: %v", name, err)
		}
	}
	for _, op := range []Op{opYield, opLead, opForget} {
		if _, err := a.m.Serve(ctx, "b", Request{Op: op, Pair: o.ID, From: b.id, Epoch: 1}); !errors.Is(err, ErrRole) {
			t.Errorf("%s of a migration: %v", op, err)
		}
	}
	// A destination that does not end it is named, with what to do; nothing has ended here.
	done, err := b.m.occupy(o.ID)
	must.Succeed(t, err)
	for want, err := range map[string]error{
		"peer b: a round is under way; repeat the command":                       a.m.EndMove(ctx, o.ID, false),
		"peer b: disk on fire; put that right there, or end the migration there": notEnded(&RefusedError{Peer: "b", Text: "disk on fire"}),
		"take it out of the configuration":                                       notEnded(errDown),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	done()
	if role, _ := a.m.RoleOf(o.ID); role != Source {
		t.Errorf("after an end that was refused, the source is %q", role)
	}
	must.Succeed(t, a.m.EndMove(ctx, o.ID, false))
	if err := take(func(*v1.PeerMove) {}); !errors.Is(err, ErrNoPair) {
		t.Errorf("a request after the end: %v", err)
	}
}
