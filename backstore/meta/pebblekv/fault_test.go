package pebblekv

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"odx/backstore/meta"
	"odx/backstore/vfs"
	"odx/internal/kit/must"
)

// everyFault says that TestDB_EachFault lets one of so many operations fail.
var everyFault = flag.Int64("everyfault", 7, "of how many operations of the file system TestDB_EachFault lets one fail first")

// inTime bounds the work of one fault, on a busy machine: what hangs has not ended by then.
const inTime = time.Minute

// faulty is a series of checkpoints over a file system that fails in the middle of it.
type faulty struct {
	t     *testing.T
	disk  *vfs.Mem
	fault error
	count atomic.Int64 // operations

	tried  atomic.Int64 // the number that the last checkpoint gave to all rows
	stored atomic.Int64 // the last number that was stored for certain
	failed int          // steps
}

// try does a step, which may fail as the file system does and in no other way.
func (f *faulty) try(what string, err error) bool {
	if err != nil && !errors.Is(err, f.fault) {
		f.t.Errorf("%s: an error that is not the file system's: %v", what, err)
	}
	if err != nil {
		f.failed++
	}
	return err == nil
}

func (f *faulty) store(d *db) {
	number := f.tried.Add(1)
	value := strconv.AppendInt(nil, number, 10)
	err := d.Store(0, func(put func(meta.Op) error) error {
		for k := range 30 {
			if err := put(meta.Op{Key: fmt.Appendf(nil, "row %02d", k), Value: value}); err != nil {
				return err
			}
		}
		return nil
	})
	if f.try("store", err) {
		f.stored.Store(number)
	}
}

// look compares the rows with what was stored. After a failure a later checkpoint may be there.
func (f *faulty) look(d *db) {
	f.t.Helper()
	number := ""
	err := d.Scan(nil, func(key, value []byte) error {
		if number != "" && number != string(value) {
			return fmt.Errorf("row %q has %s, others have %s", key, value, number)
		}
		number = string(value)
		return nil
	})
	if !f.try("scan", err) {
		return
	}
	stored, tried := f.stored.Load(), f.tried.Load()
	if n, _ := strconv.ParseInt(number, 10, 64); n < stored || n > tried {
		f.t.Errorf("the rows are of checkpoint %q; %d is stored, %d was tried last", number, stored, tried)
	}
}

// work opens, stores, compacts and closes.
func (f *faulty) work() {
	for range 2 {
		d, err := openRows(f.disk, journaled)
		if errors.Is(err, meta.ErrDamaged) && f.stored.Load() == 0 {
			if !f.empty() {
				continue
			}
			d, err = openRows(f.disk, journaled)
		}
		if !f.try("open", err) {
			continue
		}
		for i := range 6 {
			f.store(d)
			if i%3 == 2 {
				f.try("tidy", d.Tidy(f.t.Context()))
			}
			f.look(d)
		}
		f.try("close", d.Close())
	}
}

// empty removes what rows have left that could not be made, and reports whether it could.
func (f *faulty) empty() bool {
	names, err := f.disk.List(dir)
	for _, name := range names {
		err = errors.Join(err, f.disk.Remove(dir+"/"+name))
	}
	return f.try("empty", err)
}

// after is for what was left on a disk after some checkpoints.
func (f *faulty) after(disk *vfs.Mem, stored, tried int64) *faulty {
	a := &faulty{t: f.t, disk: disk, fault: f.fault}
	a.stored.Store(stored)
	a.tried.Store(tried)
	return a
}

// journaled: the journal has what comes after the checkpoint that can be read.
func journaled(meta.Reader) (bool, error) { return true, nil }

// TestDB_EachFault lets each operation of the file system fail in turn, alone, with those that
// follow, or with all that follow: every step ends, with an error of the file system if at all, and
// when the fault is over what was stored is there and the next checkpoint can be stored.
func TestDB_EachFault(t *testing.T) {
	for _, c := range []struct {
		what  string
		fault error
		burst int64
		reads bool // they fail too
	}{
		{"a full disk, once", syscall.ENOSPC, 1, false},
		{"changes, once", syscall.EIO, 1, false},
		{"changes, for a while", syscall.EIO, 9, false},
		{"changes, for ever", syscall.EIO, math.MaxInt32, false},
		{"all, once", syscall.EIO, 1, true},
		{"all, for a while", syscall.EIO, 9, true},
		{"all, for ever", syscall.EIO, math.MaxInt32, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			first, faults, noticed := int64(1), 0, 0
			for {
				operations, failed := eachFault(t, c.fault, first, first+c.burst, c.reads)
				if operations < first {
					break
				}
				first += *everyFault
				if faults++; failed > 0 {
					noticed++
				}
			}
			t.Logf("%d operations, %d faults, %d with steps that failed", first-1, faults, noticed)
			// Of what only removes nothing is noticed.
			if faults < 10 || noticed < faults/2 {
				t.Error("too few faults, or too few that are noticed")
			}
		})
	}
}

// eachFault lets the operations [first, end) fail, counted from 1, and returns how many there
// are, and how many steps failed.
func eachFault(t *testing.T, fault error, first, end int64, reads bool) (operations int64, failed int) {
	f := &faulty{t: t, disk: vfs.NewMem(), fault: fault}
	must.Succeed(t, f.disk.MkdirAll(dir))
	f.disk.SetHook(func(kind vfs.OpKind, _ string) error {
		if !kind.Changes() && !reads {
			return nil
		}
		if n := f.count.Add(1); first <= n && n < end {
			return fault
		}
		return nil
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.work()
	}()
	select {
	case <-done:
	case <-time.After(inTime):
		panic(fmt.Sprintf("fault %d: the work does not end", first)) // with the stacks of all goroutines
	}
	f.disk.SetHook(nil)
	for what, disk := range map[string]*vfs.Mem{"": f.disk, " and a power cut": f.disk.CrashClone(rand.New(rand.NewPCG(uint64(first), 3)))} {
		d, err := openRows(disk, journaled)
		if errors.Is(err, meta.ErrDamaged) && f.stored.Load() == 0 {
			continue // it would be made again
		}
		if err != nil {
			t.Fatalf("fault %d%s: open: %v", first, what, err)
		}
		after := f.after(disk, f.stored.Load(), f.tried.Load())
		after.look(d)
		after.store(d)
		after.look(d)
		must.Succeed(t, d.Close())
		if t.Failed() || after.failed > 0 {
			t.Fatalf("fault %d%s, %d steps failed", first, what, after.failed)
		}
	}
	return f.count.Load(), f.failed
}
