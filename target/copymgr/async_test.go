package copymgr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"odx/blockdev"
	"odx/tokens"
)

// immediate sets IMMED in a parameter list.
func immediate(p []byte) []byte { return with(p, func(p []byte) { p[2] |= 1 }) }

// stepper lets the Map calls of a store go on one at a time.
type stepper struct {
	entered chan struct{} // a Map has begun
	proceed chan struct{} // and may go on
}

// stepMaps makes every Map wait for proceed, and do length bytes.
func (b *testbed) stepMaps(length int64) stepper {
	s := stepper{make(chan struct{}), make(chan struct{})}
	b.store.MapAtMost(length)
	b.store.FailWith(func(op string) error {
		if op == "Map" {
			s.entered <- struct{}{}
			<-s.proceed
		}
		return nil
	})
	return s
}

func (s stepper) step() {
	<-s.entered
	s.proceed <- struct{}{}
}

// awaitEnd waits for the operation of a list identifier to end, and returns its
// report.
func (b *testbed) awaitEnd(t *testing.T, lun int, listID uint32) []byte {
	t.Helper()
	b.await(lun, listID)
	a := b.rodTokenInformation(lun, listID, 1024)
	if a.code() != "GOOD" || a.data[5] == 0x12 {
		t.Fatalf("report %s % x", a.code(), a.data)
	}
	return a.data
}

func (b *testbed) await(lun int, listID uint32) {
	o := b.manager.operations
	o.mu.Lock()
	op := o.find(owner{b.target.LU(uint16(lun)), b.nexus}, listID)
	o.mu.Unlock()
	<-op.done
}

func (b *testbed) abort(lun int, listID uint32) answer {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x83, 0x1C
	binary.BigEndian.PutUint32(cdb[2:], listID)
	return b.send(ctx, b.nexus, lun, cdb, nil)
}

func TestBackground_PopulateToken(t *testing.T) {
	b := start(t, tokens.Limits{})
	data := b.fill(t, lunA, 1)
	if a := b.populate(lunA, 0, immediate(populateParameters(rangeOf{0, 16}))); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	p := b.awaitEnd(t, lunA, 0)
	if len(p) != 550 || p[4] != 0x10 || p[5] != 0x01 || p[15] != 0xF1 || binary.BigEndian.Uint64(p[16:]) != 16 {
		t.Fatalf("report % x", p[:32])
	}
	b.fill(t, lunA, 2)
	if a := b.writeUsing(lunB, 1, writeParameters(p[38:], 0, rangeOf{0, 2})); a.code() != "GOOD" {
		t.Error(a.code())
	}
	if !bytes.Equal(b.contents(t, lunB)[:8192], data[:8192]) {
		t.Error("wrong data")
	}
}

// A write in the background continues beyond one step, reports its progress, and
// completes.
func TestBackground_WriteUsingToken(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	data := b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, 1024})
	s := b.stepMaps(16 * 4096)
	want := b.contents(t, lunB)
	if a := b.writeUsing(lunB, 9, immediate(writeParameters(token, 8, rangeOf{100, 40}, rangeOf{10, 60}))); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	last := uint64(0)
	for range 6 {
		<-s.entered
		p := b.rodTokenInformation(lunB, 9, 805).data
		count, delay := binary.BigEndian.Uint64(p[16:]), binary.BigEndian.Uint32(p[8:])
		if p[5] != 0x12 || p[12] != 0 || count < last || count > 100 || delay < 10 || delay > 2000 || len(p) != 36 {
			t.Fatalf("report of a running write % x", p)
		}
		if count > 0 && binary.BigEndian.Uint16(p[6:]) == 0 {
			t.Error("OPERATION COUNTER stands still")
		}
		if rcs := b.copyStatus(lunB, 9, 255).data; !bytes.Equal(rcs[4:8], p[4:8]) || len(rcs) != 32 {
			t.Errorf("RECEIVE COPY STATUS % x", rcs)
		}
		last = count
		s.proceed <- struct{}{}
	}
	if last == 0 {
		t.Error("no progress was reported")
	}
	s.step() // of the last range
	p := b.awaitEnd(t, lunB, 9)
	if p[4] != 0x11 || p[5] != 0x01 || binary.BigEndian.Uint64(p[16:]) != 100 || binary.BigEndian.Uint32(p[8:]) != 0xFFFFFFFE {
		t.Errorf("report % x", p)
	}
	copy(want[100*4096:], data[8*4096:48*4096])
	copy(want[10*4096:], data[48*4096:108*4096])
	if !bytes.Equal(b.contents(t, lunB), want) {
		t.Error("wrong data")
	}
}

