package iscsi

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"odx/target/scsi"
)

// Several initiators concurrently write, read, abort, disconnect and log in again, over
// a store with latencies from zero to a few milliseconds that sometimes ignores
// contexts. Acknowledged data is read back.
func TestServer_Stress(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		b := newBench(t, func(o *Options) { o.QueueDepth, o.AbortTimeout = 16, 2*time.Second }, nil)
		if wrapped {
			b.srv.options().Workers = 2
		}
		b.disk.execute = func(ctx context.Context, t *scsi.Task) {
			switch n := rand.IntN(100); {
			case n < 5:
				select {
				case <-ctx.Done():
					return
				case <-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond):
				}
			case n < 8:
				<-time.After(time.Duration(rand.IntN(12)) * time.Millisecond) // longer than the watchdog's tick
				if ctx.Err() != nil {
					return
				}
			}
			b.disk.run(t)
		}
		var wg sync.WaitGroup
		for n := range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				s := &stress{bench: b, rng: rand.New(rand.NewPCG(uint64(n), 7)), name: fmt.Sprintf("%s.%d", testInitiator, n), lba: uint32(n * 2000)}
				s.connect()
				for range 150 {
					s.step()
				}
				s.i.logout()
			}()
		}
		wg.Wait()
		eventually(t, "all sessions have ended", func() bool { return len(b.srv.Sessions()) == 0 && b.disk.nexuses() == 0 })
	}
}

// stress is one of the initiators. It owns 1024 blocks from lba.
type stress struct {
	*bench
	rng  *rand.Rand
	name string
	lba  uint32
	i    *initiator
}

func (s *stress) connect() {
	keys := []string{
		"InitialR2T=" + []string{"Yes", "No"}[s.rng.IntN(2)],
		"ImmediateData=" + []string{"Yes", "No"}[s.rng.IntN(2)],
		"HeaderDigest=" + []string{"None", "CRC32C"}[s.rng.IntN(2)],
		"DataDigest=" + []string{"None", "CRC32C"}[s.rng.IntN(2)],
		"MaxBurstLength=" + []string{"4096", "262144"}[s.rng.IntN(2)],
		"FirstBurstLength=2048",
	}
	s.i = s.loginAs(s.name, keys...)
}

func (s *stress) step() {
	switch n := s.rng.IntN(20); {
	case n == 0: // disconnect
		s.i.nc.Close()
		s.connect()
	case n == 1: // reinstatement while commands are outstanding
		s.send(4)
		s.connect()
	case n < 6:
		s.abortOne()
	case n < 8:
		s.abortAll()
	default:
		s.writeAndRead()
	}
}

// send sends n commands without waiting for them.
func (s *stress) send(n int) (sent []*bhs) {
	for range n {
		var h *bhs
		if s.rng.IntN(2) == 0 {
			h = s.i.command(bitRead, 8192, read10(s.lba, 16)...)
		} else {
			h = s.i.command(bitWrite, 8192, write10(s.lba+1024, 16)...)
		}
		s.i.send(h, nil, nil)
		sent = append(sent, h)
	}
	return sent
}

// collect reads until every command in open has a status and the task management
// request has its response, which it returns.
func (s *stress) collect(open map[uint32]*bhs, tmf *bhs) (response byte, ended map[uint32]bool) {
	ended = map[uint32]bool{}
	answered := tmf == nil
	for !answered || len(open) > 0 {
		r, _ := s.i.recv()
		h := open[r.itt()]
		switch r.opcode() {
		case opR2T:
			if h != nil {
				s.i.answerR2T(h, r, make([]byte, 8192), 1500)
			}
			continue
		case opTMFResponse:
			response, answered = r[2], true
			if h := open[tmf.referencedTaskTag()]; h != nil && response == tmfComplete {
				delete(open, h.itt())
			}
			if tmf[1]&0x7f == tmfAbortTaskSet {
				clear(open)
			}
			continue
		case opDataIn:
			if r[1]&bitStatus == 0 {
				continue
			}
		case opSCSIResponse:
		default:
			s.tb.Errorf("opcode %#x", r.opcode())
		}
		if h == nil {
			s.tb.Errorf("response for task %#x, which is not outstanding", r.itt())
		}
		delete(open, r.itt())
		ended[r.itt()] = true
	}
	return response, ended
}

