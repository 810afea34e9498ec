// Package segment keeps extents in append-only files, the segments. A Set is
// all segments of one store: Append puts bytes at the end of the current
// segment and says where they lie, ReadAt finds them there again, Remove gives
// a whole segment back. What a segment holds, and who still needs it, is known
// elsewhere; here it is blocks of 4096 bytes.
//
// Behind a Set is the small interface Blobs, with a folder of files as its
// implementation; an object store can come behind it.
package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math"
	"slices"
	"sync"
	"syscall"
)

// BlockLength is the unit of a segment in bytes.
const BlockLength = 4096

// Defaults of Options.
const (
	DefaultSegmentBlocks  = 16384
	DefaultMaxOpen        = 256
	DefaultWriteBackBytes = 64 << 20
)

var (
	// ErrClosed: the Set was closed.
	ErrClosed = errors.New("segments are closed")
	// ErrCorrupt: a segment is shorter than it must be, or its header is not
	// that of this segment of this store.
	ErrCorrupt = errors.New("segment is corrupt")
	// ErrBusy: a segment is being read.
	ErrBusy = errors.New("segment is being read")
)

// ID is the number of a segment, from 1; never used twice.
type ID uint32

// Addr is the place of an extent: Block counts blocks of 4096 bytes from the
// start of the segment's file, where block 0 is the header.
type Addr struct {
	Segment ID
	Block   uint32
}

func (a Addr) String() string {
	return fmt.Sprintf("segment %08x block %d", uint32(a.Segment), a.Block)
}

// Blob is one open segment file. Its methods may be called side by side.
type Blob interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // the data written before is durable
	// WriteBack begins to write bytes [off, off+n) to the disk.
	WriteBack(off, n int64) error
	// Allocate assigns blocks of the disk to bytes [0, n) and keeps the size.
	Allocate(n int64) error
	Truncate(size int64) error // bytes
	Size() (int64, error)      // bytes
	Close() error
}

// Blobs is where segment files live.
type Blobs interface {
	Create(id ID) (Blob, error) // fs.ErrExist when it is there
	Open(id ID) (Blob, error)   // fs.ErrNotExist when it is not
	Remove(id ID) error         // open Blobs stay readable
	List() ([]ID, error)        // ascending
	SyncList() error            // creations and removals are durable
}

// Reuser is what Blobs can offer beside: a blob that nobody needs any more keeps
// its place on the disk and in the page cache, and becomes another one.
type Reuser interface {
	Retire(id ID) error                 // takes a blob out of List and Open
	Reuse(retired, id ID) (Blob, error) // gives it a new id, its content as it was
	Discard(retired ID) error           // deletes it
	GiveUp(retired ID) error            // has no more use for it; nothing reads it
	Retired() ([]ID, error)             // ascending
	Usable(retired ID) bool             // it can be opened
	// Prepare makes a retired blob, or takes one that is there, and makes sure that
	// it has blocks for so many bytes, durably, or else, where there are none, for as
	// many as it is long. It returns for how many.
	Prepare(retired ID, bytes int64) (int64, error)
}

// Options of Open.
type Options struct {
	Blobs   Blobs
	StoreID [16]byte // segments of another store are refused
	// SegmentBlocks is the size of a new segment in blocks, header included;
	// 0 means DefaultSegmentBlocks (64 MiB).
	SegmentBlocks uint32
	// MaxOpen bounds the number of blobs that are kept open for reading;
	// 0 means DefaultMaxOpen. Those that are being read or written, or are not
	// synced, come on top.
	MaxOpen int
	// WriteBackBytes is how much may be unsynced before WriteBack is called in
	// the background; 0 means DefaultWriteBackBytes.
	WriteBackBytes int64
	// WriteBack calls Sync, as part of more that becomes durable with it; nil
	// means Sync.
	WriteBack func() error
	// Next is the first id to use: larger than any ever used.
	Next ID
	// Gather is the length in bytes of the longest piece that Append may leave in
	// memory until WriteOut, at most 64 KiB; 0: none.
	Gather int
	// Reserve is how many segments FillReserve keeps for AppendMoved.
	Reserve int
}

