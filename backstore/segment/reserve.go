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
// can do so on a full disk, the Set keeps spare files with blocks for a whole
// segment, which only AppendMoved takes, and fills their place from the segments that
// are removed. Mostly it is one file. Where there are no blocks to make a removed
// segment as long as a whole one it is taken as it is, since another program gets
// what is freed: so as long as cleaning goes on the reserve never becomes less.

// firstReserveID is the first of the numbers of files that were made for the
// reserve and were no segment yet. No segment has one of them.
const firstReserveID = math.MaxUint32 - 256

// leastReserved is how many files of equal length, at most, are as much as a segment in
// the reserve.
const leastReserved = 8

var errNoReserve = fmt.Errorf("no segment is in reserve: %w", syscall.ENOSPC)

// AppendMoved is Append for data that is moved so that its segment can be removed:
// where the file system has no room, it goes into the reserve.
func (s *Set) AppendMoved(p []byte) (Addr, error) {
	a, err := s.append(p, s.reserveMoved)
	if !full(err) {
		return a, err
	}
	if useErr := s.useReserve(int64(len(p))); useErr != nil {
		return Addr{}, errors.Join(useErr, err)
	}
	return s.append(p, s.reserveMoved)
}

// MoveRoom is how many bytes an AppendMoved can have without leaving some of the
// current segment unused, which came out of the reserve; that of the largest
// otherwise.
func (s *Set) MoveRoom() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved && s.fits(1) {
		return int(s.limit()-s.free) * BlockLength
	}
	return s.MaxAppend()
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

// MovedBytes is how many bytes fit into the current segment if it came out of the
// reserve, else 0.
func (s *Set) MovedBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || !s.moved {
		return 0
	}
	return int64(s.limit()-s.free) * BlockLength
}

// useReserve makes the longest file of the reserve the current segment, if it has
// room for so many bytes.
func (s *Set) useReserve(need int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.spares.reserve, shorter)
	n := len(s.spares.reserve)
	if n == 0 || s.spares.reserve[n-1].bytes-BlockLength < need {
		return errNoReserve // the current segment is good for more when there is room
	}
	s.retire() // the file system has no blocks for what it could still take
	bytes := s.spares.reserve[n-1].bytes
	if err := s.start(s.newReserved); err != nil {
		return err
	}
	s.assigned, s.moved = bytes, true
	// So that the size says what the file takes, after the end of the process too.
	if size, err := s.current.blob.Size(); err != nil || size >= bytes {
		return err
	}
	return s.current.blob.Truncate(bytes)
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
	return s.spares.reuser == nil || s.missing() == 0
}

// MissingBytes is how many bytes FillReserve would need.
func (s *Set) MissingBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spares.reuser == nil {
		return 0
	}
	return s.missing()
}

// missing is how many bytes of data the reserve cannot take that it is to. mu is held.
func (s *Set) missing() int64 {
	n := int64(s.o.Reserve) * int64(s.MaxAppend())
	for _, f := range s.spares.reserve {
		n -= f.bytes - BlockLength
	}
	return max(n, 0)
}

// ReserveBytes is the length of the files in the reserve.
func (s *Set) ReserveBytes() (n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.spares.reserve {
		n += f.bytes
	}
	return n
}

// FindReserve takes spare files for those of the reserve, as FillReserve would, and
// changes none: for a store that is only read.
func (s *Set) FindReserve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := &s.spares
	for len(sp.files) > 0 && !s.reserveFull() {
		n := len(sp.files) - 1 // those that were made for it have the highest numbers
		sp.files, sp.reserve = sp.files[:n], append(sp.reserve, sp.files[n])
	}
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
	bytes, err := sp.reuser.Prepare(id, s.o.bytes())
	if err == nil && bytes >= min(s.o.bytes()/leastReserved, s.o.bytes()) {
		sp.files = slices.DeleteFunc(sp.files, func(f spare) bool { return f.id == id })
		sp.reserve = append(sp.reserve, spare{id, min(bytes, s.o.bytes()), time.Now()})
		return nil
	}
	if err == nil {
		// How long one is that an earlier process left shows only now.
		sp.files[slices.IndexFunc(sp.files, func(f spare) bool { return f.id == id })].bytes = bytes
		if longest := slices.MaxFunc(sp.files, shorter); longest.id != id && longest.bytes > bytes {
			return nil
		}
		err = fmt.Errorf("a spare file has %d bytes: %w", bytes, syscall.ENOSPC)
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
