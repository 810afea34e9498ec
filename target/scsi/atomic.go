package scsi

import (
	"context"
	"encoding/binary"

	"odx/blockdev"
	"odx/target/scsi/sense"
)

// opORWrite is ORWRITE(16).
const opORWrite = 0x8B

// prepareORWrite checks ORWRITE(16) (SBC-3 5.5). All of it is one step towards other
// commands: where the store takes several, or the data comes in pieces, nothing else runs
// concurrently, as with an ORDERED WRITE.
func prepareORWrite(t *Task) error {
	if err := prepareWrite(t); err != nil {
		return err
	}
	t.scratch = atomicScratch(int(t.TL))
	t.exclusive = t.Offset%blockdev.BlockLength+uint64(t.TL) > blockdev.MaximumAtomicWrite
	return nil
}

// atomicScratch returns the memory of an update of length bytes: of one step, with the
// blocks of the store at its ends.
func atomicScratch(length int) int {
	return min(length+2*blockdev.BlockLength, blockdev.MaximumAtomicWrite+blockdev.BlockLength)
}

// executeORWrite sets the bits of Data-Out, or of the current piece of it, in the blocks
// of the range.
func executeORWrite(ctx context.Context, t *Task) error {
	bits, off := t.DataOut(), int64(t.Offset)
	if t.stream.on {
		if err := t.checkPiece(); err != nil {
			return err
		}
		off, _ = t.piece()
		bits = bits[:min(len(bits), int(t.stream.end-t.stream.done))]
	} else {
		bits = bits[:t.TL]
	}
	if err := t.LU.setBits(ctx, bits, off); err != nil {
		return err
	}
	if t.moved(len(bits)); t.stream.more {
		return nil
	}
	return t.LU.finishWrite(ctx, t.CDB())
}

// setBits sets bits on the medium from off on, in uninterrupted steps.
func (lu *LogicalUnit) setBits(ctx context.Context, bits []byte, off int64) error {
	updater := lu.medium().updater
	if updater == nil {
		return errNotOffered()
	}
	for len(bits) > 0 {
		// Steps end on block boundaries of the store.
		n := min(len(bits), blockdev.MaximumAtomicWrite-int(off%blockdev.BlockLength))
		step := bits[:n]
		err := updater.Update(ctx, off, n, func(data []byte) {
			for i, b := range step {
				data[i] |= b
			}
		})
		if err != nil {
			return err
		}
		bits, off = bits[n:], off+int64(n)
	}
	return nil
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
		return sense.InvalidFieldInCDB(1, 7)
	}
	lba, blocks := binary.BigEndian.Uint64(cdb[2:]), uint64(binary.BigEndian.Uint16(cdb[12:]))
	if err := lu.checkRange(lba, blocks); err != nil {
		return err
	}
	unit := uint64(lu.atomicUnit())
	switch {
	case binary.BigEndian.Uint16(cdb[10:]) != 0:
		return sense.InvalidFieldInCDB(10, 7)
	case blocks > uint64(lu.maximumAtomicTransfer()) || blocks%unit != 0:
		return sense.InvalidFieldInCDB(12, 7)
	case lba%unit != 0:
		return sense.InvalidFieldInCDB(2, 7)
	}
	t.Offset, t.TL = lba<<lu.blockShift, uint32(blocks<<lu.blockShift)
	t.Wanted = t.TL
	return nil
}

func executeWriteAtomic(ctx context.Context, t *Task) error {
	atomic := t.LU.medium().atomic
	if atomic == nil {
		return errNotOffered()
	}
	if t.TL > 0 {
		if err := atomic.WriteAtomic(ctx, t.DataOut()[:t.TL], int64(t.Offset)); err != nil {
			return err
		}
	}
	t.moved(int(t.TL))
	return t.LU.finishWrite(ctx, t.CDB())
}
