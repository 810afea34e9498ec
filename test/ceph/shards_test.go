//go:build rados

package ceph_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/internal/kit/tokenclient"
)

// TestShards has three nodes that share six shards, with an initiator of each shard that writes
// throughout: a node is killed, comes back, and gets its share again; one is drained; a shard is
// moved; a node hands its shards over. No initiator has an error, and no acknowledged write is lost.
func TestShards(t *testing.T) {
	s := newSharers(t, "a", "b", "c")
	begun := time.Now()
	s.start("a", "b", "c")
	s.awaitAll()
	t.Logf("three nodes serve six shards after %v: %v", time.Since(begun).Round(time.Millisecond), s.owners())
	s.command("a", "cluster", "balance") // a machine that is busy starts one node much later than another
	s.await(map[string]int{"a": 2, "b": 2, "c": 2})
	writers := s.keep()
	advance(t, writers, blocks)

	s.killNode("a", writers)

	s.start("a")
	s.command("b", "cluster", "balance")
	s.await(map[string]int{"a": 2, "b": 2, "c": 2})
	t.Logf("balanced: longest gaps of the initiators %v", advance(t, writers, blocks))

	s.command("c", "cluster", "drain", "b")
	s.await(map[string]int{"a": 3, "c": 3})
	t.Logf("drained: longest gaps of the initiators %v", advance(t, writers, blocks))
	s.command("b", "cluster", "undrain", "b")
	s.command("a", "cluster", "move", "0", "b")
	if at := s.owners()[0]; at != "b" {
		t.Errorf("shard 0 is at %s", at)
	}
	t.Logf("moved: longest gaps of the initiators %v", advance(t, writers, blocks))

	s.command("c", "cluster", "handover", "--node", "c")
	s.await(map[string]int{"a": 3, "b": 3})
	t.Logf("handed over: longest gaps of the initiators %v", advance(t, writers, blocks))
	verify(t, writers)
}

// killNode kills a node of three: the others have three shards each then, in time, and keep those
// that they had.
func (s *sharers) killNode(name string, writers []*keeper) {
	s.t.Helper()
	before, _ := s.epochs()
	owners := s.owners()
	s.nodes[name].kill()
	killed := time.Now()
	s.awaitAll(name)
	gap := time.Since(killed)
	after, loads := s.epochs()
	s.t.Logf("from the kill of node %s to six shards at the others: %v; %v", name, gap.Round(time.Millisecond), loads)
	if gap > 5*killLimit/2 { // on a busy machine
		s.t.Errorf("the others have the shards after %v", gap)
	}
	lost := 0
	for k := range after {
		if owners[k] != name && after[k] != before[k] {
			lost++
		}
	}
	if lost > 0 {
		s.t.Logf("%d other shards have lost their owner: this machine is too busy for their locks", lost)
	}
	for other, n := range loads {
		if lost == 0 && (n != 3 || other == name) {
			s.t.Errorf("node %s has %d shards", other, n)
		}
	}
	s.t.Logf("killed: longest gaps of the initiators %v", advance(s.t, writers, blocks))
}

// killLimit is how long the shards of a killed node may be without one, on a machine that is not
// busy.
const killLimit = 8 * time.Second

// command runs a command on a node, which has to succeed.
func (s *sharers) command(name string, args ...string) string {
	s.t.Helper()
	out, err := s.nodes[name].run(args...)
	if err != nil {
		s.t.Fatalf("%v on %s: %v: %s", args, name, err, out)
	}
	return out
}

// TestShards_Nodes: a node reports its progress to systemd; a server that is killed alone has its
// shard again; a node that is stopped gives its shards to the others at once; one with another
// configuration is refused, and so is one where a new one counts that it does not have; the status
// says which server refuses the one that counts.
func TestShards_Nodes(t *testing.T) {
	s := newSharers(t, "a", "b")
	alive := s.nodes["a"].watched()
	s.start("a", "b")
	s.await(map[string]int{"a": 3, "b": 3})
	for range 3 {
		select {
		case <-alive:
		case <-time.After(takeOverMax):
			t.Fatal("node a reports no progress to systemd")
		}
	}
	var st struct {
		Health string
		Shards []struct {
			Node   string
			Portal string
		}
	}
	must.Succeed(t, json.Unmarshal([]byte(s.command("b", "cluster", "status", "--json")), &st))
	if st.Health != "healthy" || len(st.Shards) != shardsOfSite || st.Shards[0].Node != "a" || st.Shards[0].Portal != strings.Replace(s.nodes["a"].portal, "3260", "3261", 1) {
		t.Errorf("status %+v", st)
	}
	if out := s.command("a", "cluster", "status"); !strings.Contains(out, "healthy") {
		t.Errorf("status %s", out)
	}

	owners := s.owners()
	k := slices.Index(owners[:], "b")
	s.copyByToken(slices.Index(owners[:], "a"), k)
	var server struct{ PID int }
	must.Succeed(t, json.Unmarshal([]byte(s.command("b", "status", "--shard", fmt.Sprint(k), "--json")), &server))
	f, err := s.facts.Load()
	must.Succeed(t, err)
	epoch := f.Owners[k].Epoch
	must.Succeed(t, syscall.Kill(server.PID, syscall.SIGKILL))
	killed := time.Now()
	for f.Owners[k].Epoch == epoch || f.Owners[k].Node == "" {
		if time.Since(killed) > takeOverMax {
			t.Fatal("nothing serves the shard")
		}
		f, err = s.facts.Load()
		must.Succeed(t, err)
	}
	if took := time.Since(killed); took > 3*time.Second && f.Owners[k].Node == "b" { // no lock ends sooner by itself
		t.Errorf("its lock was waited for: %v", took)
	}
	t.Logf("shard %d of a server that was killed alone is served again after %v, by %s", k, time.Since(killed).Round(time.Millisecond), f.Owners[k].Node)
	now := s.owners()
	for i := range now {
		if i != k && now[i] != owners[i] {
			t.Errorf("shard %d has moved from %s to %s", i, owners[i], now[i])
		}
	}

	b := s.nodes["b"]
	b.signal(syscall.SIGTERM)
	stopped := time.Now()
	b.output.Wait()
	must.Succeed(t, b.cmd.Wait())
	b.cmd = nil
	s.await(map[string]int{"a": 6})
	t.Logf("the shards of a node that was stopped are served after %v", time.Since(stopped).Round(time.Millisecond))

	same, err := os.ReadFile(b.config())
	must.Succeed(t, err)
	other := strings.Replace(string(same), "volume: v3, size: 16MiB", "volume: v3, size: 32MiB", 1)
	must.Succeed(t, os.WriteFile(b.config(), []byte(other), 0o600))
	if out, err := b.run("serve", "--node", "b"); err == nil || !strings.Contains(out, "the configuration differs from that of the pool, which node ") || !strings.Contains(out, "in targets") {
		t.Errorf("a node with another configuration: %v: %s", err, out)
	}
	must.Succeed(t, os.WriteFile(b.config(), same, 0o600))
	s.start("b")

	a := s.nodes["a"]
	must.Succeed(t, os.WriteFile(a.config(), []byte(other), 0o600))
	a.signal(syscall.SIGHUP)
	s.untilStatus("a", "node b does not have the configuration that counts")
	must.Succeed(t, os.WriteFile(b.config(), []byte(other), 0o600))
	b.signal(syscall.SIGHUP)
	s.untilStatus("b", "the server of shard 3 at node "+s.owners()[3]+" has refused the configuration that counts")
	s.command(s.owners()[3], "volume", "resize", "v3", "32MiB", "--shard", "3")
	a.signal(syscall.SIGHUP)
	b.signal(syscall.SIGHUP)
	s.untilStatus("b", "healthy")
}

