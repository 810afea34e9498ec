package segment

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"syscall"
	"time"
)

// Cleaning frees segments, and has to write what is live in them first. So that it
// can do so on a full disk, the Set keeps a spare file with blocks for a whole
// segment, which only AppendMoved takes, and fills its place from the segments that
// are removed.

// firstReserveID is the first of the numbers of files that were made for the
// reserve and were no segment yet. No segment has one of them.
const firstReserveID = math.MaxUint32 - 256

var errNoReserve = fmt.Errorf("no segment is in reserve: %w", syscall.ENOSPC)

// AppendMoved is Append for data that is moved so that its segment can be removed:
// where the file system has no room, it goes into the reserve.
func (s *Set) AppendMoved(p []byte) (Addr, error) {
	a, err := s.append(p, s.reserveMoved)
	if !full(err) {
		return a, err
	}
	if useErr := s.useReserve(); useErr != nil {
		return Addr{}, errors.Join(useErr, err)
	}
	return s.append(p, s.reserveMoved)
}

// reserveMoved is reserve for AppendMoved.
func (s *Set) reserveMoved(n uint32) (*handle, uint32, error) {
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
	h, block := s.take(n)
	return h, block, nil
}

// useReserve makes a file of the reserve the current segment.
func (s *Set) useReserve() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.spares.reserve) == 0 {
		return errNoReserve // the current segment is good for more when there is room
	}
	s.seal() // the file system has no blocks for what it could still take
	if err := s.start(s.newReserved); err != nil {
		return err
	}
	s.assigned, s.moved = s.o.bytes(), true
	return nil
}

// newReserved makes a blob of a file of the reserve. mu is held.
func (s *Set) newReserved(id ID) (Blob, error) {
	sp := &s.spares
	n := len(sp.reserve)
	if n == 0 {
		return nil, errNoReserve
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
	id := firstReserveID + ID(len(sp.reserve))
	for slices.ContainsFunc(sp.reserve, func(f spare) bool { return f.id == id }) {
		id--
	}
	if len(sp.files) > 0 {
		id = slices.MaxFunc(sp.files, shorter).id
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

// GiveUpSpare gives up the shortest file that waits to be used again, and reports
// whether there was one.
func (s *Set) GiveUpSpare() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := &s.spares
	if len(sp.files) == 0 || s.closed {
		return false, nil
	}
	id := slices.MinFunc(sp.files, shorter).id
	sp.files = slices.DeleteFunc(sp.files, func(f spare) bool { return f.id == id })
	return true, ignoreMissing(sp.reuser.GiveUp(id))
}

// CurrentBlocks returns the segment that is appended to and how many blocks of it
// are given to Appends; false when there is none.
func (s *Set) CurrentBlocks() (id ID, blocks int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		return 0, 0, false
	}
	return s.current.id, int64(s.free) - 1, true
}

func shorter(a, b spare) int { return cmp.Compare(a.bytes, b.bytes) }

func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
