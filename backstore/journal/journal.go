// Package journal is one sequential log with group commit. It makes changes
// durable before they reach the places they belong to: Append takes a record
// into memory, Commit returns when it is on the disk, and many Commits share
// one fdatasync. After a crash Open hands the records back, in order.
//
// The log is a sequence of files. They are filled with zeros before they are
// used, and used again when their records are no longer needed, so that a
// commit writes into space that the file system has assigned already and its
// fdatasync has no metadata to write.
//
// What the order of operations promises, and Open relies on:
//   - A record is appended after what it points at was given to the kernel, and
//     counts as durable when BeforeSync has made that durable and then the file
//     was synced. The kernel may write it to the disk earlier. So each record
//     has a mark: up to which LSN records were durable when it was written.
//     What is missing up to the highest mark that is found is damage. Behind it
//     is the tail, which ends at the first record that is missing, or points at
//     something that is: what a power cut kept after that does not count.
//   - A file gets its header, durable, only when all records before it are
//     durable in the files before it; then the file before it is sealed, and
//     only then records are written to the new one. So a file that ends before
//     the next one begins is damaged, a sealed file that is the last one has
//     lost those after it, and only the last file can have a tail.
//   - There is always a file that begins at First or before. First grows only
//     when the records before it are durable here.
//   - After a tail, or a write or fdatasync that failed, nothing is added to the
//     file; the records that were not durable are written again to a new file.
//     Where two files hold the same records, the newer one counts.
//   - The CRC of a record covers its number and its file's, which is never
//     used twice: no byte that an earlier use of the file left is ever valid.
package journal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"odx/backstore/vfs"
)

// LSN is the number of a record. The first record of a journal is 1; numbers
// are consecutive. 0 stands for no record.
type LSN uint64

var (
	// ErrClosed: the journal was closed.
	ErrClosed = errors.New("journal is closed")
	// ErrTooLarge: a reservation is larger than MaxUnsynced.
	ErrTooLarge = errors.New("journal record too large")
	// ErrCorrupt: durable records are missing or damaged.
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
	Dir     string   // folder of the journal, created if missing
	StoreID [16]byte // files of another store are refused
	// FileBytes is the size that journal files grow to, each twice as long as
	// the one before; 0 means DefaultFileBytes.
	FileBytes int64
	// MaxUnsynced bounds, in bytes of payload, the records held in memory
	// because they are not durable yet, and so the length of one record;
	// 0 means DefaultMaxUnsynced.
	MaxUnsynced int
	// First is where replay starts; records below are not needed, and files
	// that hold nothing else are removed. 0 means 1.
	First LSN
	// BeforeWrite is called before records are given to the kernel, and gives it
	// what they point at. It must not call the journal. May be nil.
	BeforeWrite func() error
	// BeforeSync is called before records are synced, and when Open has replayed
	// them, and makes durable what they point at. It must not call the journal.
	// May be nil.
	BeforeSync func() error
	// Left is called with a file that holds nothing that is needed and cannot be
	// removed, or used again: it is left alone. It must not call the journal. May be
	// nil.
	Left func(name string, err error)
	// Legacy: the journal may have been made by a program that knew version 1
	// only, of which no file needs to be there.
	Legacy bool

	blind bool // see scanner
}

// Journal is an open journal. All methods may be called side by side.
//
// A token, the one element that the channel io holds, gives the right to write;
// who has it owns disk. The token of syncing, which is taken before it, gives the
// right to sync, to begin files and to give them up: while the disk syncs, its
// holder leaves io to those that write. Appends need only mu, which is never
// held during I/O.
type Journal struct {
	o Options
	// inherited makes durable what was replayed; nil when it is. It belongs to
	// the holder of the token of syncing.
	inherited func() error
	replayed  LSN // the last record that was
	syncing   chan struct{}
	io        chan struct{}
	disk

	durable  atomic.Uint64 // LSN up to which records are durable
	inKernel atomic.Uint64 // LSN up to which the kernel has them
	oldest   atomic.Int64  // cursor.encoded where the oldest kept file begins
	room     atomic.Int64  // bytes of records that have blocks

	turn chan struct{} // held by the one Reserve that waits for room

	mu       sync.Mutex // guards what follows
	closed   bool
	queue    queue
	reserved int           // bytes
	waiting  int           // number of Reserves that wait
	hasRoom  chan struct{} // closed when there is room in memory; nil: no caller waits
	round    *round        // what Commits wait for; nil: none waits
	splits   []LSN         // records that begin a file, by Rotate
	wakeAt   int64         // cursor.encoded at which the background wakes

	wake chan struct{} // wakes the background goroutine
	stop chan struct{} // closed by Close
	done chan struct{} // closed when the background goroutine ended
}

