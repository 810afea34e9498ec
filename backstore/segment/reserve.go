package segment

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// Cleaning frees segments, and has to write what is live in them first. So that it
// can do so on a full disk, the Set keeps a spare file with blocks for a whole
// segment, which only AppendMoved takes, and fills its place from the segments that
// are removed.

// AppendMoved is Append for data that is moved so that its segment can be removed:
// where the file system has no room, it goes into the reserve.
func (s *Set) AppendMoved(p []byte) (Addr, error) {
	a, err := s.append(p, s.reserveMoved)
	if !full(err) {
		return a, err
	}
	// The current segment had no blocks of its own.
	s.mu.Lock()
	if !s.moved {
		s.seal()
	}
	s.mu.Unlock()
	a, again := s.append(p, s.reserveMoved)
	return a, errorsOf(again, err)
}

// errorsOf returns both errors, nil if the later one is.
func errorsOf(later, first error) error {
	if later == nil {
		return nil
	}
	return errors.Join(later, first)
}

// reserveMoved is reserve for AppendMoved.
func (s *Set) reserveMoved(n uint32) (*handle, uint32, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, 0, ErrClosed
	}
	if !s.fits(n) {
		err, moved := s.start(s.newAllocated), false
		if full(err) {
			err, moved = errorsOf(s.start(s.newReserved), err), true
		}
		if err != nil {
			return nil, 0, err
		}
		s.assigned, s.moved = s.o.bytes(), moved
	}
	h, block := s.take(n)
	return h, block, nil
}

// newAllocated makes a blob with blocks for a whole segment. mu is held.
func (s *Set) newAllocated(id ID) (Blob, error) {
	blob, err := s.newBlob(id)
	if err != nil {
		return nil, err
	}
	if err := blob.Allocate(s.o.bytes()); err != nil {
		return nil, errors.Join(err, blob.Close(), ignoreMissing(s.o.Blobs.Remove(id)))
	}
	return blob, nil
}

// newReserved makes a blob of a file of the reserve. mu is held.
func (s *Set) newReserved(id ID) (Blob, error) {
	sp := &s.spares
	n := len(sp.reserve)
	if n == 0 {
		return nil, fmt.Errorf("no segment is in reserve: %w", syscall.ENOSPC)
	}
	blob, err := sp.reuser.Reuse(sp.reserve[n-1].id, id)
	if err == nil {
		sp.reserve = sp.reserve[:n-1]
	}
	return blob, err
}

// ReserveFull reports whether no file of the reserve is missing.
func (s *Set) ReserveFull() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reserveFull()
}

func (s *Set) reserveFull() bool {
	return s.spares.reuser == nil || len(s.spares.reserve) >= s.o.Reserve
}

// ReserveBytes is the length of the files in the reserve.
func (s *Set) ReserveBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return int64(len(s.spares.reserve)) * s.o.bytes()
}

// FillReserve makes the files of the reserve that are missing, of spare files if
// there are any, the longest ones first. ENOSPC when the file system has no blocks
// for them.
func (s *Set) FillReserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.closed && !s.reserveFull() {
		if err := s.fill(); err != nil {
			return fmt.Errorf("reserve of segments: %w", err)
		}
	}
	return nil
}

// fill adds a file to the reserve, or frees blocks for one. mu is held.
func (s *Set) fill() error {
	sp := &s.spares
	id := s.next
	if len(sp.files) > 0 {
		id = slices.MaxFunc(sp.files, shorter).id
	} else {
		s.next++
	}
	err := sp.reuser.Prepare(id, s.o.bytes())
	if err == nil {
		sp.files = slices.DeleteFunc(sp.files, func(f spare) bool { return f.id == id })
		sp.reserve = append(sp.reserve, spare{id, s.o.bytes(), time.Now()})
		return nil
	}
	if !full(err) || len(sp.files) < 2 {
		return err
	}
	// The blocks of a short one may be what the long one lacks.
	id = slices.MinFunc(sp.files, shorter).id
	sp.files = slices.DeleteFunc(sp.files, func(f spare) bool { return f.id == id })
	return ignoreMissing(sp.reuser.Discard(id))
}

func shorter(a, b spare) int { return cmp.Compare(a.bytes, b.bytes) }

func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
