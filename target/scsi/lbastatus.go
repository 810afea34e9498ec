package scsi

import (
	"context"
	"encoding/binary"
	"time"

	"odx/blockdev"
)

// Lengths of the GET LBA STATUS parameter data (SBC-3 5.4.2).
const (
	lbaStatusHeader     = 8
	lbaStatusDescriptor = 16
)

// Values of PROVISIONING STATUS. A deallocated block reads as zeros, as LBPRZ
// says.
const (
	statusMapped      = 0x0
	statusDeallocated = 0x1
)

// Bounds of one GET LBA STATUS. Initiators ask again for what they do not get.
const (
	// maximumLBAStatusDescriptors bounds the memory.
	maximumLBAStatusDescriptors = 4096
	// maximumLBAStatusBlocks is what NUMBER OF LOGICAL BLOCKS can tell, less a
	// block of the store, so that an aligned question gets an aligned answer.
	maximumLBAStatusBlocks = 1<<32 - blockdev.BlockLength
	// lbaStatusStep, in bytes, is looked at between two looks at the clock.
	lbaStatusStep = 256 << 20
	lbaStatusTime = 20 * time.Millisecond
)

// prepareGetLBAStatus checks GET LBA STATUS (SBC-3 5.4).
func prepareGetLBAStatus(t *Task) error {
	if binary.BigEndian.Uint64(t.CDB()[2:]) >= t.LU.Blocks() {
		return NewSense(KeyIllegalRequest, ASCLBAOutOfRange)
	}
	return nil
}

func executeGetLBAStatus(ctx context.Context, t *Task) error {
	cdb, lu := t.CDB(), t.LU
	lba, allocationLength := binary.BigEndian.Uint64(cdb[2:]), binary.BigEndian.Uint32(cdb[10:])
	r := newLBAStatus(lu.blockShift, allocationLength)
	blocks := min(lu.Blocks()-lba, maximumLBAStatusBlocks)
	if err := lu.collectLBAStatus(ctx, r, int64(lba<<lu.blockShift), int64(blocks<<lu.blockShift)); err != nil {
		return err
	}
	t.SetDataIn(r.parameterData(), allocationLength)
	return nil
}

// collectLBAStatus adds the parts of a range of bytes to r, from the first on,
// until r is full or the time is up.
func (lu *LogicalUnit) collectLBAStatus(ctx context.Context, r *lbaStatus, off, length int64) error {
	if lu.mapper == nil {
		r.add(blockdev.Range{Offset: off, Length: length}, true)
		return nil
	}
	start := time.Now()
	for end := off + length; off < end && !r.full(); {
		step := min(end-off, lbaStatusStep)
		if err := lu.mapper.Extents(ctx, off, step, r.add); err != nil {
			return err
		}
		off += step
		if time.Since(start) > lbaStatusTime {
			break
		}
	}
	return nil
}

// lbaStatus collects LBA status descriptors.
type lbaStatus struct {
	blockShift uint
	room       int    // descriptors that may still be begun
	data       []byte // header and descriptors
}

// newLBAStatus returns a collection with as many descriptors as the allocation
// length has room for, but at least one (SBC-3 5.4.2).
func newLBAStatus(blockShift uint, allocationLength uint32) *lbaStatus {
	room := (int(allocationLength) - lbaStatusHeader) / lbaStatusDescriptor
	return &lbaStatus{
		blockShift: blockShift,
		room:       min(max(room, 1), maximumLBAStatusDescriptors),
		data:       make([]byte, lbaStatusHeader, lbaStatusHeader+lbaStatusDescriptor),
	}
}

// full reports that a part of the other status had no room.
func (r *lbaStatus) full() bool { return r.room < 0 }

// add adds a part that follows the last one, to whose descriptor it belongs if
// the status is the same. It returns false when there is no room.
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
	if r.room--; r.full() {
		return false
	}
	r.data = binary.BigEndian.AppendUint64(r.data, uint64(part.Offset)>>r.blockShift)
	r.data = binary.BigEndian.AppendUint32(r.data, blocks)
	r.data = append(r.data, status, 0, 0, 0)
	return true
}

// parameterData returns what the command answers.
func (r *lbaStatus) parameterData() []byte {
	binary.BigEndian.PutUint32(r.data, uint32(len(r.data)-4))
	return r.data
}
