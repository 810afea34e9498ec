package initiator

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
)

const (
	// zeroLength bounds one WRITE SAME where the logical unit reports no limit, in
	// bytes: it keeps a command within the time that targets allow for one.
	zeroLength = 256 << 20
	// leastWriteSame is the length in bytes below which a shorter WRITE SAME is not
	// tried: sending the zeros costs as many commands.
	leastWriteSame = maxTransferLength
)

// writeSame is what a logical unit takes of WRITE SAME(16) with UNMAP.
type writeSame struct {
	// limit is the longest range in bytes, whole blocks; 0 where zeros have to be
	// sent. It only falls.
	limit atomic.Int64
	// unmaps: the Logical Block Provisioning page promises that the command makes
	// zeros (LBPWS and LBPRZ).
	unmaps bool
	// maximum is MAXIMUM WRITE SAME LENGTH in blocks, 0 where none is reported
	// (SBC-3 6.6.4).
	maximum uint64
}

// readBlockLimits takes MAXIMUM WRITE SAME LENGTH out of the Block Limits page.
// SBC-2 ends the page before it.
func (w *writeSame) readBlockLimits(page []byte) {
	if len(page) >= 44 {
		w.maximum = binary.BigEndian.Uint64(page[36:])
	}
}

// readProvisioning takes LBPWS and LBPRZ out of the Logical Block Provisioning
// page (SBC-3 6.6.5).
func (w *writeSame) readProvisioning(page []byte) {
	w.unmaps = len(page) > 5 && page[5]&0x40 != 0 && page[5]&0x04 != 0
}

// settle sets the limit from what was read.
func (w *writeSame) settle(blockLength int) {
	if !w.unmaps {
		return
	}
	blocks := uint64(zeroLength / blockLength)
	if w.maximum != 0 {
		blocks = min(blocks, w.maximum)
	}
	w.limit.Store(int64(blocks) * int64(blockLength))
}

// refuse lowers the limit after a WRITE SAME of length bytes was refused. A field
// of the CDB can be the length, so that a shorter one is tried; a logical unit
// that does not know the command is not asked again.
func (w *writeSame) refuse(length int64, sense *SenseError, blockLength int) {
	next := length / 4 / int64(blockLength) * int64(blockLength)
	if sense.ASC != ascInvalidFieldInCDB || next < leastWriteSame {
		next = 0
	}
	for {
		limit := w.limit.Load()
		if limit <= next || w.limit.CompareAndSwap(limit, next) {
			return
		}
	}
}

// Zero makes a range read as zeros, without sending them where the logical unit
// can unmap.
func (d *Disk) Zero(ctx context.Context, off, length int64) error {
	if err := d.checkRange(off, length); err != nil {
		return err
	}
	for length > 0 {
		n, err := d.zeroSome(ctx, off, length)
		if err != nil {
			return fmt.Errorf("zeros at LBA %d: %w", off/int64(d.BlockLength), err)
		}
		off, length = off+n, length-n
	}
	return nil
}

// zeros is what is sent where WRITE SAME is not taken.
var zeros [maxTransferLength]byte

// zeroSome makes the beginning of a range zeros and returns how much; 0 after a
// refusal, which has changed what is tried next.
func (d *Disk) zeroSome(ctx context.Context, off, length int64) (int64, error) {
	limit := d.writeSame.limit.Load()
	if limit == 0 {
		n := min(length, int64(d.maxTransfer))
		return n, d.WriteAt(ctx, zeros[:n], off)
	}
	n := min(length, limit)
	c := Command{CDB: d.rangeCDB(0x93, off, n), Out: zeros[:d.BlockLength]} // WRITE SAME(16)
	c.CDB[1] = 0x08                                                         // UNMAP
	err := d.do(ctx, &c)
	if sense := refusal(err); sense != nil {
		d.writeSame.refuse(n, sense, d.BlockLength)
		return 0, nil
	}
	return n, err
}

// Additional sense codes that a refusal of a command has.
const (
	ascInvalidOpcode     = 0x2000
	ascLBAOutOfRange     = 0x2100
	ascInvalidFieldInCDB = 0x2400
	ascLUNNotSupported   = 0x2500
)

// refusal returns the sense data of a command that the logical unit does not
// support, or not in this form; nil for every other error. Another command can do
// what it was to do.
func refusal(err error) *SenseError {
	var sense *SenseError
	if !errors.As(err, &sense) || sense.Key != KeyIllegalRequest || sense.Deferred {
		return nil
	}
	switch sense.ASC {
	case ascLBAOutOfRange, ascLUNNotSupported:
		return nil
	}
	return sense
}

// Flush makes what was written durable (SYNCHRONIZE CACHE of the whole). A logical
// unit that knows neither form of the command has no volatile cache.
func (d *Disk) Flush(ctx context.Context) error {
	err := d.do(ctx, &Command{CDB: cdb16(0x91, 0)})
	if refusal(err) != nil {
		err = d.do(ctx, &Command{CDB: append([]byte{0x35}, make([]byte, 9)...)})
	}
	if sense := refusal(err); sense != nil && sense.ASC == ascInvalidOpcode {
		return nil
	}
	if err != nil {
		return fmt.Errorf("SYNCHRONIZE CACHE: %w", err)
	}
	return nil
}

// readCapacity sets the number and the length of the blocks. READ CAPACITY(10)
// does for a logical unit that does not know the longer form.
func (d *Disk) readCapacity(ctx context.Context) error {
	capacity := make([]byte, 32)
	c := Command{CDB: cdb16(0x9e, 0x10), In: capacity}
	binary.BigEndian.PutUint32(c.CDB[10:], uint32(len(capacity)))
	err := d.do(ctx, &c)
	last, n, got := binary.BigEndian.Uint64(capacity), binary.BigEndian.Uint32(capacity[8:]), c.Received >= 12
	d.Thin = capacity[14]&0x80 != 0
	if refusal(err) != nil {
		short := Command{CDB: append([]byte{0x25}, make([]byte, 9)...), In: capacity[:8]}
		err = d.do(ctx, &short)
		last, n, got = uint64(binary.BigEndian.Uint32(capacity)), binary.BigEndian.Uint32(capacity[4:]), short.Received >= 8
	}
	if err != nil {
		return fmt.Errorf("READ CAPACITY: %w", err)
	}
	if !got || last == math.MaxUint64 {
		return errors.New("READ CAPACITY: no capacity")
	}
	d.Blocks = last + 1
	if n < 512 || n > 1<<16 || n&(n-1) != 0 || d.Blocks > 1<<62/uint64(n) {
		return fmt.Errorf("READ CAPACITY: %d blocks of %d bytes", d.Blocks, n)
	}
	d.BlockLength = int(n)
	return nil
}
