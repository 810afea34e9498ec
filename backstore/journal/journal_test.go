package journal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	ctx   = context.Background()
	store = [16]byte{1, 2, 3}
)

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func newRand(a, b uint64) *rand.Rand { return rand.New(rand.NewPCG(a, b)) }

// payload is the payload of record n, with unique length and bytes.
func payload(n LSN) []byte {
	rng := newRand(uint64(n), 7)
	p := make([]byte, []int{0, 1, 7, 100, 480, 1000, 3000, 9000}[rng.IntN(8)])
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return p
}

// small returns Options for many files of few records.
func small(m vfs.FS) Options {
	return Options{FS: m, Dir: "/j", StoreID: store, FileBytes: 24 << 10, MaxUnsynced: 64 << 10}
}

// createOpen opens a journal, and creates it if none exists.
func createOpen(o Options, replay func(Record) error) (*Journal, error) {
	if err := Create(o); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return Open(ctx, o, replay)
}

func ignore(Record) error { return nil }

// openAt opens a journal whose records are payload(n), from o.First on, and
// returns the last record replayed.
func openAt(t testing.TB, o Options) (*Journal, LSN) {
	t.Helper()
	next := max(o.First, 1)
	j, err := createOpen(o, func(r Record) error {
		if r.LSN != next {
			t.Errorf("record %d replayed, want %d", r.LSN, next)
		}
		if string(r.Payload) != string(payload(r.LSN)) {
			t.Errorf("record %d: %d bytes of another payload replayed", r.LSN, len(r.Payload))
		}
		next = r.LSN + 1
		return nil
	})
	must.Succeed(t, err)
	t.Cleanup(func() { j.Close() })
	return j, next - 1
}

// add appends record payload(n) for the next n.
func add(t testing.TB, j *Journal) LSN {
	t.Helper()
	p := payload(j.Last() + 1)
	must.Succeed(t, j.Reserve(ctx, len(p)))
	return j.Append(p[:len(p)/3], p[len(p)/3:])
}

func addMany(t testing.TB, j *Journal, n int) (last LSN) {
	t.Helper()
	for range n {
		last = add(t, j)
		if last%7 == 0 {
			must.Succeed(t, j.Commit(ctx, last))
		}
	}
	must.Succeed(t, j.Commit(ctx, last))
	return last
}

func names(t testing.TB, fsys vfs.FS) []string {
	t.Helper()
	l, err := fsys.List("/j")
	must.Succeed(t, err)
	return l
}

func TestJournal_AppendCommitReplay(t *testing.T) {
	m := vfs.NewMem()
	j, last := openAt(t, small(m))
	if last != 0 || j.Last() != 0 || j.Durable() != 0 {
		t.Errorf("a new journal has records up to %d, %d, %d", last, j.Last(), j.Durable())
	}
	for round := range 4 {
		if want := LSN(round*50 + 50); addMany(t, j, 50) != want || j.Durable() != want {
			t.Errorf("last %d, durable %d, want %d", j.Last(), j.Durable(), want)
		}
		must.Succeed(t, j.Close())
		j, last = openAt(t, small(m))
		must.Succeed(t, j.Commit(ctx, last))
		if want := LSN(round*50 + 50); last != want || j.Last() != want || j.Durable() != want {
			t.Errorf("replayed up to %d, last %d, durable %d, want %d", last, j.Last(), j.Durable(), want)
		}
	}
}

func TestJournal_OSFiles(t *testing.T) {
	o := small(vfs.OS())
	o.Dir = filepath.Join(t.TempDir(), "journal")
	for round := range LSN(3) {
		j, last := openAt(t, o)
		if want := round * 30; last != want {
			t.Errorf("replayed up to %d, want %d", last, want)
		}
		addMany(t, j, 30)
		first, err := j.Rotate()
		must.Succeed(t, err)
		if round == 1 {
			must.Succeed(t, j.Truncate(first))
			o.First = first
		}
		must.Succeed(t, j.Close())
	}
}

func TestJournal_CloseCommits(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	add(t, j)
	must.Succeed(t, j.Close())
	if _, last := openAt(t, small(m.CrashClone(newRand(1, 1)))); last != 1 {
		t.Errorf("replayed up to %d", last)
	}
}

func TestJournal_Closed(t *testing.T) {
	j, _ := openAt(t, small(vfs.NewMem()))
	add(t, j)
	must.Succeed(t, j.Close())
	wantErr(t, "reserve", j.Reserve(ctx, 1), ErrClosed)
	if lsn := j.Append(nil, nil); lsn != 0 {
		t.Errorf("record %d was appended", lsn)
	}
	must.Succeed(t, j.Commit(ctx, 1)) // it is durable
	_, err := j.Rotate()
	wantErr(t, "rotate", err, ErrClosed)
	wantErr(t, "truncate", j.Truncate(1), ErrClosed)
	wantErr(t, "close", j.Close(), ErrClosed)
}

