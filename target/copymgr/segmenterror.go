package copymgr

import (
	"encoding/binary"

	"odx/target/scsi/sense"
)

// side identifies the logical unit of a segment that an error came from.
type side byte

const (
	neither side = iota
	fromSource
	fromDestination
)

// Offsets of the fields of a segment descriptor.
const (
	fieldSegmentSource      = 4
	fieldSegmentDestination = 6
	fieldSegmentCount       = 8
	fieldSegmentSourceLBA   = 12
	fieldSegmentDestLBA     = 20
)

// segmentError is the failure of a segment.
type segmentError struct {
	asc   sense.ASC
	field int // in the segment descriptor; 0: none
	// cscd is the offset in the parameter list of the CSCD descriptor of the
	// unreachable logical unit; 0 for another error, or without a descriptor.
	cscd int
	// third is the logical unit that failed, and err its error.
	third side
	err   error
}

// sense returns the sense data of a copy that ended at segment s (SPC-4 r37 5.17.7.4):
// COPY ABORTED with the segment's number, a pointer to the CSCD descriptor of the
// failed logical unit, or else into the segment descriptor, and the status and sense
// data of that logical unit.
func (e *segmentError) sense(x *extendedCopy, s *segment) *sense.Error {
	const sksv, segmentPointer = 0x80, 0x20
	se := sense.New(sense.KeyCopyAborted, e.asc)
	se.CommandSpecific, se.HasCommandSpecific = uint64(s.number), true
	pointer, flags := e.field, byte(sksv|segmentPointer)
	if at := e.failedCSCD(x, s); at > 0 {
		pointer, flags = at, sksv
	}
	se.SenseKeySpecific[0] = flags
	binary.BigEndian.PutUint16(se.SenseKeySpecific[1:], uint16(pointer))
	if e.third != neither {
		status, third := x.unit.lu.Status(e.err)
		se.Forwarded = &sense.Forwarded{Status: status, Sense: third, Destination: e.third == fromDestination}
	}
	se.Err = e.err
	return se
}

// failedCSCD returns the offset in the parameter list of the descriptor of the failed
// logical unit; 0 if there is none.
func (e *segmentError) failedCSCD(x *extendedCopy, s *segment) int {
	id := s.source
	switch e.third {
	case neither:
		return e.cscd
	case fromDestination:
		id = s.destination
	}
	if r := x.resolved[id].reached; r != nil {
		return r.cscd
	}
	return 0
}

// sourceFailed and destinationFailed return THIRD PARTY DEVICE FAILURE.
func sourceFailed(err error) *segmentError {
	return &segmentError{asc: ascThirdPartyDeviceFailure, field: fieldSegmentSource, third: fromSource, err: err}
}

func destinationFailed(err error) *segmentError {
	return &segmentError{asc: ascThirdPartyDeviceFailure, field: fieldSegmentDestination, third: fromDestination, err: err}
}