// watched has a node started as by systemd with a watchdog, and returns what gets its reports of
// progress.
func (n *node) watched() <-chan struct{} {
	n.t.Helper()
	path := filepath.Join(n.dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must.Succeed(n.t, err)
	n.env = []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=600000"}
	alive := make(chan struct{}, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		p := make([]byte, 4096)
		for {
			length, err := conn.Read(p)
			if err != nil {
				return
			}
			if string(p[:length]) == "WATCHDOG=1" {
				select {
				case alive <- struct{}{}:
				default: // the test has seen enough
				}
			}
		}
	})
	n.t.Cleanup(func() {
		must.Succeed(n.t, conn.Close())
		reading.Wait()
	})
	return alive
}

// copyByToken writes a token of a LUN of one shard to one of another: its data stays where it is.
func (s *sharers) copyByToken(from, to int) {
	t := s.t
	t.Helper()
	dial := func(shard int) *client {
		var c *client
		must.Succeed(t, s.client.Do(func() (err error) {
			c, err = startClient(t)
			return err
		}))
		w := &keeper{s: s, shard: shard, portals: []string{s.nodes["a"].portal}, client: c}
		for begun := time.Now(); ; {
			if c := w.login(0); c != nil {
				return c
			}
			if time.Since(begun) > takeOverMax {
				t.Fatalf("shard %d: no login", shard)
			}
		}
	}
	maker, taker := dial(from), dial(to)
	want := content(1, tokenBytes)
	a, err := maker.session.Write(bytes.NewReader(want), 0, tokenBytes/512, tokenclient.WriteOptions{})
	good(t, a, err)
	for begun := time.Now(); ; { // the servers of the shards do not know each other at once
		token, err := maker.session.Token(tokenclient.Range{Blocks: tokenBytes / 512})
		must.Succeed(t, err)
		a, err := taker.session.WriteUsingToken(token, tokenclient.WriteTokenOptions{}, tokenclient.Range{Blocks: tokenBytes / 512})
		must.Succeed(t, err)
		if a.Good() {
			t.Logf("a token of shard %d is written to shard %d %v after the first try", from, to, time.Since(begun).Round(time.Millisecond))
			break
		}
		if time.Since(begun) > takeOverMax {
			t.Fatalf("a token of shard %d is not written to shard %d: %v\n%s", from, to, a, s.command("b", "peer", "list", "--shard", fmt.Sprint(to)))
		}
	}
	var got bytes.Buffer
	a, err = taker.session.Read(&got, 0, tokenBytes/512)
	good(t, a, err)
	if !bytes.Equal(got.Bytes(), want) {
		t.Error("the other shard has other data")
	}
	var sp space
	must.Succeed(t, json.Unmarshal([]byte(s.command("b", "store", "info", "--shard", fmt.Sprint(to), "--json")), &sp))
	if sp.Adopted != tokenBytes {
		t.Errorf("space of the taker: %+v", sp)
	}
	maker.close()
	taker.close()
}

// tokenBytes is what copyByToken copies.
const tokenBytes = 8 << 20

// untilStatus waits until the status of the pool has a text.
func (s *sharers) untilStatus(name, text string) {
	s.t.Helper()
	for begun := time.Now(); ; {
		out, _ := s.nodes[name].run("cluster", "status") // its exit status follows what it prints
		if strings.Contains(out, text) {
			return
		}
		if time.Since(begun) > takeOverMax {
			s.t.Fatalf("the status never is %q:\n%s", text, out)
		}
	}
}
