package scsi

import (
	"context"

	"odx/target/scsi/sense"
)

// Operation codes that the order of checks depends on.
const (
	opRequestSense         = 0x03
	opInquiry              = 0x12
	opReportLUNs           = 0xA0
	opPersistentReserveIn  = 0x5E
	opPersistentReserveOut = 0x5F
)

// prepare does the part of a command that needs no I/O. The order of the checks is that
// of SAM-5 5.3.3 (status precedence) and SBC-3: unit attention, deferred error,
// reservation, readiness, protection, CDB, lengths.
func (i *itlNexus) prepare(t *Task) error {
	t.itl = i
	lu := i.lu
	if i.pending.Load() && !passesAttention(t.OpCode) {
		if se := i.takePending(); se != nil {
			return se
		}
	}
	op, err := lu.operation(t.CDB())
	if err != nil {
		return err
	}
	if op.offered != nil && !op.offered(i) {
		return errNotOffered()
	}
	t.op, t.kind = op, op.Kind
	if err := i.reach(t.CDB()); err != nil {
		return err
	}
	if err := lu.Reserved(i.nexus, op.access(t.CDB())); err != nil {
		return err
	}
	if err := lu.ready(op); err != nil {
		return err
	}
	if op.Write {
		if err := i.writeProtected(); err != nil {
			return err
		}
	}
	if op.Prepare != nil {
		if err := op.Prepare(t); err != nil {
			t.Wanted = 0
			return err
		}
	}
	if t.Wanted > maximumBuffered && !t.stream.on {
		t.Wanted = 0
		return sense.New(sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
	if passesAttention(t.OpCode) {
		return nil // runs in any state
	}
	t.exclusive = t.exclusive || op.Erases
	return i.enterTaskSet(t)
}

// admit makes the last checks before the operation runs: its Data-Out is complete, and
// nothing has changed since prepare.
func (t *Task) admit(ctx context.Context) error {
	if err := t.checkDataOut(); err != nil {
		return err
	}
	if err := t.awaitEnabled(ctx); err != nil {
		return err
	}
	// Checked again: while the command received data or waited, the nexus may have lost
	// access, an erasure may have started, the volume may be another one, or the logical
	// unit have moved.
	if t.itl != nil {
		if t.itl.revoked.Load() {
			return sense.New(sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
		}
		if t.op.offered != nil && !t.op.offered(t.itl) {
			return errNotOffered()
		}
		if err := t.LU.reachAway(t.CDB()); err != nil {
			return err
		}
		if err := t.LU.ready(t.op); err != nil {
			return err
		}
		if t.op.Write {
			if err := t.itl.writeProtected(); err != nil {
				return err
			}
		}
		if err := t.LU.Reserved(t.Nexus, t.op.access(t.CDB())); err != nil {
			return err
		}
	}
	return nil
}

// errNotOffered ends a command that the nexus does not have, or that the volume cannot do.
func errNotOffered() error {
	return sense.New(sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
}

// checkDataOut refuses an operation with less Data-Out than it requires.
func (t *Task) checkDataOut() error {
	have := uint64(len(t.DataOut()))
	switch {
	case t.stream.on && t.Wanted > 0:
		if t.ExpectedOut < t.Wanted && !t.op.Partial {
			return errShortDataOut
		}
		return nil // the operation checks it piece by piece: checkPiece
	case have < uint64(min(t.Wanted, t.ExpectedOut)): // the transport received only a part
		return errShortDataOut
	case have < uint64(t.Wanted) && !t.op.Partial:
		return errShortDataOut
	}
	return nil
}

// refused calls the hook of the operation code for a command that ends before its
// execution.
func (t *Task) refused(err error) {
	if t.LU == nil {
		return
	}
	if fn := t.LU.opcodes[t.OpCode].refused; fn != nil {
		fn(t, err)
	}
}

// passesAttention reports whether a command runs despite a unit attention condition
// (SAM-5 5.14) or a deferred error.
func passesAttention(code byte) bool {
	return code == opInquiry || code == opReportLUNs || code == opRequestSense
}

// Operations of a LUN without logical unit (SAM-5 4.7.1).
var (
	inquiryMissing      = Operation{Name: "INQUIRY", Execute: executeInquiryMissing}
	reportLUNsMissing   = Operation{Name: "REPORT LUNS", Execute: executeReportLUNs}
	requestSenseMissing = Operation{Name: "REQUEST SENSE", Execute: executeRequestSense}
)

// prepareMissing prepares a command to a LUN without logical unit.
func prepareMissing(t *Task) error {
	length := 6
	switch t.OpCode {
	case opInquiry:
		t.op = &inquiryMissing
	case opReportLUNs:
		t.op, length = &reportLUNsMissing, 12
	case opRequestSense:
		t.op = &requestSenseMissing
	default:
		return sense.New(sense.KeyIllegalRequest, sense.ASCLogicalUnitNotSupported)
	}
	if len(t.CDB()) < length {
		return sense.New(sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
	return nil
}