// round is one group commit to come; it covers all that was appended before
// it began.
type round struct {
	done chan struct{}
	err  error // valid when done is closed
}

// Reserve waits until n payload bytes fit into the memory that MaxUnsynced
// bounds; the caller must then Append or Unreserve them. It is called before
// taking any lock that Appends are made under. When room could be made only by
// a commit and that fails, Reserve returns its error. ErrTooLarge when n can
// never fit.
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

	// First come, first served: a large reservation must not starve.
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
				return fmt.Errorf("make room in the journal: %w", err)
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

// Unreserve gives back a reservation, or a part of it, that was not used.
func (j *Journal) Unreserve(n int) {
	j.mu.Lock()
	j.reserved = max(0, j.reserved-n)
	j.tellRoom()
	j.mu.Unlock()
}

// tellRoom wakes who waits for room. mu is held.
func (j *Journal) tellRoom() {
	if j.hasRoom != nil {
		close(j.hasRoom)
		j.hasRoom = nil
	}
}

// Append takes head and data, one after the other, as one record and returns
// its number; both are copied. It never waits for the disk. It uses up
// len(head)+len(data) bytes of a reservation. After Close it does nothing and
// returns 0.
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
		default: // it is awake
		}
	}
	return end.lsn
}

// step is after how many bytes the background looks for work.
func (j *Journal) step() int64 { return int64(min(1<<20, j.o.MaxUnsynced/4)) }

// Commit returns nil when all records up to upTo are durable. Commits that
// come while one is at work share the next write and fdatasync. After an error
// of the disk nothing is known about the records that were not durable, except
// that the next Commit writes them again, to a new file; so service goes on
// when the fault has ended.
func (j *Journal) Commit(ctx context.Context, upTo LSN) error {
	upTo = min(upTo, j.Last())
	for j.Durable() < upTo {
		select {
		case j.syncing <- struct{}{}: // alone: no hand-over to another goroutine
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

// join returns the next round. It begins after this, and so covers all that
// was appended.
func (j *Journal) join() *round {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.round == nil {
		j.round = &round{done: make(chan struct{})}
	}
	return j.round
}

// lead commits everything for all who wait, unless it was done already up to
// upTo. The caller has the token of syncing, which lead gives back.
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

// Write returns nil when the kernel has all records up to upTo: they outlive
// this process, but not a power cut. It waits for no sync, but where a new file
// begins. After an error of the disk the next Write or Commit tries again.
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

// acquire takes both tokens.
func (j *Journal) acquire() {
	j.syncing <- struct{}{}
	j.io <- struct{}{}
}

func (j *Journal) release() {
	<-j.io
	<-j.syncing
}

// background writes out what piles up between commits, and commits it when it
// takes up half of the memory. An error is for the next Commit to meet.
func (j *Journal) background() {
	defer close(j.done)
	_ = j.Commit(context.Background(), j.replayed)
	for {
		select {
		case <-j.stop:
			return
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

// Last is the number of the record appended last, 0 if there was none ever.
func (j *Journal) Last() LSN {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.queue.end.lsn
}

// Durable is the number up to which records are durable.
func (j *Journal) Durable() LSN { return LSN(j.durable.Load()) }

// Written is the number up to which the kernel has the records.
func (j *Journal) Written() LSN { return LSN(j.inKernel.Load()) }

// Bytes is the length of the records appended since the oldest kept file
// began, as they are on the disk.
func (j *Journal) Bytes() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.queue.end.encoded - j.oldest.Load()
}

// Rotate makes later records go to a new file and returns the number that the
// first of them will get: what Truncate can be called with when the records
// before it are no longer needed.
func (j *Journal) Rotate() (LSN, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return 0, ErrClosed
	}
	next := j.queue.end.lsn + 1
	if n := len(j.splits); n == 0 || j.splits[n-1] != next {
		j.splits = append(j.splits, next)
	}
	return next, nil
}

// Truncate gives up files that hold only records below the given one: a few
// are kept to be used again, the others are removed. The caller has made durable
// that the next Open gets a First of at least below, and has committed the
// records before it.
func (j *Journal) Truncate(below LSN) error {
	j.acquire()
	defer j.release()
	if j.finished {
		return ErrClosed
	}
	return j.truncate(below)
}

// Close commits what is appended and closes the files. When that fails it
// returns the error, and the journal is closed all the same.
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