// Set is all segments of a store. All methods may be called side by side.
//
// Lock order: writing, syncing, mu, stage.mu, unsynced.mu, shard.mu. Only syncing
// is held while data is synced, and only writing while what was gathered is
// written; mu is held while a segment is created, opened for replay or removed.
type Set struct {
	o     Options
	cache cache

	mu     sync.Mutex // guards what follows
	closed bool
	ids    map[ID]bool
	// lengths are those in bytes of the segments that are known, without current.
	lengths map[ID]int64
	next    ID
	// current is the segment that is appended to, nil for none. The Set holds
	// a reference to it.
	current  *handle
	free     uint32 // first block of current that is not given to an Append
	assigned int64  // bytes that current had blocks for from the start
	moved    bool   // current came out of the reserve
	spares   spares

	writing sync.Mutex // held by the one WriteOut at work
	stage   stage

	syncing  sync.Mutex // held by the one Sync at work
	unsynced unsynced

	writeBack chan struct{} // wakes the write-back goroutine
	stop      chan struct{} // closed to end it
	done      chan struct{} // closed when it has ended
}

// Open opens the segments. Those that exist are never appended to; the first
// Append starts a new one.
func Open(o Options) (*Set, error) {
	o.SegmentBlocks = cmp.Or(o.SegmentBlocks, DefaultSegmentBlocks)
	o.MaxOpen = cmp.Or(o.MaxOpen, DefaultMaxOpen)
	o.WriteBackBytes = cmp.Or(o.WriteBackBytes, DefaultWriteBackBytes)
	if o.SegmentBlocks < 2 || o.MaxOpen < 1 {
		return nil, fmt.Errorf("segments of %d blocks, %d open: too few", o.SegmentBlocks, o.MaxOpen)
	}
	ids, err := o.Blobs.List()
	if err != nil {
		return nil, fmt.Errorf("list segments: %w", err)
	}
	s := &Set{
		o:         o,
		ids:       map[ID]bool{},
		lengths:   map[ID]int64{},
		next:      max(o.Next, 1),
		writeBack: make(chan struct{}, 1),
		stop:      make(chan struct{}),
		done:      make(chan struct{}),
	}
	if s.o.WriteBack == nil {
		s.o.WriteBack = s.sync
	}
	s.cache.init(s.openBlob, o.MaxOpen)
	s.unsynced.init(o.WriteBackBytes)
	for _, id := range ids {
		s.ids[id] = true
		s.next = max(s.next, id+1)
	}
	if err := s.spares.init(o.Blobs, o.bytes()); err != nil {
		return nil, err
	}
	for _, f := range s.spares.files {
		if f.id < firstReserveID {
			s.next = max(s.next, f.id+1)
		}
	}
	go s.writeBackLoop()
	return s, nil
}

// MaxAppend is the length in bytes of the largest Append.
func (s *Set) MaxAppend() int { return int(s.o.SegmentBlocks-1) * BlockLength }

// Append writes p, of one or more whole blocks and at most MaxAppend bytes, to
// where nothing was, and returns where it lies. Nothing that Append returned is
// ever overwritten. The bytes are readable on return, in the kernel after
// WriteOut, durable after Sync. After an error (which wraps that of the disk, as
// syscall.ENOSPC) nothing was appended, and later Appends work if the cause has
// gone.
func (s *Set) Append(p []byte) (Addr, error) {
	if len(p) > 0 && len(p) <= s.o.Gather && len(p)%BlockLength == 0 {
		if a, ok := s.tryStage(p); ok {
			return a, nil
		}
	}
	a, err := s.append(p, s.reserve)
	for full(err) && s.useSpare(int64(len(p))) {
		a, err = s.append(p, s.reserve)
	}
	return a, err
}

// append is Append to blocks that reserve gives.
func (s *Set) append(p []byte, reserve func(n uint32) (*handle, uint32, error)) (Addr, error) {
	if len(p) == 0 || len(p)%BlockLength != 0 || len(p) > s.MaxAppend() {
		return Addr{}, fmt.Errorf("append of %d bytes to a segment of %d blocks", len(p), s.o.SegmentBlocks)
	}
	n := uint32(len(p) / BlockLength)
	h, block, err := reserve(n)
	if err != nil {
		return Addr{}, fmt.Errorf("append to segments: %w", err)
	}
	defer h.release()
	if _, err := h.blob.WriteAt(p, int64(block)*BlockLength); err != nil {
		s.unreserve(h, block, n)
		return Addr{}, fmt.Errorf("append to segment %08x: %w", uint32(h.id), err)
	}
	s.note(h, span{block, block + n})
	return Addr{h.id, block}, nil
}

