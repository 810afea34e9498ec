package copymgr

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"odx/internal/kit/must"
	"odx/internal/kit/sample"
	"odx/target/scsi"
	"odx/tokens"
)

// stopEach stops the copies in the background as a handover does, lives times: each at
// the change of the store with number at since it went on.
func (b *testbed) stopEach(lives int, at int64) (goesOn func()) {
	var changes, left atomic.Int64
	left.Store(int64(lives))
	stop := func(string) error {
		if changes.Add(1) == at && left.Add(-1) >= 0 {
			o := b.manager.operations
			o.mu.Lock()
			o.abortAll(errHandedOver, (*operation).stopsAnywhere)
			o.mu.Unlock()
		}
		return nil
	}
	b.store.FailWith(stop)
	b.outside.FailWith(stop)
	return func() { changes.Store(0) }
}

// result is what an initiator and an administrator have of a copy in the end.
type result struct {
	status, held []byte
	data         [][]byte
	stats        Stats
}

// copyOver runs a copy in the background over up to lives handovers, each at the change
// of the store with number at, and returns how many it took.
func (b *testbed) copyOver(t *testing.T, lun int, listID uint32, command func() answer, lives int, at int64) (r result, took int) {
	t.Helper()
	goesOn := b.stopEach(lives, at)
	if a := command(); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	for ; ; took++ {
		b.await(lun, listID)
		if p := b.copyStatus(lun, listID, 255).data; p[5] != 0x12 {
			break
		}
		passed := b.suspend(t, ctx)
		goesOn()
		b.continueWith(t, passed)
	}
	b.store.FailWith(nil)
	b.outside.FailWith(nil)
	r.status = b.copyStatus(lun, listID, 255).data
	clear(r.status[6:8]) // steps, which depend on the time
	r.held = b.send(ctx, b.nexus, lun, copyInCDB(0x06, listID, 1<<15), nil).data
	clear(r.held[6:8])
	for lun := range b.volumes {
		r.data = append(r.data, b.contents(t, lun))
	}
	r.stats = b.manager.Stats()
	r.stats.Since = time.Time{}
	return r, took
}

