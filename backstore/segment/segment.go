// Package segment stores extents in append-only files, the segments. A Set is all
// segments of a store: Append writes bytes to the end of the current segment and
// returns their address, ReadAt reads them, Remove removes a segment. The package
// treats contents as blocks of 4096 bytes; the caller knows which are in use.
//
// A Set stores segments in Blobs, a small interface. Dir implements it by the files of
// a directory; an object store can implement it, too.
package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// BlockLength is the length of a block in bytes.
const BlockLength = 4096

// Defaults of Options.
const (
	DefaultSegmentBlocks  = 16384
	DefaultMaxOpen        = 256
	DefaultWriteBackBytes = 64 << 20
)

var (
	// ErrClosed reports that the Set is closed.
	ErrClosed = errors.New("segments are closed")
	// ErrCorrupt reports a segment that is too short, or whose header is not that of
	// this segment of this store.
	ErrCorrupt = errors.New("segment is corrupt")
	// ErrBusy reports that a segment is being read.
	ErrBusy = errors.New("segment is being read")
)

// ID is the number of a segment, from 1. It is not reused.
type ID uint32

// Addr is the address of an extent. Block is in blocks of 4096 bytes from the start of
// the segment's file; block 0 is the header.
type Addr struct {
	Segment ID
	Block   uint32
}

func (a Addr) String() string {
	return fmt.Sprintf("segment %08x block %d", uint32(a.Segment), a.Block)
}

// Blob is an open segment file. It is safe for concurrent use.
type Blob interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // makes previous writes durable
	// WriteBack starts writing bytes [off, off+n) to the disk.
	WriteBack(off, n int64) error
	// Allocate allocates disk blocks for bytes [0, n) without changing the size.
	Allocate(n int64) error
	Truncate(size int64) error // bytes
	Size() (int64, error)      // bytes
	Close() error
}

// Blobs stores segment files.
type Blobs interface {
	Create(id ID) (Blob, error) // fs.ErrExist if it exists
	Open(id ID) (Blob, error)   // fs.ErrNotExist if it does not exist
	Remove(id ID) error         // open Blobs remain readable
	List() ([]ID, error)        // ascending
	SyncList() error            // makes creations and removals durable
}

// Reuser is an optional interface of Blobs: the file of a removed blob, with its blocks
// on the disk and in the page cache, becomes another blob.
type Reuser interface {
	Retire(id ID) error                 // removes a blob from List and Open
	Reuse(retired, id ID) (Blob, error) // renames it to a new id, with its content
	Discard(retired ID) error           // deletes it
	GiveUp(retired ID) error            // gives away a blob that nothing reads
	Retired() ([]ID, error)             // ascending
	// Assigned returns for how many bytes, at most limit, a retired blob has blocks: for
	// its length, or up to the first hole for which there are no blocks. The error is
	// that of opening it.
	Assigned(retired ID, limit int64) (int64, error)
	// Prepare creates a retired blob, or uses an existing one, and allocates blocks for
	// the given number of bytes, durably, or for what Assigned returns if there are no
	// more blocks. It returns the number of bytes with blocks.
	Prepare(retired ID, bytes int64) (int64, error)
}

// Options of Open.
type Options struct {
	Blobs   Blobs
	StoreID [16]byte // segments of another store are errors
	// SegmentBlocks is the size of a new segment in blocks, header included;
	// 0 means DefaultSegmentBlocks (64 MiB).
	SegmentBlocks uint32
	// MaxOpen bounds the number of blobs kept open for reading; 0 means DefaultMaxOpen.
	// Blobs being read or written, or not synced, are not included.
	MaxOpen int
	// WriteBackBytes is the number of unsynced bytes at which WriteBack is called in
	// the background; 0 means DefaultWriteBackBytes.
	WriteBackBytes int64
	// WriteBack calls Sync, possibly with other work; nil means Sync.
	WriteBack func() error
	// Next is the first id to use, larger than all used before.
	Next ID
	// Gather is the maximum length in bytes of an Append that may remain in memory
	// until WriteOut, at most 64 KiB; 0 disables this.
	Gather int
	// Reserve is the number of segments that FillReserve keeps for AppendMoved.
	Reserve int
	// Foreign opens aliases; nil: there are none.
	Foreign Foreign
}