// An error in the background appears only in the report.
func TestBackground_Errors(t *testing.T) {
	for _, tc := range []struct {
		name       string
		after      int // good steps
		status     byte
		key        byte
		asc        uint16
		blocks     uint64
		parameters func(token []byte) []byte
		length     int64
	}{
		{"at once", 0, 0x02, 7, 0x2707, 0, nil, 4096},
		{"on the way", 3, 0x04, 0xA, 0x0D04, 3, nil, 4096},
		{"end of the token", 100, 0x04, 0xA, 0x0D04, 8,
			func(token []byte) []byte { return writeParameters(token, 0, rangeOf{0, 9}) }, 1 << 20},
		{"end of the token in steps", 100, 0x04, 0xA, 0x0D04, 8,
			func(token []byte) []byte { return writeParameters(token, 0, rangeOf{0, 4}, rangeOf{16, 5}) }, 4096},
	} {
		b := start(t, tokens.Limits{}).hurried()
		token := b.token(t, lunA, rangeOf{0, 64})
		b.store.MapAtMost(tc.length)
		steps := 0
		b.store.FailWith(func(op string) error {
			if op == "Map" {
				if steps++; steps > tc.after {
					return blockdev.ErrNoSpace
				}
			}
			return nil
		})
		parameters := writeParameters(token, 0, rangeOf{0, 8})
		if tc.parameters != nil {
			parameters = tc.parameters(token)
		}
		if a := b.writeUsing(lunB, 1, immediate(parameters)); a.code() != "GOOD" {
			t.Fatalf("%s: %s", tc.name, a.code())
		}
		p := b.awaitEnd(t, lunB, 1)
		if p[5] != tc.status || p[12] != 0x02 || binary.BigEndian.Uint64(p[16:]) != tc.blocks {
			t.Errorf("%s: report % x", tc.name, p)
		}
		if sense := p[32:]; sense[2] != tc.key || binary.BigEndian.Uint16(sense[12:]) != tc.asc {
			t.Errorf("%s: sense data % x", tc.name, sense)
		}
	}
}

// Errors of the parameter list are returned at once, and recorded too.
func TestBackground_ParameterErrors(t *testing.T) {
	b := start(t, tokens.Limits{})
	a := b.populate(lunA, 1, immediate(populateParameters(rangeOf{unitBlocks, 1})))
	if a.code() != "5/21/00" {
		t.Error(a.code())
	}
	b.wantRefusalOnRecord(t, lunA, 1, 0x10, a)
	a = b.writeUsing(lunA, 1, immediate(writeParameters(make([]byte, 512), 0, rangeOf{0, 1})))
	if a.code() != "5/23/0A" {
		t.Error(a.code())
	}
	b.wantRefusalOnRecord(t, lunA, 1, 0x11, a)
}

// COPY OPERATION ABORT ends a background copy at its current position: the counted data
// is written, and nothing after it.
func TestCopyOperationAbort_Background(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	data := b.fill(t, lunA, 1)
	token := b.token(t, lunA, rangeOf{0, 256})
	s := b.stepMaps(2 * 4096)
	want := b.contents(t, lunB)
	if a := b.writeUsing(lunB, 5, immediate(writeParameters(token, 0, rangeOf{0, 32}))); a.code() != "GOOD" {
		t.Fatal(a.code())
	}
	s.step()
	s.step()
	<-s.entered
	aborted := make(chan answer)
	go func() { aborted <- b.abort(lunB, 5) }()
	select {
	case <-aborted:
		t.Error("the abort did not wait for the data that moves")
	case <-b.canceled(lunB, 5):
	}
	b.store.FailWith(nil)
	s.proceed <- struct{}{}
	if a := <-aborted; a.code() != "GOOD" {
		t.Fatalf("COPY OPERATION ABORT: %s", a.code())
	}
	p := b.rodTokenInformation(lunB, 5, 805).data
	count := binary.BigEndian.Uint64(p[16:])
	if p[5] != 0x60 || p[12] != 0x40 || p[13] != 0 || p[14] != 0 || len(p) != 36 || count < 4 || count > 6 {
		t.Errorf("report % x", p)
	}
	copy(want, data[:count*4096])
	if !bytes.Equal(b.contents(t, lunB), want) {
		t.Error("wrong data after the abort")
	}
	for _, id := range []uint32{5, 6} {
		if a := b.abort(lunB, id); a.code() != "5/24/00" || a.field() != "cdb 2" {
			t.Errorf("abort of %d, which does not run: %s %q", id, a.code(), a.field())
		}
	}
	if got := b.manager.Stats().Aborted; got != 1 {
		t.Errorf("%d operations are counted as aborted", got)
	}
}

// canceled returns a channel that is closed when the operation is aborted.
func (b *testbed) canceled(lun int, listID uint32) <-chan struct{} {
	o := b.manager.operations
	o.mu.Lock()
	defer o.mu.Unlock()
	op := o.find(owner{b.target.LU(uint16(lun)), b.nexus}, listID)
	return op.ctx.Done()
}