// TestHandover_Continued: whenever a copy in the background is handed over, however often,
// its data, report, held data and counts are those of one that was not.
func TestHandover_Continued(t *testing.T) {
	const listID = 9
	token := func(b *testbed) []byte { return b.token(t, lunA, rangeOf{8, 512}, rangeOf{1000, 512}) }
	extended := func(segments ...segmentOf) func(b *testbed) answer {
		return func(b *testbed) answer {
			return b.extendedCopy(lunA, 1, lid4Parameters(listID, 0, 1, b.cscds(), fromLID1(segments)...))
		}
	}
	for name, tc := range map[string]struct {
		lun     int
		command func(b *testbed) answer
		whole   bool // is not stopped
	}{
		"WRITE USING TOKEN": {lunB, func(b *testbed) answer {
			return b.writeUsing(lunB, listID, immediate(writeParameters(token(b), 3, rangeOf{100, 40}, rangeOf{10, 60})))
		}, false},
		"WRITE USING TOKEN to the end of the token": {lunB, func(b *testbed) answer {
			return b.writeUsing(lunB, listID, immediate(writeParameters(token(b), 100, rangeOf{0, 20}, rangeOf{40, 100})))
		}, false},
		"WRITE USING TOKEN, which is deleted": {lunA, func(b *testbed) answer {
			p := immediate(writeParameters(token(b), 0, rangeOf{0, 100}, rangeOf{1024, 412}, rangeOf{512, 512}))
			p[2] |= 2
			return b.writeUsing(lunA, listID, p)
		}, false},
		"WRITE USING TOKEN outside the store": {lunOutside, func(b *testbed) answer {
			return b.writeUsing(lunOutside, listID, immediate(writeParameters(token(b), 0, rangeOf{0, 1000})))
		}, false},
		"zeros": {lunB, func(b *testbed) answer {
			zero := make([]byte, 512)
			copy(zero, []byte{0xFF, 0xFF, 0, 1})
			binary.BigEndian.PutUint16(zero[6:], 0x1F8)
			return b.writeUsing(lunB, listID, immediate(writeParameters(zero, 0, rangeOf{100, 40}, rangeOf{10, 60}, rangeOf{0, 5})))
		}, false},
		"EXTENDED COPY": {lunA, extended(
			segmentOf{kind: 2, destination: 1, count: 800, sourceLBA: 5, destinationLBA: 7},
			segmentOf{kind: 7, flags: 1, source: 1},
			segmentOf{kind: 2, flags: 2, source: 1, count: 80, sourceLBA: 5, destinationLBA: 7}), false},
		"EXTENDED COPY of bytes": {lunA, extended(
			segmentOf{kind: 0x0A, destination: 1, count: 123456, sourceLBA: 3, destinationLBA: 2, sourceOffset: 17, destinationOffset: 4001},
			segmentOf{kind: 0x0A, destination: 2, count: 1000, sourceLBA: 3, destinationLBA: 2, sourceOffset: 17, destinationOffset: 400}), false},
		"EXTENDED COPY out of the store and back": {lunA, extended(
			segmentOf{kind: 2, destination: 2, count: 333, sourceLBA: 1, destinationLBA: 2},
			segmentOf{kind: 2, source: 2, count: 333, sourceLBA: 2, destinationLBA: 1000}), false},
		"EXTENDED COPY with residual and held data": {lunA, extended(
			segmentOf{kind: 2, flags: 1, destination: 1, count: 12, destinationLBA: 1},
			segmentOf{kind: 0x0D, flags: 1, destination: 1, count: 205, sourceLBA: 12, destinationLBA: 2},
			segmentOf{kind: 2, flags: 1, destination: 1, count: 5, sourceLBA: 12, destinationLBA: 90},
			segmentOf{kind: 0x0D, flags: 2, destination: 1, count: 2, sourceLBA: 12, destinationLBA: 100}), false},
		"EXTENDED COPY that fails": {lunA, extended(
			segmentOf{kind: 2, destination: 1, count: 800, sourceLBA: 5, destinationLBA: 7},
			segmentOf{kind: 2, count: 8, sourceLBA: unitBlocks - 4}), false},
		"EXTENDED COPY of a token": {lunA, func(b *testbed) answer {
			p := lid4Parameters(listID, 0, 1, append(b.cscds(), rodCSCDOf(0)), fromLID1([]segmentOf{
				{kind: 2, source: 4, destination: 1, count: 1024, destinationLBA: 3},
				{kind: 0x0D, source: 4, destination: 0, count: 64, sourceLBA: 100, destinationLBA: 104}})...)
			return b.extendedCopy(lunA, 1, inline(1, p, token(b)))
		}, false},
		"EXTENDED COPY over its own source":                  {lunA, extended(segmentOf{kind: 2, count: 1500, sourceLBA: 8, destinationLBA: 50}), true},
		"EXTENDED COPY over its own source, to lower blocks": {lunA, extended(segmentOf{kind: 2, count: 1500, sourceLBA: 50, destinationLBA: 8}), true},
	} {
		for _, through := range []bool{false, true} {
			begin := func(t *testing.T) *testbed {
				b := start(t, tokens.Limits{}).hurried()
				for lun := range b.volumes {
					b.fill(t, lun, byte(lun+1))
				}
				b.store.MapAtMost(3 * 4096)
				if through {
					b.writeThrough(t, lunA)
					b.writeThrough(t, lunB)
				}
				return b
			}
			t.Run(fmt.Sprintf("%s, write through %v", name, through), func(t *testing.T) {
				b := begin(t)
				want, _ := b.copyOver(t, tc.lun, listID, func() answer { return tc.command(b) }, 0, 0)
				most := 0
				for i, at := range []int64{0, 1, 2, 3, 4, 5, 6, 7, 10, 13, 16, 19, 22, 25, 28} {
					if at > 3 && i%sample.Size(5, 1, 1) > 0 {
						continue
					}
					b := begin(t)
					got, took := b.copyOver(t, tc.lun, listID, func() answer { return tc.command(b) }, 5, at+1)
					most = max(most, took)
					if !bytes.Equal(got.status, want.status) || !bytes.Equal(got.held, want.held) {
						t.Errorf("stopped at %d: report\n% x\n% x\nwant\n% x\n% x", at, got.status, got.held, want.status, want.held)
					}
					for lun := range want.data {
						if !bytes.Equal(got.data[lun], want.data[lun]) {
							t.Errorf("stopped at %d: LUN %d differs", at, lun)
						}
					}
					if g, w := fmt.Sprintf("%+v", got.stats), fmt.Sprintf("%+v", want.stats); g != w {
						t.Errorf("stopped at %d: counts\n%s\nwant\n%s", at, g, w)
					}
				}
				if tc.whole != (most == 0) {
					t.Errorf("%d handovers at most", most)
				}
			})
		}
	}
}