// Set is all segments of a store. It is safe for concurrent use.
//
// Lock order: writing, syncing, mu, stage.mu, unsynced.mu, shard.mu. Only syncing is
// held while data is synced, and only writing while gathered data is written. mu is
// held while a segment is created, opened for replay or removed.
type Set struct {
	o     Options
	cache cache

	mu     sync.Mutex // guards the fields below
	closed bool
	ids    map[ID]bool
	// lengths are the known lengths of segments in bytes, without current.
	lengths map[ID]int64
	next    ID
	// current is the segment that is appended to, or nil. The Set has a reference to
	// it.
	current  *handle
	free     uint32 // first block of current not used by an Append
	assigned int64  // bytes of current with blocks when it was started
	moved    bool   // current is of the reserve
	spares   spares

	writing sync.Mutex // held by the running WriteOut
	stage   stage

	syncing  sync.Mutex // held by the running Sync
	unsynced unsynced

	writeBack chan struct{} // wakes the write-back goroutine
	stop      chan struct{} // closed to stop it
	done      chan struct{} // closed when it has ended
}

// Open opens the segments. Existing segments are not appended to, but see Resume; the
// first Append starts a new one.
func Open(o Options) (*Set, error) {
	o.SegmentBlocks = cmp.Or(o.SegmentBlocks, DefaultSegmentBlocks)
	o.MaxOpen = cmp.Or(o.MaxOpen, DefaultMaxOpen)
	o.WriteBackBytes = cmp.Or(o.WriteBackBytes, DefaultWriteBackBytes)
	if o.SegmentBlocks < 2 || o.MaxOpen < 1 {
		return nil, fmt.Errorf("invalid options: segments of %d blocks, %d open", o.SegmentBlocks, o.MaxOpen)
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
		if s.near(id) || s.hasHeader(id) {
			s.next = max(s.next, id+1)
		}
	}
	if err := s.spares.init(o.Blobs, o.bytes()); err != nil {
		return nil, err
	}
	for _, f := range s.spares.files {
		if s.near(f.id) {
			s.next = max(s.next, f.id+1)
		}
	}
	go s.writeBackLoop()
	return s, nil
}

// MaxAppend is the length in bytes of the largest Append.
func (s *Set) MaxAppend() int { return int(s.o.SegmentBlocks-1) * BlockLength }

// Append writes p, of one or more whole blocks and at most MaxAppend bytes, to unused
// blocks and returns their address. Written blocks are not overwritten. The data is
// readable on return, in the kernel after WriteOut, durable after Sync. If Append
// returns an error, which wraps that of the disk, for example syscall.ENOSPC, it has
// appended nothing, and later Appends can succeed.
func (s *Set) Append(p []byte) (Addr, error) {
	if len(p) > 0 && len(p) <= s.o.Gather && len(p)%BlockLength == 0 {
		if a, ok := s.tryStage(p); ok {
			return a, nil
		}
	}
	a, err := s.append(p, s.claim)
	for full(err) && s.useSpare(int64(len(p))) {
		a, err = s.append(p, s.claim)
	}
	return a, err
}

// append is Append to blocks returned by claim.
func (s *Set) append(p []byte, claim func(n uint32) (*handle, uint32, error)) (Addr, error) {
	if len(p) == 0 || len(p)%BlockLength != 0 || len(p) > s.MaxAppend() {
		return Addr{}, fmt.Errorf("append of %d bytes to a segment of %d blocks", len(p), s.o.SegmentBlocks)
	}
	n := uint32(len(p) / BlockLength)
	h, block, err := claim(n)
	if err != nil {
		return Addr{}, fmt.Errorf("append to segments: %w", err)
	}
	defer h.release()
	if _, err := h.blob.WriteAt(p, int64(block)*BlockLength); err != nil {
		s.unclaim(h, block, n)
		return Addr{}, fmt.Errorf("append to segment %08x: %w", uint32(h.id), err)
	}
	s.note(h, span{block, block + n})
	return Addr{h.id, block}, nil
}

