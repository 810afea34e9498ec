package iscsi

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"odx/target/scsi"
)

// ledger is a Settler over a memDisk that counts executed and settled writes.
type ledger struct {
	disk    *memDisk
	done    atomic.Int64
	settled atomic.Int64
	calls   atomic.Int64

	mu   sync.Mutex    // guards the fields below
	hold chan struct{} // Settle blocks on it
	held chan struct{} // receives from a blocked Settle
}

func (l *ledger) Unsettled() bool { return l.settled.Load() < l.done.Load() }

func (l *ledger) Settle() error {
	l.mu.Lock()
	hold, held := l.hold, l.held
	l.mu.Unlock()
	if hold != nil {
		held <- struct{}{}
		<-hold
	}
	l.calls.Add(1)
	l.settled.Store(l.done.Load())
	return nil
}

// stall blocks Settle until release is closed.
func (l *ledger) stall() (held, release chan struct{}) {
	held, release = make(chan struct{}, 100), make(chan struct{})
	l.mu.Lock()
	l.hold, l.held = release, held
	l.mu.Unlock()
	return held, release
}

func newLedger(t *testing.T) (*ledger, *bench) {
	l := &ledger{}
	b := newBench(t, func(o *Options) { o.Settler = l; o.AbortTimeout = 20 * time.Millisecond }, nil)
	l.disk = b.disk
	b.disk.execute = func(_ context.Context, t *scsi.Task) {
		b.disk.run(t)
		if isWrite(t.OpCode) {
			l.done.Add(1)
		}
	}
	return l, b
}

// short makes commands with the given operation codes run on the reader.
func (b *bench) short(opcodes ...byte) {
	b.srv.mu.Lock()
	defer b.srv.mu.Unlock()
	for s := range b.srv.sessions {
		for _, op := range opcodes {
			s.cost[op].Store(1)
		}
	}
}

// No write is answered before it is settled, on the reader or on workers, and
// concurrent writes are settled together.
func TestSettler_BeforeGood(t *testing.T) {
	for name, opcodes := range map[string][]byte{"on the reader": {0x2a, 0x28}, "on workers": nil} {
		t.Run(name, func(t *testing.T) {
			l, b := newLedger(t)
			i := b.login()
			b.short(opcodes...)
			const rounds, together = 20, 8
			for range rounds {
				var all []byte
				sent := map[uint32]bool{}
				for n := range together {
					h := i.command(bitWrite, memBlock, write10(uint32(n), 1)...)
					all = append(all, encode(h, nil, pattern(n, memBlock), false, false)...)
					sent[h.itt()] = true
				}
				before := l.settled.Load()
				i.write(all)
				for n := range together {
					// In any order: the watchdog may replace a slow reader.
					r, _ := i.expect(opSCSIResponse)
					if r[1] != bitFinal || r[2] != 0 || r[3] != statusGood || !sent[r.itt()] {
						t.Fatalf("response %x", *r)
					}
					delete(sent, r.itt())
					if got := l.settled.Load() - before; got < 1 || opcodes != nil && got <= int64(n) {
						t.Errorf("%d writes were settled at response %d", got, n)
					}
				}
				if l.Unsettled() {
					t.Error("all writes answered, but not all settled")
				}
			}
			if n := l.calls.Load(); opcodes != nil && n > rounds*together*3/4 {
				t.Errorf("%d settled by %d calls", rounds*together, n)
			}
			mustEqual(t, "what was written", i.readBlocks(3, 1), pattern(3, memBlock))
			i.logout()
		})
	}
}

// While writes of the reader are blocked in Settle, the connection continues: task
// management, other commands, logout, the end of the connection.
func TestSettler_Stalled(t *testing.T) {
	for name, end := range map[string]func(b *bench, i *initiator){
		"logout":            func(_ *bench, i *initiator) { i.logout() },
		"connection closed": func(_ *bench, i *initiator) { i.nc.Close() },
		"reinstatement":     func(b *bench, i *initiator) { b.login().logout(); i.expectClosed() },
	} {
		t.Run(name, func(t *testing.T) {
			l, b := newLedger(t)
			i := b.login()
			b.short(0x2a)
			held, release := l.stall()
			h := i.command(bitWrite, memBlock, write10(0, 1)...)
			i.send(h, nil, make([]byte, memBlock))
			<-held
			i.alive() // a NOP-Out is answered
			if got := i.tmfResponse(i.tmf(tmfLogicalUnitReset, [8]byte{}, nil)); got != tmfComplete {
				t.Errorf("LOGICAL UNIT RESET: response %d", got)
			}
			i.send(i.command(bitWrite, memBlock, write10(1, 1)...), nil, make([]byte, memBlock))
			<-held
			end(b, i)
			eventually(t, "the session has ended", func() bool { return len(b.srv.Sessions()) == 0 })
			close(release)
			eventually(t, "the nexus is lost when the commands are back", func() bool { return b.disk.nexuses() == 0 })
		})
	}
}

// A command that aborts earlier, unsettled commands of the same reader does not deadlock.
func TestSettler_Abort(t *testing.T) {
	l, b := newLedger(t)
	i := b.login()
	var sess *session
	b.srv.mu.Lock()
	for s := range b.srv.sessions {
		sess = s
	}
	b.srv.mu.Unlock()
	run := b.disk.execute
	took := make(chan time.Duration, 1)
	b.disk.execute = func(ctx context.Context, task *scsi.Task) {
		if task.OpCode != 0x5f {
			run(ctx, task)
			return
		}
		start := time.Now()
		sess.AbortTasks(func(*scsi.Task) bool { return true }, task)
		took <- time.Since(start)
	}
	sess.srv.options().AbortTimeout = patience
	b.short(0x2a, 0x5f)
	write, pr := i.command(bitWrite, memBlock, write10(0, 1)...), i.command(0, 0, 0x5f)
	i.write(append(encode(write, nil, make([]byte, memBlock), false, false), encode(pr, nil, nil, false, false)...))
	i.good(write)
	i.good(pr)
	if d := <-took; d > patience/2 {
		t.Errorf("PERSISTENT RESERVE OUT took %v", d)
	}
	if l.calls.Load() == 0 {
		t.Error("no write was settled")
	}
	i.logout()
}
