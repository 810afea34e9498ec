// Package journal implements a write-ahead log with group commit. Append adds a record
// in memory, Commit returns when it is durable, and concurrent Commits share one
// fdatasync. After a crash Open replays the records in order.
//
// The log is a sequence of files. They are filled with zeros before use, and reused
// when their records are no longer needed, so that a commit overwrites allocated blocks
// and its fdatasync writes no metadata.
//
// The order of operations guarantees the following, on which Open relies:
//   - A record is appended after the data it refers to was written to the kernel, and
//     counts as durable when BeforeSync has made that data durable and then the file
//     was synced. The kernel may write it to the disk earlier. So each record has a
//     mark: the LSN up to which records were durable when it was written. A record
//     missing up to the highest mark found is damage. After it is the tail, which
//     ends at the first record that is missing, or whose data is: records that a
//     power cut kept after that are ignored.
//   - A file gets its header, durable, only when all records before it are
//     durable in the files before it; then the file before it is sealed, and
//     only then records are written to the new one. So a file that ends before
//     the next one begins is damaged, after a sealed last file files are lost,
//     and only the last file can have a tail.
//   - A file that begins at First or before always exists. First increases only
//     when the records before it are durable here.
//   - After a tail, or a write or fdatasync that failed, nothing is added to the
//     file; the records that were not durable are rewritten to a new file. If two
//     files have the same records, the newer one takes precedence.
//   - The CRC of a record covers its number and its file's, which is not reused: no
//     byte of an earlier use of the file is valid.
package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"odx/backstore/vfs"
	"odx/latency"
)

// LSN is the number of a record. The first record of a journal is 1; numbers are
// consecutive. 0 is no record.
type LSN uint64

var (
	// ErrClosed reports that the journal is closed.
	ErrClosed = errors.New("journal is closed")
	// ErrTooLarge reports a reservation larger than MaxUnsynced.
	ErrTooLarge = errors.New("journal record too large")
	// ErrCorrupt reports missing or damaged durable records.
	ErrCorrupt = errors.New("journal is corrupt")
)

// Defaults of Options.
const (
	DefaultFileBytes   = 64 << 20
	DefaultMaxUnsynced = 16 << 20
)

// Options of Open.
type Options struct {
	FS      vfs.FS
	Dir     string   // directory of the journal, created if missing
	StoreID [16]byte // files of another store are errors
	// FileBytes is the size that journal files grow to, each twice as long as
	// the one before; 0 means DefaultFileBytes.
	FileBytes int64
	// MaxUnsynced bounds, in bytes of payload, the records in memory that are not
	// durable, and so the length of a record; 0 means DefaultMaxUnsynced.
	MaxUnsynced int
	// First is the first record to replay. Earlier records are not needed, and files
	// with only such records are removed. 0 means 1.
	First LSN
	// BeforeWrite is called before records are written to the kernel, and writes the
	// data that they refer to. It must not call the journal. May be nil.
	BeforeWrite func() error
	// BeforeSync is called before records are synced, and after Open has replayed them.
	// It makes the data that they refer to durable. It must not call the journal. May
	// be nil.
	BeforeSync func() error
	// Sparse: the file system assigns no blocks to files, so that zeros in spare files keep no
	// room for records: they get their length alone.
	Sparse bool
	// NoteAfter is how long after a sync a note says that it has ended, unless more records do so
	// before: the note is a write of its own, which the next one may have to wait for. 0: at once.
	NoteAfter time.Duration
	// Left is called with a file without needed records that cannot be removed or
	// reused. It must not call the journal. May be nil.
	Left func(name string, err error)
	// Legacy allows a journal of a program that only supported version 1, which may
	// have no files.
	Legacy bool

	blind bool // see scanner
}

// Journal is an open journal. It is safe for concurrent use.
//
// The channels io and syncing are semaphores with one slot. io guards disk and is held
// to write. syncing, acquired before io, is held to sync, create and discard files; its
// holder releases io during a sync, so that others can write. Appends need only mu,
// which is never held during I/O.
type Journal struct {
	o Options
	// inherited makes the replayed records durable, or is nil if they are. Guarded by
	// syncing.
	inherited func() error
	replayed  LSN // the last replayed record
	torn      LSN // see Torn
	syncing   chan struct{}
	io        chan struct{}
	disk

	durable  atomic.Uint64 // LSN up to which records are durable
	inKernel atomic.Uint64 // LSN up to which the kernel has them
	oldest   atomic.Int64  // cursor.encoded where the oldest kept file begins
	room     atomic.Int64  // bytes of records that fit into allocated blocks

	syncs        latency.Histogram // see Syncs
	syncFailures atomic.Uint64
	syncBegan    atomic.Int64 // of the running sync, in Unix nanoseconds; 0: none runs

	turn chan struct{} // semaphore, held by the Reserve that waits for room

	mu       sync.Mutex // guards the fields below
	closed   bool
	queue    queue
	reserved int           // bytes
	waiting  int           // number of Reserves that wait
	hasRoom  chan struct{} // closed when memory is free; nil if no caller waits
	round    *round        // the round that Commits wait for; nil if none waits
	split    LSN           // the record that begins a file, by the last Rotate
	wakeAt   int64         // cursor.encoded at which the background wakes

	wake chan struct{} // wakes the background goroutine
	late *time.Timer   // wakes it for a note, see Options.NoteAfter
	stop chan struct{} // closed by Close
	done chan struct{} // closed when the background goroutine ended
}

