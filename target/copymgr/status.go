package copymgr

import (
	"encoding/binary"
	"errors"
	"time"

	"odx/blockdev"
	"odx/target/scsi/sense"
	"odx/tokens"
)

// Values of COPY OPERATION STATUS (SPC-4 r37 table 224). 03h, success with partial ROD
// token usage, is never reported: Windows fails the request for it.
const (
	copyDone              = 0x01
	copyDoneWithErrors    = 0x02
	copyDoneWithResidual  = 0x04
	copyRunningForeground = 0x11
	copyRunningBackground = 0x12
	copyTerminated        = 0x60
)

// Values of EXTENDED COPY COMPLETION STATUS: SAM-5 status codes.
const (
	statusGood           = 0x00
	statusCheckCondition = 0x02
	statusBusy           = 0x08
	statusTaskAborted    = 0x40
)

// Values of the status header's other fields.
const (
	statusHeaderLength = 32
	// unitsDestinationBlocks says that TRANSFER COUNT is in logical blocks of
	// the copy destination (SBC-3 5.22).
	unitsDestinationBlocks = 0xF1
	unitsBytes             = 0x00
	// delayFinished is the delay of a finished operation.
	delayFinished = 0xFFFFFFFE
)

// report is the reported state of a copy operation.
type report struct {
	serviceAction byte
	status        byte // COPY OPERATION STATUS
	completion    byte // EXTENDED COPY COMPLETION STATUS
	sense         *sense.Error
	units         byte   // TRANSFER COUNT UNITS
	transferCount uint64 // in units, contiguous from the start
	steps         uint16 // OPERATION COUNTER
	segments      uint16 // SEGMENTS PROCESSED
	// delay is the time until the next request, while the operation runs.
	delay time.Duration
	// held is the data for RECEIVE COPY DATA; heldDiscarded: earlier data was
	// discarded.
	held          []byte
	heldDiscarded bool
	// detailsReported: the details of a failure were reported.
	detailsReported bool
	// token is reported once.
	token *tokens.Token
}

// finished reports whether the operation has ended.
func (r *report) finished() bool {
	return r.status != copyRunningForeground && r.status != copyRunningBackground
}

// conclude sets the status fields of a report from its other fields. err is the result
// of the work; cause is the cause of an abort, or nil.
func (r *report) conclude(err, cause error) {
	switch {
	case err != nil && cause != nil && cause != errOutOfTime:
		r.status, r.completion, r.sense, r.token = copyTerminated, statusTaskAborted, nil, nil
	case err != nil && r.transferCount == 0 && (cause == errOutOfTime && !errors.Is(err, tokens.ErrRemote) || errors.Is(err, blockdev.ErrBusy) && r.units == unitsDestinationBlocks):
		r.status, r.completion, r.sense = copyDoneWithErrors, statusBusy, nil
	case r.sense == nil:
		r.completion = statusGood
		if r.status == 0 {
			r.status = copyDone
		}
	case r.transferCount > 0 && r.units == unitsDestinationBlocks:
		r.status, r.completion = copyDoneWithResidual, statusCheckCondition
	default:
		r.status, r.completion = copyDoneWithErrors, statusCheckCondition
	}
}

// receiveCopyStatusLID4 returns the parameter data of RECEIVE COPY STATUS(LID4)
// (SPC-4 r37 6.24).
func (r *report) receiveCopyStatusLID4() []byte {
	p := r.header()
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// receiveCopyDataLID1 returns the parameter data of RECEIVE COPY DATA(LID1) (SPC-4
// r37 6.21).
func (r *report) receiveCopyDataLID1() []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(r.held))), r.held...)
}

// receiveCopyDataLID4 returns the parameter data of RECEIVE COPY DATA(LID4) (SPC-4 r37
// 6.20): the status, and the held data of an operation without errors.
func (r *report) receiveCopyDataLID4() []byte {
	const heldDataDiscarded = 0x80
	p, held := r.header(), r.held
	if r.heldDiscarded {
		p[5] |= heldDataDiscarded
	}
	if r.status != copyDone && r.status != copyDoneWithResidual {
		held = nil
	}
	p = binary.BigEndian.AppendUint32(p, uint32(len(held)))
	p = append(p, held...)
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// receiveRODTokenInformation returns the parameter data of RECEIVE ROD TOKEN
// INFORMATION (SPC-4 r37 6.26, SBC-3 5.22).
func (r *report) receiveRODTokenInformation() []byte {
	p := r.header()
	if r.token == nil {
		p = binary.BigEndian.AppendUint32(p, 0)
	} else {
		// ID FOR CREATING ROD CSCD, 0 for POPULATE TOKEN, and the token.
		p = binary.BigEndian.AppendUint32(p, 2+tokens.TokenLength)
		p = append(p, 0, 0)
		p = append(p, r.token[:]...)
	}
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// header returns the fields that both commands share, with the sense data; they set
// AVAILABLE DATA themselves.
func (r *report) header() []byte {
	be := binary.BigEndian
	p := make([]byte, statusHeaderLength, statusHeaderLength+20+4+2+tokens.TokenLength)
	p[4] = r.serviceAction
	p[5] = r.status
	be.PutUint16(p[6:], r.steps)
	if r.finished() {
		be.PutUint32(p[8:], delayFinished)
		p[12] = r.completion
	} else {
		be.PutUint32(p[8:], uint32(r.delay/time.Millisecond))
	}
	p[15] = r.units
	be.PutUint64(p[16:], r.transferCount)
	be.PutUint16(p[24:], r.segments)
	if r.sense != nil {
		p = r.sense.AppendSense(p, sense.Fixed)
		p[14] = byte(len(p) - statusHeaderLength)
		for len(p)%4 != 0 {
			p = append(p, 0)
		}
		p[13] = byte(len(p) - statusHeaderLength)
	}
	return p
}
