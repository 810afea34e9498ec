package segment

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// earlyBlocks is the number of written blocks of a segment at which their write-back
// starts: a disk that receives a whole segment at once delays small writes of the
// journal.
const earlyBlocks = 256

// span is a range of blocks, [from, to).
type span struct{ from, to uint32 }

// unsynced lists written data that may not be durable.
type unsynced struct {
	bytes atomic.Int64
	limit int64        // unsynced bytes at which write-back starts
	wake  atomic.Int64 // bytes at which the next write-back starts

	mu       sync.Mutex // guards the fields below
	segments map[ID]*written
	created  bool // a segment was created since the last SyncList
}

// written is the unsynced part of one segment. It has a reference to the handle.
type written struct {
	h     *handle
	spans []span
	begun uint32 // write-back has started for the blocks before
	// doubtful reports that a Sync failed: the kernel may have dropped the pages that
	// it could not write, and the next Sync may succeed without them.
	doubtful bool
}

func (u *unsynced) init(limit int64) {
	u.segments, u.limit = map[ID]*written{}, limit
	u.wake.Store(limit)
}

func (w *written) add(sp span) {
	if n := len(w.spans); n > 0 && w.spans[n-1].to == sp.from {
		w.spans[n-1].to = sp.to
		return
	}
	w.spans = append(w.spans, sp)
}

func (w *written) bytes() (n int64) {
	for _, sp := range w.spans {
		n += int64(sp.to-sp.from) * BlockLength
	}
	return n
}

// note lists a completed write before the call returns.
func (s *Set) note(h *handle, sp span) {
	u := &s.unsynced
	u.mu.Lock()
	w := u.segments[h.id]
	if w == nil {
		h.refs.Add(1)
		w = &written{h: h, begun: sp.from}
		u.segments[h.id] = w
	}
	w.add(sp)
	early := sp.to >= w.begun+earlyBlocks
	bytes := u.bytes.Add(int64(sp.to-sp.from) * BlockLength)
	u.mu.Unlock()
	if early || bytes >= u.wake.Load() {
		s.wakeWriteBack()
	}
}

func (u *unsynced) noteCreated() {
	u.mu.Lock()
	u.created = true
	u.mu.Unlock()
}

// forget removes a removed segment from the list and returns its entry. The caller
// releases the handle.
func (u *unsynced) forget(id ID) *written {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := u.segments[id]
	if w != nil {
		delete(u.segments, id)
		u.bytes.Add(-w.bytes())
	}
	return w
}

func (u *unsynced) has(id ID) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.segments[id] != nil
}

func (u *unsynced) drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, w := range u.segments {
		delete(u.segments, id)
		w.h.release()
	}
}

// take returns and clears the list.
func (u *unsynced) take() (batch []*written, created bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, w := range u.segments {
		batch = append(batch, w)
		delete(u.segments, id)
	}
	created, u.created = u.created, false
	slices.SortFunc(batch, func(a, b *written) int { return cmp.Compare(a.h.id, b.h.id) })
	return batch, created
}

// putBack relists an entry that a Sync took and could not make durable.
func (u *unsynced) putBack(w *written) {
	u.mu.Lock()
	defer u.mu.Unlock()
	w.doubtful = true
	if newer := u.segments[w.h.id]; newer != nil {
		w.spans = append(w.spans, newer.spans...)
		newer.h.release()
	}
	u.segments[w.h.id] = w
}

// Unsynced is the number of bytes written and not synced.
func (s *Set) Unsynced() int64 { return s.unsynced.bytes.Load() }

// Sync makes every Append and WriteAt that returned before the call durable: data, file
// and name. Callers during a running Sync share the next one. Without unsynced data
// Sync has no cost. After an error the data that could not be synced remains unsynced,
// and the next Sync writes it again.
func (s *Set) Sync() error {
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	return s.sync()
}

func (s *Set) sync() error {
	if err := s.WriteOut(); err != nil {
		return err
	}
	// After waiting here, the previous Sync may have included the caller's writes.
	s.syncing.Lock()
	defer s.syncing.Unlock()
	batch, created := s.unsynced.take()
	var failed []error
	for _, w := range batch {
		if err := w.sync(); err != nil {
			s.unsynced.putBack(w)
			failed = append(failed, err)
			continue
		}
		s.unsynced.bytes.Add(-w.bytes())
		w.h.release()
	}
	if created {
		if err := s.o.Blobs.SyncList(); err != nil {
			s.unsynced.noteCreated()
			failed = append(failed, fmt.Errorf("sync segment directory: %w", err))
		}
	}
	if len(failed) == 0 {
		s.unsynced.wake.Store(s.unsynced.limit)
		return nil
	}
	// The background retries only after as many bytes again, and a new segment may
	// avoid the fault.
	s.unsynced.wake.Store(s.unsynced.limit + s.Unsynced())
	s.mu.Lock()
	if !s.needed() {
		s.seal()
	}
	s.mu.Unlock()
	return errors.Join(failed...)
}

// sync makes the segment's unsynced part durable.
func (w *written) sync() error {
	if w.doubtful {
		if err := w.rewrite(); err != nil {
			return fmt.Errorf("rewrite segment %08x: %w", uint32(w.h.id), err)
		}
	}
	if err := w.h.blob.Sync(); err != nil {
		return fmt.Errorf("sync segment %08x: %w", uint32(w.h.id), err)
	}
	return nil
}

// rewrite rewrites the pages that a failed Sync may have left clean, so that they are
// dirty. They are in the page cache unless it was evicted under memory pressure; then
// reads of the extent fail its CRC.
func (w *written) rewrite() error {
	const piece = 256
	b := make([]byte, piece*BlockLength)
	for _, sp := range w.spans {
		for from := sp.from; from < sp.to; from += piece {
			p := b[:int(min(piece, sp.to-from))*BlockLength]
			off := int64(from) * BlockLength
			if _, err := w.h.blob.ReadAt(p, off); err != nil {
				return err
			}
			if _, err := w.h.blob.WriteAt(p, off); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Set) wakeWriteBack() {
	select {
	case s.writeBack <- struct{}{}:
	default: // a wakeup is pending
	}
}

// writeBackLoop starts the write-back of written data and syncs in the background, so
// that a flush never waits for gigabytes. Errors are reported by the next Sync.
func (s *Set) writeBackLoop() {
	defer close(s.done)
	for {
		select {
		case <-s.stop:
			return
		case <-s.writeBack:
		}
		for _, e := range s.unsynced.takeEarly() {
			_ = e.h.blob.WriteBack(int64(e.from)*BlockLength, int64(e.to-e.from)*BlockLength)
			e.h.release()
		}
		if s.Unsynced() >= s.unsynced.wake.Load() {
			_ = s.o.WriteBack()
		}
	}
}

// earlySpan is a part of a segment whose write-back is to start. It has a reference to
// the handle.
type earlySpan struct {
	h *handle
	span
}

// takeEarly returns the spans written since the last call.
func (u *unsynced) takeEarly() (spans []earlySpan) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range u.segments {
		if end := w.spans[len(w.spans)-1].to; end >= w.begun+earlyBlocks {
			w.h.refs.Add(1)
			spans = append(spans, earlySpan{w.h, span{w.begun, end}})
			w.begun = end
		}
	}
	return spans
}