func TestJournal_LongRecords(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	o.FileBytes = 8 << 10
	j, _ := openAt(t, o)
	last := addMany(t, j, 40) // up to 9000 bytes each
	must.Succeed(t, j.Close())
	if _, got := openAt(t, o); got != last {
		t.Errorf("replayed up to %d, want %d", got, last)
	}
}

func TestOpen_First(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	addMany(t, j, 60)
	must.Succeed(t, j.Close())
	before := len(j.files)
	o := small(m)
	o.First = 41
	j, last := openAt(t, o)
	if last != 60 {
		t.Errorf("replayed up to %d", last)
	}
	if after := len(j.files); after >= before {
		t.Errorf("%d files before, %d after records were dropped", before, after)
	}
	must.Succeed(t, j.Close())

	// The next records are not in the journal: version 1 lost them before they were
	// durable, and the caller has them from the checkpoint.
	o.First = 100
	_, err := Open(ctx, o, ignore)
	wantErr(t, "open", err, ErrCorrupt)
	o.Legacy = true
	j, last = openAt(t, o)
	if last != 99 || j.Last() != 99 {
		t.Errorf("replayed up to %d, last %d", last, j.Last())
	}
	if lsn := add(t, j); lsn != 100 {
		t.Errorf("appended record %d", lsn)
	}
	must.Succeed(t, j.Close())
	if _, last = openAt(t, o); last != 100 {
		t.Errorf("replayed up to %d", last)
	}
}

func TestJournal_RotateTruncate(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	addMany(t, j, 40)
	all := j.Bytes()
	add(t, j) // not durable yet
	first, err := j.Rotate()
	must.Succeed(t, err)
	if again, err := j.Rotate(); err != nil || again != first || first != 42 {
		t.Errorf("rotated to %d, %d, %v", first, again, err)
	}
	add(t, j)
	must.Succeed(t, j.Commit(ctx, j.Last()))
	must.Succeed(t, j.Truncate(first))
	if got, want := j.Bytes(), recordLength(len(payload(42))); got != want {
		t.Errorf("%d bytes after truncation, want %d, of %d", got, want, all)
	}
	must.Succeed(t, j.Close())
	o := small(m)
	o.First = first
	j, last := openAt(t, o)
	if last != 42 || j.Bytes() != recordLength(len(payload(42))) {
		t.Errorf("replayed up to %d, %d bytes", last, j.Bytes())
	}

	// Without records after the rotation the current file is discarded, too.
	addMany(t, j, 5)
	first, err = j.Rotate()
	must.Succeed(t, err)
	must.Succeed(t, j.Truncate(first))
	if j.Bytes() != 0 {
		t.Errorf("%d bytes", j.Bytes())
	}
	addMany(t, j, 5)
	must.Succeed(t, j.Close())
	o.First = first
	if _, last = openAt(t, o); last != first+4 {
		t.Errorf("replayed up to %d, want %d", last, first+4)
	}
}

// TestJournal_ReusedFiles: records of an earlier use of a file are not replayed.
func TestJournal_ReusedFiles(t *testing.T) {
	m := vfs.NewMem()
	var created atomic.Int64
	j, _ := openAt(t, small(m))
	m.SetHook(func(kind vfs.OpKind, _ string) error {
		if kind == vfs.OpCreate {
			created.Add(1)
		}
		return nil
	})
	first := LSN(1)
	for range 60 {
		addMany(t, j, 10)
		for seed := range uint64(3) {
			o := small(m.CrashClone(newRand(uint64(first), seed)))
			o.First = first
			c, last := openAt(t, o)
			if last != j.Last() {
				t.Fatalf("replayed up to %d, want %d", last, j.Last())
			}
			must.Succeed(t, c.Close())
		}
		var err error
		first, err = j.Rotate()
		must.Succeed(t, err)
		must.Succeed(t, j.Truncate(first))
		if n := len(names(t, m)); n > maxSpares+2 {
			t.Fatalf("%d files: %v", n, names(t, m))
		}
	}
	if n := created.Load(); n > 10 {
		t.Errorf("%d files were created for 60 rotations", n)
	}
}

