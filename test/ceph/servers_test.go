//go:build rados

package ceph_test

import (
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"odx/internal/kit/ceph"
	"odx/internal/kit/must"
)

// TestServers_OwnerKilled kills the server that has the store again and again: the other one
// serves the same LUN, with every write that was acknowledged and with reservations.
func TestServers_OwnerKilled(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	startBoth(a, b)
	b.isStandby(1)
	c := dial(t, a)
	identity := c.identity(t)
	c.writeThrough(t)
	c.register(t)
	next, epoch := uint64(1000), a.epoch()
	var gaps []time.Duration
	for round := range *kills {
		w := startWriting(c, next)
		w.await(t, 4*blocks)
		a.kill()
		killed := time.Now()
		acknowledged := w.end()
		b.await(serves)
		c = dial(t, b)
		must.Succeed(t, c.write(acknowledged+1))
		gaps = append(gaps, time.Since(killed).Round(time.Millisecond))
		c.holdsNumbers(t, acknowledged+1)
		c.registered(t)
		if now := c.identity(t); now != identity {
			t.Errorf("round %d: the LUN is %q, was %q", round, now, identity)
		}
		if now := b.epoch(); now <= epoch {
			t.Errorf("round %d: epoch %d after %d", round, now, epoch)
		} else {
			epoch = now
		}
		next = acknowledged + 2
		a.start()
		a.await(waits)
		a, b = b, a
	}
	logGaps(t, "the owner is killed", gaps)
	if out, err := a.run("store", "check"); err != nil || !strings.Contains(out, "is sound") {
		t.Errorf("check of a store that is served: %v: %s", err, out)
	}
}

// TestServers_OwnerPaused stops the server that has the store for longer than its lock lasts.
// When it goes on it acknowledges nothing, closes its sessions and waits for the store again,
// which it takes over when the other one ends.
func TestServers_OwnerPaused(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	startBoth(a, b)
	next := uint64(1000)
	for range *pauses {
		w := startWriting(dial(t, a), next)
		w.await(t, 2*blocks)
		a.signal(syscall.SIGSTOP)
		b.await(serves)
		c := dial(t, b)
		before := w.seen()
		c.holdsNumbers(t, before)
		next = before + 2 // the one in between was on its way
		must.Succeed(t, c.write(next))
		if rand.N(10) == 0 {
			time.Sleep(rand.N(25 * time.Second)) // the fault is the pause
		}
		a.signal(syscall.SIGCONT)
		if after := w.end(); after != before {
			t.Errorf("the first server has acknowledged number %d after it had lost the store at %d", after, before)
		}
		a.await(waits)
		a.isStandby(b.epoch())
		for range blocks { // each block has a number of this server's
			next++
			must.Succeed(t, c.write(next))
		}
		c.holdsNumbers(t, next)
		c.close()
		next++
		a, b = b, a
	}
	a.kill()
	b.await(serves)
	dial(t, b).holdsNumbers(t, next-1)
}

// TestServers_OwnerPausedBriefly stops the server that has the store for about as long as its
// lock lasts. It has the store still, or has lost it, to the other one or to itself as it begins
// again: each acknowledged write is there, and no other.
func TestServers_OwnerPausedBriefly(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	startBoth(a, b)
	c := dial(t, a)
	w := startWriting(c, 1000)
	lost := 0
	for range *pauses {
		w.await(t, 2*blocks)
		a.signal(syscall.SIGSTOP)
		time.Sleep(2*time.Second + rand.N(2500*time.Millisecond)) // the fault is the pause
		a.signal(syscall.SIGCONT)
		w.seen()
		if w.goesOn(t, 4*blocks) {
			continue
		}
		lost++
		c.close()
		if awaitEither(t, a, b) == b {
			a, b = b, a
		}
		c = dial(t, a)
		c.holdsNumbers(t, w.last)
		w = startWriting(c, w.last+1)
	}
	w.await(t, blocks)
	a.kill()
	last := w.end()
	b.await(serves)
	dial(t, b).holdsNumbers(t, last)
	t.Logf("%d of %d pauses cost the owner the store", lost, *pauses)
}

// TestServers_Commands runs commands where another machine serves the store, and where none does.
func TestServers_Commands(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	if out, err := b.run("store", "info"); err == nil || !strings.Contains(out, "there is no store in rados:") {
		t.Errorf("info of no store: %v: %s", err, out)
	}
	a.start()
	a.await(serves)
	must.Succeed(t, dial(t, a).write(1))
	if out, err := b.run("status"); err == nil || !strings.Contains(out, "on this machine: owner ") {
		t.Errorf("status where another machine serves: %v: %s", err, out)
	}
	if out, err := b.run("store", "check"); err == nil || !strings.Contains(out, "in use by another process") {
		t.Errorf("check where another machine serves: %v: %s", err, out)
	}
	if out, err := a.run("handover"); err == nil || !strings.Contains(out, "is in a pool: stop this server") {
		t.Errorf("handover: %v: %s", err, out)
	}
	a.signal(syscall.SIGTERM)
	a.output.Wait()
	if err := a.cmd.Wait(); err != nil {
		t.Errorf("stop: %v", err)
	}
	a.cmd = nil
	for _, args := range [][]string{{"store", "info"}, {"store", "check"}, {"store", "clean"}, {"store", "scrub"}, {"volume", "list"}} {
		if out, err := b.run(args...); err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	for _, args := range [][]string{{"store", "dump"}, {"store", "upgrade"}, {"store", "new-identity"}, {"store", "repair", "--in-place"}} {
		if out, err := b.run(args...); err == nil || !strings.Contains(out, "is in a pool; this command is for a store in a directory") {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	b.start()
	b.await(serves)
}

// TestServers_ClusterFaults kills an OSD, then the only monitor, and then the server that has the
// store: the other one takes it over without a monitor.
func TestServers_ClusterFaults(t *testing.T) {
	dir, err := os.MkdirTemp("", "ceph") // short: sockets are in it
	must.Succeed(t, err)
	defer os.RemoveAll(dir)
	own, err := ceph.Start(dir, ceph.Options{OSDs: 2})
	must.Succeed(t, err)
	defer own.Stop()
	owner, next := newNodeOf(t, own, "a"), newNodeOf(t, own, "b")
	startBoth(owner, next)
	w := startWriting(dial(t, owner), 1000)
	w.await(t, 2*blocks)
	takeOver := func() {
		owner, next = next, owner
		owner.await(serves)
		c := dial(t, owner)
		c.holdsNumbers(t, w.last)
		w = startWriting(c, w.last+1)
		w.await(t, 2*blocks)
	}
	// fault says whether the store has stayed where it is. A cluster that does not answer for
	// longer than the lock of the owner lasts costs it the store.
	fault := func(daemon string) (stayed bool) {
		killed := time.Now()
		own.Kill(daemon)
		w.seen()
		if stayed = w.goesOn(t, 4*blocks); !stayed {
			takeOver()
		}
		t.Logf("writes go on %v after %s was killed; the owner has stayed: %v", time.Since(killed).Round(time.Millisecond), daemon, stayed)
		return stayed
	}
	if !fault("osd.1") {
		next.await(waits)
	}
	if fault("mon.a") {
		owner.kill()
		killed := time.Now()
		w.end()
		takeOver()
		t.Logf("from the kill of a server to acknowledged writes, without a monitor: %v", time.Since(killed).Round(time.Millisecond))
	}
	owner.kill()
	w.end()
}
