//go:build rados

package ceph_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"odx/internal/kit/ceph"
	"odx/internal/kit/harness"
	"odx/internal/kit/must"
	"odx/internal/kit/netns"
	"odx/internal/kit/tokenclient"
)

var (
	faults = flag.Int("faults", 6, "how many faults TestServers_Faults has; the whole test has 500")
	seed   = flag.Uint64("seed", 0, "the seed of TestServers_Faults; 0 means another one each time")
)

const (
	faultsClients = 3
	faultsBlocks  = 8
	// progress is how many operations each client has to have answered after a fault.
	progress = 20
	// loginLimit and answerLimit are how long a client waits before it closes its connection.
	loginLimit, answerLimit = 5 * time.Second, 30 * time.Second
	// recovery is how long a cluster may take on a busy machine until it serves after a fault.
	recovery = 4 * time.Minute
)

// plant is a cluster of three hosts, three servers of one store and a client, all in one network.
type plant struct {
	t       *testing.T
	rng     *rand.Rand
	net     *netns.Net
	client  *netns.Host
	storage []*netns.Host
	cluster *ceph.Cluster
	nodes   []*node
	address netip.Addr    // that follows the owner
	numbers atomic.Uint64 // the last that was written
}

func newPlant(t *testing.T, seed uint64) *plant {
	if err := netns.Check(); err != nil {
		harness.Missing(t, err.Error())
	}
	n, err := netns.New("o0", "o1", "o2", "n0", "n1", "n2", "client")
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, n.Close()) })
	p := &plant{t: t, rng: rand.New(rand.NewPCG(seed, 1)), net: n, client: n.Host("client")}
	for _, name := range []string{"o0", "o1", "o2"} {
		p.storage = append(p.storage, n.Host(name))
	}
	dir, err := os.MkdirTemp("", "ceph") // short: sockets are in it
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, os.RemoveAll(dir)) })
	p.cluster, err = ceph.Start(dir, ceph.Options{Hosts: p.storage, OnDisk: true})
	must.Succeed(t, err)
	t.Cleanup(p.cluster.Stop)
	address := p.client.Address.As4()
	address[3] = 200
	p.address = netip.AddrFrom4(address)
	for _, name := range []string{"n0", "n1", "n2"} {
		p.nodes = append(p.nodes, newNodeAt(t, p.cluster, name, n.Host(name), p.address.String()+":3260",
			fmt.Sprintf(", addresses: [{address: %s/24, interface: eth0}]", p.address)))
	}
	return p
}

// fault is something that happens to the plant, and goes on until it is mended.
type fault struct {
	on          []string // the hosts that it concerns
	name        string
	begin, mend func()
}

func (f fault) String() string { return f.name + " " + strings.Join(f.on, " ") }

// node returns a server, in most cases the one that has the store.
func (p *plant) node() *node {
	if p.rng.IntN(3) > 0 {
		for _, n := range p.nodes {
			if has(p.t, n.host, p.address) {
				return n
			}
		}
	}
	return p.nodes[p.rng.IntN(len(p.nodes))]
}

// faults returns one fault of each kind. The first three are those of servers.
func (p *plant) faults() []fault {
	n, i := p.node(), p.rng.IntN(len(p.storage))
	storage := p.storage[i]
	osd, mon := fmt.Sprintf("osd.%d", i), fmt.Sprintf("mon.%c", 'a'+i)
	hosts := append([]*netns.Host{p.client}, p.storage...)
	for _, n := range p.nodes {
		hosts = append(hosts, n.host)
	}
	pair := p.rng.Perm(len(hosts))
	from, to := hosts[pair[0]], hosts[pair[1]]
	do := func(err error) { must.Succeed(p.t, err) }
	kill := func(daemons ...string) func() {
		return func() {
			for _, d := range daemons {
				p.cluster.Kill(d)
			}
		}
	}
	start := func(daemons ...string) func() {
		return func() {
			for _, d := range daemons {
				do(p.cluster.Start(d))
			}
		}
	}
	return []fault{
		{[]string{n.name}, "kill", n.kill, n.start},
		{[]string{n.name}, "stop", func() { n.signal(syscall.SIGSTOP) }, func() { n.signal(syscall.SIGCONT) }},
		{[]string{n.name}, "take the link of", func() { do(n.host.Down()) }, func() { do(n.host.Up()) }},
		{[]string{storage.Name}, "kill the OSD of", kill(osd), start(osd)},
		{[]string{storage.Name}, "kill the monitor of", kill(mon), start(mon)},
		{[]string{storage.Name}, "kill the OSD and the monitor of", kill(osd, mon), start(mon, osd)},
		{[]string{storage.Name}, "take the link of", func() { do(storage.Down()) }, func() { do(storage.Up()) }},
		{[]string{from.Name, to.Name}, "drop what goes between", func() { do(from.DropFrom(to)) }, func() { do(from.Pass()) }},
		{[]string{n.name, storage.Name}, "kill server and OSD of", func() { n.kill(); kill(osd)() }, func() { start(osd)(); n.start() }},
		{nil, "fill the pool", func() { do(p.cluster.Admin("osd set full")) }, func() { do(p.cluster.Admin("osd unset full")) }},
	}
}

