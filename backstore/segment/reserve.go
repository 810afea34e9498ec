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

// Cleaning moves live data before it frees segments. For that on a full disk, the Set
// keeps spare files with blocks for a whole segment, usually one, which only
// AppendMoved uses, and replaces them by the files of removed segments. If there are no
// blocks to extend a removed segment's file to full length, it is added as it is, since
// another program could take freed blocks. So the reserve does not shrink while
// cleaning continues.
//
// What is left of the current segment, if that is of the reserve, belongs to it. While
// files are missing, that segment is not sealed, and a Set that is opened goes on with it:
// see Seal and Resume. Cleaning that ends in the middle of a segment has used blocks of the
// reserve and freed none.

// firstReserveID is the lowest number of files created for the reserve. Segments have
// lower numbers.
const firstReserveID = math.MaxUint32 - 256

// leastReserved bounds the number of files of equal length that replace a segment in the
// reserve, where they are shorter than leastReservedBytes. What is moved comes in
// extents, and what is left of a file can be too short for the next one.
const (
	leastReserved      = 8
	leastReservedBytes = 256 << 10
)

var errNoReserve = fmt.Errorf("reserve of segments is empty: %w", syscall.ENOSPC)

// AppendMoved is Append for data moved out of a segment to be removed. If the file
// system is full, it appends to a file of the reserve.
func (s *Set) AppendMoved(p []byte) (Addr, error) {
	a, err := s.append(p, s.claimMoved)
	if !full(err) {
		return a, err
	}
	if useErr := s.useReserve(int64(len(p))); useErr != nil {
		return Addr{}, errors.Join(useErr, err)
	}
	return s.append(p, s.claimMoved)
}

// MoveRoom is the largest AppendMoved in bytes that leaves no space of the current
// segment unused, if that is of the reserve; otherwise MaxAppend.
func (s *Set) MoveRoom() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved && s.fits(1) {
		return int(s.limit()-s.free) * BlockLength
	}
	return s.MaxAppend()
}

// claimMoved is claim for AppendMoved.
func (s *Set) claimMoved(n uint32) (*handle, uint32, error) {
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

// MovedBytes is the number of bytes that fit into the current segment if it is of the
// reserve, otherwise 0.
func (s *Set) MovedBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil || !s.moved {
		return 0
	}
	return int64(s.limit()-s.free) * BlockLength
}

// useReserve makes the longest file of the reserve the current segment, if it has room
// for need bytes.
func (s *Set) useReserve(need int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.spares.reserve, shorter)
	n := len(s.spares.reserve)
	if n == 0 || s.spares.reserve[n-1].bytes-BlockLength < need {
		return errNoReserve // the current segment is usable again when the disk has space
	}
	bytes := s.spares.reserve[n-1].bytes
	if err := s.start(s.newReserved); err != nil {
		return err
	}
	s.assigned, s.moved = bytes, true
	// So that the size is the allocated length, also after a restart.
	return lengthen(s.current.blob, bytes)
}

// newReserved creates a blob from a file of the reserve. mu is held.
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

// MissingBytes is the number of bytes that FillReserve needs.
func (s *Set) MissingBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spares.reuser == nil {
		return 0
	}
	return s.missing()
}

// missing is the number of data bytes by which the reserve is short. mu is held.
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

// FindReserve assigns spare files to the reserve like FillReserve, without changing
// files: for a read-only store.
func (s *Set) FindReserve() {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := &s.spares
	for len(sp.files) > 0 && !s.reserveFull() {
		n := len(sp.files) - 1 // files created for the reserve have the highest numbers
		sp.files, sp.reserve = sp.files[:n], append(sp.reserve, sp.files[n])
	}
}

// FillReserve adds the missing files of the reserve: spare files, longest first, then
// new ones. It returns ENOSPC if the file system has no blocks for them.
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
	for slices.Contains(sp.taken, id) || slices.ContainsFunc(sp.reserve, func(f spare) bool { return f.id == id }) {
		id--
	}
	if len(sp.files) > 0 {
		id = slices.MaxFunc(sp.files, shorter).id
	}
	bytes, err := sp.reuser.Prepare(id, s.o.bytes())
	if err == nil && bytes >= min(s.o.bytes()/leastReserved, leastReservedBytes) {
		sp.files = slices.DeleteFunc(sp.files, func(f spare) bool { return f.id == id })
		sp.reserve = append(sp.reserve, spare{id, min(bytes, s.o.bytes()), time.Now()})
		s.trimReserve()
		return nil
	}
	if err == nil {
		// A file of an earlier process may have been longer than what it has blocks for.
		sp.files[slices.IndexFunc(sp.files, func(f spare) bool { return f.id == id })].bytes = bytes
		if longest := slices.MaxFunc(sp.files, shorter); longest.id != id && longest.bytes > bytes {
			return nil
		}
		err = fmt.Errorf("spare file of %d bytes: %w", bytes, syscall.ENOSPC)
	}
	if !full(err) || len(sp.files) < 2 {
		return err
	}
	// Freeing a short file may provide the blocks for a long one.
	id = slices.MinFunc(sp.files, shorter).id
	sp.files = slices.DeleteFunc(sp.files, func(f spare) bool { return f.id == id })
	return ignoreMissing(sp.reuser.Discard(id))
}

// trimReserve makes short files of the reserve spare again that a longer one has made
// superfluous. mu is held.
func (s *Set) trimReserve() {
	sp := &s.spares
	slices.SortFunc(sp.reserve, shorter)
	for len(sp.reserve) > 1 {
		short := sp.reserve[0]
		sp.reserve = sp.reserve[1:]
		if !s.reserveFull() {
			sp.reserve = append(sp.reserve, short)
			return
		}
		sp.files = append(sp.files, short)
	}
}

// GiveUpSpare gives up the shortest spare file of at least the given bytes, and reports
// whether there was one. If all are shorter, and together twice as long, it gives up the
// shortest: its blocks may extend another file, unless another program takes them.
func (s *Set) GiveUpSpare(bytes int64) (bool, error) {
	id, ok := s.longEnoughSpare(bytes)
	if !ok {
		return false, nil
	}
	return true, ignoreMissing(s.spares.reuser.GiveUp(id))
}

// longEnoughSpare takes the file of GiveUpSpare out of the spare ones.
func (s *Set) longEnoughSpare(bytes int64) (id ID, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp := &s.spares
	if s.closed {
		return 0, false
	}
	slices.SortStableFunc(sp.files, shorter)
	total := int64(0)
	for _, f := range sp.files {
		total += f.bytes
	}
	i := slices.IndexFunc(sp.files, func(f spare) bool { return f.bytes >= bytes })
	if i < 0 && total >= 2*bytes {
		i = 0
	}
	if i < 0 {
		return 0, false
	}
	id = sp.files[i].id
	sp.files = slices.Delete(sp.files, i, i+1)
	return id, true
}

// CurrentBlocks returns the current segment and the number of its blocks used by
// Appends, or false if there is none.
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
