package pair

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"odx/backstore"
	"odx/internal/kit/must"
)

// volumes creates volumes with something in them.
func (s *server) volumes(names ...string) {
	s.w.t.Helper()
	for _, name := range names {
		_, err := s.store.CreateVolume(context.Background(), name, 1<<20)
		must.Succeed(s.w.t, err, s.write(name))
	}
}

// select asks for what the plans select, and does a round of each of them.
func (s *server) selects(p Plan) error {
	ctx := context.Background()
	err := s.m.selectSources(ctx, p)
	for _, name := range s.planned() {
		plan, _, _ := s.m.plan(name)
		err = errors.Join(err, s.m.scheduled(ctx, plan))
	}
	return err
}

// planned returns the names of the replicas that have a plan.
func (s *server) planned() (list []string) {
	for name := range s.m.schedule.plans {
		if _, selects := isSelector(name); !selects {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

func later(t time.Time) time.Time { return t.Add(time.Hour) }

// TestManager_Select: an entry selects volumes by the beginning of their names, those made later
// too. Each is a replica of its own; snapshots, replicas and what another entry names are none.
func TestManager_Select(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, 21, "a", "b")
	a, b := w.servers[0], w.servers[1]
	a.volumes("web-1", "web-2", "web-named", "db")
	_, err := a.store.SnapshotVolume(ctx, "web-1", "web-1-snapshot")
	must.Succeed(t, err)
	all := Plan{StartRequest: StartRequest{Peer: "a", Source: "web-*", Name: "all", To: "copy-*"}, Next: later, BytesPerSecond: 100 << 20, Keep: 3}
	named := Plan{StartRequest: StartRequest{Peer: "a", Source: "web-named", Name: "special"}, Next: later}
	b.m.SetPlans([]Plan{all, named})
	want := func(names ...string) {
		t.Helper()
		if got := b.planned(); !slices.Equal(got, names) {
			t.Errorf("plans of %q, not of %q", got, names)
		}
		list, err := b.m.List(ctx)
		must.Succeed(t, err)
		var got []string
		for _, s := range list {
			if got = append(got, s.Name); !s.Planned || s.Counts.Rounds == 0 {
				t.Errorf("%+v", s)
			}
			if x, _ := b.sum(s.Object); x == "" {
				t.Errorf("%s has nothing", s.Object)
			} else if y, _ := a.sum(s.PeerObject); x != y {
				t.Errorf("%s is not as %s", s.Object, s.PeerObject)
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("replicas %q, not %q", got, names)
		}
	}
	must.Succeed(t, b.selects(all))
	want("copy-1", "copy-2", "special")
	a.volumes("web-3")
	must.Succeed(t, a.write("web-1"), b.selects(all))
	want("copy-1", "copy-2", "copy-3", "special")
	one, two := b.m.Planned("copy-1"), b.m.Planned("copy-2")
	if one.Keep != 3 || one.Limit == nil || one.Limit != two.Limit {
		t.Errorf("options of what one entry selects: %+v, %+v", one, two)
	}

	// The names at the source change: a replica follows its volume, a new one of the old name
	// would have the name of that replica.
	must.Succeed(t, a.store.RenameVolume(ctx, "web-1", "other"))
	a.volumes("web-1")
	if err := b.selects(all); !errors.Is(err, backstore.ErrExists) || !strings.Contains(err.Error(), "web-1 of a") {
		t.Errorf("a volume that took the name of another one: %v", err)
	}

	// The same with a start of the server while its peer does not answer.
	must.Succeed(t, a.store.DeleteVolume(ctx, "web-1"))
	b.m.SetPlans(nil)
	if got := b.planned(); len(got) != 0 {
		t.Errorf("plans of %q without entries", got)
	}
	a.off = true
	b.m.schedule.offered = nil
	b.m.SetPlans([]Plan{named, all})
	if got := b.planned(); !slices.Equal(got, []string{"copy-1", "copy-2", "copy-3", "special"}) {
		t.Errorf("plans of %q at a start", got)
	}
	if err := b.m.selectSources(ctx, all); !errors.Is(err, errDown) || !strings.Contains(fmt.Sprint(b.m.Unstarted()), "all*") {
		t.Errorf("a peer that does not answer: %v; unstarted %v", err, b.m.Unstarted())
	}
	a.off = false
	must.Succeed(t, b.m.selectSources(ctx, all))
	if u := b.m.Unstarted(); len(u) != 0 {
		t.Errorf("unstarted %v", u)
	}

	// One that its source has forgotten is an orphan, not selected a second time.
	must.Succeed(t, a.m.Forget(ctx, "copy-2", false), b.selects(all))
	if s, err := b.m.Status(ctx, "copy-2"); err != nil || !s.Orphan {
		t.Errorf("%+v, %v", s, err)
	}

	// What is a replica already is not selected: no replicas of replicas by prefixes.
	list, err := b.m.Offered(a.id, "")
	if err != nil || len(list) != 0 {
		t.Errorf("a server of replicas offers %v, %v", list, err)
	}
}

// TestManager_Select_Failover: after a failover the entries of both servers select what they did,
// and no pair is made twice.
func TestManager_Select_Failover(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, 22, "a", "b")
	a, b := w.servers[0], w.servers[1]
	a.volumes("x1", "x2")
	of := func(peer string) Plan {
		return Plan{StartRequest: StartRequest{Peer: peer, Source: "*", Name: "all", To: peer + "-*"}, Next: later}
	}
	a.m.SetPlans([]Plan{of("b")})
	b.m.SetPlans([]Plan{of("a")})
	for range 3 {
		must.Succeed(t, b.selects(of("a")), a.selects(of("b")))
	}
	must.Succeed(t, b.failover("a-x1", false, RoundOptions{}), b.write("a-x1"))
	for range 3 {
		must.Succeed(t, b.selects(of("a")), a.selects(of("b")))
	}
	for _, s := range w.servers {
		if list, err := s.m.List(ctx); err != nil || len(list) != 2 {
			t.Errorf("%s has %d pairs, %v", s.name, len(list), err)
		}
	}
	x, _ := b.sum("a-x1")
	if y, _ := a.sum("x1"); x != y { // a follows by its own entry
		t.Error("the former source is not up to date")
	}
	must.Succeed(t, a.failover("a-x1", false, RoundOptions{}))
	must.Succeed(t, a.write("x1"), b.selects(of("a")))
	x, _ = b.sum("a-x1")
	if y, _ := a.sum("x1"); x != y {
		t.Error("the replica is not up to date after the failback")
	}
}

// TestManager_Select_Files: files are selected by prefixes, too.
func TestManager_Select_Files(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, 23, "a", "b")
	a, b := w.servers[0], w.servers[1]
	for _, name := range []string{"images/1", "images/2", "other"} {
		f, err := a.store.CreateFile(ctx, name)
		must.Succeed(t, err, f.Truncate(ctx, 100), f.WriteAt(ctx, []byte(name), 0))
	}
	p := Plan{StartRequest: StartRequest{Peer: "a", Source: "file:images/*", Name: "all"}, Next: later}
	b.m.SetPlans([]Plan{p})
	must.Succeed(t, b.selects(p), b.selects(p))
	if got := b.planned(); !slices.Equal(got, []string{"images:1", "images:2"}) {
		t.Errorf("plans of %q", got)
	}
	if x, _ := b.sum("file:images/2"); x == "" {
		t.Error("a file is missing")
	}
}

// TestManager_Run_Select: a volume that is made while the server runs is replicated without an
// act, and one that no entry selects any more is not followed.
func TestManager_Run_Select(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	w := newWorld(t, 24, "a", "b")
	a, b := w.servers[0], w.servers[1]
	a.volumes("web-1")
	came := make(chan string, 100)
	b.m.SetCallbacks(func(object string) { came <- object }, nil)
	soon := func(t time.Time) time.Time { return t.Add(10 * time.Millisecond) }
	b.m.SetPlans([]Plan{{StartRequest: StartRequest{Peer: "a", Source: "web-*", Name: "web-1"}, Next: soon}}) // an entry can have the name of a replica
	done := make(chan struct{})
	go func() { b.m.Run(ctx); close(done) }()
	if object := <-came; object != "web-1" {
		t.Errorf("%s came", object)
	}
	a.volumes("web-2")
	for object := range came {
		if object == "web-2" {
			break
		}
	}
	b.m.SetPlans(nil)
	for {
		s := &b.m.schedule
		s.mu.Lock()
		left := slices.Collect(maps.Keys(s.followed))
		s.mu.Unlock()
		if len(left) == 0 {
			break
		}
		b.m.SetPlans(nil) // a round that is under way ends first
	}
	cancel()
	<-done
	if u := b.m.Unstarted(); len(u) != 0 {
		t.Errorf("unstarted %v", u)
	}
}

// TestEffective_Names: what cannot be selected is said of the entry, and the rest is selected.
func TestEffective_Names(t *testing.T) {
	p := Plan{StartRequest: StartRequest{Peer: "a", Source: "*", Name: "all", To: "*"}}
	q := Plan{StartRequest: StartRequest{Peer: "b", Source: "w*", Name: "second", To: "w*"}}
	plans, problems := effective([]Plan{p, q}, map[string]offer{"all": {ID{1}, []Offered{{Object: "web"}, {Object: "db"}}}, "second": {ID{2}, []Offered{{Object: "web"}, {Object: "w2"}}}}, nil)
	if len(plans) != 5 || plans["web"].Peer != "a" || plans["w2"].Entry != "second" {
		t.Errorf("%v", plans)
	}
	if !errors.Is(problems["second"], backstore.ErrExists) || problems["all"] != nil {
		t.Errorf("%v", problems)
	}
}
