package backstore

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"odx/internal/kit/must"
)

// TestStore_Reconfigure: budgets and deduplication of an open store change, and a store
// that scrubbed itself never does so from then on.
func TestStore_Reconfigure(t *testing.T) {
	synctest.Test(t, reconfigures)
}

func reconfigures(t *testing.T) {
	ctx := t.Context()
	s := newDisk().open(t, 4<<10)
	defer s.Close()
	v, err := s.CreateVolume(ctx, "v", 1<<20)
	must.Succeed(t, err)
	block := content([]uint32{1, 2, 3, 4, 5, 6, 7, 8})
	must.Succeed(t, v.WriteAt(ctx, block, 0))
	if err := s.Reconfigure(Reconfiguration{CleanBytesPerSecond: -1, StoreDuplicates: true}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a negative budget: %v", err)
	}
	must.Succeed(t, v.WriteAt(ctx, block, 4096))
	if got := s.LiveBytes(); got != 4096 {
		t.Errorf("%d bytes live of two equal blocks", got)
	}
	must.Succeed(t, s.Reconfigure(Reconfiguration{StoreDuplicates: true, CleanBytesPerSecond: 8 << 20, ScrubBytesPerSecond: 1 << 20}))
	must.Succeed(t, v.WriteAt(ctx, block, 8192))
	if got := s.LiveBytes(); got != 8192 {
		t.Errorf("%d bytes live after a third block, without deduplication", got)
	}
	if got := s.cleaner.budget.Limit(); got != rate.Limit(8<<20) {
		t.Errorf("cleaning has %v bytes a second", got)
	}

	if last, ok, err := s.LastScrub(); ok || err != nil {
		t.Fatalf("scrubbed without a schedule: %+v, %v", last, err)
	}
	must.Succeed(t, s.Reconfigure(Reconfiguration{ScrubEvery: time.Hour}))
	time.Sleep(2 * time.Hour) // of the bubble
	synctest.Wait()
	if last, _, err := s.LastScrub(); err != nil || last.Ended.IsZero() {
		t.Errorf("not scrubbed after a schedule was set: %+v, %v", last, err)
	}
	must.Succeed(t, s.Reconfigure(Reconfiguration{}))
	if got := s.scrubs.Current(); got != 0 {
		t.Errorf("scrubs every %v", got)
	}
}