// happen returns one fault or two at once, which concern different hosts. Half of them are
// those of servers.
func (p *plant) happen() []fault {
	choose := func() fault {
		all := p.faults()
		if p.rng.IntN(2) == 0 {
			return all[p.rng.IntN(3)]
		}
		return all[p.rng.IntN(len(all))]
	}
	one, other := choose(), choose()
	if p.rng.IntN(5) > 0 || slices.ContainsFunc(one.on, func(host string) bool { return slices.Contains(other.on, host) }) {
		return []fault{one}
	}
	return []fault{one, other}
}

// connect logs in under the address that follows the owner. It returns nil without an error where
// no server answers.
func (p *plant) connect() (c *client, err error) {
	if err := p.client.Do(func() (err error) {
		c, err = startClient(p.t)
		return err
	}); err != nil {
		return nil, err
	}
	limit := time.AfterFunc(loginLimit, c.close)
	defer limit.Stop()
	if c.session, err = c.program.Open(p.nodes[0].url(), tokenclient.OpenOptions{}); err == nil {
		err = c.clearAttentions()
	}
	if err != nil {
		c.close()
		return nil, nil // for want of a server
	}
	return c, nil
}

// round has clients read and write while faults happen, and proves that there is an order of
// what they saw. The blocks have the numbers of first at its begin, and of what it returns at its end.
func (p *plant) round(first []uint64, happens []fault) (last []uint64) {
	t := p.t
	began, stop := time.Now(), make(chan struct{})
	var workers []*worker
	var running sync.WaitGroup
	failed := make(chan error, faultsClients)
	for id := range faultsClients {
		w := &worker{p: p, id: id, rng: rand.New(rand.NewPCG(p.rng.Uint64(), uint64(id)))}
		workers = append(workers, w)
		running.Go(func() {
			if err := w.work(began, stop); err != nil {
				failed <- err
			}
		})
	}
	end := sync.OnceFunc(func() { close(stop); running.Wait() })
	defer end()
	p.awaitProgress(workers, failed)
	for _, f := range happens {
		f.begin()
	}
	time.Sleep(p.duration())
	for _, f := range slices.Backward(happens) {
		f.mend()
	}
	mended := time.Now()
	p.awaitProgress(workers, failed)
	again := time.Since(mended)
	end()
	reader := &worker{p: p, id: faultsClients}
	last = p.readAll(reader, began)
	history := seen(append(workers, reader))
	if result := porcupine.CheckOperationsTimeout(register(first), history, time.Minute); result != porcupine.Ok {
		t.Fatalf("what clients saw after %v is %s: %d operations on blocks that had %d%s", happens, result, len(history), first, wrong(first, history))
	}
	t.Logf("%v: %d operations in order; all clients go on %v later", happens, len(history), again.Round(time.Millisecond))
	return last
}

// duration is how long faults last: 2 to 8 s, and at times up to 30.
func (p *plant) duration() time.Duration {
	limit := 6 * time.Second
	if p.rng.IntN(10) == 0 {
		limit = 28 * time.Second
	}
	return 2*time.Second + time.Duration(p.rng.Int64N(int64(limit)))
}

// awaitProgress waits until each client had some operations answered.
func (p *plant) awaitProgress(workers []*worker, failed <-chan error) {
	p.t.Helper()
	limit := time.After(recovery)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for _, w := range workers {
		for until := w.done.Load() + progress; w.done.Load() < until; {
			select {
			case err := <-failed:
				p.t.Fatal(err)
			case <-limit:
				p.t.Fatalf("client %d does not go on", w.id)
			case <-tick.C:
			}
		}
	}
}

// readAll returns the numbers of all blocks.
func (p *plant) readAll(w *worker, began time.Time) []uint64 {
	p.t.Helper()
	for end := time.Now().Add(recovery); time.Now().Before(end); {
		c, err := p.connect()
		must.Succeed(p.t, err)
		if c == nil {
			continue
		}
		var all []uint64
		for block := range uint64(faultsBlocks) {
			if err = w.act(c, action{block: block}, began); err != nil {
				break
			}
			all = append(all, w.history[len(w.history)-1].Output.(uint64))
		}
		c.close()
		if err == nil {
			return all
		}
	}
	p.t.Fatal("the blocks cannot be read")
	return nil
}

// TestServers_Faults has clients of three servers over a cluster of three hosts, while servers,
// OSDs, monitors and links fail, packets are dropped and the pool is full. What all clients saw
// has an order in which each read has what was written last.
func TestServers_Faults(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	p := newPlant(t, *seed)
	for _, n := range p.nodes {
		n.start()
	}
	last := p.readAll(&worker{p: p}, time.Now())
	kinds := make(map[string]int)
	for done := 0; done < *faults; {
		happens := p.happen()
		last = p.round(last, happens)
		done += len(happens)
		for _, f := range happens {
			kinds[f.name]++
		}
	}
	t.Logf("%v", kinds)
}