// reserve takes n blocks of the current segment, or of a new one. The caller
// releases the handle.
func (s *Set) reserve(n uint32) (*handle, uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, ErrClosed
	}
	if !s.fits(n) {
		if err := s.start(s.newBlob); err != nil {
			return nil, 0, err
		}
	}
	if s.moved && !s.reserveFull() {
		return nil, 0, fmt.Errorf("the last free segment is for cleaning: %w", syscall.ENOSPC)
	}
	h, block := s.take(n)
	return h, block, nil
}

// fits reports whether n blocks fit into the current segment. mu is held.
func (s *Set) fits(n uint32) bool { return s.current != nil && n <= s.limit()-s.free }

// limit is the length of the current segment when it is full, in blocks. mu is held.
func (s *Set) limit() uint32 {
	if s.moved {
		return uint32(s.assigned / BlockLength)
	}
	return s.o.SegmentBlocks
}

// take takes n blocks of the current segment, which has them. mu is held.
func (s *Set) take(n uint32) (*handle, uint32) {
	block := s.free
	s.free += n
	s.current.refs.Add(1)
	return s.current, block
}

// unreserve takes blocks back whose write failed, if they are the last ones:
// a full disk must not use up segments.
func (s *Set) unreserve(h *handle, block, n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == h && s.free == block+n {
		s.free = block
	}
}

// start makes a new segment the current one, of a blob that newBlob returns. mu is
// held.
func (s *Set) start(newBlob func(ID) (Blob, error)) error {
	if s.next == firstReserveID {
		return errors.New("no segment number is left")
	}
	h, err := s.create(s.next, newBlob)
	if err != nil {
		return err
	}
	s.retire()
	s.current, s.free, s.assigned, s.moved = h, 1, s.spares.reused, false
	return nil
}

// Seal ends appending to the current segment; the next Append starts a new one.
func (s *Set) Seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seal()
}

// seal is retire for a segment that may have much room left: it gives that to the
// file system, unless the reserve needs it. mu is held.
func (s *Set) seal() {
	// Where it fails the blocks stay until the segment is removed.
	if used := int64(s.free) * BlockLength; s.current != nil && s.assigned > used && s.reserveFull() && !s.spares.scarce && s.current.blob.Truncate(used) == nil {
		s.assigned = 0
	}
	s.retire()
}

// retire ends appending to the current segment. mu is held.
func (s *Set) retire() {
	if s.current == nil {
		return
	}
	bytes, _ := s.length(s.current.id)
	s.lengths[s.current.id] = bytes
	if s.assigned == bytes {
		// So that the size says what the file takes, after a restart too.
		_ = s.current.blob.Truncate(bytes)
	}
	s.current.release()
	s.current = nil
}

// create makes a segment and its header, and returns a reference to it. mu is
// held. The number is used up even when it fails: the file may be there after
// a power cut.
func (s *Set) create(id ID, newBlob func(ID) (Blob, error)) (*handle, error) {
	s.next = max(s.next, id+1)
	blob, err := newBlob(id)
	if err != nil {
		return nil, fmt.Errorf("create segment %08x: %w", uint32(id), err)
	}
	if err := writeHeader(blob, s.o.StoreID, id); err != nil {
		err = fmt.Errorf("create segment %08x: %w", uint32(id), err)
		return nil, errors.Join(err, blob.Close(), s.o.Blobs.Remove(id))
	}
	h, err := s.cache.add(id, blob)
	if err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	s.ids[id] = true
	s.unsynced.noteCreated()
	s.note(h, span{0, 1})
	return h, nil
}

// openBlob opens an existing segment for the cache.
func (s *Set) openBlob(id ID) (Blob, error) {
	blob, err := s.o.Blobs.Open(id)
	if err != nil {
		return nil, fmt.Errorf("open segment %08x: %w", uint32(id), err)
	}
	if err := checkHeader(blob, s.o.StoreID, id); err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	return blob, nil
}

