package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// A removed segment's file is kept for a time and reused for a new segment, most
// recently removed first: overwriting blocks that are allocated and in the page cache
// costs a third less than writing new ones, and a file system with mount option discard
// takes longer to delete 64 MiB than the store to write them.
//
// A reused file must have no reader. A reader has the segment's handle, or opens the
// segment by the name that Retire removes. So a file is reused only if its segment's
// handle had no references at removal.

// spares are the files to be reused, guarded by Set.mu.
type spares struct {
	reuser Reuser  // nil if Blobs is not a Reuser
	files  []spare // the last one is reused first
	none   bool    // delete the files of removed segments
	scarce bool    // the disk is full: other programs take freed blocks
	reused int64   // bytes with blocks of the file last reused by newBlob; 0 if none
	// reserve are files with blocks for a whole segment: see reserve.go.
	reserve []spare
	// taken are the numbers of spare files whose names something else has, that cannot be
	// opened.
	taken []ID
}

type spare struct {
	id    ID    // of its previous segment
	bytes int64 // of the file with blocks
	since time.Time
}

// init finds the spare files of an earlier process. At most bytes of each are used.
func (sp *spares) init(blobs Blobs, bytes int64) error {
	sp.reuser, _ = blobs.(Reuser)
	if sp.reuser == nil {
		return nil
	}
	ids, err := sp.reuser.Retired()
	if err != nil {
		return fmt.Errorf("list spare segments: %w", err)
	}
	for _, id := range ids {
		// A file that cannot be opened, for example a directory, is left alone.
		has, err := sp.reuser.Assigned(id, bytes)
		if err != nil {
			sp.taken = append(sp.taken, id)
			continue
		}
		sp.files = append(sp.files, spare{id, has, time.Now()})
	}
	return nil
}

// newBlob creates a blob, from a spare file if there is one. mu is held.
func (s *Set) newBlob(id ID) (Blob, error) {
	sp := &s.spares
	sp.reused = 0
	if n := len(sp.files); n > 0 && s.reserveFull() {
		old := sp.files[n-1]
		sp.files = sp.files[:n-1]
		blob, err := sp.reuser.Reuse(old.id, id)
		if err == nil {
			// Without blocks for all of it, each Append finds out whether it has some.
			if blob.Allocate(old.bytes) == nil {
				sp.reused = old.bytes
			}
			return blob, nil
		}
		sp.files = slices.Insert(sp.files, 0, old) // its blocks stay, and others come first
		return nil, err
	}
	return s.o.Blobs.Create(id)
}

// undo ends create after an error: a new file is removed, one with blocks is spare again.
// mu is held.
func (s *Set) undo(id ID, blob Blob) error {
	size, err := blob.Size()
	if err = errors.Join(err, blob.Close()); err == nil && size > 0 && s.spares.reuser != nil {
		if err = s.spares.reuser.Retire(id); err == nil {
			bytes, err := s.spares.reuser.Assigned(id, s.o.bytes())
			s.spares.files = slices.Insert(s.spares.files, 0, spare{id, bytes, time.Now()})
			return err
		}
	}
	return errors.Join(err, s.o.Blobs.Remove(id))
}

// Remove removes a segment; a missing segment is not an error. Reads in progress
// complete, later ones fail. A power cut shortly after may restore the segment. Its
// file is kept for a new segment until DropSpares. Remove returns ErrBusy and changes
// nothing if the segment is being read and its file is needed for the reserve; it can
// be removed later.
func (s *Set) Remove(id ID) error {
	h, w, err := s.remove(id)
	// Closing the last handle of a deleted file takes time, so no lock is held.
	if w != nil {
		w.h.release()
	}
	if h != nil {
		h.release()
	}
	return err
}

// Reading reports whether a segment is being read, for which Remove may return ErrBusy.
func (s *Set) Reading(id ID) bool {
	s.syncing.Lock() // so that the unsynced list has what is not durable
	defer s.syncing.Unlock()
	return s.cache.reading(id, s.unsynced.has(id))
}

