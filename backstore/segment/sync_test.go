package segment

import (
	"testing"

	"odx/internal/kit/must"
)

func TestSet_SyncWithoutData(t *testing.T) {
	s, c := openCounting(t, Options{})
	appendTo(t, s, blocks(1, 1))
	if want := int64(2 * BlockLength); s.Unsynced() != want {
		t.Errorf("%d bytes unsynced, want %d with the header", s.Unsynced(), want)
	}
	must.Succeed(t, s.Sync())
	must.Succeed(t, s.Sync())
	if c.syncs.Load() != 1 || s.Unsynced() != 0 {
		t.Errorf("%d syncs, %d bytes unsynced", c.syncs.Load(), s.Unsynced())
	}
}

// TestSet_EarlyWriteBack: write-back of appended data starts before WriteBackBytes and
// Sync.
func TestSet_EarlyWriteBack(t *testing.T) {
	s, c := openCounting(t, Options{})
	const blocksEach, appends = 16, 1000
	for range appends {
		appendTo(t, s, blocks(1, blocksEach))
	}
	most := int64(appends * blocksEach * BlockLength)
	for c.begun.Load() <= most-earlyBlocks*BlockLength {
		<-c.more
	}
	if c.syncs.Load() != 0 {
		t.Errorf("%d syncs of less than WriteBackBytes", c.syncs.Load())
	}
	must.Succeed(t, s.Sync())
	if begun := c.begun.Load(); begun > most+BlockLength {
		t.Errorf("write-back started for %d of %d bytes", begun, most)
	}
}

func TestSet_BackgroundWriteBack(t *testing.T) {
	s, c := openCounting(t, Options{WriteBackBytes: 4 * BlockLength})
	for i := range 100 {
		appendTo(t, s, blocks(i, 1))
	}
	// An append wakes the goroutine. Close waits for it, and syncs at most the data
	// appended after that.
	must.Succeed(t, s.Close())
	if n := c.syncs.Load(); n < 1 || n > 60 {
		t.Errorf("%d syncs of 100 blocks", n)
	}
}
