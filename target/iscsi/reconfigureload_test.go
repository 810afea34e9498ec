package iscsi

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/target/scsi"
)

// manySessions logs in n sessions, and returns them by their initiator's number. They use a
// pipe instead of TCP, which would exhaust the ports of the machine.
func manySessions(t *testing.T, n int) (*bench, []*initiator) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "portal")
	b := newBench(t, func(o *Options) { o.MaxSessions, o.MaxConnections, o.LogoutTimeout = n+1, n+1, patience }, func(other net.Listener) net.Listener {
		other.Close()
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
	var all []*initiator
	for k := range n {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		i := &initiator{tb: t, nc: nc, isid: [6]byte{0x80, 0, 0, 0, 0, 1}, cmdSN: 1, keys: map[string]string{}}
		i.login(fmt.Sprintf("InitiatorName=%s.%d", testInitiator, k), wantTarget)
		all = append(all, i)
	}
	return b, all
}

// median returns the median of an odd number of durations.
func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// TestServer_Reconfigure_ThousandSessions: with 1,000 idle sessions a change takes less than a
// second, and holds no lock of logins or commands for a millisecond, whether it concerns none of
// the sessions, gives all of them other rights, or ends half of them. The medians count, since
// the machine may take the processor away while a lock is held.
func TestServer_Reconfigure_ThousandSessions(t *testing.T) {
	const sessions, rounds = 1000, 7
	b, all := manySessions(t, sessions)
	var locks []time.Duration
	measured := func(what string, done Reconfigured) {
		t.Helper()
		locks = append(locks, done.LongestLock)
		if done.Took > time.Second {
			t.Errorf("%s: took %v", what, done.Took)
		}
	}
	for lun := range uint16(rounds) {
		measured("nothing", b.reconfigure(func(*Reconfiguration) {}))
		done := b.reconfigure(func(r *Reconfiguration) {
			r.Targets[0].Admit = func(string, netip.Addr) (scsi.View, bool) { return scsi.View{lun: {LUN: lun}}, true }
		})
		measured("other rights", done)
		if done.Readmitted != sessions || len(done.LoggingOut) != 0 {
			t.Errorf("%d readmitted, %d asked to log out", done.Readmitted, len(done.LoggingOut))
		}
	}
	odd := make(map[string]bool)
	for k := 1; k < sessions; k += 2 {
		odd[fmt.Sprintf("%s.%d", testInitiator, k)] = true
	}
	done := b.reconfigure(func(r *Reconfiguration) {
		admit := r.Targets[0].Admit
		r.Targets[0].Admit = func(initiator string, from netip.Addr) (scsi.View, bool) {
			view, _ := admit(initiator, from)
			return view, !odd[initiator]
		}
	})
	measured("the end of half", done)
	if len(done.LoggingOut) != sessions/2 {
		t.Errorf("%d asked to log out", len(done.LoggingOut))
	}
	for k, i := range all {
		if k%2 == 1 {
			i.askedToLogOut()
			i.logout()
		} else if k%100 == 0 {
			i.quiet()
		}
	}
	eventually(t, "half of the sessions are left", func() bool { return len(b.srv.Sessions()) == sessions/2 })
	if longest := median(locks); longest >= time.Millisecond {
		t.Errorf("a lock is held for %v", longest)
	}
	t.Logf("%d sessions: ends half of them in %v; locks are held for %v, at most %v", sessions, done.Took, median(locks), locks[len(locks)-1])
}

// rover is an initiator that logs in, reads and writes, and logs in again whenever its session
// ends or it is asked to log out.
type rover struct {
	*bench
	number         int
	logins, denied int
	writes         int
}

// retryable are the statuses that a login may have while the configuration changes.
var retryable = []uint16{loginNotFound, loginAuthenticationFailed, loginAuthorizationFailed, loginServiceUnavailable}

// run returns after done is closed.
func (r *rover) run(done <-chan struct{}) error {
	for {
		select {
		case <-done:
			return nil
		default:
		}
		i := r.dial()
		i.isid[5] = byte(r.number)
		user := []string{"", chapUser}[r.number%2]
		switch status := i.loginTo(fmt.Sprintf("%s.%d", testInitiator, r.number), testTarget, user, chapSecret); {
		case status == loginSuccess:
			r.logins++
			err := r.work(i, done)
			i.nc.Close()
			if err != nil {
				return err
			}
		case slices.Contains(retryable, status):
			r.denied++
			i.nc.Close()
		default:
			return fmt.Errorf("login: status %#x", status)
		}
	}
}

// work writes and reads back until the session ends, the initiator is asked to log out, or done
// is closed. Commands end with GOOD, or with BUSY after the request.
func (r *rover) work(i *initiator, done <-chan struct{}) error {
	lba := uint32(r.number * 64)
	for n := 0; ; n++ {
		select {
		case <-done:
			return nil
		default:
		}
		data := pattern(n, 8*memBlock)
		w := i.command(bitWrite, uint32(len(data)), write10(lba, 8)...)
		read := i.command(bitRead, uint32(len(data)), read10(lba, 8)...)
		for _, h := range []*bhs{w, read} {
			out := data
			if h == read {
				out = nil
			}
			if _, err := i.nc.Write(encode(h, nil, out, false, false)); err != nil {
				return nil // it was dropped
			}
			p, in, err := i.read()
			if err != nil {
				return nil
			}
			switch {
			case p.opcode() == opAsync:
				return nil
			case h == w && p.opcode() == opSCSIResponse && p[3] == statusGood:
				r.writes++
			case h == read && p.opcode() == opDataIn && slices.Equal(in, data):
			case p.opcode() == opSCSIResponse && p[3] == statusBusy:
				return nil // the request to log out follows
			default:
				return fmt.Errorf("received %x", *p)
			}
		}
	}
}

// TestServer_Reconfigure_Concurrent: logins, commands and 200 changes of targets, users, access,
// limits and portals run concurrently. What initiators wrote they read back, a session that no
// change concerns notices nothing, and at the end nothing is left of the others.
func TestServer_Reconfigure_Concurrent(t *testing.T) {
	const rovers, changes = 6, 200
	b := newBench(t, func(o *Options) { o.LogoutTimeout = 20 * time.Millisecond }, nil)
	second := b.dial()
	second.isid[5] = 0xee
	second.login(name, "TargetName="+testTarget+"2")
	done := make(chan struct{})
	var running sync.WaitGroup
	var logins, denied, writes, uninterrupted atomic.Int64
	for n := range rovers {
		running.Go(func() {
			r := &rover{bench: b, number: n}
			if err := r.run(done); err != nil {
				t.Errorf("initiator %d: %v", n, err)
			}
			logins.Add(int64(r.logins))
			denied.Add(int64(r.denied))
			writes.Add(int64(r.writes))
		})
	}
	running.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			second.alive()
			uninterrupted.Add(1)
		}
	})
	users := authentication(t, map[string]string{chapUser: chapSecret})
	users.Optional = true
	for n := range changes {
		before := uninterrupted.Load()
		b.reconfigure(func(r *Reconfiguration) {
			c := &r.Targets[0]
			switch n % 7 {
			case 0:
				c.Admit = func(initiator string, _ netip.Addr) (scsi.View, bool) {
					return scsi.View{uint16(n): {}}, initiator[len(initiator)-1]%2 == byte(n%2)
				}
			case 1:
				c.Authentication = users
			case 2:
				c.Authentication.Optional = false
			case 3:
				c.Admit, c.Authentication, c.PortalGroups = nil, Authentication{}, nil
			case 4:
				r.Options.QueueDepth, r.Options.Workers, r.Options.BufferBytes = 1+n%64, 1+n%8, int64(1+n%16)<<20
			case 5:
				r.Options.PingInterval, r.Options.MaxUnauthenticated = time.Duration(1+n%5)*time.Second, 8+n%8
			case 6:
				c.PortalGroups = [][]uint16{nil, {9}}[n%2]
			}
		})
		if n%20 == 19 {
			b.cyclePortal()
		}
		if n%10 == 9 {
			for _, s := range b.srv.Sessions() {
				if s.TargetName == testTarget {
					if err := b.srv.EndSession(s.TSIH); err != nil && !errors.Is(err, ErrNoSession) {
						t.Error(err)
					}
				}
			}
		}
		eventually(t, "the initiators go on", func() bool { return uninterrupted.Load() > before || t.Failed() })
	}
	close(done)
	running.Wait()
	t.Logf("%d logins, %d of them refused, %d writes; %d commands of the session that stays", logins.Load()+denied.Load(), denied.Load(), writes.Load(), uninterrupted.Load())
	if uninterrupted.Load() < changes || writes.Load() == 0 {
		t.Error("too little happened")
	}
}

// cyclePortal serves another portal, logs in there, and closes it.
func (b *bench) cyclePortal() {
	b.tb.Helper()
	at := b.portals(map[uint16]string{11: "127.0.0.1:0"})[11]
	i := b.dialAt(at)
	i.isid[5] = 0xdd
	i.login(name, "TargetName="+testTarget+"2")
	portals := b.srv.conf.Load().portals
	if _, err := b.srv.ClosePortal(portals[len(portals)-1].Listener); err != nil {
		b.tb.Fatal(err)
	}
	i.askedToLogOut()
	i.dropped()
}
