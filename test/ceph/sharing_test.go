//go:build rados

package ceph_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"odx/backstore/vfs/rados/librados"
	"odx/internal/kit/must"
	"odx/internal/kit/tokenclient"
	"odx/pool/facts"
)

// shardsOfSite is how many shards the nodes of a site share.
const shardsOfSite = 6

// sharers are nodes that share the shards of a pool.
type sharers struct {
	*site
	t     *testing.T
	nodes map[string]*node
	facts *facts.Store
}

// newSharers returns nodes on hosts, which are not started.
func newSharers(t *testing.T, names ...string) *sharers {
	s := &sharers{site: newSiteOf(t, append(names, "client")...), t: t, nodes: map[string]*node{}}
	for _, name := range names {
		h := s.hosts.Host(name)
		s.reach(t, h)
		n := &node{t: t, name: name, dir: t.TempDir(), portal: h.Address.String() + ":3260", host: h, log: &lockedBuffer{}, flags: []string{"--node", name}}
		must.Succeed(t, os.WriteFile(n.config(), []byte(s.text(names)), 0o600))
		t.Cleanup(func() {
			n.kill()
			if t.Failed() {
				t.Logf("log of %s:\n%s", name, n.log)
			}
		})
		s.nodes[name] = n
	}
	pool, err := librados.Open(librados.Options{Conf: s.cluster.Conf(), User: s.cluster.User(), Keyring: s.cluster.Keyring(), Pool: s.cluster.Pool(), Namespace: t.Name(), Timeout: 8 * time.Second})
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, pool.Close()) })
	s.facts = facts.New(pool)
	return s
}

// text is the configuration that all nodes have.
func (s *sharers) text(names []string) string {
	var nodes, targets strings.Builder
	for _, name := range names {
		fmt.Fprintf(&nodes, "{name: %s, address: %s}, ", name, s.hosts.Host(name).Address)
	}
	for k := range shardsOfSite {
		fmt.Fprintf(&targets, "  - {name: %q, shard: %d, luns: [{lun: 0, volume: v%d, size: 16MiB}]}\n", s.target(k), k, k)
	}
	return fmt.Sprintf(`data_dir: rados:%s/%s
memory: 1GiB
ceph: {conf: %q, user: %s, keyring: %q, run_dir: run, shards: %d, nodes: [%s]}
portals: ["0.0.0.0:3260"]
api: {listen: "0.0.0.0:8440", secret: the administrator of a node}
targets:
%s`, s.cluster.Pool(), s.t.Name(), s.cluster.Conf(), s.cluster.User(), s.cluster.Keyring(), shardsOfSite, nodes.String(), targets.String())
}

func (s *sharers) target(shard int) string { return fmt.Sprintf("%s-%d", target, shard) }

// start starts nodes, one right after the other.
func (s *sharers) start(names ...string) {
	s.t.Helper()
	for _, name := range names {
		s.nodes[name].start()
	}
	for _, name := range names {
		s.nodes[name].await("shares 6 shards")
	}
}

// owners returns which node serves each shard, by the facts.
func (s *sharers) owners() [shardsOfSite]string {
	s.t.Helper()
	f, err := s.facts.Load()
	must.Succeed(s.t, err)
	there, err := s.facts.Present(slices.Collect(maps.Keys(s.nodes)))
	must.Succeed(s.t, err)
	var owners [shardsOfSite]string
	for k := range owners {
		if o := f.Owners[k].Node; there[o] {
			owners[k] = o
		}
	}
	return owners
}

// epochs returns by which epoch each shard is served, and how many each node serves.
func (s *sharers) epochs() (epochs [shardsOfSite]uint64, loads map[string]int) {
	s.t.Helper()
	f, err := s.facts.Load()
	must.Succeed(s.t, err)
	loads = map[string]int{}
	for k := range epochs {
		epochs[k] = f.Owners[k].Epoch
		loads[f.Owners[k].Node]++
	}
	return epochs, loads
}

// awaitAll waits until each shard is served, by other nodes than some.
func (s *sharers) awaitAll(but ...string) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); ; <-tick.C {
		owners := s.owners()
		if !slices.ContainsFunc(owners[:], func(name string) bool { return name == "" || slices.Contains(but, name) }) {
			return
		}
		if time.Since(begun) > takeOverMax {
			s.t.Fatalf("shards are served by %q", owners)
		}
	}
}

