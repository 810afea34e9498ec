package scsi

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"odx/blockdev"
	"odx/latency"
	"odx/target/scsi/sense"
)

// Commands count by their kind, with the bytes of the medium and how they ended.
func TestStats_Kinds(t *testing.T) {
	block := pattern(512, 1)
	for name, tt := range map[string]struct {
		run  func(f *fixture)
		want map[Kind]Counts
	}{
		"reads": {func(f *fixture) { f.good(cdb10(0x28, 0, 0, 8), nil); f.good(cdb16(0x88, 0, 0, 8), nil) }, map[Kind]Counts{KindRead: {Commands: 2, Bytes: 8192}}},
		"writes": {func(f *fixture) {
			f.good(cdb10(0x2A, 0, 0, 1), block)
			f.good(cdb10(0x2E, 0, 0, 1), block)
			f.good(cdb16(0x93, 0, 0, 16), block)
			f.good(cdb16(0x8B, 0, 0, 1), block)
			f.good(append([]byte{0x89}, append(make([]byte, 12), 1, 0, 0)...), append(block, block...))
		}, map[Kind]Counts{KindWrite: {Commands: 5, Bytes: 512 * 20}}},
		"a write that ends short": {func(f *fixture) {
			f.run(request{nexus: f.nexus, cdb: cdb10(0x2A, 0, 0, 4), out: block, expectedOut: -1}).wantStatus(f.t, good)
		}, map[Kind]Counts{KindWrite: {Commands: 1, Bytes: 512}}},
		"a read in pieces": {func(f *fixture) { f.good(cdb10(0x28, 0, 0, 3*StreamPiece/512), nil) }, map[Kind]Counts{KindRead: {Commands: 1, Bytes: 3 * StreamPiece}}},
		"unmaps": {func(f *fixture) {
			f.unmap(unmapList([2]uint64{1, 3}, [2]uint64{9, 5})).wantStatus(f.t, good)
			f.good(cdb16(0x93, writeSameUnmap|writeSameNDOB, 0, 16), nil)
		}, map[Kind]Counts{KindUnmap: {Commands: 2, Bytes: 24 * 512}}},
		"others":  {func(f *fixture) { f.good(testUnitReady, nil); f.good(inquiryCDB(0, 0, 96), nil) }, map[Kind]Counts{KindOther: {Commands: 2}}},
		"verify":  {func(f *fixture) { f.good(cdb10(0x2F, 0, 0, 4), nil) }, map[Kind]Counts{KindOther: {Commands: 1, Bytes: 2048}}},
		"refused": {func(f *fixture) { f.do(cdb10(0x28, 0, 1<<31, 1), nil); f.do([]byte{0xFF, 0, 0, 0, 0, 0}, nil) }, map[Kind]Counts{KindRead: {Commands: 1, Errors: 1}, KindOther: {Commands: 1, Errors: 1}}},
		"failed":  {func(f *fixture) { f.vol.setError(blockdev.ErrNoSpace); f.do(cdb10(0x2A, 0, 0, 1), block) }, map[Kind]Counts{KindWrite: {Commands: 1, Errors: 1}}},
		"a unit attention, sent again": {func(f *fixture) {
			f.lu.establish(sense.ASCModeParametersChanged, nil)
			f.do(readBlock, nil)
			f.good(readBlock, nil)
		}, map[Kind]Counts{KindRead: {Commands: 1, Bytes: 512}}},
		"no logical unit": {func(f *fixture) { f.at(f.nexus, 9) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.resize(4 * StreamPiece / 512)
			f.lu.Resized()
			f.takeAttentions(f.nexus)
			tt.run(f)
			total := f.lu.Stats().Total
			for k := range Kind(Kinds) {
				got, want := total[k], tt.want[k]
				if got.Commands != want.Commands || got.Bytes != want.Bytes || got.Errors != want.Errors {
					t.Errorf("%s: %d commands, %d bytes, %d errors; want %+v", k, got.Commands, got.Bytes, got.Errors, want)
				}
			}
		})
	}
}

// The latency of a command is how long it ran.
func TestStats_Latency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowVolume{memVolume: newMemVolume(testBlocks * 512)}
		f := newFixture(t, func(c *LUConfig) { c.Volume = slow })
		for _, slow.takes = range []time.Duration{time.Millisecond, time.Millisecond, 3 * time.Millisecond, 100 * time.Millisecond} {
			f.good(readBlock, nil)
		}
		read := f.lu.Stats().Total[KindRead]
		if read.Latency.Sum != 105*time.Millisecond || read.Latency.Total() != 4 || read.Commands != 4 {
			t.Errorf("%d commands took %s, %d of them counted", read.Commands, read.Latency.Sum, read.Latency.Total())
		}
		for q, want := range map[float64]time.Duration{0: latency.Bound(6), 0.5: latency.Bound(6), 0.75: latency.Bound(8), 0.99: latency.Bound(13), 1: latency.Bound(13)} {
			if got := read.Latency.Quantile(q); got != want {
				t.Errorf("quantile %v is %s, want %s", q, got, want)
			}
		}
		if none := new(latency.Counts); none.Quantile(0.5) != 0 {
			t.Error("a quantile of nothing")
		}
	})
}

// slowVolume takes its time to read.
type slowVolume struct {
	*memVolume
	takes time.Duration
}

func (v *slowVolume) ReadAt(ctx context.Context, p []byte, off int64) error {
	time.Sleep(v.takes)
	return v.memVolume.ReadAt(ctx, p, off)
}