// stopped begins a write in the background of 64 blocks, which is handed over after some,
// and returns how many are counted.
func (b *testbed) stopped(t *testing.T, token []byte) uint64 {
	t.Helper()
	b.stopEach(1, 3)
	if a := b.writeUsing(lunB, 9, immediate(writeParameters(token, 0, rangeOf{0, 64}))); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	b.await(lunB, 9)
	p := b.rodTokenInformation(lunB, 9, 805).data
	if p[5] != 0x12 {
		t.Fatalf("report % x", p)
	}
	b.store.FailWith(nil)
	return binary.BigEndian.Uint64(p[16:])
}

// TestHandover_Stopped: what is counted at the handover is written, and nothing else is; the
// process that goes on reports the copy as running, with the same count.
func TestHandover_Stopped(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	data, want := b.fill(t, lunA, 1), b.fill(t, lunB, 2)
	token := b.token(t, lunA, rangeOf{0, 512})
	b.store.MapAtMost(4096)
	count := b.stopped(t, token)
	if count == 0 || count == 64 {
		t.Fatalf("%d blocks", count)
	}
	copy(want, data[:count*4096])
	passed := b.suspend(t, ctx)
	if !bytes.Equal(b.contents(t, lunB), want) {
		t.Error("other data is written than what is counted")
	}
	s := b.stepMaps(4096)
	b.continueWith(t, passed)
	<-s.entered
	p := b.rodTokenInformation(lunB, 9, 805).data
	if p[5] != 0x12 || binary.BigEndian.Uint64(p[16:]) != count || binary.BigEndian.Uint32(p[8:]) == 0xFFFFFFFE {
		t.Errorf("report % x, want %d blocks", p, count)
	}
	if a := b.writeUsing(lunB, 9, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "5/00/16" {
		t.Errorf("a command with the list identifier: %s", a.code())
	}
	b.store.FailWith(nil)
	s.proceed <- struct{}{}
	p = b.awaitEnd(t, lunB, 9)
	if p[5] != 0x01 || binary.BigEndian.Uint64(p[16:]) != 64 {
		t.Errorf("report % x", p)
	}
	if s := b.manager.Stats(); s.Aborted != 0 || strings.Contains(b.log.String(), "aborted") {
		t.Errorf("%d aborted\n%s", s.Aborted, b.log.String())
	}
}

// TestHandover_Ends: a copy that was handed over ends for the same reasons as another one.
func TestHandover_Ends(t *testing.T) {
	for name, tc := range map[string]struct {
		end    func(t *testing.T, b *testbed, token []byte)
		status byte // 0: no report
		sense  string
	}{
		"COPY OPERATION ABORT": {func(t *testing.T, b *testbed, _ []byte) {
			if a := b.abort(lunB, 9); a.code() != "GOOD" {
				t.Error(a.code())
			}
		}, 0x60, ""},
		"logical unit reset": {func(t *testing.T, b *testbed, _ []byte) {
			b.target.ResetLU(b.nexus, [8]byte{0, lunB})
			b.clearAttentions(b.nexus, lunB)
		}, 0, ""},
		"preempted": {func(t *testing.T, b *testbed, _ []byte) {
			lu := b.target.LU(lunB)
			b.manager.operations.preempt(lu, []scsi.NexusID{b.nexus.ID})
		}, 0x60, ""},
		"manager closed": {func(t *testing.T, b *testbed, _ []byte) { must.Succeed(t, b.manager.Close(ctx)) }, 0x60, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, tokens.Limits{}).hurried()
			b.fill(t, lunA, 1)
			token := b.token(t, lunA, rangeOf{0, 512})
			b.store.MapAtMost(4096)
			count := b.stopped(t, token)
			passed := b.suspend(t, ctx)
			s := b.stepMaps(4096)
			b.continueWith(t, passed)
			<-s.entered
			canceled := b.canceled(lunB, 9)
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				tc.end(t, b, token)
			}()
			<-canceled
			b.store.FailWith(nil)
			s.proceed <- struct{}{}
			<-ended
			a := b.rodTokenInformation(lunB, 9, 805)
			if tc.status == 0 {
				if a.code() != "5/24/00" {
					t.Errorf("report %s", a.code())
				}
				return
			}
			if got := binary.BigEndian.Uint64(a.data[16:]); a.data[5] != tc.status || got < count || got > count+1 {
				t.Errorf("report % x, want %d blocks", a.data, count)
			}
		})
	}
}