// claim takes n blocks of the current segment, or of a new one. The caller must release
// the handle.
func (s *Set) claim(n uint32) (*handle, uint32, error) {
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
		return nil, 0, fmt.Errorf("the last free segment is reserved for cleaning: %w", syscall.ENOSPC)
	}
	h, block := s.take(n)
	return h, block, nil
}

// fits reports whether n blocks fit into the current segment. mu is held.
func (s *Set) fits(n uint32) bool { return s.current != nil && n <= s.limit()-s.free }

// limit is the length of the full current segment in blocks. mu is held.
func (s *Set) limit() uint32 {
	if s.moved {
		return uint32(s.assigned / BlockLength)
	}
	return s.o.SegmentBlocks
}

// take takes n free blocks of the current segment. mu is held.
func (s *Set) take(n uint32) (*handle, uint32) {
	block := s.free
	s.free += n
	s.current.refs.Add(1)
	return s.current, block
}

// unclaim returns blocks whose write failed, if they are the last ones, so that a full
// disk does not use up segments.
func (s *Set) unclaim(h *handle, block, n uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == h && s.free == block+n {
		s.free = block
	}
}

// start makes a new segment, in a blob returned by newBlob, the current one. mu is
// held.
func (s *Set) start(newBlob func(ID) (Blob, error)) error {
	for s.named(s.next) {
		s.next++
	}
	if s.next >= firstReserveID {
		return errors.New("segment numbers exhausted")
	}
	h, err := s.create(s.next, newBlob)
	if err != nil {
		return err
	}
	s.retire()
	s.current, s.free, s.assigned, s.moved = h, 1, s.spares.reused, false
	return nil
}

// Seal ends appending to the current segment. The next Append starts a new one.
func (s *Set) Seal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seal()
}

// SealToClean is Seal for a segment with so many live blocks, whose dead ones are to be
// freed. It returns false, and does nothing, if what is left of the segment is needed to
// move live data to: files of the reserve are missing, and those that there are have no
// room for the live blocks.
func (s *Set) SealToClean(live int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	room := int64(s.o.Reserve)*int64(s.MaxAppend()) - s.missing()
	if s.needed() && room < live*BlockLength {
		return false
	}
	s.seal()
	return true
}

// needed reports whether the rest of the current segment replaces files of the reserve
// that are missing. mu is held.
func (s *Set) needed() bool { return s.current != nil && s.moved && !s.reserveFull() }

// seal is retire for a segment with free space: it returns the space to the file
// system, unless the reserve needs it. mu is held.
func (s *Set) seal() {
	// After an error the blocks remain until the segment is removed.
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
		// So that the size is the allocated length, also after a restart.
		_ = s.current.blob.Truncate(bytes)
	}
	s.current.release()
	s.current = nil
}

// create creates a segment with its header, and returns a reference to it. mu is held.
// The number is used even after an error: the file may exist after a power cut.
func (s *Set) create(id ID, newBlob func(ID) (Blob, error)) (*handle, error) {
	s.next = max(s.next, id+1)
	blob, err := newBlob(id)
	if err != nil {
		return nil, fmt.Errorf("create segment %08x: %w", uint32(id), err)
	}
	if err := writeHeader(blob, s.o.StoreID, id); err != nil {
		err = fmt.Errorf("create segment %08x: %w", uint32(id), err)
		return nil, errors.Join(err, s.undo(id, blob))
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
	if blob, ok, err := s.openForeign(id); ok {
		return blob, err
	}
	blob, err := s.o.Blobs.Open(id)
	if err != nil {
		return nil, fmt.Errorf("open segment %08x: %w", uint32(id), err)
	}
	if err := checkHeader(blob, s.o.StoreID, id); err != nil {
		return nil, errors.Join(err, blob.Close())
	}
	return blob, nil
}

// ReadAt reads len(p) bytes from the start of block a. All must have been appended. The
// error wraps ErrCorrupt if the segment is too short, and fs.ErrNotExist if it does not
// exist.
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

// readFile reads data that is not gathered in memory.
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
		return fmt.Errorf("read at %v: segment too short: %w", a, ErrCorrupt)
	}
	return fmt.Errorf("read at %v: %w", a, err)
}

// Close syncs and closes all segments. Appends must have returned.
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