func TestJournal_ReserveLimit(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	wantErr(t, "reserve", j.Reserve(ctx, 64<<10+1), ErrTooLarge)
	must.Succeed(t, j.Reserve(ctx, 64<<10))
	short, cancel := context.WithCancel(ctx)
	cancel()
	wantErr(t, "reserve of a full memory", j.Reserve(short, 1), context.Canceled)

	// Each freed reservation admits one.
	waits := make(chan error)
	try := func(n int) { go func() { waits <- j.Reserve(ctx, n) }() }
	try(1000)
	j.Unreserve(1000)
	must.Succeed(t, <-waits)
	j.Append(make([]byte, 1000), nil)
	try(1000) // commits the appended records
	must.Succeed(t, <-waits)
	if j.Durable() != 1 {
		t.Error("memory was freed before the record was durable")
	}
	try(1)
	must.Succeed(t, j.Close())
	wantErr(t, "reserve when the journal is closed", <-waits, ErrClosed)
}

func TestJournal_ReserveError(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	must.Succeed(t, j.Reserve(ctx, 60<<10))
	m.SetHook(failing(syscall.ENOSPC, vfs.OpWrite, vfs.OpCreate))
	j.Append(make([]byte, 60<<10), nil)
	wantErr(t, "reserve", j.Reserve(ctx, 60<<10), syscall.ENOSPC)
	m.SetHook(nil)
	must.Succeed(t, j.Reserve(ctx, 60<<10))
}

func TestJournal_Background(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	o.MaxUnsynced = 1 << 20
	o.FileBytes = 4 << 20
	j, _ := openAt(t, o)
	var n int
	for j.Durable() == 0 { // without Commit: half of the memory is used
		must.Succeed(t, j.Reserve(ctx, 4096))
		j.Append(make([]byte, 4096), nil)
		if n++; n > 1<<16 {
			t.Fatal("the background does not commit")
		}
	}
}

func failing(err error, kinds ...vfs.OpKind) vfs.Hook {
	return func(kind vfs.OpKind, _ string) error {
		if slices.Contains(kinds, kind) {
			return err
		}
		return nil
	}
}

// TestJournal_DiskErrors fails one kind of operation for a time, repeatedly: commits
// fail, and succeed after the fault ends, and no record reported durable is lost, even
// if the kernel drops pages that it could not write.
func TestJournal_DiskErrors(t *testing.T) {
	for _, kind := range []vfs.OpKind{vfs.OpWrite, vfs.OpSync, vfs.OpCreate, vfs.OpRename, vfs.OpSyncDir, vfs.OpRemove} {
		for _, recovers := range []int{1, 3} {
			t.Run(fmt.Sprintf("operation %d, %d times", kind, recovers), func(t *testing.T) {
				testErrors(t, kind, recovers)
			})
		}
	}
}

func testErrors(t *testing.T, kind vfs.OpKind, times int) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	var failures atomic.Int64
	cause := error(syscall.EIO)
	if kind == vfs.OpWrite {
		cause = &vfs.ShortWrite{N: 700, Err: syscall.EIO}
	}
	m.SetHook(func(k vfs.OpKind, _ string) error {
		if k == kind && failures.Add(-1) >= 0 {
			return cause
		}
		return nil
	})
	rng := newRand(uint64(kind), uint64(times))
	failed := 0
	first := LSN(1)
	for i := range 80 {
		last := add(t, j)
		if rng.IntN(6) == 0 {
			failures.Store(int64(times))
		}
		err := j.Commit(ctx, last)
		for ; err != nil; err = j.Commit(ctx, last) {
			failed++
			wantErr(t, "commit", err, syscall.EIO)
			if j.Durable() >= last {
				t.Fatal("failed commit reports records as durable")
			}
		}
		if i%20 == 10 {
			first, err = j.Rotate()
			must.Succeed(t, err)
			if err := j.Truncate(first); err != nil {
				wantErr(t, "truncate", err, syscall.EIO)
			}
		}
		o := small(m.CrashClone(newRand(uint64(i), uint64(kind))))
		o.First = first
		c, got := openAt(t, o)
		if got < last {
			t.Fatalf("record %d was durable, last found record is %d", last, got)
		}
		must.Succeed(t, c.Close())
	}
	if kind != vfs.OpRemove && kind != vfs.OpRename && kind != vfs.OpCreate && failed < 5 {
		t.Errorf("only %d commits failed", failed)
	}
	failures.Store(0)
	must.Succeed(t, j.Truncate(first))
	if n := len(names(t, m)); n > 12 {
		t.Errorf("%d files are left: %v", n, names(t, m))
	}
}

