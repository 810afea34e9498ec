package target

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	client "odx/initiator"
	"odx/internal/kit/logs"
	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/target/handover"
	"odx/target/iscsi"
)

// live is a service that is replaced by another one over the same store, without a
// logout.
type live struct {
	t    *testing.T
	dir  string
	text string
	log  *logs.Text
	s    *Service
	// suspending has how long sessions took to come to rest.
	suspending []time.Duration
}

// newLive starts a service on a port of its own.
func newLive(t *testing.T) *live {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must.Succeed(t, err)
	address := l.Addr().String()
	must.Succeed(t, l.Close())
	v := &live{t: t, dir: t.TempDir(), text: fmt.Sprintf(disks, `"`+address+`"`), log: &logs.Text{}}
	v.start()
	t.Cleanup(func() { stop(t, v.s) })
	return v
}

func (v *live) start() {
	v.t.Helper()
	s, err := Start(v.t.Context(), parse(v.t, v.dir, v.text), v.log.Entry())
	if err != nil {
		v.t.Fatal(err)
	}
	v.s = s
}

// handOver replaces the service. Commands may continue for grace. It returns how long
// initiators had no service.
func (v *live) handOver(grace time.Duration, connections int) time.Duration {
	v.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	suspended, err := v.s.server.Suspend(ctx)
	must.Succeed(v.t, err)
	v.suspending = append(v.suspending, time.Since(began))
	v.s.unwatch()
	v.s.serving.Wait()
	v.s.stopCopies(ctx)
	must.Succeed(v.t, v.s.standbys.Close())
	must.Succeed(v.t, v.s.release())
	if n := len(suspended.Conns); n != connections {
		v.t.Errorf("%d connections are suspended, want %d\n%s", n, connections, v.log)
	}
	passed := v.pass(suspended)
	v.start()
	passed.Attached = v.s.copies.GoOn
	if n := v.s.server.Resume(passed); n != 0 {
		v.t.Errorf("%d connections were closed\n%s", n, v.log)
	}
	return time.Since(began)
}

// pass returns s as another process gets it.
func (v *live) pass(s *iscsi.Suspended) *iscsi.Suspended {
	v.t.Helper()
	data, err := s.State.Encode()
	must.Succeed(v.t, err)
	got := &iscsi.Suspended{}
	got.State, err = handover.Decode(data)
	must.Succeed(v.t, err)
	for _, nc := range s.Conns {
		f, err := nc.(interface{ File() (*os.File, error) }).File()
		must.Succeed(v.t, err)
		dup, err := net.FileConn(f)
		must.Succeed(v.t, err)
		must.Succeed(v.t, f.Close())
		got.Conns = append(got.Conns, dup)
	}
	must.Succeed(v.t, s.Close())
	return got
}

// logins returns the number of logins so far.
func (v *live) logins() int { return strings.Count(v.log.String(), "initiator logged in") }

// TestLiveHandover: many sessions read and write while the service is replaced. No
// command fails, no block is wrong, no initiator logs in again or gets a unit attention.
func TestLiveHandover(t *testing.T) {
	const sessions, blocks = 8, 2048
	v := newLive(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	for k := range sessions {
		c := dial(t, v.s.LUNs()[0].URLs[0], fmt.Sprintf("iqn.2026-11.example:host%d", k))
		attentions(t, c)
		for depth := range 2 {
			l := &load{c: c, first: uint32((2*k + depth) * blocks), data: make([]byte, blocks*512), rng: rand.New(rand.NewPCG(uint64(k), uint64(depth)))}
			running.Go(func() {
				for ctx.Err() == nil {
					if err := l.step(t.Context()); err != nil {
						t.Errorf("session %d: %v", k, err)
						return
					}
				}
			})
		}
		defer c.Close()
	}
	before := v.logins()
	var gaps []time.Duration
	for range sample.Size(2, 10, 100) {
		gaps = append(gaps, v.handOver(2*time.Second, sessions))
		if t.Failed() {
			break
		}
	}
	cancel()
	running.Wait()
	if n := v.logins() - before; n != 0 {
		t.Errorf("%d logins", n)
	}
	for name, times := range map[string][]time.Duration{"without service": gaps, "of it, to suspend": v.suspending} {
		slices.Sort(times)
		t.Logf("%s: median %v, longest %v", name, times[len(times)/2], times[len(times)-1])
	}
}

// load reads and writes blocks of a LUN, and knows what is there.
type load struct {
	c     *client.Session
	first uint32 // block
	data  []byte
	rng   *rand.Rand
}

// step writes or reads up to 256 KiB.
func (l *load) step(ctx context.Context) error {
	n := 1 + l.rng.IntN(512)
	at := l.rng.IntN(len(l.data)/512 - n)
	part := l.data[at*512 : (at+n)*512]
	cdb := make([]byte, 10)
	cdb[0] = 0x28
	binary.BigEndian.PutUint32(cdb[2:], l.first+uint32(at))
	binary.BigEndian.PutUint16(cdb[7:], uint16(n))
	if l.rng.IntN(2) == 0 {
		cdb[0] = 0x2A
		for i := 0; i < len(part); i += 8 {
			binary.BigEndian.PutUint64(part[i:], l.rng.Uint64())
		}
		return l.c.Do(ctx, &client.Command{CDB: cdb, Out: part})
	}
	read := &client.Command{CDB: cdb, In: make([]byte, len(part))}
	if err := l.c.Do(ctx, read); err != nil {
		return err
	}
	if !bytes.Equal(read.In, part) {
		return fmt.Errorf("blocks %d to %d differ", at, at+n)
	}
	return nil
}

// TestLiveHandover_Nexus: what belongs to an I_T nexus goes on with it.
func TestLiveHandover_Nexus(t *testing.T) {
	v := newLive(t)
	url := v.s.LUNs()[0].URLs[0]
	c, other := dial(t, url, "iqn.2026-11.example:host"), dial(t, url, "iqn.2026-11.example:other")
	defer c.Close()
	defer other.Close()
	attentions(t, c)
	attentions(t, other)
	must.Succeed(t, run(t, c, []byte{0x16, 0, 0, 0, 0, 0}, nil)) // RESERVE(6)
	populate := make([]byte, 32)
	populate[1], populate[15], populate[27] = 30, 16, 8
	must.Succeed(t, run(t, c, []byte{0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 32, 0, 0}, populate))
	other.Close()
	other = dial(t, url, "iqn.2026-11.example:other") // has a unit attention
	defer other.Close()
	for range 3 {
		v.handOver(time.Second, 2)
	}
	if got := attentions(t, c); len(got) != 0 {
		t.Errorf("unit attentions %04x, want none", got)
	}
	if err := run(t, other, make([]byte, 6), nil); err == nil || !strings.Contains(err.Error(), "29") {
		t.Errorf("TEST UNIT READY: %v, want the loss of the nexus", err)
	}
	if err := run(t, other, make([]byte, 6), nil); err == nil || !strings.Contains(err.Error(), "RESERVATION CONFLICT") {
		t.Errorf("TEST UNIT READY: %v, want RESERVATION CONFLICT", err)
	}
	report := &client.Command{CDB: []byte{0x84, 0x07, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0}, In: make([]byte, 1024)}
	must.Succeed(t, c.Do(t.Context(), report))
	if report.Received != 550 {
		t.Errorf("report of the token % x", report.In[:report.Received])
	}
	must.Succeed(t, run(t, c, []byte{0x17, 0, 0, 0, 0, 0}, nil)) // RELEASE(6)
	must.Succeed(t, run(t, other, make([]byte, 6), nil))
}
