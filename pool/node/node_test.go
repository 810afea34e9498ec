package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"odx/backstore/vfs/rados"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/pool/facts"
)

const shardsOfTest = 6

// leaseOfTest and so on are those of the lock of a shard.
const leaseOfTest, renewalOfTest = 4 * time.Second, time.Second

// site is nodes over a pool in memory, whose servers hold locks and do nothing else.
type site struct {
	t     *testing.T
	pool  *rados.Twin
	names []string
	nodes map[string]*machine
	// entered, if not nil, is called with a node that has entered.
	entered func(*Node)

	mu     sync.Mutex // guards what follows
	epochs [shardsOfTest]uint64
	owners [shardsOfTest]string // by the locks that servers have taken
	takes  int                  // how often a shard was taken
}

func newSite(t *testing.T, names ...string) *site {
	start := time.Now()
	return &site{t: t, pool: rados.NewTwin(func() time.Duration { return time.Since(start) }), names: names, nodes: map[string]*machine{}}
}

// machine is a node with its servers.
type machine struct {
	site    *site
	name    string
	client  *rados.Client
	node    *Node
	stop    context.CancelFunc // of Run
	running sync.WaitGroup
	servers [shardsOfTest]*server
}

// server is one that waits for its shard, or has it.
type server struct {
	turn    Turn
	release chan struct{}
	stop    context.CancelFunc
	ended   chan struct{}
}

// May implements Servers.
func (m *machine) May(shard int, may bool, after time.Duration) {
	m.servers[shard].turn.Set(may, after)
}

// Release implements Servers.
func (m *machine) Release(shard int) { m.servers[shard].release <- struct{}{} }

func (s *site) setup(digest string) Setup {
	return Setup{Nodes: s.names, Shards: shardsOfTest, Digests: map[string]string{"targets": digest, "store": "same"}}
}

// start starts a node, or returns why it may not enter.
func (s *site) start(name, digest string) error {
	m := &machine{site: s, name: name, client: s.pool.Client()}
	for k := range m.servers {
		m.servers[k] = &server{release: make(chan struct{}, 1)}
	}
	n, err := Enter(s.t.Context(), Options{Name: name, Facts: facts.New(m.client), Log: logs.Discard(), Setup: s.setup(digest)})
	if err != nil {
		return err
	}
	if s.entered != nil {
		s.entered(n)
	}
	m.node = n
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	for k := range m.servers {
		m.begin(k)
	}
	m.running.Go(func() { n.Run(ctx, m) })
	s.nodes[name] = m
	return nil
}

// begin begins the server of a shard.
func (m *machine) begin(k int) {
	v := m.servers[k]
	ctx, stop := context.WithCancel(context.Background())
	v.stop, v.ended = stop, make(chan struct{})
	go func() {
		defer close(v.ended)
		for m.serve(ctx, k) {
		}
	}()
}

// serve waits for a shard and has it until it is released; false when ctx has ended, as with a
// process that is killed.
func (m *machine) serve(ctx context.Context, k int) bool {
	s, v := m.site, m.servers[k]
	object, cookie := fmt.Sprintf("shard.%d", k), fmt.Sprint(m.name, "/", k, time.Now())
	held := func() (bool, error) {
		h, err := m.client.Holder(object)
		return h != rados.Holder{}, err
	}
	if v.turn.Wait(ctx, held) != nil {
		return false
	}
	if m.client.Lock(object, cookie, leaseOfTest, false) != nil {
		return true
	}
	s.mu.Lock()
	s.epochs[k]++
	epoch := s.epochs[k]
	s.owners[k] = m.name
	s.takes++
	s.mu.Unlock()
	m.node.Serves(k, epoch, fmt.Sprint("store", k))
	defer m.node.Ended(k)
	tick := time.NewTicker(renewalOfTest)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-v.release:
			_ = m.client.Unlock(object, cookie) // of a lock that is held
			return true
		case <-tick.C:
			if m.client.Lock(object, cookie, leaseOfTest, true) != nil {
				return true
			}
		}
	}
}