// await waits until nodes serve so many shards, and returns how long that took.
func (s *sharers) await(want map[string]int) time.Duration {
	s.t.Helper()
	start := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		have := map[string]int{}
		for _, name := range s.owners() {
			have[name]++
		}
		if maps.Equal(have, want) {
			return time.Since(start)
		}
		if time.Since(start) > takeOverMax {
			s.t.Fatalf("nodes have %v, want %v", have, want)
		}
		<-tick.C
	}
}

// keeper is an initiator of a shard, as a host with a session layer that hides failovers: it writes
// number after number, each until it is acknowledged, and logs in again at one of the nodes when
// its session has ended.
type keeper struct {
	s       *sharers
	shard   int
	portals []string
	client  *client
	stop    chan struct{}
	ended   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	acked   uint64
	logins  int
	gap     time.Duration // the longest from one acknowledged write to the next
	failure error
}

// keepLimit is how long a host of the test waits until it reports an error.
const keepLimit = 30 * time.Second

// keep starts an initiator for each shard.
func (s *sharers) keep() []*keeper {
	s.t.Helper()
	var list []*keeper
	for k := range shardsOfSite {
		w := &keeper{s: s, shard: k, stop: make(chan struct{}), acked: 999}
		for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
			w.portals = append(w.portals, s.nodes[name].portal)
		}
		must.Succeed(s.t, s.client.Do(func() (err error) {
			w.client, err = startClient(s.t)
			return err
		}))
		w.ended.Go(w.run)
		list = append(list, w)
	}
	return list
}

func (w *keeper) url(i int) string {
	return fmt.Sprintf("iscsi://%s/%s/0", w.portals[i%len(w.portals)], w.s.target(w.shard))
}

// run writes until stop.
func (w *keeper) run() {
	var c *client
	last := time.Now()
	for n, attempt := w.acked+1, w.shard; ; {
		select {
		case <-w.stop:
			return
		default:
		}
		if c == nil {
			attempt++
			c = w.login(attempt)
		}
		if c != nil && c.write(n) == nil {
			now := time.Now()
			w.mu.Lock()
			w.acked, w.gap = n, max(w.gap, now.Sub(last))
			w.mu.Unlock()
			n, last = n+1, now
			continue
		}
		c = nil // it logs in again
		if time.Since(last) > keepLimit {
			w.mu.Lock()
			w.failure = fmt.Errorf("shard %d: number %d is not acknowledged for %v", w.shard, n, keepLimit)
			w.mu.Unlock()
			return
		}
	}
}

// login returns a session that is ready for commands, nil for none.
func (w *keeper) login(attempt int) *client {
	session, err := w.client.program.Open(w.url(attempt), tokenclient.OpenOptions{})
	if err != nil {
		return nil
	}
	w.mu.Lock()
	w.logins++
	w.mu.Unlock()
	c := &client{program: w.client.program, session: session, close: w.client.close}
	for range 4 { // what is pending of unit attentions
		if a, err := session.Command(make([]byte, 6), nil, 0); err != nil {
			return nil
		} else if a.Good() {
			return c
		}
	}
	return nil
}

// advance waits until each has had so many more writes acknowledged, and returns the longest times
// between two of them since the last advance.
func advance(t *testing.T, list []*keeper, writes uint64) (gaps []time.Duration) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, w := range list {
		first, begun := uint64(0), time.Now()
		for {
			w.mu.Lock()
			now, failure := w.acked, w.failure
			w.mu.Unlock()
			if first == 0 {
				first = now
			}
			if failure != nil || time.Since(begun) > takeOverMax {
				t.Fatalf("shard %d: no progress after number %d: %v", w.shard, now, failure)
			}
			if now >= first+writes {
				break
			}
			<-tick.C
		}
	}
	for _, w := range list {
		w.mu.Lock()
		gaps = append(gaps, w.gap.Round(time.Millisecond))
		w.gap = 0
		w.mu.Unlock()
	}
	return gaps
}

// verify stops the initiators and proves that each has had no error, and that its LUN has every
// number that was acknowledged.
func verify(t *testing.T, list []*keeper) {
	t.Helper()
	for _, w := range list {
		close(w.stop)
	}
	for _, w := range list {
		w.ended.Wait()
		if w.failure != nil {
			t.Error(w.failure)
			continue
		}
		var c *client
		for end := time.Now().Add(takeOverMax); c == nil; {
			if c = w.login(0); c == nil && time.Now().After(end) {
				t.Fatalf("shard %d: no login", w.shard)
			}
		}
		c.holdsNumbers(t, w.acked)
		t.Logf("shard %d: %d writes, %d logins", w.shard, w.acked-999, w.logins)
	}
}
