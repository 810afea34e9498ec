package scsi

import (
	"context"
	"errors"

	"odx/blockdev"
	"odx/target/scsi/reserve"
	"odx/target/scsi/sense"
)

// ErrorSense is a row of the table that turns errors into sense data: an error that is
// Err (errors.Is) ends the command with Key and ASC.
type ErrorSense struct {
	Err error
	Key sense.Key
	ASC sense.ASC
}

// errorSense maps the errors of lower layers to sense data. Any other error is an
// internal target failure.
var errorSense = [...]ErrorSense{
	{errShortDataOut, sense.KeyIllegalRequest, sense.ASCInvalidFieldInCommandIU},
	{blockdev.ErrNoSpace, sense.KeyDataProtect, sense.ASCSpaceAllocationFailed},
	{blockdev.ErrReadOnly, sense.KeyDataProtect, sense.ASCWriteProtected},
	{blockdev.ErrCorrupt, sense.KeyMediumError, sense.ASCUnrecoveredReadError},
	{blockdev.ErrRange, sense.KeyIllegalRequest, sense.ASCLBAOutOfRange},
	{blockdev.ErrUnavailable, sense.KeyNotReady, sense.ASCBecomingReady},
	{blockdev.ErrClosed, sense.KeyNotReady, sense.ASCLogicalUnitNotReady},
	{context.Canceled, sense.KeyAbortedCommand, sense.ASCNone},
	{context.DeadlineExceeded, sense.KeyAbortedCommand, sense.ASCCommandTimeoutDuringProcessing},
}

// ErrBusy ends a command with BUSY status, which has no sense data: the initiator
// retries later.
var ErrBusy = errors.New("busy")

// errShortDataOut ends a command that cannot run with the Data-Out it received.
var errShortDataOut = errors.New("Data-Out shorter than the CDB requires")

// MapErrors adds rows that are looked up before the device server's own. It
// must not be called once commands arrive.
func (lu *LogicalUnit) MapErrors(rows ...ErrorSense) {
	lu.errorRows = append(lu.errorRows, rows...)
}

// Sense returns the sense data of a command of lu that err ends.
func (lu *LogicalUnit) Sense(err error) *sense.Error {
	if se, ok := errors.AsType[*sense.Error](err); ok {
		return se
	}
	for _, rows := range [...][]ErrorSense{lu.errorRows, errorSense[:]} {
		for _, row := range rows {
			if errors.Is(err, row.Err) {
				return sense.New(row.Key, row.ASC)
			}
		}
	}
	return sense.New(sense.KeyHardwareError, sense.ASCInternalTargetFailure)
}

// Status returns the status of a command of lu that err ends, and its sense data, which
// is nil if the status has none.
func (lu *LogicalUnit) Status(err error) (status byte, se *sense.Error) {
	if status, ok := plainStatus(err); ok {
		return status, nil
	}
	return StatusCheckCondition, lu.Sense(err)
}

// plainStatus returns the status of an error that ends a command without sense
// data.
func plainStatus(err error) (status byte, ok bool) {
	switch err {
	case reserve.ErrConflict:
		return StatusReservationConflict, true
	case errTaskSetFull:
		return StatusTaskSetFull, true
	case ErrBusy, errBusy:
		return StatusBusy, true
	}
	if _, decided := errors.AsType[*sense.Error](err); !decided && errors.Is(err, blockdev.ErrBusy) {
		return StatusBusy, true
	}
	return 0, false
}

// readAt reads from the volume. The sense data of damage has the LBA of the first
// unreadable block (SBC-3 4.18).
func (lu *LogicalUnit) readAt(ctx context.Context, p []byte, off int64) error {
	err := lu.Volume().ReadAt(ctx, p, off)
	if err == nil {
		return nil
	}
	if corrupt, ok := errors.AsType[*blockdev.CorruptError](err); ok {
		se := sense.New(sense.KeyMediumError, sense.ASCUnrecoveredReadError)
		// The store reports the start of its own block, which can precede the range.
		at := max(corrupt.Offset, off)
		if corrupt.Offset > off-blockdev.BlockLength && at < off+int64(len(p)) {
			se = se.WithInformation(uint64(at) >> lu.blockShift)
		}
		se.Err = err
		return se
	}
	return err
}
