package scsi

import (
	"context"
	"errors"

	"odx/blockdev"
	"odx/target/scsi/reserve"
)

// ErrorSense is a row of the table that turns errors into sense data: an error
// that is Err (errors.Is) ends the command with Key and ASC.
type ErrorSense struct {
	Err error
	Key SenseKey
	ASC ASC
}

// errorSense is the one place where an error of a lower layer gets its sense
// data. Anything that is not in it is an internal target failure.
var errorSense = [...]ErrorSense{
	{errShortDataOut, KeyIllegalRequest, ASCInvalidFieldInCommandIU},
	{blockdev.ErrNoSpace, KeyDataProtect, ASCSpaceAllocationFailed},
	{blockdev.ErrReadOnly, KeyDataProtect, ASCWriteProtected},
	{blockdev.ErrCorrupt, KeyMediumError, ASCUnrecoveredReadError},
	{blockdev.ErrRange, KeyIllegalRequest, ASCLBAOutOfRange},
	{blockdev.ErrClosed, KeyNotReady, ASCLogicalUnitNotReady},
	{context.Canceled, KeyAbortedCommand, ASCNone},
	{context.DeadlineExceeded, KeyAbortedCommand, ASCCommandTimeoutDuringProcessing},
}

// ErrBusy ends a command with BUSY status, which has no sense data: the
// initiator tries again later.
var ErrBusy = errors.New("busy")

// errShortDataOut ends a command that cannot run with the Data-Out it got.
var errShortDataOut = errors.New("less Data-Out than the CDB asks for")

// MapErrors adds rows that are looked up before the device server's own. It
// must not be called once commands arrive.
func (lu *LogicalUnit) MapErrors(rows ...ErrorSense) {
	lu.errorRows = append(lu.errorRows, rows...)
}

// Sense returns the sense data that err ends a command of lu with.
func (lu *LogicalUnit) Sense(err error) *SenseError {
	if se, ok := errors.AsType[*SenseError](err); ok {
		return se
	}
	for _, rows := range [...][]ErrorSense{lu.errorRows, errorSense[:]} {
		for _, row := range rows {
			if errors.Is(err, row.Err) {
				return NewSense(row.Key, row.ASC)
			}
		}
	}
	return NewSense(KeyHardwareError, ASCInternalTargetFailure)
}

// Status returns the status and the sense data, nil where the status has none,
// that err ends a command of lu with.
func (lu *LogicalUnit) Status(err error) (status byte, sense *SenseError) {
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
	if _, decided := errors.AsType[*SenseError](err); !decided && errors.Is(err, blockdev.ErrBusy) {
		return StatusBusy, true
	}
	return 0, false
}

// readAt reads from the volume. Damage is told with the LBA of the first block
// that cannot be read (SBC-3 4.18).
func (lu *LogicalUnit) readAt(ctx context.Context, p []byte, off int64) error {
	err := lu.volume.ReadAt(ctx, p, off)
	if err == nil {
		return nil
	}
	if corrupt, ok := errors.AsType[*blockdev.CorruptError](err); ok {
		// The store names the start of its own block, which can lie before ours.
		sense := NewSense(KeyMediumError, ASCUnrecoveredReadError).
			WithInformation(uint64(max(corrupt.Offset, off)) >> lu.blockShift)
		sense.Err = err
		return sense
	}
	return err
}