// kill ends a node without a word.
func (s *site) kill(name string) {
	m := s.nodes[name]
	delete(s.nodes, name)
	m.client.Cut()
	m.stop()
	for _, v := range m.servers {
		v.stop()
	}
	for _, v := range m.servers {
		<-v.ended
	}
	m.running.Wait()
}

// killServer ends one server without a word, and begins it again.
func (s *site) killServer(name string, k int) {
	m := s.nodes[name]
	m.servers[k].stop()
	<-m.servers[k].ended
	m.begin(k)
}

// leave ends a node as a stop does.
func (s *site) leave(name string) {
	m := s.nodes[name]
	m.stop()
	m.running.Wait()
	must.Succeed(s.t, m.node.Leave())
	for k := range m.servers {
		m.node.mu.Lock()
		_, serves := m.node.serving[k]
		m.node.mu.Unlock()
		m.servers[k].turn.Set(false, 0)
		if serves {
			m.servers[k].release <- struct{}{}
		}
	}
	synctest.Wait()
	for _, v := range m.servers {
		v.stop()
		<-v.ended
	}
	must.Succeed(s.t, m.node.Forget(s.t.Context()))
	delete(s.nodes, name)
}

// close kills all nodes.
func (s *site) close() {
	for name := range s.nodes {
		s.kill(name)
	}
}

// facts returns what the pool has.
func (s *site) facts() *facts.Store { return facts.New(s.pool.Client()) }

// loads returns how many shards each node serves, by the facts.
func (s *site) loads() string {
	f, err := s.facts().Load()
	must.Succeed(s.t, err)
	loads := map[string]int{}
	for _, o := range f.Owners {
		loads[o.Node]++
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(loads)) {
		out = append(out, fmt.Sprintf("%s%d", name, loads[name]))
	}
	return strings.Join(out, " ")
}

// await waits until nodes serve so many shards, and returns how long that took.
func (s *site) await(want string, limit time.Duration) time.Duration {
	s.t.Helper()
	start := time.Now()
	for s.loads() != want {
		if time.Since(start) > limit {
			s.t.Fatalf("%v later nodes have %q, want %q", limit, s.loads(), want)
		}
		time.Sleep(50 * time.Millisecond) // of the clock of the test
	}
	return time.Since(start)
}

// stays proves that nothing is taken for a while.
func (s *site) stays() {
	s.t.Helper()
	s.mu.Lock()
	before := s.takes
	s.mu.Unlock()
	time.Sleep(30 * time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.takes != before {
		s.t.Errorf("%d shards have moved without need", s.takes-before)
	}
}

// update changes the facts as a command does.
func (s *site) update(change func(f *facts.Facts)) {
	s.t.Helper()
	_, err := s.facts().Update(s.t.Context(), func(f *facts.Facts) error { change(f); return nil })
	must.Succeed(s.t, err)
}

// TestNode_Life: nodes that start together share; a killed one's shards are spread over the others,
// in time; one that comes back takes nothing by itself; moves, drains and stops hand over one by one.
func TestNode_Life(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b", "c")
		defer s.close()
		for _, name := range s.names {
			must.Succeed(t, s.start(name, "1"))
		}
		s.await("a2 b2 c2", 2*time.Second)
		s.stays()

		s.kill("b")
		gap := s.await("a3 c3", 8*time.Second)
		t.Logf("a killed node's shards are served after %v", gap)
		if gap > leaseOfTest+2*step {
			t.Errorf("after %v", gap)
		}
		must.Succeed(t, s.start("b", "1"))
		s.stays()

		s.update(func(f *facts.Facts) {
			there, err := s.facts().Present(s.names)
			must.Succeed(t, err)
			v := View(f, there, s.names)
			for k, to := range v.Balance() {
				f.Moves[k] = facts.Move{To: to, At: time.Now()}
			}
		})
		t.Logf("balanced after %v", s.await("a2 b2 c2", 10*time.Second))
		s.stays()

		s.update(func(f *facts.Facts) { f.Drains["c"] = facts.Drain{At: time.Now()} })
		t.Logf("drained after %v", s.await("a3 b3", 10*time.Second))
		s.stays()
		s.update(func(f *facts.Facts) { delete(f.Drains, "c") })
		s.stays()

		s.leave("a")
		t.Logf("left after %v", s.await("b3 c3", 5*time.Second))
		s.leave("b")
		s.await("c6", 5*time.Second)
		s.killServer("c", 3)
		s.await("c6", leaseOfTest+time.Second)
		s.leave("c")
		s.await("6", time.Second)
		must.Succeed(t, s.start("a", "1"))
		t.Logf("one of three has all after %v", s.await("a6", begin+2*time.Second))
	})
}

