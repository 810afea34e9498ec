package segment

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// A removed segment's file is kept for a while and used again for a new one, as
// the last one removed first: writing over what has its place on the disk and is
// in the page cache costs a third less, and a file system that tells its disk
// what is free (mount option discard) takes longer to delete 64 MiB than the
// store needs to write them.
//
// Nobody may still read what is used again. A reader holds the one handle of a
// segment, or opens it by a name that Retire has taken away; so a file is used
// again only if no handle was out when its segment was removed.

// spares are the files to be used again. Set.mu guards it.
type spares struct {
	reuser Reuser  // nil when Blobs is none
	files  []spare // the last one is used first
	none   bool    // removed segments are deleted
	scarce bool    // what is given to the file system is lost to others
	reused int64   // length of the one that newBlob used the last time; 0: none
	// reserve are files with blocks for a whole segment: see reserve.go.
	reserve []spare
}

type spare struct {
	id    ID    // of the segment that it was
	bytes int64 // its length
	since time.Time
}

// init finds what an earlier process has left, of about bytes each.
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
		// What cannot be opened, as a directory of that name, is left alone.
		if sp.reuser.Usable(id) {
			sp.files = append(sp.files, spare{id, bytes, time.Now()})
		}
	}
	return nil
}

// newBlob makes a blob, of a spare file if there is one. mu is held.
func (s *Set) newBlob(id ID) (Blob, error) {
	sp := &s.spares
	sp.reused = 0
	if n := len(sp.files); n > 0 && s.reserveFull() {
		old := sp.files[n-1]
		sp.files = sp.files[:n-1]
		blob, err := sp.reuser.Reuse(old.id, id)
		if err == nil {
			sp.reused = old.bytes
			return blob, nil
		}
		// Nothing is lost with it: the next Open finds it, or a file without
		// live extents.
		err = errors.Join(err, ignoreMissing(sp.reuser.Discard(old.id)), ignoreMissing(s.o.Blobs.Remove(id)))
		return nil, err
	}
	return s.o.Blobs.Create(id)
}

// Remove gives a segment up; it is no error when it is gone already. Reads
// that are in the middle finish, those that come later fail. A power cut soon
// after may bring the segment back. Its file is kept for a new segment, until
// DropSpares. ErrBusy: somebody reads it, and its file is needed for the reserve; it is
// there and can be removed later.
func (s *Set) Remove(id ID) error {
	h, w, err := s.remove(id)
	// To close the last handle of a deleted file is what takes time, and nobody
	// shall wait for that.
	if w != nil {
		w.h.release()
	}
	if h != nil {
		h.release()
	}
	return err
}

// remove is Remove, and returns what the caller releases.
func (s *Set) remove(id ID) (*handle, *written, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.syncing.Lock() // so that forget finds all that is unsynced
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
		return nil, nil, ErrBusy // its file is needed, and would be lost to other programs
	}
	s.stage.forget(id)
	bytes, err := s.reusable(id)
	if errors.Is(err, errForeign) {
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

// references is how many there are beside those of h and w.
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

// reusable returns the length of a segment's file if it can become another one:
// it is no longer than a new one gets, and it is this segment's. After a power
// cut, a file may have the name that it had before it was used again. The error is
// errForeign where it is not of this store at all.
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
	return size, nil
}

// bytes is the length of a full segment.
func (o *Options) bytes() int64 { return int64(o.SegmentBlocks) * BlockLength }

// DropSpares gives up the files that have waited to be used again since before
// the given time. No other method waits for it.
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

// useSpare makes the longest spare file the current segment, when the file system has
// no block for the one that there is; false when there is none with so many bytes.
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

// Scarce says whether the file system is full: no block is given to it then.
func (s *Set) Scarce(scarce bool) {
	s.mu.Lock()
	s.spares.scarce = scarce
	s.mu.Unlock()
}

// KeepSpares says whether the files of removed segments are to be used again, as
// they are at first.
func (s *Set) KeepSpares(keep bool) {
	s.mu.Lock()
	s.spares.none = !keep
	s.mu.Unlock()
}

// RoomBytes is how many bytes can be appended without a free block: SpareBytes, and
// what is left of the current segment.
func (s *Set) RoomBytes() int64 {
	n := s.SpareBytes()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil && (!s.moved || s.reserveFull()) {
		n += max(s.assigned-int64(s.free)*BlockLength, 0)
	}
	return n
}

// SpareBytes is about the length of the files that wait to be used again.
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
