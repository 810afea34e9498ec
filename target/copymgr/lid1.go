package copymgr

import (
	"encoding/binary"
	"math"

	"odx/target/scsi/sense"
)

// receiveCopyStatusLID1 returns the parameter data of RECEIVE COPY STATUS(LID1)
// (SPC-4 r37 6.25).
func (r *report) receiveCopyStatusLID1() []byte {
	const running, done, failed, heldDataDiscarded = 0x00, 0x01, 0x02, 0x80
	be := binary.BigEndian
	p := make([]byte, 12)
	be.PutUint32(p, uint32(len(p)-4))
	switch {
	case !r.finished():
		p[4] = running
	case r.completion == statusGood:
		p[4] = done
	default:
		p[4] = failed
	}
	if r.heldDiscarded {
		p[4] |= heldDataDiscarded
	}
	be.PutUint16(p[5:], r.segments)
	count := r.transferCount
	p[7] = r.units
	if p[7] == unitsBytes {
		for ; count > math.MaxUint32; count >>= 10 {
			p[7]++ // KiB, MiB, …
		}
	}
	be.PutUint32(p[8:], uint32(min(count, math.MaxUint32)))
	return p
}

// failureDetails returns the parameter data of RECEIVE COPY FAILURE DETAILS(LID1)
// (SPC-4 r37 6.23): empty for an operation that did not fail, or whose details were
// already reported.
func (r *report) failureDetails() []byte {
	be := binary.BigEndian
	if r.completion == statusGood || r.detailsReported {
		return make([]byte, 4)
	}
	p := make([]byte, 60)
	p[56] = r.completion
	if r.sense != nil {
		p = r.sense.AppendSense(p, sense.Fixed)
		be.PutUint16(p[58:], uint16(len(p)-60))
	}
	be.PutUint32(p, uint32(len(p)-4))
	return p
}