// TestNode_ServerKilled: a server that is killed alone gets its shard back; one that hangs loses it.
func TestNode_ServerKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.close()
		must.Succeed(t, errors.Join(s.start("a", "1"), s.start("b", "1")))
		s.await("a3 b3", 2*time.Second)
		time.Sleep(begin)
		k := slices.Index(s.all(), "b")
		s.killServer("b", k)
		s.await("a3 b3", leaseOfTest+time.Second)
		if at := s.owner(k); at != "b" {
			t.Errorf("shard %d is at %s", k, at)
		}
		// Its node still says that it serves, while the lock has ended.
		m := s.nodes["b"]
		m.servers[k].stop()
		<-m.servers[k].ended
		m.node.Serves(k, s.epochs[k], "")
		t.Logf("taken from a server that hangs after %v", s.await("a4 b2", leaseOfTest+doubt+2*step))
	})
}

// TestNode_Configuration: a node with another configuration is refused while others are there; one
// that has not yet the new one takes nothing, and keeps what it has.
func TestNode_Configuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b", "c")
		defer s.close()
		must.Succeed(t, errors.Join(s.start("a", "1"), s.start("b", "1")))
		err := s.start("c", "2")
		if d, ok := errors.AsType[*DifferentError](err); !ok || !slices.Equal(d.Keys, []string{"targets"}) || d.Node != "a" || !slices.Equal(d.Present, []string{"a", "b"}) {
			t.Fatalf("another configuration: %v", err)
		} else {
			t.Log(err)
		}
		s.await("a3 b3", begin+5*time.Second)
		must.Succeed(t, s.nodes["a"].node.Reconfigure(t.Context(), s.setup("2")))
		s.stays()
		must.Succeed(t, s.start("c", "2"))
		s.kill("a")
		s.await("b3 c3", 8*time.Second) // b keeps, and takes nothing
		s.kill("c")
		time.Sleep(30 * time.Second)
		s.await("b3 c3", 0) // of c, which is not there
		must.Succeed(t, s.nodes["b"].node.Reconfigure(t.Context(), s.setup("2")))
		s.await("b6", 8*time.Second)
		s.kill("b")
		time.Sleep(facts.PresenceLease)
		must.Succeed(t, s.start("a", "3")) // no other node is there
		f, err := s.facts().Load()
		must.Succeed(t, err)
		if f.Configuration.Generation != 3 || f.Configuration.Node != "a" {
			t.Errorf("configuration %+v", f.Configuration)
		}
		other := s.setup("3")
		other.Shards++
		if _, err := Enter(t.Context(), Options{Name: "b", Facts: s.facts(), Log: logs.Discard(), Setup: other}); !errors.Is(err, errOther) {
			t.Errorf("another number of shards: %v", err)
		}
	})
}