// WriteAt puts whole blocks to where they were before a crash, as the replay
// of a journal needs it: it makes the segment anew when it is missing, and is
// durable after Sync.
func (s *Set) WriteAt(a Addr, p []byte) error {
	n := len(p) / BlockLength
	if a.Segment == 0 || a.Block == 0 || n == 0 || len(p)%BlockLength != 0 || n > math.MaxUint32-int(a.Block) {
		return fmt.Errorf("write of %d bytes at %v: no such place", len(p), a)
	}
	h, err := s.restore(a.Segment)
	if err != nil {
		return fmt.Errorf("write at %v: %w", a, err)
	}
	defer h.release()
	if _, err := h.blob.WriteAt(p, int64(a.Block)*BlockLength); err != nil {
		return fmt.Errorf("write at %v: %w", a, err)
	}
	s.note(h, span{a.Block, a.Block + uint32(n)})
	return nil
}

// NoteUnsynced notes that n blocks at a, which were read, may not be durable: they
// are with the next Sync.
func (s *Set) NoteUnsynced(a Addr, n uint32) error {
	h, err := s.cache.acquire(a.Segment)
	if err != nil {
		return fmt.Errorf("note %v: %w", a, err)
	}
	defer h.release()
	// Its name and its header may not be durable either.
	s.unsynced.noteCreated()
	s.note(h, span{0, 1})
	s.note(h, span{a.Block, a.Block + n})
	return nil
}

// restore returns a reference to a segment, and repairs what a power cut took
// of it: its file, or its header.
func (s *Set) restore(id ID) (*handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	delete(s.lengths, id)
	h, err := s.cache.acquire(id)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.create(id, s.newBlob)
	case errors.Is(err, errBlank), errors.Is(err, errStale):
		return s.repair(id)
	}
	return h, err
}

// repair writes the header of a segment that has none, or that of the segment
// that the file was before. mu is held.
func (s *Set) repair(id ID) (*handle, error) {
	blob, err := s.o.Blobs.Open(id)
	if err != nil {
		return nil, err
	}
	if err := writeHeader(blob, s.o.StoreID, id); err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	h, err := s.cache.add(id, blob)
	if err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	s.note(h, span{0, 1})
	return h, nil
}

// ReadAt reads len(p) bytes from the start of block a, of which all must have
// been appended. ErrCorrupt when the segment does not reach that far; the
// error wraps fs.ErrNotExist when there is no such segment.
func (s *Set) ReadAt(a Addr, p []byte) error { return s.ReadAtOffset(a, 0, p) }

// ReadAtOffset reads len(p) bytes, off bytes after the start of block a.
func (s *Set) ReadAtOffset(a Addr, off int, p []byte) error {
	if s.stage.used.Load() == 0 {
		return s.readFile(a, off, p)
	}
	var missing [maxChunks + 1]part
	for _, m := range s.stage.read(a, off, p, missing[:0]) {
		if err := s.readFile(a, off+m.from, p[m.from:m.to]); err != nil {
			return err
		}
	}
	return nil
}

// readFile reads what is not gathered in memory.
func (s *Set) readFile(a Addr, off int, p []byte) error {
	h, err := s.cache.acquire(a.Segment)
	if err != nil {
		return fmt.Errorf("read at %v: %w", a, err)
	}
	defer h.release()
	n, err := h.blob.ReadAt(p, int64(a.Block)*BlockLength+int64(off))
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		return fmt.Errorf("read at %v: the segment ends before: %w", a, ErrCorrupt)
	}
	return fmt.Errorf("read at %v: %w", a, err)
}

// NextID is the id that the next new segment will get: larger than any used.
func (s *Set) NextID() ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// Current is the segment being appended to; false when there is none.
func (s *Set) Current() (ID, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return 0, false
	}
	return s.current.id, true
}

// List returns the ids of all segments, ascending.
func (s *Set) List() []ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.ids))
}

// Close syncs and closes all. Appends must have returned.
func (s *Set) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	s.seal()
	s.mu.Unlock()
	close(s.stop)
	<-s.done
	err := s.sync()
	s.stage.forget(0)
	s.unsynced.drop()
	s.cache.close()
	return err
}