func (s *stress) outstanding(sent []*bhs) map[uint32]*bhs {
	open := map[uint32]*bhs{}
	for _, h := range sent {
		open[h.itt()] = h
	}
	return open
}

// abortOne aborts one of several commands: either it is answered and does not exist, or
// it is aborted and not answered.
func (s *stress) abortOne() {
	sent := s.send(1 + s.rng.IntN(8))
	task := sent[s.rng.IntN(len(sent))]
	tmf := s.i.tmf(tmfAbortTask, [8]byte{}, task)
	response, ended := s.collect(s.outstanding(sent), tmf)
	if aborted := response == tmfComplete; aborted == ended[task.itt()] {
		s.tb.Errorf("ABORT TASK response %d, the task was answered: %t", response, ended[task.itt()])
	}
}

func (s *stress) abortAll() {
	sent := s.send(1 + s.rng.IntN(8))
	tmf := s.i.tmf(tmfAbortTaskSet, [8]byte{}, nil)
	if response, _ := s.collect(s.outstanding(sent), tmf); response != tmfComplete {
		s.tb.Errorf("ABORT TASK SET response %d", response)
	}
}

// writeAndRead writes somewhere and reads it back.
func (s *stress) writeAndRead() {
	blocks := 1 + s.rng.IntN(64)
	lba := s.lba + uint32(s.rng.IntN(1024-blocks))
	data := pattern(s.rng.IntN(1000), blocks*memBlock)
	h := s.i.command(bitWrite, uint32(len(data)), write10(lba, uint16(blocks))...)
	n := 0
	if s.i.keys["ImmediateData"] == "Yes" {
		n = min(len(data), 2048)
	}
	s.i.send(h, nil, data[:n])
	for {
		r, _ := s.i.recv()
		if r.opcode() == opR2T {
			s.i.answerR2T(h, r, data, 3000)
			continue
		}
		if r.opcode() != opSCSIResponse || r[3] != statusGood {
			s.tb.Errorf("response %x", *r)
		}
		break
	}
	h = s.i.command(bitRead, uint32(len(data)), read10(lba, uint16(blocks))...)
	s.i.send(h, nil, nil)
	mustEqual(s.tb, "read back", s.i.good(h), data)
}

// The queue for a peer that does not receive is bounded, and the connection continues
// when the peer receives again.
func TestConn_PeerDoesNotRead(t *testing.T) {
	b := newBench(t, nil, nil)
	i := b.login("MaxRecvDataSegmentLength=262144")
	const pings, size = 400, 200 << 10
	sent := make(chan error, 1)
	go func() {
		data := make([]byte, size)
		for n := range pings {
			h := &bhs{0: opNopOut | bitImmediate, 1: bitFinal}
			h.put32(16, uint32(n))
			h.put32(20, reservedTag)
			data[0] = byte(n)
			if _, err := i.nc.Write(encode(h, nil, data, false, false)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	var c *conn
	eventually(t, "the target stops reading", func() bool {
		for _, c = range b.srv.appendConns(nil) {
			return c.notReading.Load()
		}
		return false
	})
	if n := c.out.bytes.Load(); n > maxQueued+1<<20 {
		t.Errorf("%d bytes are queued", n)
	}
	for n := range pings {
		r, d := i.expect(opNopIn)
		if r.itt() != uint32(n) || len(d) != size || d[0] != byte(n) {
			t.Fatalf("ping %d answered by %x with %d bytes", n, *r, len(d))
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
