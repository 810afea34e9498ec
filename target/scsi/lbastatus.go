package scsi

import (
	"context"
	"encoding/binary"
	"time"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

// Lengths of the GET LBA STATUS parameter data (SBC-3 5.4.2).
const (
	lbaStatusHeader     = 8
	lbaStatusDescriptor = 16
)

// Values of PROVISIONING STATUS. A deallocated block reads as zeros (LBPRZ).
const (
	statusMapped      = 0x0
	statusDeallocated = 0x1
)

// Bounds of one GET LBA STATUS. Initiators send another one for the rest.
const (
	// maximumLBAStatusDescriptors bounds the memory.
	maximumLBAStatusDescriptors = 4096
	// maximumLBAStatusBlocks is the maximum of NUMBER OF LOGICAL BLOCKS, less a block
	// of the store, so that an aligned range has an aligned descriptor.
	maximumLBAStatusBlocks = 1<<32 - blockdev.BlockLength
	// lbaStatusStep is how many bytes are mapped between two checks of the time.
	lbaStatusStep = 256 << 20
	lbaStatusTime = 20 * time.Millisecond
)

// prepareGetLBAStatus checks GET LBA STATUS (SBC-3 5.4).
func prepareGetLBAStatus(t *Task) error {
	if binary.BigEndian.Uint64(t.CDB()[2:]) >= t.LU.Blocks() {
		return sense.New(sense.KeyIllegalRequest, sense.ASCLBAOutOfRange)
	}
	return nil
}

func executeGetLBAStatus(ctx context.Context, t *Task) error {
	cdb, lu := t.CDB(), t.LU
	lba, allocationLength := binary.BigEndian.Uint64(cdb[2:]), binary.BigEndian.Uint32(cdb[10:])
	r := newLBAStatus(lu.blockShift, allocationLength)
	blocks := lu.Blocks()
	if blocks-lba > maximumLBAStatusBlocks {
		blocks = (lba + maximumLBAStatusBlocks) &^ (uint64(lu.slab())>>lu.blockShift - 1)
	}
	if err := lu.collectLBAStatus(ctx, r, int64(lba<<lu.blockShift), int64(blocks<<lu.blockShift)); err != nil {
		return err
	}
	t.SetDataIn(r.parameterData(), allocationLength)
	return nil
}

// slab returns OPTIMAL UNMAP GRANULARITY in bytes, a power of two, also if it is not
// reported. Initiators assume that a slab is mapped or deallocated as a whole.
func (lu *LogicalUnit) slab() int64 {
	return max(lu.changeable.unmapGranularity.Load(), blockdev.BlockLength)
}

// collectLBAStatus adds the segments from off to end, in bytes, to r, until r is full or
// the time limit is reached. Only the first descriptor may begin, and only the last may
// end at the end of the medium, inside a slab: a partly mapped slab is mapped.
func (lu *LogicalUnit) collectLBAStatus(ctx context.Context, r *lbaStatus, off, end int64) error {
	mapper := lu.medium().mapper
	if mapper == nil {
		r.add(blockdev.Range{Offset: off, Length: end - off}, true)
		return nil
	}
	s := slabs{r: r, length: lu.slab(), from: off}
	start := time.Now()
	for off &^= s.length - 1; off < end && !r.full(); {
		step := min(end-off, lbaStatusStep)
		if err := mapper.Extents(ctx, off, step, s.add); err != nil {
			return err
		}
		off += step
		if time.Since(start) > lbaStatusTime {
			break
		}
	}
	s.flush()
	return nil
}

// slabs assembles slabs from the parts of a map, each of which follows the last one.
type slabs struct {
	r      *lbaStatus
	length int64 // of a slab, in bytes
	from   int64 // slabs before it are examined and not reported

	// begun is the part of a slab that is known; mapped says that some of it is.
	begun  blockdev.Range
	mapped bool
}

// add adds a part. It returns false when there is no room.
func (s *slabs) add(part blockdev.Range, mapped bool) bool {
	for part.Length > 0 {
		inside := part.Offset & (s.length - 1)
		if s.begun.Length == 0 && inside == 0 && part.Length >= s.length {
			whole := blockdev.Range{Offset: part.Offset, Length: part.Length &^ (s.length - 1)}
			if !s.report(whole, mapped) {
				return false
			}
			part.Offset, part.Length = part.Offset+whole.Length, part.Length-whole.Length
			continue
		}
		if s.begun.Length == 0 {
			s.begun.Offset, s.mapped = part.Offset, false
		}
		n := min(part.Length, s.length-inside)
		s.begun.Length, s.mapped = s.begun.Length+n, s.mapped || mapped
		part.Offset, part.Length = part.Offset+n, part.Length-n
		if inside+n == s.length && !s.flush() {
			return false
		}
	}
	return true
}

// flush adds the slab that was begun, as far as it is known.
func (s *slabs) flush() bool {
	begun := s.begun
	s.begun = blockdev.Range{}
	return begun.Length == 0 || s.report(begun, s.mapped)
}

// report adds slabs to the descriptors, without what is before from.
func (s *slabs) report(part blockdev.Range, mapped bool) bool {
	if cut := s.from - part.Offset; cut > 0 {
		part.Offset, part.Length = s.from, part.Length-cut
	}
	return part.Length <= 0 || s.r.add(part, mapped)
}

// lbaStatus collects LBA status descriptors.
type lbaStatus struct {
	blockShift uint
	left       int    // descriptors that may still be added
	data       []byte // header and descriptors
}

// newLBAStatus returns a collection for as many descriptors as the allocation length
// holds, but at least one (SBC-3 5.4.2).
func newLBAStatus(blockShift uint, allocationLength uint32) *lbaStatus {
	left := (int(allocationLength) - lbaStatusHeader) / lbaStatusDescriptor
	return &lbaStatus{
		blockShift: blockShift,
		left:       min(max(left, 1), maximumLBAStatusDescriptors),
		data:       make([]byte, lbaStatusHeader, lbaStatusHeader+lbaStatusDescriptor),
	}
}

// full reports whether a segment with another status did not fit.
func (r *lbaStatus) full() bool { return r.left < 0 }

// add adds a segment that follows the last one, and extends the last descriptor if the
// status is the same. It returns false if no descriptor is left.
func (r *lbaStatus) add(part blockdev.Range, mapped bool) bool {
	status := byte(statusDeallocated)
	if mapped {
		status = statusMapped
	}
	blocks := uint32(part.Length >> r.blockShift)
	if len(r.data) > lbaStatusHeader {
		if last := r.data[len(r.data)-lbaStatusDescriptor:]; last[12] == status {
			binary.BigEndian.PutUint32(last[8:], binary.BigEndian.Uint32(last[8:])+blocks)
			return true
		}
	}
	if r.left--; r.full() {
		return false
	}
	r.data = binary.BigEndian.AppendUint64(r.data, uint64(part.Offset)>>r.blockShift)
	r.data = binary.BigEndian.AppendUint32(r.data, blocks)
	r.data = append(r.data, status, 0, 0, 0)
	return true
}

// parameterData returns the parameter data of the command.
func (r *lbaStatus) parameterData() []byte {
	binary.BigEndian.PutUint32(r.data, uint32(len(r.data)-4))
	return r.data
}
