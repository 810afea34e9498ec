package segment

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// earlyBlocks of a segment are sent on their way to the disk as soon as they are
// written: a disk that gets a whole segment at once keeps the journal's small
// writes waiting behind it.
const earlyBlocks = 256

// span is a range of blocks, [from, to).
type span struct{ from, to uint32 }

// unsynced lists what was written and may not be durable.
type unsynced struct {
	bytes atomic.Int64
	limit int64        // write back when so much is unsynced
	wake  atomic.Int64 // bytes at which the next write-back starts

	mu       sync.Mutex // guards what follows
	segments map[ID]*written
	created  bool // a segment was created since the last SyncList
}

// written is the unsynced part of one segment; it holds a reference.
type written struct {
	h     *handle
	spans []span
	begun uint32 // blocks before are on their way to the disk
	// doubtful: a Sync failed, after which the kernel may have dropped the
	// pages it could not write and call the next Sync a success.
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

// note lists a write that was done, before its caller hears of it.
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

// forget drops a segment that was removed, and returns what was listed of it.
// The caller releases its handle.
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

// take returns all that is unsynced, by segment, and leaves nothing.
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

// putBack lists again what a Sync took and could not make durable.
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

// Unsynced is the number of bytes written and not yet synced.
func (s *Set) Unsynced() int64 { return s.unsynced.bytes.Load() }

// Sync returns when every Append and WriteAt that returned before is durable:
// data, file and name. Callers that come while a Sync is at work share the
// next one; it costs nothing when nothing is unsynced. After an error all that
// could not be synced is still unsynced, and the next Sync writes it again.
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
	// Whoever waited here finds that the one before took its writes along.
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
			failed = append(failed, fmt.Errorf("sync list of segments: %w", err))
		}
	}
	if len(failed) == 0 {
		s.unsynced.wake.Store(s.unsynced.limit)
		return nil
	}
	// The background tries again only when as much again has come, and appends
	// have better chances in a new segment.
	s.unsynced.wake.Store(s.unsynced.limit + s.Unsynced())
	s.mu.Lock()
	s.seal()
	s.mu.Unlock()
	return errors.Join(failed...)
}

// sync makes the segment durable.
func (w *written) sync() error {
	if w.doubtful {
		if err := w.rewrite(); err != nil {
			return fmt.Errorf("write segment %08x again: %w", uint32(w.h.id), err)
		}
	}
	if err := w.h.blob.Sync(); err != nil {
		return fmt.Errorf("sync segment %08x: %w", uint32(w.h.id), err)
	}
	return nil
}

// rewrite makes the pages dirty again that a failed Sync may have left clean.
// They are still in the page cache, unless memory was short; then the CRC of
// the extent tells its reader.
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
	default: // it is awake, or about to be
	}
}

// writeBackLoop sends what is written on its way to the disk, and writes back in the
// background what piles up, so that a flush never has gigabytes to wait for. An
// error is for the next Sync to find.
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

// earlySpan is a part of a segment that is to be sent on its way; it holds a
// reference.
type earlySpan struct {
	h *handle
	span
}

// takeEarly returns what has piled up since it was called last.
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