// round is a pending group commit. It covers all records appended before it starts.
type round struct {
	done chan struct{}
	err  error // valid when done is closed
}

// Reserve waits until n payload bytes fit into MaxUnsynced. The caller must then Append
// or Unreserve them. It must not hold a lock that is held for Appends. If memory can
// only be freed by a commit and that fails, Reserve returns its error. The error is
// ErrTooLarge if n exceeds MaxUnsynced.
func (j *Journal) Reserve(ctx context.Context, n int) error {
	if n > j.o.MaxUnsynced {
		return fmt.Errorf("reserve %d bytes of %d: %w", n, j.o.MaxUnsynced, ErrTooLarge)
	}
	j.mu.Lock()
	if j.waiting == 0 && !j.closed && j.take(n) {
		j.mu.Unlock()
		return nil
	}
	j.waiting++
	j.mu.Unlock()
	defer func() {
		j.mu.Lock()
		j.waiting--
		j.mu.Unlock()
	}()

	// FIFO order prevents starvation of large reservations.
	select {
	case j.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-j.turn }()
	return j.waitForRoom(ctx, n)
}

// take reserves n bytes if they fit. mu is held.
func (j *Journal) take(n int) bool {
	if j.reserved+j.queue.held()+n > j.o.MaxUnsynced {
		return false
	}
	j.reserved += n
	return true
}

