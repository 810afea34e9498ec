package copymgr

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"odx/tokens"
)

// Commands with one 8-bit list identifier, several at a time, as qemu sends them:
// each waits for those before, and all copy.
func TestExtendedCopyLID1_SharedListIdentifier(t *testing.T) {
	b := start(t, tokens.Limits{})
	data := b.fill(t, lunA, 1)
	want := b.fill(t, lunB, 2)
	s := b.stepMaps(4096)
	const commands = 8
	codes := make(chan string, commands)
	for i := range uint64(commands) {
		go func() {
			a := b.extendedCopy(lunA, 0, lid1Parameters(1, 0, b.cscds(),
				segmentOf{kind: 2, source: lunA, destination: lunB, count: 8, sourceLBA: 8 * i, destinationLBA: 2 * i}))
			codes <- a.code()
		}()
		copy(want[2*i*4096:], data[8*i*512:8*(i+1)*512])
	}
	for range commands {
		s.step()
		if code := <-codes; code != "GOOD" {
			t.Errorf("%s, want GOOD", code)
		}
	}
	b.store.FailWith(nil)
	if !bytes.Equal(b.contents(t, lunB), want) {
		t.Error("wrong data")
	}
	if got := b.manager.Stats(); got.Extended != commands || got.Refused != 0 {
		t.Errorf("%d done, %d refused", got.Extended, got.Refused)
	}
}

// The wait has a bound, and ends with the command.
func TestExtendedCopyLID1_ListIdentifierWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, tokens.Limits{})
		s := b.stepMaps(4096)
		list := lid1Parameters(1, 0, b.cscds(), segmentOf{kind: 2, source: lunA, destination: lunB, count: 8})
		first := make(chan answer)
		go func() { first <- b.extendedCopy(lunA, 0, list) }()
		<-s.entered
		began := time.Now()
		if a := b.extendedCopy(lunA, 0, list); a.code() != "5/00/16" || time.Since(began) != listIDWait {
			t.Errorf("%s after %v, want OPERATION IN PROGRESS after %v", a.code(), time.Since(began), listIDWait)
		}
		command, abort := context.WithCancel(ctx)
		aborted := make(chan answer)
		go func() { aborted <- b.send(command, b.nexus, lunA, copyOutCDB(0, 0, uint32(len(list))), list) }()
		synctest.Wait()
		abort()
		<-aborted
		if a := b.extendedCopy(lunA, 0, lid1Parameters(2, 0, b.cscds(), segmentOf{kind: 7, source: lunA})); a.code() != "GOOD" {
			t.Errorf("another list identifier: %s", a.code())
		}
		s.proceed <- struct{}{}
		if a := <-first; a.code() != "GOOD" {
			t.Errorf("the first: %s", a.code())
		}
	})
}

// With LIST ID USAGE 11b the list identifier has no meaning, whatever its value: commands
// with the same one are not in each other's way, and none has a report.
func TestExtendedCopy_NoListIdentifier(t *testing.T) {
	const listID, usageNone = 7, 3
	segment := segmentOf{kind: 2, source: lunA, destination: lunB, count: 8}
	for action, list := range map[byte]func(b *testbed) []byte{
		0: func(b *testbed) []byte { return lid1Parameters(listID, usageNone, b.cscds(), segment) },
		1: func(b *testbed) []byte {
			return lid4Parameters(listID, usageNone, 0, b.cscds(), segmentOf{kind: 2, source: lunA + 1, destination: lunB + 1, count: 8})
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := start(t, tokens.Limits{})
			data := b.fill(t, lunA, 1)
			s := b.stepMaps(4096)
			first, second := make(chan answer), make(chan answer)
			go func() { first <- b.extendedCopy(lunA, action, list(b)) }()
			<-s.entered
			go func() { second <- b.extendedCopy(lunA, action, list(b)) }()
			<-s.entered // although the first one runs
			s.proceed <- struct{}{}
			s.proceed <- struct{}{}
			for _, answered := range []chan answer{first, second} {
				if a := <-answered; a.code() != "GOOD" {
					t.Errorf("service action %d: %s", action, a.code())
				}
			}
			b.store.FailWith(nil)
			if a := b.copyStatus(lunA, listID, 255); a.code() != "5/24/00" {
				t.Errorf("service action %d: report %s", action, a.code())
			}
			if !bytes.Equal(b.contents(t, lunB)[:4096], data[:4096]) {
				t.Errorf("service action %d: wrong data", action)
			}
		})
	}
}