// TestHandover_NexusLoss: a copy that was handed over goes on without its nexus, and without a
// report, as any other does.
func TestHandover_NexusLoss(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	data := b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, 512})
	b.store.MapAtMost(4096)
	b.stopped(t, token)
	passed := b.suspend(t, ctx)
	s := b.stepMaps(4096)
	b.continueWith(t, passed)
	<-s.entered
	b.target.Detach(b.nexus)
	b.nexus = b.attach("iqn.2026-11.example:host")
	b.store.FailWith(nil)
	s.proceed <- struct{}{}
	b.manager.running.Wait()
	if !bytes.Equal(b.contents(t, lunB)[:64*4096], data[:64*4096]) {
		t.Error("the copy did not go on")
	}
	if a := b.rodTokenInformation(lunB, 9, 805); a.code() != "5/24/00" {
		t.Errorf("report %s % x", a.code(), a.data)
	}
	if s := b.manager.Stats(); s.Written != 1 || s.WrittenBytes != 64*4096 {
		t.Errorf("%d writes of %d bytes are counted", s.Written, s.WrittenBytes)
	}
}

// TestHandover_WithoutNexus: a copy whose nexus has ended before the handover is not passed, and
// is aborted.
func TestHandover_WithoutNexus(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, 512})
	s := b.stepMaps(4096)
	if a := b.writeUsing(lunB, 9, immediate(writeParameters(token, 0, rangeOf{0, 64}))); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	s.step()
	<-s.entered
	canceled := b.canceled(lunB, 9)
	b.target.Detach(b.nexus)
	b.nexus = b.attach("iqn.2026-11.example:host")
	passed := b.suspend(t, ctx)
	<-canceled
	b.store.FailWith(nil)
	s.proceed <- struct{}{}
	b.manager.running.Wait()
	for i := range passed.Units {
		if n := len(passed.Units[i].Running); n != 0 {
			t.Errorf("%d copies are passed", n)
		}
	}
	if s := b.manager.Stats(); s.Aborted != 1 || s.Written != 0 || s.WrittenBytes == 0 {
		t.Errorf("%d aborted, %d written, %d bytes", s.Aborted, s.Written, s.WrittenBytes)
	}
}

