package copymgr

import (
	"encoding/binary"

	"odx/target/scsi"
	"odx/tokens"
)

// Values of COPY OPERATION STATUS (SPC-4 r37 table 224). 03h, success with
// partial ROD token usage, is never told: Windows fails the request for it.
const (
	copyDone              = 0x01
	copyDoneWithErrors    = 0x02
	copyDoneWithResidual  = 0x04
	copyRunningForeground = 0x11
	copyTerminated        = 0x60
)

// Values of EXTENDED COPY COMPLETION STATUS: SAM-5 status codes.
const (
	statusGood           = 0x00
	statusCheckCondition = 0x02
	statusTaskAborted    = 0x40
)

// Values of the status header's other fields.
const (
	statusHeaderLength = 32
	// unitsDestinationBlocks says that TRANSFER COUNT is in logical blocks of
	// the copy destination (SBC-3 5.23).
	unitsDestinationBlocks = 0xF1
	// delayFinished is the delay that a finished operation shall report;
	// delayRunning is in milliseconds.
	delayFinished = 0xFFFFFFFE
	delayRunning  = 100
)

// report is what the copy manager tells about a copy operation.
type report struct {
	serviceAction byte
	status        byte // COPY OPERATION STATUS
	completion    byte // EXTENDED COPY COMPLETION STATUS
	sense         *scsi.SenseError
	transferCount uint64 // logical blocks of the destination
	// token is told once; see operations.discardToken.
	token *tokens.Token
}

// finished reports whether the operation has ended.
func (r *report) finished() bool { return r.status != copyRunningForeground }

// receiveCopyStatus returns the parameter data of RECEIVE COPY STATUS(LID4)
// (SPC-4 r37 6.24).
func (r *report) receiveCopyStatus() []byte {
	p := r.header()
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

// receiveRODTokenInformation returns the parameter data of RECEIVE ROD TOKEN
// INFORMATION (SPC-4 r37 6.26, SBC-3 5.23).
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

// header returns the fields that both commands have in common, with the sense
// data; AVAILABLE DATA is left to them.
func (r *report) header() []byte {
	be := binary.BigEndian
	p := make([]byte, statusHeaderLength, statusHeaderLength+20+4+2+tokens.TokenLength)
	p[4] = r.serviceAction
	p[5] = r.status
	be.PutUint32(p[8:], delayRunning)
	if r.finished() {
		be.PutUint16(p[6:], 1) // OPERATION COUNTER
		be.PutUint32(p[8:], delayFinished)
		p[12] = r.completion
	}
	p[15] = unitsDestinationBlocks
	be.PutUint64(p[16:], r.transferCount)
	if r.sense != nil {
		p = r.sense.AppendSense(p, scsi.FixedSense)
		p[14] = byte(len(p) - statusHeaderLength)
		for len(p)%4 != 0 {
			p = append(p, 0)
		}
		p[13] = byte(len(p) - statusHeaderLength)
	}
	return p
}
