package scsi

import (
	"context"
	"encoding/binary"

	"odx/target/scsi/sense"
)

// preFetchIMMED requests status before the blocks are in the cache.
const preFetchIMMED = 0x02 // byte 1

// preparePreFetch checks PRE-FETCH(10) and (16) (SBC-3 5.8, 5.9). No block count
// means all blocks to the last, as with SYNCHRONIZE CACHE.
func preparePreFetch(t *Task) error {
	if err := prepareSynchronizeCache(t); err != nil {
		return err
	}
	if length := preFetchLength(t); length > 0 {
		t.scratch = min(length, verifyChunk)
	}
	return nil
}

// preFetchLength returns the bytes that are read, or 0 for none.
func preFetchLength(t *Task) int {
	r := rangeOf(t.CDB())
	if t.CDB()[1]&preFetchIMMED != 0 || r.blocks > maximumBuffered>>t.LU.blockShift {
		return 0
	}
	return int(r.blocks << t.LU.blockShift)
}

// executePreFetch reads the blocks, which brings data and map into the caches of the
// store and the host. These can evict them at any time, so the status is GOOD and never
// CONDITION MET, which would guarantee that the blocks are cached. The part above one
// transfer is skipped, and so is everything with IMMED, because no command waits for
// it.
func executePreFetch(ctx context.Context, t *Task) error {
	length := preFetchLength(t)
	if length == 0 {
		return nil
	}
	t.Offset, t.TL = rangeOf(t.CDB()).lba<<t.LU.blockShift, uint32(length)
	return t.readThrough(ctx, int(t.TL), func([]byte, int) error { return nil })
}

// Bits of READ DEFECT DATA (SBC-3 5.17, 5.18).
const (
	defectLists       = 0x18 // REQ_PLIST, REQ_GLIST
	defectFormat      = 0x07
	defectFormatKnown = 0x05 // the largest that is not vendor specific or reserved
)

// readDefectData returns the header of the empty lists requested: the store has no
// defects that an initiator could avoid. The header has 4 bytes for (10), 8 bytes for
// (12).
func readDefectData(t *Task, requestByte int, header []byte, allocationLength uint32) error {
	request := t.CDB()[requestByte]
	if request&defectFormat > defectFormatKnown {
		return sense.InvalidFieldInCDB(requestByte, 2)
	}
	header[1] = request & (defectLists | defectFormat)
	t.SetDataIn(header, allocationLength)
	return nil
}

func executeReadDefectData10(_ context.Context, t *Task) error {
	return readDefectData(t, 2, make([]byte, 4), uint32(binary.BigEndian.Uint16(t.CDB()[7:])))
}

func executeReadDefectData12(_ context.Context, t *Task) error {
	return readDefectData(t, 1, make([]byte, 8), binary.BigEndian.Uint32(t.CDB()[6:]))
}

// preparePreventAllow checks PREVENT ALLOW MEDIUM REMOVAL (SBC-3 5.10). The medium is
// not removable, so both values have no effect.
func preparePreventAllow(t *Task) error {
	if t.CDB()[4]&0x02 != 0 { // obsolete: changers
		return sense.InvalidFieldInCDB(4, 1)
	}
	return nil
}

// preventAllowAccess returns the kind of access: allowing removal passes every
// reservation.
func preventAllowAccess(cdb []byte) Access {
	if cdb[4]&0x01 == 0 {
		return AccessAlways
	}
	return AccessWrite
}

// Bits of START STOP UNIT (SBC-3 5.25).
const (
	startStopIMMED   = 0x01 // byte 1
	startStopNoFlush = 0x04 // byte 4
	startStopLOEJ    = 0x02 // byte 4
	startStopSTART   = 0x01 // byte 4
)

// prepareStartStopUnit checks START STOP UNIT.
func prepareStartStopUnit(t *Task) error {
	cdb := t.CDB()
	switch {
	case cdb[4]&0xF0 != 0: // POWER CONDITION: there are none
		return sense.InvalidFieldInCDB(4, 7)
	case cdb[3]&0x0F != 0: // POWER CONDITION MODIFIER
		return sense.InvalidFieldInCDB(3, 3)
	case cdb[4]&startStopLOEJ != 0: // the medium is not removable
		return sense.InvalidFieldInCDB(4, 1)
	}
	return nil
}

// startStopAccess returns the kind of access: a start without power condition passes
// every reservation.
func startStopAccess(cdb []byte) Access {
	if cdb[4]&0xF1 == startStopSTART {
		return AccessAlways
	}
	return AccessWrite
}

// executeStartStopUnit changes no state: a unit that one initiator stops, even a
// read-only one, would be stopped for all others, and Linux then fails every command
// and never starts it. A stop makes written data durable, as a disk that spins down
// does, unless NO_FLUSH is set; with IMMED the flush continues after the status.
func executeStartStopUnit(ctx context.Context, t *Task) error {
	lu, cdb := t.LU, t.CDB()
	switch {
	case cdb[4]&(startStopSTART|startStopNoFlush) != 0:
		return nil
	case cdb[1]&startStopIMMED != 0:
		return lu.background.request(t.itl)
	}
	return lu.Volume().Flush(ctx)
}