// Each initiator has its counts while it is there, over all its sessions; what it did stays
// with the logical unit, and no memory with it.
func TestStats_Initiators(t *testing.T) {
	f := newFixture(t)
	read := func(n *Nexus, times int) {
		for range times {
			f.on(n, readBlock).wantStatus(t, good)
		}
	}
	of := func(name string) uint64 {
		s := f.lu.Stats().Initiators[name]
		return s[KindRead].Commands
	}
	first, second, other := f.attach("iqn.a"), f.attach("iqn.a"), f.attach("iqn.b")
	read(first, 1)
	read(second, 2)
	read(other, 4)
	steps := []struct {
		what     string
		do       func()
		a, b, lu uint64
	}{
		{"all are there", func() {}, 3, 4, 7},
		{"one session of a ends", func() { f.target.Detach(first) }, 3, 4, 7},
		{"a goes on", func() { read(second, 8) }, 11, 4, 15},
		{"a has left", func() { f.target.Detach(second) }, 0, 4, 15},
		{"a is back", func() { first = f.target.Attach(first.ID); f.takeAttentions(first); read(first, 1) }, 1, 4, 16},
		{"b loses the LUN", func() { f.target.Readmit(other, Rights{View: View{}}) }, 1, 0, 16},
	}
	for _, s := range steps {
		s.do()
		if a, b, total := of("iqn.a"), of("iqn.b"), f.lu.Stats().Total[KindRead].Commands; a != s.a || b != s.b || total != s.lu {
			t.Errorf("%s: %d reads of a, %d of b, %d of the logical unit; want %d, %d, %d", s.what, a, b, total, s.a, s.b, s.lu)
		}
	}
	if s := other.Stats(); s[KindRead].Commands != 4 {
		t.Errorf("%d reads of b's session, want 4", s[KindRead].Commands)
	}
	for i := range 1000 {
		n := f.attach(fmt.Sprintf("iqn.%d", i))
		read(n, 1)
		f.target.Detach(n)
	}
	if n := len(f.lu.accounts.by); n > 3 {
		t.Errorf("accounts of %d initiators that have left", n)
	}
	if total := f.lu.Stats().Total[KindRead].Commands; total != 1016 {
		t.Errorf("%d reads in all, want 1016", total)
	}
}

// Commands that a nexus has under way at a logical unit that it loses count, too.
func TestStats_LostUnderWay(t *testing.T) {
	f := newFixture(t)
	task := f.prepared(f.nexus, readBlock)
	f.reconfigure(func(c *Configuration) { c.Units = nil })
	f.target.Execute(t.Context(), task)
	if n := f.lu.Stats().Total[KindRead].Commands; n != 1 {
		t.Errorf("%d reads", n)
	}
	f.lu.detach(f.lu.attach(f.nexus, 0, ViewedLU{}, poweredOn)) // what is over is folded
	if n := f.lu.Stats().Total[KindRead].Commands; n != 1 || len(f.lu.former) != 0 {
		t.Errorf("%d reads, %d former nexuses", n, len(f.lu.former))
	}
}

// The last minute is what was counted in it, of a logical unit and of a session, and less
// where there was less.
func TestStats_LastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		read := func() { f.good(readBlock, nil) }
		check := func(what string, commands uint64, span time.Duration) {
			t.Helper()
			for _, m := range []Minute{f.lu.LastMinute(time.Now()), f.nexus.LastMinute(time.Now())} {
				if m.Stats[KindRead].Commands != commands || m.Span != span {
					t.Errorf("%s: %d reads in %s, want %d in %s", what, m.Stats[KindRead].Commands, m.Span, commands, span)
				}
			}
		}
		read()
		time.Sleep(5 * time.Second)
		check("before the first sample", 1, 5*time.Second)
		for range 30 { // every 10 seconds
			time.Sleep(SampleInterval)
			read()
			f.target.Sample(time.Now())
			f.target.Sample(time.Now()) // the logical unit is in another target, too
		}
		time.Sleep(3 * time.Second)
		check("after five minutes", 6, 63*time.Second)
		for range 7 {
			time.Sleep(SampleInterval)
			f.target.Sample(time.Now())
		}
		check("after a quiet minute", 0, 60*time.Second)
		if m := f.lu.LastMinute(time.Now()); m.Total().Commands != 0 {
			t.Errorf("%d commands", m.Total().Commands)
		}
	})
}

// Reading the counts while commands run and nexuses come and go loses none.
func TestStats_Concurrent(t *testing.T) {
	f := newFixture(t)
	const sessions, commands = 6, 400
	var running sync.WaitGroup
	for i := range sessions {
		running.Go(func() {
			for round := range 4 {
				n := f.target.Attach(NexusID{InitiatorName: fmt.Sprintf("iqn.%d", i%3), ISID: [6]byte{byte(i), byte(round)}})
				f.takeAttentions(n)
				task := NewTask(&f.pool)
				for range commands / 4 {
					task.Reset(n, readBlock)
					if f.target.Prepare(task) {
						t.Errorf("refused: % x", task.Sense())
					}
					f.target.Execute(t.Context(), task)
				}
				task.Release()
				f.target.Detach(n)
			}
		})
	}
	end := make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		for last := uint64(0); ; {
			s := f.lu.Stats()
			f.target.Sample(time.Now())
			if now := s.Total[KindRead].Commands; now < last {
				t.Errorf("%d reads after %d", now, last)
			} else {
				last = now
			}
			select {
			case <-end:
				return
			default:
			}
		}
	})
	running.Wait()
	close(end)
	reading.Wait()
	if n := f.lu.Stats().Total[KindRead].Commands; n != sessions*commands {
		t.Errorf("%d reads, want %d", n, sessions*commands)
	}
}
