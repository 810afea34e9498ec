package scsi

import (
	"context"
	"encoding/binary"

	"odx/blockdev"
)

// opORWrite is ORWRITE(16).
const opORWrite = 0x8B

// prepareORWrite checks ORWRITE(16) (SBC-3 5.5).
func prepareORWrite(t *Task) error {
	if err := prepareWrite(t); err != nil {
		return err
	}
	// All of it is one step towards other commands, which must not last as long as the
	// initiator takes for sending it.
	if t.stream.on = false; t.TL > maximumBuffered {
		return InvalidFieldInCDB(rangeOf(t.CDB()).lengthField, 7)
	}
	t.exclusive = t.Offset%blockdev.BlockLength+uint64(t.TL) > blockdev.MaximumAtomicWrite
	return nil
}

// executeORWrite sets the bits of Data-Out in the blocks of the range. Each step
// of the store is uninterrupted, and the task set keeps others out when there is
// more than one.
func executeORWrite(ctx context.Context, t *Task) error {
	lu, bits, off := t.LU, t.DataOut()[:t.TL], int64(t.Offset)
	for len(bits) > 0 {
		// Steps end on blocks of the store.
		n := min(len(bits), blockdev.MaximumAtomicWrite-int(off%blockdev.BlockLength))
		step := bits[:n]
		err := lu.updater.Update(ctx, off, n, func(data []byte) {
			for i, b := range step {
				data[i] |= b
			}
		})
		if err != nil {
			return err
		}
		bits, off = bits[n:], off+int64(n)
	}
	return lu.finishWrite(ctx, t.CDB())
}

// maximumAtomicTransfer is the longest WRITE ATOMIC in logical blocks, and
// atomicUnit the logical blocks of which its address and its length must be
// multiples.
func (lu *LogicalUnit) maximumAtomicTransfer() uint32 {
	return blockdev.MaximumAtomicWrite >> lu.blockShift
}

func (lu *LogicalUnit) atomicUnit() uint32 { return blockdev.BlockLength >> lu.blockShift }

// prepareWriteAtomic checks WRITE ATOMIC(16) (SBC-4 5.48). Atomic boundaries are
// not supported, as the Block Limits page says.
func prepareWriteAtomic(t *Task) error {
	cdb, lu := t.CDB(), t.LU
	if cdb[1]&0xE0 != 0 { // WRPROTECT
		return InvalidFieldInCDB(1, 7)
	}
	lba, blocks := binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint16(cdb[12:]))
	if err := lu.checkRange(lba, blocks); err != nil {
		return err
	}
	unit := uint64(lu.atomicUnit())
	switch {
	case binary.BigEndian.Uint16(cdb[10:]) != 0:
		return InvalidFieldInCDB(10, 7)
	case blocks > uint64(lu.maximumAtomicTransfer()) || blocks%unit != 0:
		return InvalidFieldInCDB(12, 7)
	case lba%unit != 0:
		return InvalidFieldInCDB(2, 7)
	}
	t.Offset, t.TL = lba<<lu.blockShift, uint32(blocks<<lu.blockShift)
	t.Wanted = t.TL
	return nil
}

func executeWriteAtomic(ctx context.Context, t *Task) error {
	if t.TL > 0 {
		if err := t.LU.atomic.WriteAtomic(ctx, t.DataOut()[:t.TL], int64(t.Offset)); err != nil {
			return err
		}
	}
	return t.LU.finishWrite(ctx, t.CDB())
}
