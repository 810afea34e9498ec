package backstore

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	"github.com/sirupsen/logrus/hooks/test"
)

// TestCleaner_BacksOff: cleaning that fails waits twice as long before each attempt, a
// minute at the longest, however many writes ask for it, and is logged once. It is tried
// at once when there is more room.
func TestCleaner_BacksOff(t *testing.T) {
	d := newDisk()
	s := d.open(t, 4<<10)
	defer s.Close()
	v := createVolume(t, s, "v", 4<<20)
	if err := errors.Join(v.WriteAt(t.Context(), randomBytes(1, 1<<20), 0), v.Unmap(t.Context(), 0, 1<<20)); err != nil {
		t.Fatal(err)
	}
	reaped(t, s)
	s.parts.segments.Seal()
	for name, failure := range map[string]error{"checkpoint fails": syscall.EIO, "segment stays": nil} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { cleanInVain(t, s, failure) }) })
	}
}

// cleanInVain cleans a store that is full and stays so: its checkpoints return failure, and
// remove no segment.
func cleanInVain(t *testing.T, s *Store, failure error) {
	log, logged := test.NewNullLogger()
	ctx, cancel := context.WithCancel(t.Context())
	tries := 0
	full := space{parts: &s.parts, opts: &s.opts, cleanNow: make(chan struct{}, 1)}
	full.low.Store(true)
	c := cleaner{
		parts: &s.parts, opts: &s.opts, log: logrus.NewEntry(log), life: &s.life, damage: s.damage, space: &full, writer: &s.writer, opMu: &s.opMu,
		aliases: &s.aliases, holds: &s.holds,
		checkpoint: func(context.Context) error { tries++; return failure },
	}
	done := make(chan struct{})
	go func() { defer close(done); c.loop(ctx) }()
	hurry := func(d time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			full.hurryCleaning()
		}
		synctest.Wait()
	}
	hurry(10 * time.Minute)
	if tries < 10 || tries > 20 {
		t.Errorf("%d attempts in ten minutes", tries)
	}
	n := 0
	for _, e := range logged.AllEntries() {
		if strings.Contains(e.Message, "cleaning on a full disk stopped") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("logged %d times", n)
	}
	cancel()
	<-done
}

// TestAttempts_Room: more room than the last attempt had is worth another one, once a
// period has passed.
func TestAttempts_Room(t *testing.T) {
	var a attempts
	now := time.Unix(1e9, 0)
	if !a.due(0, now) {
		t.Error("the first attempt is not due")
	}
	if first, second := a.fail(0, now), a.fail(0, now); !first || second {
		t.Errorf("first failure: %t, %t", first, second)
	}
	for _, test := range []struct {
		after time.Duration
		room  int64
		due   bool
	}{
		{after: 1500 * time.Millisecond, due: false},
		{after: 2 * time.Second, due: true},
		{after: 500 * time.Millisecond, room: lowSpace, due: false},
		{after: time.Second, room: lowSpace, due: true},
		{after: time.Second, room: lowSpace - 1, due: false},
	} {
		if due := a.due(test.room, now.Add(test.after)); due != test.due {
			t.Errorf("after %v with %d bytes: %t", test.after, test.room, due)
		}
	}
}