func TestJournal_BeforeSync(t *testing.T) {
	m := vfs.NewMem()
	o := small(m)
	var pointed, durable atomic.Int64 // data that records refer to
	var fail atomic.Bool
	o.BeforeSync = func() error {
		if fail.Load() {
			return syscall.EDQUOT
		}
		durable.Store(pointed.Load())
		return nil
	}
	var synced int64 // data durable at the last sync of a file
	m.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpSync && !isSpareName(filepath.Base(name)) {
			synced = durable.Load()
		}
		return nil
	})
	j, _ := openAt(t, o)
	for i := range 20 {
		pointed.Add(1)
		lsn := add(t, j)
		if i == 10 {
			fail.Store(true)
			wantErr(t, "commit", j.Commit(ctx, lsn), syscall.EDQUOT)
			if j.Durable() >= lsn {
				t.Error("record durable without its data")
			}
			fail.Store(false)
		}
		must.Succeed(t, j.Commit(ctx, lsn))
		if synced != pointed.Load() {
			t.Error("record synced before its data was durable")
		}
	}
}

// TestJournal_GroupCommit: Commits during an fdatasync share the next one.
func TestJournal_GroupCommit(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	lsn := add(t, j)
	must.Succeed(t, j.Commit(ctx, lsn)) // the file exists
	const writers = 40
	var syncs atomic.Int64
	var appended, committed sync.WaitGroup
	begun := make(chan struct{})
	appended.Add(writers)
	m.SetHook(func(kind vfs.OpKind, name string) error {
		if kind == vfs.OpSync && !isSpareName(filepath.Base(name)) && syncs.Add(1) == 1 {
			close(begun)
			appended.Wait()
		}
		return nil
	})
	lsn = add(t, j)
	committed.Go(func() { must.Succeed(t, j.Commit(ctx, lsn)) })
	<-begun
	for range writers {
		committed.Go(func() {
			lsn := j.Append([]byte("x"), nil)
			appended.Done()
			must.Succeed(t, j.Commit(ctx, lsn))
			if j.Durable() < lsn {
				t.Errorf("record %d is not durable", lsn)
			}
		})
	}
	committed.Wait()
	if n := syncs.Load(); n != 2 {
		t.Errorf("%d syncs for %d commits, want 2", n, writers+1)
	}
}

func TestJournal_Concurrent(t *testing.T) {
	m := vfs.NewMem()
	const writers, each = 16, 60
	j, _ := openAt(t, small(m))
	var all sync.WaitGroup
	var given [writers*each + 1]atomic.Bool
	for w := range writers {
		all.Go(func() {
			for i := range each {
				data := binary.LittleEndian.AppendUint64(nil, uint64(w*each+i))
				must.Succeed(t, j.Reserve(ctx, 1000))
				lsn := j.Append(data, nil)
				j.Unreserve(1000 - len(data))
				if given[lsn].Swap(true) {
					t.Errorf("record number %d was returned twice", lsn)
				}
				if i%3 == 0 {
					must.Succeed(t, j.Commit(ctx, lsn))
				}
				if w == 0 && i%20 == 7 {
					if _, err := j.Rotate(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	must.Succeed(t, j.Close())
	values := map[uint64]bool{}
	j, err := Open(ctx, small(m), func(r Record) error {
		values[binary.LittleEndian.Uint64(r.Payload)] = true
		return nil
	})
	must.Succeed(t, err)
	must.Succeed(t, j.Close())
	if len(values) != writers*each {
		t.Errorf("%d records replayed, want %d", len(values), writers*each)
	}
}

func TestJournal_CommitCanceled(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	lsn := add(t, j)
	j.acquire() // a blocked commit
	short, cancel := context.WithCancel(ctx)
	result := make(chan error)
	go func() { result <- j.Commit(short, lsn) }()
	cancel()
	wantErr(t, "commit", <-result, context.Canceled)
	j.release()
	must.Succeed(t, j.Commit(ctx, lsn))
	must.Succeed(t, j.Commit(short, lsn)) // it is durable
	must.Succeed(t, j.Commit(ctx, lsn+100))
}

func TestOpen_ReplayError(t *testing.T) {
	m := vfs.NewMem()
	j, _ := openAt(t, small(m))
	addMany(t, j, 10)
	must.Succeed(t, j.Close())
	stop := errors.New("stop")
	_, err := Open(ctx, small(m), func(r Record) error {
		if r.LSN == 5 {
			return stop
		}
		return nil
	})
	wantErr(t, "open", err, stop)
	cancelled, cancel := context.WithCancel(ctx)
	_, err = Open(cancelled, small(m), func(Record) error { cancel(); return nil })
	wantErr(t, "open", err, context.Canceled)
	if _, last := openAt(t, small(m)); last != 10 {
		t.Errorf("replayed up to %d", last)
	}
}
