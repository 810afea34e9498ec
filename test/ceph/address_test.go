//go:build rados

package ceph_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit/ceph"
	"odx/internal/kit/harness"
	"odx/internal/kit/must"
	"odx/internal/kit/netns"
)

// site is a network with two servers of a pool and a client, and a cluster that the servers
// reach by links of their own.
type site struct {
	hosts   *netns.Net
	client  *netns.Host
	cluster *ceph.Cluster
	address netip.Addr // that follows the owner
	ceph    string     // the address of the cluster
}

func newSite(t *testing.T) *site { return newSiteOf(t, "a", "b", "client") }

// newSiteOf returns a site of these hosts, one of which is client.
func newSiteOf(t *testing.T, names ...string) *site {
	if err := netns.Check(); err != nil {
		harness.Missing(t, err.Error())
	}
	n, err := netns.New(names...)
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, n.Close()) })
	s := &site{hosts: n, client: n.Host("client")}
	s.ceph = s.client.Control.Prev().String() // the test's end of a link that stays up
	subnet := s.client.Address.As4()
	subnet[3] = 200
	s.address = netip.AddrFrom4(subnet)
	dir, err := os.MkdirTemp("", "ceph") // short: sockets are in it
	must.Succeed(t, err)
	t.Cleanup(func() { must.Succeed(t, os.RemoveAll(dir)) })
	s.cluster, err = ceph.Start(dir, ceph.Options{OSDs: 2, Address: s.ceph})
	must.Succeed(t, err)
	t.Cleanup(s.cluster.Stop)
	return s
}

// node returns a server on a host of the site.
func (s *site) node(t *testing.T, h *netns.Host) *node {
	t.Helper()
	s.reach(t, h)
	return newNodeAt(t, s.cluster, h.Name, h, s.address.String()+":3260", fmt.Sprintf(", addresses: [{address: %s/24, interface: eth0}]", s.address))
}

// reach has a host reach the cluster.
func (s *site) reach(t *testing.T, h *netns.Host) {
	t.Helper()
	if out, err := h.Command(t.Context(), "ip", "route", "replace", s.ceph+"/32", "via", h.Control.Prev().String()).CombinedOutput(); err != nil {
		t.Fatalf("route to the cluster: %v: %s", err, out)
	}
}

// has reports whether a host has an address.
func has(t *testing.T, h *netns.Host, address netip.Addr) bool {
	t.Helper()
	out, err := h.Command(t.Context(), "ip", "-o", "addr", "show").Output()
	must.Succeed(t, err)
	return strings.Contains(string(out), " "+address.String()+"/")
}

// has reports whether a node has the address that follows the owner.
func (s *site) has(t *testing.T, n *node) bool {
	t.Helper()
	return has(t, n.host, s.address)
}

// awaitRemoved waits until a node has the address no more.
func (s *site) awaitRemoved(t *testing.T, n *node) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(takeOverMax); s.has(t, n); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%s has the address still", n.name)
		}
	}
}

// recorded is longer than a connection may be missing in the record that the next owner has.
const recorded = 2 * time.Second

var losses = flag.Int("losses", 1, "how often TestServers_Address loses the owner in each way")

// TestServers_Address has a client that knows one address while the server that has the store
// is killed, stopped and cut off. The client finds the other server under the address with each
// write that was acknowledged, also while the first machine has the address still.
func TestServers_Address(t *testing.T) {
	s := newSite(t)
	a, b := s.node(t, s.hosts.Host("a")), s.node(t, s.hosts.Host("b"))
	startBoth(a, b)
	if !s.has(t, a) || s.has(t, b) {
		t.Fatalf("the server that has the store has the address: %t; the other one: %t", s.has(t, a), s.has(t, b))
	}
	next := uint64(1000)
	for _, loss := range []struct {
		name        string
		begin, mend func(a *node)
	}{
		{"killed", (*node).kill, func(a *node) {
			if !s.has(t, a) {
				t.Error("the address was removed with the process")
			}
			a.start()
			a.await(waits)
			s.awaitRemoved(t, a)
		}},
		{"stopped", func(a *node) { a.signal(syscall.SIGSTOP) }, func(a *node) {
			a.signal(syscall.SIGCONT)
			s.awaitRemoved(t, a)
			a.await(waits)
		}},
		{"cut off", func(a *node) { must.Succeed(t, a.host.Isolate()) }, func(a *node) {
			s.awaitRemoved(t, a) // by itself
			must.Succeed(t, a.host.Rejoin())
			s.reach(t, a.host)
			a.kill()
			a.start()
			a.await(waits)
		}},
	} {
		var gaps []time.Duration
		for range *losses {
			var gap time.Duration
			gap, next = s.lose(t, a, b, next, loss.begin, loss.mend)
			gaps = append(gaps, gap.Round(time.Millisecond))
			a, b = b, a
		}
		logGaps(t, "the owner is "+loss.name, gaps)
	}
	a.signal(syscall.SIGTERM)
	a.output.Wait()
	if s.has(t, a) {
		t.Error("a server that was stopped has left the address")
	}
	b.await(serves)
}

// lose has a client write numbers from next while the owner a is lost to b. It returns how long
// the client had no acknowledged write, and the next number.
func (s *site) lose(t *testing.T, a, b *node, next uint64, begin, mend func(a *node)) (gap time.Duration, _ uint64) {
	t.Helper()
	w := startWriting(dialFrom(t, s.client, a), next)
	for begun := time.Now(); time.Since(begun) < recorded; {
		w.await(t, blocks)
	}
	begin(a)
	began := time.Now()
	last := w.end()
	noticed := time.Since(began)
	c := dialFrom(t, s.client, b)
	must.Succeed(t, c.write(last+1))
	gap = time.Since(began)
	t.Logf("the connection ends after %v, a write is acknowledged after %v", noticed.Round(time.Millisecond), gap.Round(time.Millisecond))
	c.holdsNumbers(t, last+1)
	if !s.has(t, b) {
		t.Error("the other server does not have the address")
	}
	mend(a)
	must.Succeed(t, c.write(last+2))
	c.holdsNumbers(t, last+2)
	c.close()
	return gap, last + 3
}

// logGaps logs how long a client had no acknowledged write.
func logGaps(t *testing.T, what string, gaps []time.Duration) {
	t.Helper()
	if len(gaps) == 0 {
		return
	}
	t.Logf("%v", gaps)
	slices.Sort(gaps)
	t.Logf("%s: to the next acknowledged write: median %v, longest %v, of %d", what, gaps[len(gaps)/2], gaps[len(gaps)-1], len(gaps))
}
