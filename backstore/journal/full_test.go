package journal

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
	"time"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// fill fills the disk after the journal has its spare files.
func fill(t *testing.T, m *vfs.Mem, j *Journal) {
	t.Helper()
	must.Succeed(t, j.Commit(ctx, add(t, j))) // into a spare file
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		must.Succeed(t, j.Ready())
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
		must.Succeed(t, err)
		must.Succeed(t, j.Truncate(first))
		must.Succeed(t, j.Ready())
		if free, err := m.Free("/"); err != nil || free > 0 {
			t.Fatalf("%d bytes are free for other programs, %v", free, err)
		}
		if last%3 == 0 {
			must.Succeed(t, j.Close())
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
	must.Succeed(t, j.Commit(ctx, last))
	must.Succeed(t, j.Close())
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

// TestJournal_Give: a file of another owner becomes the missing spare file, without its
// bytes, on a disk without a free block; one that is not needed is removed.
func TestJournal_Give(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	o.FileBytes = 64 << 10
	j, _ := openAt(t, o)
	fill(t, m, j)
	m.SetCapacity(0)
	for _, name := range []string{"/given", "/surplus"} {
		f, err := m.Create(name)
		must.Succeed(t, err)
		_, err = f.WriteAt(bytes.Repeat([]byte("a record"), int(o.FileBytes)/8), 0)
		must.Succeed(t, err)
		must.Succeed(t, f.Close())
	}
	if j.Lacks() {
		t.Error("a spare file is missing at first")
	}
	must.Succeed(t, j.Give("/surplus"))
	j.acquire()
	lost := j.spares[len(j.spares)-1]
	j.spares = j.spares[:len(j.spares)-1]
	j.release()
	must.Succeed(t, m.Remove(lost.name))
	m.SetCapacity(m.Used())
	if !j.Lacks() {
		t.Fatal("no spare file is missing")
	}
	must.Succeed(t, j.Give("/given"))
	j.acquire()
	s := <-j.preparing
	j.addSpare(s)
	j.release()
	must.Succeed(t, j.Ready())
	f, err := m.Open(s.name)
	must.Succeed(t, err)
	head := make([]byte, 9)
	if _, err := f.ReadAt(head, 0); err != nil || string(head) != string(make([]byte, 9)) || s.bytes != o.FileBytes {
		t.Errorf("spare file of %d bytes begins with %q, %v", s.bytes, head, err)
	}
	must.Succeed(t, f.Close())
	for _, name := range []string{"/given", "/surplus"} {
		if _, err := m.Open(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

// TestJournal_Give_Close: a file whose owner gave it, and that was not yet a spare when
// the journal was closed, keeps its name and its blocks.
func TestJournal_Give_Close(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	j, _ := openAt(t, o)
	f, err := m.Create("/given")
	must.Succeed(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte("a record"), 1<<10), 0)
	must.Succeed(t, err)
	must.Succeed(t, j.Close())
	if err := j.zero(f, 8<<10); !errors.Is(err, ErrClosed) {
		t.Errorf("zeros for a closed journal: %v, want ErrClosed", err)
	}
	if f, err = m.Open("/given"); err != nil {
		t.Fatalf("the file is gone: %v", err)
	}
	must.Succeed(t, f.Close())
}

// TestJournal_RotateOnFullDisk: checkpoints that fail, each of which has begun with a
// Rotate, do not begin a file each when there is room again.
func TestJournal_RotateOnFullDisk(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	j, _ := openAt(t, o)
	var last LSN
	m.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind == vfs.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	var first LSN
	var err error
	for range 30 {
		last = add(t, j)
		first, err = j.Rotate()
		must.Succeed(t, err)
		wantErr(t, "commit", j.Commit(ctx, last), syscall.ENOSPC)
	}
	last = add(t, j)
	m.SetHook(nil)
	must.Succeed(t, j.Commit(ctx, last))
	if n := len(names(t, m)); n > 2+readySpares+1 {
		t.Errorf("%d files after the checkpoints: %v", n, names(t, m))
	}
	must.Succeed(t, j.Truncate(first))
	if n := j.Bytes(); n != recordLength(len(payload(last))) {
		t.Errorf("%d bytes after truncation", n)
	}
	must.Succeed(t, j.Close())
	o.First = first
	if _, got := openAt(t, o); got != last {
		t.Errorf("replayed up to %d, want %d", got, last)
	}
}
