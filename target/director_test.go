package target

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"odx/conf"
	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
)

// whereNow is a Where for tests.
type whereNow struct {
	mu    sync.Mutex
	nodes map[int]string
}

func (w *whereNow) Serves(shard int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[shard]
}

func (w *whereNow) set(shard int, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[shard] = name
}

// directed has two shards at two nodes of this machine.
const directed = `
data_dir: rados:odx/disks
ceph: {shards: 2, nodes: [{name: a, address: 127.0.0.1}, {name: b, address: 127.0.0.2}], addresses: [%s]}
portals: ["0.0.0.0:%d"]
discovery: {authentication: {users: [{name: finder, secret: twelve-letters}]}}
targets:
  - {name: iqn.2026-11.example.odx:zero, luns: [{lun: 0, volume: v, size: 1MiB}]}
  - {name: iqn.2026-11.example.odx:one, shard: 1, luns: [{lun: 0, volume: w, size: 1MiB}], access: [{initiators: [iqn.2026-11.example:host]}]}
`

func directedConfig(t *testing.T, port uint16, addresses string) *conf.Config {
	t.Helper()
	cfg, err := conf.Parse("odx.yaml", fmt.Appendf(nil, directed, addresses, port))
	must.Succeed(t, err)
	return cfg
}

// freePorts returns a port of which, and of the one after it, no server of this machine has any.
func freePorts(t *testing.T) uint16 {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		must.Succeed(t, err)
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		next, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port+1))
		must.Succeed(t, l.Close())
		if err == nil {
			must.Succeed(t, next.Close())
			return port
		}
	}
	t.Fatal("no two ports after each other are free")
	return 0
}

// A login follows the shard of its target from node to node; one to a shard that no node has
// is refused so that the initiator tries again.
func TestDirect_Login(t *testing.T) {
	port := freePorts(t)
	cfg := directedConfig(t, port, "")
	services := map[string]*Service{}
	for _, n := range cfg.Pool.Nodes {
		text := fmt.Sprintf("data_dir: data\nportals: [%q]\ntargets: [{name: iqn.2026-11.example.odx:zero, luns: [{lun: 0, volume: v, size: 1MiB}]}]\n", cfg.ShardPortal(n, 0))
		services[n.Name] = start(t, parse(t, t.TempDir(), text))
	}
	where := &whereNow{nodes: map[int]string{}}
	d, err := Direct(t.Context(), cfg, cfg.Pool.Nodes[0], where, logs.Discard())
	must.Succeed(t, err)
	defer func() { must.Succeed(t, d.Close(context.Background())) }()
	dial := func() (*client.Disk, error) {
		return client.Open(t.Context(), client.Options{
			InitiatorName: "iqn.2026-11.example:host",
			URL:           client.URL{Address: cfg.NodePortal(cfg.Pool.Nodes[0]).String(), Target: "iqn.2026-11.example.odx:zero"},
		})
	}
	for _, name := range []string{"", "a", "b", "", "a"} {
		where.set(0, name)
		disk, err := dial()
		if name == "" {
			if err == nil || !strings.Contains(err.Error(), "0301h") {
				t.Errorf("where no node has the shard: %v", err)
			}
			continue
		}
		must.Succeed(t, err)
		for other, s := range services {
			if n := len(s.server.Sessions()); n != map[bool]int{true: 1}[other == name] {
				t.Errorf("with the shard at %s, %s has %d sessions", name, other, n)
			}
		}
		must.Succeed(t, disk.Close())
	}
	if _, err := Direct(t.Context(), cfg, cfg.Pool.Nodes[0], where, logs.Discard()); err == nil || !strings.Contains(err.Error(), "portals[0]") {
		t.Errorf("a second director at the portal: %v", err)
	}
}

// A director takes another configuration as a whole; one that cannot be used changes nothing.
func TestDirector_Prepare(t *testing.T) {
	cfg := directedConfig(t, freePorts(t), "")
	d, err := Direct(t.Context(), cfg, cfg.Pool.Nodes[0], &whereNow{}, logs.Discard())
	must.Succeed(t, err)
	defer func() { must.Succeed(t, d.Close(context.Background())) }()
	refused := func(target, status string) {
		t.Helper()
		_, err := client.Open(t.Context(), client.Options{
			InitiatorName: "iqn.2026-11.example:host",
			URL:           client.URL{Address: cfg.NodePortal(cfg.Pool.Nodes[0]).String(), Target: target},
		})
		if err == nil || !strings.Contains(err.Error(), status) {
			t.Errorf("%s: %v, want status %s", target, err, status)
		}
	}
	prepare := func(old, text string) (commit func(), err error) {
		t.Helper()
		next, err := cfg.Again(bytes.Replace(cfg.Text(), []byte(old), []byte(text), 1))
		must.Succeed(t, err)
		return d.Prepare(next)
	}
	const before, after, serviceUnavailable, notFound = "iqn.2026-11.example.odx:zero", "iqn.2026-11.example.odx:other", "0301h", "0203h"
	if _, err := prepare("secret: twelve-letters", "secret_file: none"); err == nil || !strings.Contains(err.Error(), "discovery.authentication.users[0].secret_file") {
		t.Errorf("a secret in a file that is not there: %v", err)
	}
	refused(before, serviceUnavailable)
	commit, err := prepare(before, after)
	must.Succeed(t, err)
	refused(after, notFound)
	commit()
	refused(after, serviceUnavailable)
	refused(before, notFound)
}

// Discovery reports the nodes, the one that has the target first; logins go to the port of the shard
// there, or to an address that follows it.
func TestPlaced(t *testing.T) {
	cfg := directedConfig(t, 3260, "{address: 192.0.2.9/24, interface: eth0, shard: 1}")
	where := &whereNow{nodes: map[int]string{}}
	zero, one := &placed{cfg, 0, where}, &placed{cfg, 1, where}
	for _, c := range []struct{ node, zero, one, discovered string }{
		{"", "", "", "127.0.0.1:3260,1 127.0.0.2:3260,1"},
		{"a", "127.0.0.1:3261", "192.0.2.9:3260", "127.0.0.1:3260,1 127.0.0.2:3260,1"},
		{"b", "127.0.0.2:3261", "192.0.2.9:3260", "127.0.0.2:3260,1 127.0.0.1:3260,1"},
		{"removed", "", "", "127.0.0.1:3260,1 127.0.0.2:3260,1"},
	} {
		where.set(0, c.node)
		where.set(1, c.node)
		a, ok := zero.Login()
		b, ok1 := one.Login()
		if a != c.zero || b != c.one || ok != (c.zero != "") || ok1 != ok {
			t.Errorf("at %q: %q %t, %q %t", c.node, a, ok, b, ok1)
		}
		if got := strings.Join(zero.Discovered(), " "); got != c.discovered {
			t.Errorf("at %q: discovery %q", c.node, got)
		}
	}
}
