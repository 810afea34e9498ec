package iscsi

import (
	"net"
	"path/filepath"
	"runtime"
	"testing"
)

// 10,000 logins, with and without logout, and with second connections, leave no
// session, nexus, goroutine (goleak checks for those too) or memory.
func TestServer_ManyLogins(t *testing.T) {
	// A pipe instead of TCP, which would exhaust the ports of the machine.
	path := filepath.Join(t.TempDir(), "portal")
	b := newBench(t, nil, func(other net.Listener) net.Listener {
		other.Close()
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
	turn := func(n int) {
		open := func() *initiator {
			nc, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			return &initiator{tb: t, nc: nc, isid: [6]byte{0x80, 0, 0, 0, byte(n), 1}, cmdSN: 1, keys: map[string]string{}}
		}
		i := open()
		defer i.nc.Close()
		i.login(name, wantTarget, "MaxConnections=4")
		switch n % 8 {
		case 0: // without a request
		case 1: // with a second connection, which ends with the session
			second := open()
			defer second.nc.Close()
			second.tsih, second.cmdSN = i.tsih, i.cmdSN
			h := second.loginRequest(stageOperational, stageFullFeature)
			h.put16(20, 1)
			second.send(h, nil, text(name, wantTarget))
			if r, _ := second.expect(opLoginResponse); r.field16(36) != loginSuccess {
				t.Fatalf("second connection: status %#x", r.field16(36))
			}
			i.logout()
		case 2: // with a command that does not get its data
			h := i.command(bitWrite, 1<<20, write10(0, 2048)...)
			i.send(h, nil, nil)
			i.expect(opR2T)
		default:
			i.alive()
			i.logout()
		}
	}
	ended := func() {
		t.Helper()
		eventually(t, "all sessions and connections have ended", func() bool {
			return len(b.srv.Sessions()) == 0 && b.disk.nexuses() == 0 && len(b.srv.appendConns(nil)) == 0
		})
	}
	inUse := func() (heap uint64, goroutines int) {
		ended()
		for range 2 { // the contents of a sync.Pool survive one collection
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc, runtime.NumGoroutine()
	}
	for n := range 500 {
		turn(n)
	}
	heap, goroutines := inUse()
	for n := range 10000 {
		turn(n)
	}
	var now uint64
	eventually(t, "as few goroutines as before", func() bool {
		var g int
		now, g = inUse()
		return g <= goroutines
	})
	if now > heap+1<<20 {
		t.Errorf("10,000 logins later %d bytes are in use instead of %d", now, heap)
	}
}