// A foreground command that is aborted returns the cause.
func TestCopyOperationAbort_Foreground(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 256})
	s := b.stepMaps(4096)
	write := make(chan answer)
	go func() { write <- b.writeUsing(lunB, 5, writeParameters(token, 0, rangeOf{0, 32})) }()
	<-s.entered
	canceled := b.canceled(lunB, 5)
	aborted := make(chan answer)
	go func() { aborted <- b.abort(lunB, 5) }()
	<-canceled
	s.proceed <- struct{}{}
	if a := <-aborted; a.code() != "GOOD" {
		t.Errorf("COPY OPERATION ABORT: %s", a.code())
	}
	if a := <-write; a.code() != "A/2F/02" {
		t.Errorf("the aborted command: %s", a.code())
	}
	if p := b.rodTokenInformation(lunB, 5, 805).data; p[5] != 0x60 || p[12] != 0x40 {
		t.Errorf("report % x", p)
	}
}

// A token that no initiator can retrieve pins nothing.
func TestBackground_NexusLossDeletesToken(t *testing.T) {
	b := start(t, tokens.Limits{})
	entered, proceed := make(chan struct{}), make(chan struct{})
	b.store.FailWith(func(op string) error {
		if op == "Snapshot" {
			entered <- struct{}{}
			<-proceed
		}
		return nil
	})
	b.populate(lunA, 5, immediate(populateParameters(rangeOf{0, 8})))
	<-entered
	b.target.Detach(b.nexus)
	close(proceed)
	b.manager.running.Wait()
	if s := b.tokens.Stats(); s.Created != 1 || s.Live != 0 {
		t.Errorf("%d tokens made, %d live", s.Created, s.Live)
	}
}

// A logical unit reset ends the copies of that logical unit only.
func TestBackground_LogicalUnitReset(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	token := b.token(t, lunA, rangeOf{0, 32})
	s := b.stepMaps(4096)
	other := b.attach("iqn.2026-11.example:other")
	b.writeUsing(lunB, 5, immediate(writeParameters(token, 0, rangeOf{0, 4})))
	<-s.entered
	b.writeUsing(lunA, 5, immediate(writeParameters(token, 0, rangeOf{64, 16})))
	<-s.entered
	canceled := b.canceled(lunB, 5)
	reset := make(chan struct{})
	go func() {
		b.target.ResetLU(other, [8]byte{0, lunB})
		close(reset)
	}()
	<-canceled
	s.proceed <- struct{}{}
	s.proceed <- struct{}{}
	s.step() // the second half of the other copy
	<-reset
	b.clearAttentions(b.nexus, lunB)
	if a := b.rodTokenInformation(lunB, 5, 805); a.code() != "5/24/00" {
		t.Errorf("report of an aborted copy: %s", a.code())
	}
	if p := b.awaitEnd(t, lunA, 5); p[5] != 0x01 || binary.BigEndian.Uint64(p[16:]) != 16 {
		t.Errorf("the copy of another logical unit: % x", p)
	}
}

