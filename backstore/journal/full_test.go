package journal

import (
	"syscall"
	"testing"
	"time"

	"odx/backstore/vfs"
)

// fill fills the disk after the journal has its spare files.
func fill(t *testing.T, m *vfs.Mem, j *Journal) {
	t.Helper()
	must(t, j.Commit(ctx, add(t, j))) // into a spare file
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		must(t, j.Ready())
		j.acquire()
		spares, preparing := len(j.spares), j.preparing != nil
		j.release()
		if spares >= readySpares && !preparing {
			m.SetCapacity(m.Used())
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%d spare files", spares)
		}
	}
}

// TestJournal_FullDisk: on a disk without a free block appending continues
// indefinitely, and over restarts, if a checkpoint truncates the journal before its
// room is used.
func TestJournal_FullDisk(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	o.FileBytes = 64 << 10
	j, last := openAt(t, o)
	fill(t, m, j)
	restarts := 0
	for range 40 {
		for j.Room() > 16<<10 {
			last = add(t, j)
			if err := j.Commit(ctx, last); err != nil {
				t.Fatalf("record %d, room %d, spares %v, files %+v, out %d/%d: %v", last, j.Room(), j.spares, j.files, j.out.end, j.out.limit, err)
			}
		}
		first, err := j.Rotate()
		must(t, err)
		must(t, j.Truncate(first))
		must(t, j.Ready())
		if free, err := m.Free("/"); err != nil || free > 0 {
			t.Fatalf("%d bytes are free for other programs, %v", free, err)
		}
		if last%3 == 0 {
			must(t, j.Close())
			o.First = first
			var got LSN
			if j, got = openAt(t, o); got != last {
				t.Fatalf("replayed up to %d, want %d", got, last)
			}
			restarts++
		}
	}
	if last < 500 || restarts == 0 {
		t.Errorf("%d records, %d restarts", last, restarts)
	}
}

// TestJournal_Room: records up to Room fit, and more fail with a full disk. After space
// is freed no record is lost.
func TestJournal_Room(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	o.FileBytes = 64 << 10
	j, last := openAt(t, o)
	fill(t, m, j)
	var err error
	for err == nil {
		room := j.Room()
		last = add(t, j)
		err = j.Commit(ctx, last)
		if err != nil && room > 16<<10 {
			t.Fatalf("commit with room for %d bytes: %v", room, err)
		}
	}
	wantErr(t, "commit without room", err, syscall.ENOSPC)
	wantErr(t, "ready", waitReady(j), syscall.ENOSPC)
	m.SetCapacity(0)
	must(t, j.Commit(ctx, last))
	must(t, j.Close())
	if _, got := openAt(t, o); got != last {
		t.Errorf("replayed up to %d, want %d", got, last)
	}
}

// waitReady returns the result of Ready after the running attempt.
func waitReady(j *Journal) error {
	_ = j.Ready()
	j.acquire()
	if j.preparing != nil {
		j.addSpare(<-j.preparing)
	}
	j.release()
	return j.Ready()
}