// TestNode_Refuses: the facts have why a server refuses a configuration, bounded, until it does not or
// has not its shard any more.
func TestNode_Refuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, "a", "b")
		defer s.close()
		must.Succeed(t, errors.Join(s.start("a", "1"), s.start("b", "1")))
		s.await("a3 b3", 2*time.Second)
		a, other := slices.Index(s.all(), "a"), slices.Index(s.all(), "b")
		n := s.nodes["a"].node
		is := func(what, want string) {
			t.Helper()
			time.Sleep(time.Second)
			f, err := s.facts().Load()
			must.Succeed(t, err)
			if got := f.Owners[a].Refuses; got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
			if got := f.Owners[other].Refuses; got != "" {
				t.Errorf("%s: the shard of another node refuses %q", what, got)
			}
		}
		n.Refuses(other, "not its own")
		n.Refuses(a, strings.Repeat("x", facts.MaxRefuses-1)+"é")
		is("refused", strings.Repeat("x", facts.MaxRefuses-1))
		n.Refuses(a, "")
		is("taken", "")
		n.Refuses(a, "again")
		is("refused again", "again")
		s.kill("a")
		s.await("b6", 8*time.Second)
		is("with another owner", "")
	})
}

// TestNode_ReconfigureFails: a node that cannot write another configuration has the one before.
func TestNode_ReconfigureFails(t *testing.T) {
	s := newSite(t, "a")
	client := s.pool.Client()
	n, err := Enter(t.Context(), Options{Name: "a", Facts: facts.New(client), Log: logs.Discard(), Setup: s.setup("1")})
	must.Succeed(t, err)
	client.Cut()
	if err := n.Reconfigure(t.Context(), s.setup("2")); err == nil {
		t.Error("a pool that does not answer has another configuration")
	}
	if !maps.Equal(n.setup.Digests, s.setup("1").Digests) {
		t.Errorf("the node has %+v", n.setup)
	}
}

// TestNode_Histories: whatever nodes and administrators do, once they have done it each shard is at
// a node that is there and is not drained, and stays there.
func TestNode_Histories(t *testing.T) {
	histories := uint64(5)
	if testing.Short() {
		histories = 1
	}
	for seed := range histories {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			s := newSite(t, "a", "b", "c", "d")
			defer s.close()
			var history []string
			for range 12 {
				name := s.names[r.IntN(len(s.names))]
				_, up := s.nodes[name]
				act := r.IntN(6)
				history = append(history, fmt.Sprint(act, name))
				switch {
				case !up:
					must.Succeed(t, s.start(name, "1"))
				case act == 0 && len(s.nodes) > 1:
					s.kill(name)
				case act == 1 && len(s.nodes) > 1:
					s.leave(name)
				case act == 2:
					s.update(func(f *facts.Facts) { f.Drains[name] = facts.Drain{} })
				case act == 3:
					s.update(func(f *facts.Facts) { clear(f.Drains) })
				case act == 4:
					s.update(func(f *facts.Facts) { f.Moves[r.IntN(shardsOfTest)] = facts.Move{To: name, At: time.Now()} })
				default:
					s.killServer(name, r.IntN(shardsOfTest))
				}
				time.Sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
			}
			time.Sleep(moveLimit + shardsOfTest*giveUpLimit)
			s.stays()
			f, err := s.facts().Load()
			must.Succeed(t, err)
			takes := slices.ContainsFunc(slices.Collect(maps.Keys(s.nodes)), func(name string) bool { _, d := f.Drains[name]; return !d })
			for k, owner := range s.owners {
				_, drained := f.Drains[owner]
				if s.nodes[owner] == nil || drained && takes || f.Owners[k].Node != owner || f.Owners[k].Epoch != s.epochs[k] {
					if !takes && f.Owners[k].Node == "" {
						continue // all nodes are drained, and none has it
					}
					t.Errorf("seed %d, %v: shard %d is at %q, drained: %t; facts %+v", seed, history, k, owner, drained, f.Owners[k])
				}
			}
		})
	}
}