func TestOperations_MaxRunning(t *testing.T) {
	b := start(t, tokens.Limits{})
	token := b.token(t, lunA, rangeOf{0, 8})
	proceed := make(chan struct{})
	b.store.FailWith(func(op string) error {
		if op == "Map" {
			<-proceed
		}
		return nil
	})
	for id := range uint32(maxRunningOfOwner) {
		if a := b.writeUsing(lunB, id, immediate(writeParameters(token, 0, rangeOf{0, 1}))); a.code() != "GOOD" {
			t.Fatalf("%d: %s", id, a.code())
		}
	}
	if a := b.writeUsing(lunB, 999, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "status 08h" {
		t.Errorf("one too many: %s", a.code())
	}
	if a := b.copyStatus(lunB, 0, 255); a.code() != "GOOD" {
		t.Errorf("status of a running copy: %s", a.code())
	}
	close(proceed)
	b.manager.running.Wait()
	if a := b.writeUsing(lunB, 999, writeParameters(token, 0, rangeOf{0, 1})); a.code() != "GOOD" {
		t.Errorf("afterwards: %s", a.code())
	}
	if s := b.manager.Stats(); s.RefusedBy["BUSY"] != 1 {
		t.Errorf("%v", s.RefusedBy)
	}
}

func TestManager_Close(t *testing.T) {
	b := start(t, tokens.Limits{}).hurried()
	token := b.token(t, lunA, rangeOf{0, 64})
	s := b.stepMaps(4096)
	b.writeUsing(lunB, 5, immediate(writeParameters(token, 0, rangeOf{0, 8})))
	<-s.entered
	canceled := b.canceled(lunB, 5)
	closed := make(chan error)
	go func() { closed <- b.manager.Close(ctx) }()
	<-canceled
	s.proceed <- struct{}{}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// With a very slow store a command does less, or ends with BUSY, but not later than
// Windows waits.
func TestForeground_TimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, tokens.Limits{})
		data := b.fill(t, lunA, 1)
		token := b.token(t, lunA, rangeOf{0, 1024})
		slow := func(what string, pace time.Duration) {
			b.store.FailWith(func(op string) error {
				if strings.Contains(what, op) {
					time.Sleep(pace)
				}
				return nil
			})
		}
		b.store.MapAtMost(4096)
		slow("Map", 90*time.Millisecond)
		began := time.Now()
		a := b.writeUsing(lunB, 5, writeParameters(token, 0, rangeOf{0, 128}))
		b.wantUnderrun(t, lunB, 5, a, 8)
		if took := time.Since(began); took > time.Second {
			t.Errorf("the write took %v", took)
		}
		if !bytes.Equal(b.contents(t, lunB)[:8*4096], data[:8*4096]) {
			t.Error("what is counted is not there")
		}

		slow("Snapshot", 900*time.Millisecond)
		began = time.Now()
		if a := b.populate(lunA, 6, populateParameters(rangeOf{0, 8})); a.code() != "status 08h" {
			t.Errorf("POPULATE TOKEN: %s", a.code())
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("POPULATE TOKEN took %v", took)
		}
		if p := b.rodTokenInformation(lunA, 6, 805).data; p[5] != 0x02 || p[12] != 0x08 {
			t.Errorf("report % x", p)
		}
		b.store.FailWith(nil)
		if live := b.tokens.Stats().Live; live != 1 {
			t.Errorf("%d tokens are live", live)
		}
		// In the background there is no time limit.
		slow("Map", 90*time.Millisecond)
		b.writeUsing(lunB, 5, immediate(writeParameters(token, 0, rangeOf{0, 128})))
		if p := b.awaitEnd(t, lunB, 5); p[5] != 0x01 || binary.BigEndian.Uint64(p[16:]) != 128 {
			t.Errorf("report % x", p)
		}
	})
}

func TestRefusalLog_Bound(t *testing.T) {
	b := start(t, tokens.Limits{})
	for range 10 * refusalsAtOnce {
		b.populate(lunA, 1, []byte{1})
	}
	if n := strings.Count(b.log.String(), "copy command refused"); n == 0 || n > refusalsAtOnce {
		t.Errorf("%d lines", n)
	}
	if s := b.manager.Stats(); s.Refused != 10*refusalsAtOnce {
		t.Errorf("%d refusals are counted", s.Refused)
	}
	var l refusalLog
	now := time.Now()
	named := func(i int) refusalKey { return refusalKey{reason: fmt.Sprint(i)} }
	for i := range refusalsAtOnce {
		l.take(named(i), now)
	}
	for i := range 5 {
		if _, ok := l.take(named(100+i), now); ok {
			t.Error("a line too many")
		}
	}
	if missing, ok := l.take(named(200), now.Add(refusalInterval)); !ok || missing != 5 {
		t.Errorf("%v, %d suppressed", ok, missing)
	}
}

// TestRefusalLog_Repeats: what an initiator tries again is logged once in an interval, of
// BUSY whatever the reason, and the log remembers a bounded number.
func TestRefusalLog_Repeats(t *testing.T) {
	var l refusalLog
	now := time.Now()
	busy := func(reason string) refusalKey {
		return keyOf(&Refusal{Initiator: "i", Command: nameWriteUsingToken, Volume: "v", Sense: busyWords, Reason: reason})
	}
	for i, want := range []bool{true, false, false, true} {
		at := now
		if i == 3 {
			at = now.Add(repeatInterval)
		}
		if _, ok := l.take(busy(fmt.Sprint("read from port ", i)), at); ok != want {
			t.Errorf("try %d: logged %t, want %t", i, ok, want)
		}
	}
	other := refusalKey{initiator: "another", command: nameWriteUsingToken, volume: "v", sense: busyWords}
	if missing, ok := l.take(other, now.Add(repeatInterval)); !ok || missing != 0 {
		t.Errorf("another initiator: %t, %d suppressed", ok, missing)
	}
	o := origin{command: nameWriteUsingToken, volume: "v"}
	o.nexus.InitiatorName = "i"
	l.succeeded(o)
	if _, ok := l.take(busy("after a success"), now.Add(repeatInterval)); !ok {
		t.Error("what is refused after a success is not logged")
	}
	for i := range 3 * maxRepeats {
		l.take(refusalKey{reason: fmt.Sprint(i)}, now.Add(time.Duration(i)*refusalInterval))
	}
	if len(l.logged) > maxRepeats {
		t.Errorf("%d refusals are remembered", len(l.logged))
	}
}
