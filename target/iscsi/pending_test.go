package iscsi

import (
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"odx/internal/kit/logs"
)

// pendingCounts returns the numbers of active and of queued connections that have not
// logged in.
func (b *bench) pendingCounts() (active, queued int) {
	b.srv.mu.Lock()
	defer b.srv.mu.Unlock()
	return b.srv.pending.all.active, b.srv.pending.all.queued
}

// wantPending waits until the numbers of pending connections are as given.
func (b *bench) wantPending(active, queued int) {
	b.tb.Helper()
	eventually(b.tb, fmt.Sprintf("%d logins and %d that wait", active, queued), func() bool {
		a, q := b.pendingCounts()
		return a == active && q == queued
	})
}

// Connections of a crowded address are queued. None is lost, and other addresses are not
// delayed.
func TestPendingLogins_Queue(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxUnauthenticated, o.MaxUnauthenticatedPerAddress = 8, 3 }, nil)
	var crowd []*initiator
	for n := range 12 {
		i := b.dialFrom("127.0.0.2")
		i.isid[5] = byte(n)
		crowd = append(crowd, i)
		b.wantPending(min(n+1, 3), max(n-2, 0))
	}
	other := b.dialFrom("127.0.0.3")
	other.isid[5] = 99
	other.login(name, wantTarget)
	other.alive()
	for _, i := range crowd {
		i.login(name, wantTarget)
		i.alive()
	}
	b.wantPending(0, 0)
}

// Many connections of a host are opened at once and log in one after the other.
func TestPendingLogins_Storm(t *testing.T) {
	b := newBench(t, nil, nil)
	var storm []*initiator
	for n := range 300 {
		i := b.dial()
		i.isid[4], i.isid[5] = byte(n>>8), byte(n)
		storm = append(storm, i)
	}
	for n, i := range storm {
		i.login(fmt.Sprintf("InitiatorName=%s:%d", testInitiator, n), wantTarget)
	}
	b.wantPending(0, 0)
}

// A connection is refused if too many of its address are queued. One of another address is
// not.
func TestPendingLogins_Refuse(t *testing.T) {
	var log logs.Text
	b := newBench(t, func(o *Options) { o.Log, o.MaxUnauthenticated, o.MaxUnauthenticatedPerAddress = log.Entry(), 4, 2 }, nil)
	first := b.dialFrom("127.0.0.2")
	for n := range 9 { // one more becomes active; 8 of 16 places are theirs
		b.dialFrom("127.0.0.2")
		b.wantPending(min(n+2, 2), max(n, 0))
	}
	b.dialFrom("127.0.0.2").expectClosed()
	b.wantPending(2, 8)
	other := b.dialFrom("127.0.0.3")
	b.wantPending(3, 8)
	other.login(name, wantTarget)
	first.isid[5]++
	first.login(name, wantTarget) // the first connection
	if !hasLine(log.String(), "connection refused", "127.0.0.2") {
		t.Errorf("no refusal in the log:\n%s", log.String())
	}
}

// When the limit is reached, a connection of an address with few replaces the oldest of
// the address with most, after LoginPatience.
func TestPendingLogins_Evict(t *testing.T) {
	b := newBench(t, func(o *Options) {
		o.MaxUnauthenticated, o.MaxUnauthenticatedPerAddress, o.LoginPatience = 5, 3, 50*time.Millisecond
	}, nil)
	var crowd []*initiator
	for n := range 5 {
		crowd = append(crowd, b.dialFrom([]string{"127.0.0.2", "127.0.0.3"}[n/3]))
		b.wantPending(n+1, 0)
	}
	last := b.dialFrom("127.0.0.4")
	crowd[0].expectClosed()
	last.isid[5] = 5
	last.login(name, wantTarget)
	for n, i := range crowd[1:] {
		i.isid[5] = byte(n)
		i.login(name, wantTarget)
		i.alive()
	}
	b.wantPending(0, 0)
}

// A connection that is queued for LoginTimeout is closed, and one whose peer has
// disconnected does not delay the next one.
func TestPendingLogins_Expire(t *testing.T) {
	b := newBench(t, func(o *Options) {
		o.MaxUnauthenticatedPerAddress, o.LoginTimeout = 1, 300*time.Millisecond
	}, nil)
	b.dial()
	b.wantPending(1, 0)
	gone := b.dial()
	b.wantPending(1, 1)
	gone.nc.Close()
	b.dial().expectClosed()
	b.login().alive()
	b.wantPending(0, 0)
}

