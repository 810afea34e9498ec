package iscsi

import (
	"context"
	"runtime/metrics"
	"testing"
	"time"

	"odx/target/scsi"
)

// bursts sends commands that run on workers.
type bursts struct {
	*initiator
	s       *session
	started chan struct{}
	release chan struct{}
}

func newBursts(t *testing.T) *bursts {
	// The test calls retireSpare itself.
	b := newBench(t, func(o *Options) { o.PingInterval, o.PingTimeout = time.Hour, time.Hour }, nil)
	d := &bursts{started: make(chan struct{}), release: make(chan struct{})}
	b.disk.execute = func(context.Context, *scsi.Task) {
		d.started <- struct{}{}
		<-d.release
	}
	d.initiator = b.login()
	d.s = b.srv.sessionsOf(b.srv.conf.Load().targets[0].DeviceServer)[0]
	return d
}

// run sends n concurrent commands and waits for the responses.
func (d *bursts) run(n int) {
	d.tb.Helper()
	const op = 0x35 // SYNCHRONIZE CACHE(10)
	var sent []*bhs
	for range n {
		d.s.cost[op].Store(int32(time.Second))
		h := d.command(0, 0, op)
		d.send(h, nil, nil)
		sent = append(sent, h)
	}
	for range sent {
		<-d.started
	}
	for range sent {
		d.release <- struct{}{}
	}
	for range sent {
		if r, _ := d.expect(opSCSIResponse); r[3] != statusGood {
			d.tb.Errorf("response %x", *r)
		}
	}
	eventually(d.tb, "no command runs", func() bool { return d.workers().running == 0 })
}

// workers returns the numbers of workers.
func (d *bursts) workers() (c struct{ running, idle, sleepy int }) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	c.running, c.idle, c.sleepy = d.s.running, d.s.idle, d.s.resumed+d.s.retired
	return c
}

// ended waits until the server has no worker. No command may start concurrently.
func (d *bursts) ended() {
	d.tb.Helper()
	none := make(chan struct{})
	go func() {
		d.s.srv.workers.Wait()
		close(none)
	}()
	select {
	case <-none:
	case <-time.After(patience):
		d.tb.Fatalf("workers remain: %+v", d.workers())
	}
	if w := d.workers(); w.running != 0 || w.idle != 0 || w.sleepy != 0 {
		d.tb.Errorf("no worker remains, but the counts are %+v", w)
	}
}

func goroutinesCreated() uint64 {
	s := []metrics.Sample{{Name: "/sched/goroutines-created:goroutines"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// The workers of a burst run the next one.
func TestWorkerPool_Reuse(t *testing.T) {
	const n, rounds = 6, 100
	d := newBursts(t)
	before := goroutinesCreated()
	for range rounds {
		d.run(n)
	}
	if made := goroutinesCreated() - before; made > n*rounds/10 {
		t.Errorf("%d goroutines for %d bursts of %d commands", made, rounds, n)
	}
	if w := d.workers(); w.idle > n {
		t.Errorf("%d workers are idle, %d were needed", w.idle, n)
	}
}

// Workers that are not needed for a while end.
func TestWorkerPool_RetireSpare(t *testing.T) {
	d := newBursts(t)
	for _, step := range []struct{ needed, left int }{{6, 6}, {2, 2}, {3, 3}, {0, 0}, {1, 1}, {0, 0}} {
		d.run(step.needed)
		d.s.srv.retireSpare()
		if w := d.workers(); w.idle != step.left {
			t.Errorf("after %d were needed: %d workers are idle, want %d", step.needed, w.idle, step.left)
		}
	}
	d.ended()
	d.run(2)
}

// Parked workers end with their session, however it ends.
func TestWorkerPool_SessionEnd(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(d *bursts, srv *Server)
	}{
		{"logout", func(d *bursts, _ *Server) { d.logout() }},
		{"connection closed", func(d *bursts, _ *Server) { d.nc.Close() }},
		{"shutdown", func(d *bursts, srv *Server) {
			if err := srv.Shutdown(context.Background()); err != nil {
				d.tb.Error(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newBursts(t)
			d.run(6)
			c.end(d, d.s.srv)
			<-d.s.gone
			d.ended()
		})
	}
}

// The end of a session, commands and retireSpare may coincide.
func TestWorkerPool_Wakeups(t *testing.T) {
	b := newBench(t, nil, nil)
	for range 50 {
		d := &bursts{initiator: b.login(), s: b.srv.sessionsOf(b.srv.conf.Load().targets[0].DeviceServer)[0]}
		for n := range 40 {
			d.s.cost[0x35].Store(int32(time.Second))
			d.send(d.command(0, 0, 0x35), nil, nil)
			if n%8 == 7 {
				b.srv.retireSpare()
			}
			if n < 20 {
				d.expect(opSCSIResponse)
			}
		}
		d.nc.Close()
		<-d.s.gone
		d.ended()
	}
}
