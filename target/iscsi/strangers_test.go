package iscsi

import (
	"net"
	"runtime"
	"testing"
	"time"
)

// dialFrom connects from an address of the loopback network.
func (b *bench) dialFrom(ip string) *initiator {
	b.tb.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	nc, err := d.Dial("tcp", b.addr)
	if err != nil {
		b.tb.Fatal(err)
	}
	b.tb.Cleanup(func() { nc.Close() })
	return &initiator{tb: b.tb, nc: nc, isid: [6]byte{0x80, 1, 2, 3, 4, 5}, cmdSN: 100, keys: map[string]string{}}
}

// strangers returns how many connections have not logged in, without those that
// are closed already.
func (b *bench) strangers() int {
	b.srv.mu.Lock()
	defer b.srv.mu.Unlock()
	return len(b.srv.strangers.list) - b.srv.strangers.turnedOut
}

// TestStrangers: the oldest connection of an address makes room, or of the
// address that has most; others stay.
func TestStrangers(t *testing.T) {
	b := newBench(t, func(o *Options) { o.MaxUnauthenticated, o.MaxUnauthenticatedPerAddress = 5, 3 }, nil)
	waiting := func(n int) {
		t.Helper()
		eventually(t, "connections wait for their login", func() bool { return b.strangers() == n })
	}
	comes := func(ip string, n int) *initiator {
		t.Helper()
		i := b.dialFrom(ip)
		waiting(n)
		return i
	}
	first := comes("127.0.0.2", 1)
	second, third := comes("127.0.0.2", 2), comes("127.0.0.2", 3)
	fourth := comes("127.0.0.2", 3) // in the place of the first
	first.expectClosed()
	comes("127.0.0.3", 4)
	other := comes("127.0.0.3", 5)
	b.dialFrom("127.0.0.4") // in the place of the second: its address has most
	second.expectClosed()
	for n, i := range []*initiator{third, fourth, other} {
		i.isid[5] = byte(n)
		i.login(name, wantTarget)
		i.alive()
	}
	waiting(2)
}

// TestOriginOf: the addresses of one IPv6 host are one peer.
func TestOriginOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:5":           "192.0.2.1/32",
		"[::ffff:192.0.2.1]:5":  "192.0.2.1/32",
		"[2001:db8:1:2:3::4]:5": "2001:db8:1:2::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := originOf(a).String(); got != want {
			t.Errorf("%s is of %s, want %s", address, got, want)
		}
	}
	if originOf(&net.UnixAddr{}).IsValid() {
		t.Error("a Unix socket has an origin")
	}
}

// TestFlood opens thousands of connections that begin to log in and go no
// further. What they hold is bounded, and a good initiator gets in all the time.
func TestFlood(t *testing.T) {
	const flood = 3000
	b := newBench(t, func(o *Options) {
		o.LoginTimeout = patience
		o.DiscoveryAuthentication = Authentication{CHAP: newCHAP(t)}
	}, nil)
	b.demand(Authentication{CHAP: newCHAP(t)})
	goroutines, before := runtime.NumGoroutine(), heap()
	request := encode((&initiator{cmdSN: 1}).loginRequest(0, 0), nil, text(name, wantTarget, offerCHAP), false, false)
	o := &b.srv.opts
	most := 0
	for n := range flood {
		i := b.dialFrom([]string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"}[n%5])
		i.nc.Write(request) // may fail: it may have been closed
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
	eventually(t, "those that were turned out have ended", func() bool { return b.strangers() <= o.MaxUnauthenticated })
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

// TestSlowFlood: connections that keep sending, too little to get anywhere, end
// with LoginTimeout like silent ones.
func TestSlowFlood(t *testing.T) {
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
			i.nc.Write(wire[n%len(wire):][:1]) // may fail: the target closes meanwhile
		case <-limit.C:
			t.Fatal("the connection is still open")
		}
	}
}