// TestHandover_Gone: what a copy needs and does not find after the handover ends it, with
// what it has written.
func TestHandover_Gone(t *testing.T) {
	t.Run("token", func(t *testing.T) {
		b := start(t, tokens.Limits{}).hurried()
		b.fill(t, lunA, 1)
		token := b.token(t, lunA, rangeOf{0, 512})
		b.store.MapAtMost(4096)
		count := b.stopped(t, token)
		passed := b.suspend(t, ctx)
		must.Succeed(t, b.tokens.DeleteToken(ctx, (*tokens.Token)(token), tokens.Revoked))
		b.continueWith(t, passed)
		p := b.awaitEnd(t, lunB, 9)
		if p[5] != 0x04 || binary.BigEndian.Uint64(p[16:]) != count || p[34] != 0xA || binary.BigEndian.Uint16(p[44:]) != 0x0D04 {
			t.Errorf("report % x, want an underrun after %d blocks", p, count)
		}
	})
	extended := func(t *testing.T, between func(b *testbed, token []byte), list func(b *testbed, token []byte) []byte, asc uint16) {
		b := start(t, tokens.Limits{}).hurried()
		b.fill(t, lunA, 1)
		token := b.token(t, lunA, rangeOf{0, 512})
		b.store.MapAtMost(4096)
		b.stopEach(1, 9)
		if a := b.extendedCopy(lunA, 1, list(b, token)); a.code() != "GOOD" {
			t.Fatal(a.code())
		}
		b.await(lunA, 9)
		passed := b.suspend(t, ctx)
		b.store.FailWith(nil)
		between(b, token)
		b.continueWith(t, passed)
		b.await(lunA, 9)
		p := b.copyStatus(lunA, 9, 255).data
		if n := binary.BigEndian.Uint64(p[16:]); p[5] != 0x02 || n == 0 || n%4096 != 0 || n >= 512*512 || p[34] != 0xA || binary.BigEndian.Uint16(p[44:]) != asc {
			t.Errorf("report % x", p)
		}
	}
	t.Run("token of EXTENDED COPY", func(t *testing.T) {
		extended(t, func(b *testbed, token []byte) {
			must.Succeed(t, b.tokens.DeleteToken(ctx, (*tokens.Token)(token), tokens.Revoked))
		}, func(b *testbed, token []byte) []byte {
			p := lid4Parameters(9, 0, 1, append(b.cscds(), rodCSCDOf(0)), fromLID1([]segmentOf{{kind: 2, source: 4, destination: 1, count: 512}})...)
			return inline(1, p, token)
		}, 0x0D02)
	})
	t.Run("destination", func(t *testing.T) {
		extended(t, func(b *testbed, _ []byte) { b.manager.Remove(b.target.LU(lunB)) }, func(b *testbed, _ []byte) []byte {
			return lid4Parameters(9, 0, 1, b.cscds(), fromLID1([]segmentOf{{kind: 2, destination: 1, count: 512}})...)
		}, 0x0804)
	})
}

// TestHandover_Populate: a POPULATE TOKEN ends before the handover, or begins again after it,
// so that its token has the data of one point in time.
func TestHandover_Populate(t *testing.T) {
	for name, again := range map[string]bool{"ends": false, "begins again": true} {
		t.Run(name, func(t *testing.T) {
			b := start(t, tokens.Limits{})
			want := b.fill(t, lunA, 1)
			entered, proceed := make(chan struct{}), make(chan error)
			b.store.FailWith(func(op string) error {
				if op != "Snapshot" {
					return nil
				}
				entered <- struct{}{}
				return <-proceed
			})
			if a := b.populate(lunA, 9, immediate(populateParameters(rangeOf{0, 64}))); a.code() != "GOOD" {
				t.Fatal(a.code())
			}
			<-entered
			limit, cancel := context.WithCancel(ctx)
			defer cancel()
			suspended := make(chan struct{})
			var canceled <-chan struct{} = b.canceled(lunA, 9)
			go func() {
				defer close(suspended)
				b.handOver(t, limit)
			}()
			var failure error
			if again {
				cancel()
				<-canceled
				failure = errors.New("stopped in the middle")
			}
			b.store.FailWith(nil)
			if again {
				want = b.fill(t, lunA, 2)
			}
			proceed <- failure
			<-suspended
			p := b.awaitEnd(t, lunA, 9)
			if len(p) != 550 || p[5] != 0x01 || binary.BigEndian.Uint64(p[16:]) != 64 {
				t.Fatalf("report % x", p[:32])
			}
			b.fill(t, lunA, 3)
			if a := b.writeUsing(lunB, 1, writeParameters(p[38:], 0, rangeOf{0, 8})); a.code() != "GOOD" {
				t.Fatal(a.code())
			}
			if !bytes.Equal(b.contents(t, lunB)[:64*512], want[:64*512]) {
				t.Error("the token has other data")
			}
			if s := b.tokens.Stats(); s.Created != 1 {
				t.Errorf("%d tokens", s.Created)
			}
		})
	}
}
