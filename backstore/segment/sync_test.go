package segment

import "testing"

func TestSyncWithNothingUnsyncedIsFree(t *testing.T) {
	s, c := openCounting(t, Options{})
	appendTo(t, s, blocks(1, 1))
	if want := int64(2 * BlockLength); s.Unsynced() != want {
		t.Errorf("%d bytes unsynced, want %d with the header", s.Unsynced(), want)
	}
	must(t, s.Sync())
	must(t, s.Sync())
	if c.syncs.Load() != 1 || s.Unsynced() != 0 {
		t.Errorf("%d syncs, %d bytes unsynced", c.syncs.Load(), s.Unsynced())
	}
}

// What is appended is on its way to the disk long before it is synced.
func TestWriteBackBeginsEarly(t *testing.T) {
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
	must(t, s.Sync())
	if begun := c.begun.Load(); begun > most+BlockLength {
		t.Errorf("%d bytes were begun to be written, of %d", begun, most)
	}
}

func TestWriteBackInTheBackground(t *testing.T) {
	s, c := openCounting(t, Options{WriteBackBytes: 4 * BlockLength})
	for i := range 100 {
		appendTo(t, s, blocks(i, 1))
	}
	// The goroutine was woken by an append at the latest; Close waits for it,
	// and has at most what came after it left to sync.
	must(t, s.Close())
	if n := c.syncs.Load(); n < 1 || n > 60 {
		t.Errorf("%d syncs of 100 blocks", n)
	}
}