func (j *Journal) waitForRoom(ctx context.Context, n int) error {
	for {
		j.mu.Lock()
		if j.closed {
			j.mu.Unlock()
			return ErrClosed
		}
		if j.take(n) {
			j.mu.Unlock()
			return nil
		}
		last := j.queue.end.lsn
		if j.queue.held() > 0 {
			j.mu.Unlock()
			if err := j.Commit(ctx, last); err != nil {
				return fmt.Errorf("free journal memory: %w", err)
			}
			continue
		}
		if j.hasRoom == nil {
			j.hasRoom = make(chan struct{})
		}
		room := j.hasRoom
		j.mu.Unlock()
		select {
		case <-room:
		case <-j.stop:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Unreserve releases an unused reservation, or a part of one.
func (j *Journal) Unreserve(n int) {
	j.mu.Lock()
	j.reserved = max(0, j.reserved-n)
	j.signalRoom()
	j.mu.Unlock()
}

// signalRoom wakes a caller that waits for memory. mu is held.
func (j *Journal) signalRoom() {
	if j.hasRoom != nil {
		close(j.hasRoom)
		j.hasRoom = nil
	}
}

// Append appends head and data as one record and returns its number. It copies both,
// never waits for the disk, and uses len(head)+len(data) bytes of a reservation. After
// Close it does nothing and returns 0.
func (j *Journal) Append(head, data []byte) LSN {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return 0
	}
	j.reserved = max(0, j.reserved-len(head)-len(data))
	end := j.queue.add(head, data)
	wake := end.encoded >= j.wakeAt
	if wake {
		j.wakeAt = end.encoded + j.step()
	}
	j.mu.Unlock()
	if wake {
		select {
		case j.wake <- struct{}{}:
		default: // a wakeup is pending
		}
	}
	return end.lsn
}

// step is the number of appended bytes between wakeups of the background goroutine.
func (j *Journal) step() int64 { return int64(min(1<<20, j.o.MaxUnsynced/4)) }

// Commit returns nil when all records up to upTo are durable. Commits during a running
// one share the next write and fdatasync. After a disk error the state of records that
// were not durable is unknown; the next Commit rewrites them to a new file, so
// operation continues when the fault ends.
func (j *Journal) Commit(ctx context.Context, upTo LSN) error {
	upTo = min(upTo, j.Last())
	for j.Durable() < upTo {
		select {
		case j.syncing <- struct{}{}: // no running commit: no handoff to another goroutine
			if err := j.lead(upTo); err != nil {
				return err
			}
			continue
		default:
		}
		r := j.join()
		select {
		case <-r.done:
			return r.err
		case j.syncing <- struct{}{}:
			if err := j.lead(upTo); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// join returns the next round. It starts later, and so covers all appended records.
func (j *Journal) join() *round {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.round == nil {
		j.round = &round{done: make(chan struct{})}
	}
	return j.round
}

// lead commits all records for all waiting callers, unless records up to upTo are
// durable. The caller holds syncing, which lead releases.
func (j *Journal) lead(upTo LSN) error {
	defer func() { <-j.syncing }()
	if j.Durable() >= upTo {
		return nil
	}
	j.mu.Lock()
	r := j.round
	j.round = nil
	j.mu.Unlock()
	err := j.commit()
	if r != nil {
		r.err = err
		close(r.done)
	}
	return err
}

// Write returns nil when the kernel has all records up to upTo: they survive the end of
// this process, but not a power cut. It does not wait for a sync, except for a new
// file. After a disk error the next Write or Commit retries.
func (j *Journal) Write(ctx context.Context, upTo LSN) error {
	upTo = min(upTo, j.Last())
	for j.Written() < upTo {
		select {
		case j.io <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		err := j.write(upTo)
		<-j.io
		if errors.Is(err, errNewFile) {
			err = j.Commit(ctx, upTo)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// acquire acquires syncing and io.
func (j *Journal) acquire() {
	j.syncing <- struct{}{}
	j.io <- struct{}{}
}

func (j *Journal) release() {
	<-j.io
	<-j.syncing
}

// background writes records between commits, and commits them when they use half of the
// memory. Errors are reported by the next Commit.
func (j *Journal) background() {
	defer close(j.done)
	defer j.late.Stop()
	_ = j.Commit(context.Background(), j.replayed)
	for {
		select {
		case <-j.stop:
			return
		case <-j.late.C:
			j.lateNote()
			continue
		case <-j.wake:
		}
		j.mu.Lock()
		last, held := j.queue.end.lsn, j.queue.held()
		j.wakeAt = j.queue.end.encoded + j.step()
		j.mu.Unlock()
		if held >= j.o.MaxUnsynced/2 {
			_ = j.Commit(context.Background(), last)
		} else {
			_ = j.Write(context.Background(), last)
		}
	}
}

// Last is the number of the last appended record, or 0 if there is none.
func (j *Journal) Last() LSN {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.queue.end.lsn
}

// Durable is the number of the last durable record.
func (j *Journal) Durable() LSN { return LSN(j.durable.Load()) }

// Written is the number of the last record in the kernel.
func (j *Journal) Written() LSN { return LSN(j.inKernel.Load()) }

// Bytes is the length on the disk of the records appended since the first of the oldest
// kept file.
func (j *Journal) Bytes() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.queue.end.encoded - j.oldest.Load()
}

// Syncs returns how long syncs of records have taken, those of the data that the records
// refer to included, and how many syncs failed.
func (j *Journal) Syncs() (took latency.Counts, failed uint64) {
	return j.syncs.Counts(), j.syncFailures.Load()
}

// Syncing returns for how long a sync has been running, 0 if none is.
func (j *Journal) Syncing() time.Duration {
	began := j.syncBegan.Load()
	if began == 0 {
		return 0
	}
	return time.Since(time.Unix(0, began))
}

// Rotate starts a new file for later records and returns the number of its first one,
// for Truncate when the records before it are no longer needed. It replaces an earlier
// Rotate whose file does not exist yet: only the last checkpoint can need it, and on a
// full disk many fail before there is room for a file.
func (j *Journal) Rotate() (LSN, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return 0, ErrClosed
	}
	next := j.queue.end.lsn + 1
	j.split = next
	return next, nil
}

// Truncate discards files that only have records below the given one: a few are kept
// for reuse, the others are removed. The caller must have stored durably that the next
// Open has a First of at least below, and have committed the records before it.
func (j *Journal) Truncate(below LSN) error {
	j.acquire()
	defer j.release()
	if j.finished {
		return ErrClosed
	}
	return j.truncate(below)
}

// Close commits the appended records and closes the files. The journal is closed even
// if that returns an error.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return ErrClosed
	}
	j.closed = true
	last := j.queue.end.lsn
	j.mu.Unlock()
	close(j.stop)
	<-j.done
	err := j.Commit(context.Background(), last)
	j.acquire()
	defer j.release()
	return cmp.Or(err, j.finish())
}