// Discovery sessions of one address do not block the logins of others, and normal sessions
// remain.
func TestServer_DiscoveryFlood(t *testing.T) {
	for what, limit := range map[string]func(*Options){
		"sessions":    func(o *Options) { o.MaxSessions = 6 },
		"connections": func(o *Options) { o.MaxConnections = 6 },
	} {
		t.Run(what, func(t *testing.T) {
			b := newBench(t, func(o *Options) { limit(o); o.LoginPatience = time.Millisecond }, nil)
			stays := b.login()
			var flood []*initiator
			for n := range 5 {
				i := b.dialFrom("127.0.0.2")
				i.isid[5] = byte(n)
				i.login(fmt.Sprintf("InitiatorName=%s:%d", testInitiator, n), discover)
				flood = append(flood, i)
			}
			eventually(t, "they had their time", func() bool {
				b.srv.mu.Lock()
				defer b.srv.mu.Unlock()
				for s := range b.srv.sessions {
					if time.Since(s.since) < time.Millisecond {
						return false
					}
				}
				return true
			})
			other := b.loginAs(testInitiator + ":other")
			flood[0].expectClosed()
			other.alive()
			stays.alive()
			// Its own address has no more than others, so it evicts nothing.
			again := b.dialFrom("127.0.0.2")
			again.send(again.loginRequest(stageOperational, stageFullFeature), nil, text("InitiatorName="+testInitiator+":again", wantTarget))
			if r, _ := again.expect(opLoginResponse); r.field16(36) != loginOutOfResources {
				t.Errorf("status %#x", r.field16(36))
			}
		})
	}
}

// The addresses of an IPv6 host are one peer.
func TestOriginOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:5":           "192.0.2.1/32",
		"[::ffff:192.0.2.1]:5":  "192.0.2.1/32",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64",
	} {
		t.Run(address, func(t *testing.T) {
			a, err := net.ResolveTCPAddr("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			if got := originOf(a).String(); got != want {
				t.Errorf("%s is of %s, want %s", address, got, want)
			}
		})
	}
	if originOf(&net.UnixAddr{}).IsValid() {
		t.Error("a Unix socket has an origin")
	}
}

// Thousands of connections start a login and do not complete it. Their resources are
// bounded, and an initiator can log in at any time.
func TestServer_Flood(t *testing.T) {
	const flood = 3000
	b := newBench(t, func(o *Options) {
		o.LoginTimeout, o.LoginPatience = patience, 20*time.Millisecond
		o.DiscoveryAuthentication = Authentication{CHAP: newCHAP(t)}
	}, nil)
	b.demand(Authentication{CHAP: newCHAP(t)})
	goroutines, before := runtime.NumGoroutine(), heap()
	request := encode((&initiator{cmdSN: 1}).loginRequest(0, 0), nil, text(name, wantTarget, offerCHAP), false, false)
	o := b.srv.options()
	most := 0
	for n := range flood {
		i := b.dialFrom([]string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"}[n%5])
		i.nc.Write(request) // may fail: the target may have closed it
		b.srv.mu.Lock()
		most = max(most, len(b.srv.conns))
		b.srv.mu.Unlock()
		if n%300 == 299 {
			good := b.dial()
			good.isid[5] = byte(n / 300)
			good.wantStep(csgSecurity, []string{name, wantTarget, offerCHAP}, csgSecurity, agreedCHAP)
			good.wantStep(csgSecurity|toOperational, good.proof(7, chapUser, chapSecret), csgSecurity|toOperational, "")
			good.wantStep(csgOperational|toFullFeature, nil, csgOperational|toFullFeature, declares)
			good.nc.Close()
		}
	}
	if limit := 2*o.MaxUnauthenticated + 10; most > limit {
		t.Errorf("%d connections at a time, want at most %d", most, limit)
	}
	eventually(t, "those that were turned out have ended", func() bool {
		active, queued := b.pendingCounts()
		return active <= o.MaxUnauthenticated && queued <= queuedLogins*o.MaxUnauthenticated
	})
	if n := runtime.NumGoroutine() - goroutines; n > 2*o.MaxUnauthenticated+50 {
		t.Errorf("%d goroutines more than before", n)
	}
	if grown := heap() - before; grown > int64(o.MaxUnauthenticated)*(64<<10) {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Connections that slowly send an incomplete login end after LoginTimeout.
func TestServer_SlowFlood(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LoginTimeout = 200 * time.Millisecond }, nil)
	i := b.dial()
	wire := encode(i.loginRequest(1, 3), nil, text(name, wantTarget), false, false)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		i.nc.Read(make([]byte, 1)) // until the target closes
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for n := 0; ; n++ {
		select {
		case <-ended:
			return
		case <-tick.C:
			i.nc.Write(wire[n%len(wire):][:1]) // may fail: the target closes concurrently
		case <-limit.C:
			t.Fatal("the connection is still open")
		}
	}
}