// remove is Remove without the release of the returned references.
func (s *Set) remove(id ID) (*handle, *written, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.syncing.Lock() // so that forget finds all unsynced data
	defer s.syncing.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, ErrClosed
	}
	if s.current != nil && s.current.id == id {
		s.seal()
	}
	if (!s.reserveFull() || s.spares.scarce) && s.cache.reading(id, s.unsynced.has(id)) {
		return nil, nil, ErrBusy // its file is needed, and other programs could take its blocks
	}
	s.stage.forget(id)
	bytes, err := s.reusable(id)
	if errors.Is(err, errForeign) || errors.Is(err, errVersion) {
		return nil, nil, fmt.Errorf("remove segment %08x: %w", uint32(id), err)
	}
	retired := bytes > 0 && s.spares.reuser.Retire(id) == nil
	if !retired {
		if err := s.o.Blobs.Remove(id); ignoreMissing(err) != nil {
			return nil, nil, fmt.Errorf("remove segment %08x: %w", uint32(id), err)
		}
	}
	delete(s.ids, id)
	delete(s.lengths, id)
	w := s.unsynced.forget(id)
	h, busy := s.cache.take(id)
	if !retired {
		return h, w, nil
	}
	if refs := references(h, w); busy || refs > 0 || w != nil && w.doubtful {
		if err := s.spares.reuser.Discard(id); ignoreMissing(err) != nil {
			return h, w, fmt.Errorf("remove segment %08x: %w", uint32(id), err)
		}
		return h, w, nil
	}
	s.spares.files = append(s.spares.files, spare{id, bytes, time.Now()})
	return h, w, nil
}

// references is the number of references to h other than those of the callers' h and w.
func references(h *handle, w *written) int64 {
	if h == nil {
		return 0
	}
	n := h.refs.Load() - 1
	if w != nil {
		n--
	}
	return n
}

// reusable returns for how many bytes a segment's file has blocks, from its start, if it
// can be reused: it is not longer than a new segment, and its header is this segment's.
// After a power cut, a file may have its name from before its reuse. The error is
// errForeign if the file is of another store, errVersion if it is of another format.
func (s *Set) reusable(id ID) (bytes int64, err error) {
	blob, err := s.o.Blobs.Open(id)
	if err != nil {
		return 0, err
	}
	defer blob.Close()
	size, err := blob.Size()
	if err == nil {
		err = checkHeader(blob, s.o.StoreID, id)
	}
	if err != nil || s.spares.reuser == nil || s.spares.none && s.reserveFull() || size > s.o.bytes() {
		return 0, err
	}
	return allocated(blob, size), nil
}

// bytes is the length of a full segment.
func (o *Options) bytes() int64 { return int64(o.SegmentBlocks) * BlockLength }

// DropSpares gives up the spare files of segments removed before the given time. It
// does not block other methods.
func (s *Set) DropSpares(before time.Time) error {
	for {
		s.mu.Lock()
		files := s.spares.files
		i := slices.IndexFunc(files, func(f spare) bool { return f.since.Before(before) })
		if s.closed || i < 0 {
			s.mu.Unlock()
			return nil
		}
		id := files[i].id
		s.spares.files = slices.Delete(files, i, i+1)
		s.mu.Unlock()
		if err := s.spares.reuser.GiveUp(id); ignoreMissing(err) != nil {
			return fmt.Errorf("remove spare segment %08x: %w", uint32(id), err)
		}
	}
}

// useSpare makes the longest spare file the current segment, if the file system has no
// blocks for the present one. It returns false if no spare file has need bytes.
func (s *Set) useSpare(need int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := &s.spares
	slices.SortStableFunc(sp.files, shorter)
	n := len(sp.files)
	if s.closed || n == 0 || sp.files[n-1].bytes-BlockLength < need || !s.reserveFull() {
		return false
	}
	s.retire()
	return s.start(s.newBlob) == nil
}

// Scarce sets whether the file system is full. If so, no blocks are freed.
func (s *Set) Scarce(scarce bool) {
	s.mu.Lock()
	s.spares.scarce = scarce
	s.mu.Unlock()
}

// KeepSpares sets whether the files of removed segments are kept for reuse. The default
// is true.
func (s *Set) KeepSpares(keep bool) {
	s.mu.Lock()
	s.spares.none = !keep
	s.mu.Unlock()
}

// RoomBytes is the number of bytes that can be appended without a free block:
// SpareBytes and the rest of the current segment.
func (s *Set) RoomBytes() int64 {
	n := s.SpareBytes()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && (!s.moved || s.reserveFull()) {
		n += max(s.assigned-int64(s.free)*BlockLength, 0)
	}
	return n
}

// SpareBytes is the number of bytes of the spare files that have blocks.
func (s *Set) SpareBytes() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.spares.files {
		n += f.bytes
	}
	return n
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
