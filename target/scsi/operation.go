package scsi

import (
	"context"
	"encoding/binary"
	"fmt"

	"odx/target/scsi/sense"
)

// NoServiceAction is the service action of an operation code that has none.
const NoServiceAction = -1

// Operation is one supported command: an operation code, or one service action
// of it.
type Operation struct {
	// Name is the standard's name, for logs.
	Name string
	// Usage is the CDB usage data of REPORT SUPPORTED OPERATION CODES: as long as the
	// CDB, with a bit set for each bit that the device server evaluates, except that
	// operation code and service action have their values.
	Usage []byte
	// Kind classifies the command for Stats and limits.
	Kind Kind
	// Access is the kind of access for the check of reservations.
	Access Access
	// AccessOf, if set, returns the kind of access of a CDB, in place of Access.
	AccessOf func(cdb []byte) Access
	// Medium: the command needs the medium, and ends with NOT READY during an erasure.
	Medium bool
	// Write: the command changes the medium, and is refused if that is write protected.
	Write bool
	// Erases: the command erases the whole medium. It runs even after an earlier
	// erasure has failed.
	Erases bool
	// Prepare checks the CDB and sets t.Wanted. It runs on the connection's reader and
	// must not block. nil: nothing to check, no Data-Out.
	Prepare func(t *Task) error
	// Partial: Execute supports less Data-Out than t.Wanted. Without it such a command
	// ends with INVALID FIELD IN COMMAND INFORMATION UNIT.
	Partial bool
	// Execute runs the command: it reads t.DataOut, and on success has set the Data-In
	// of t. An error becomes sense data (LogicalUnit.Sense).
	Execute func(ctx context.Context, t *Task) error
	// offered reports whether a nexus has the command; nil: every nexus has.
	offered func(*itlNexus) bool
	// RecommendedTimeout in seconds, 0 for none, is reported in command timeouts
	// descriptors.
	RecommendedTimeout uint32
}

// opcode has the operations of one operation code: a single one, or one for each
// service action (bits 4..0 of byte 1).
type opcode struct {
	single  *Operation
	actions *[32]*Operation
	refused func(t *Task, err error) // nil: no hook
}

// access returns the kind of access of a CDB.
func (op *Operation) access(cdb []byte) Access {
	if op.AccessOf != nil {
		return op.AccessOf(cdb)
	}
	return op.Access
}

// Install adds a command to the logical unit. serviceAction is NoServiceAction for
// operation codes without. It fails if the command exists or the operation is
// incomplete, and must not be called once commands arrive.
func (lu *LogicalUnit) Install(code byte, serviceAction int, op Operation) error {
	if op.Execute == nil || len(op.Usage) < 6 || op.Usage[0] != code {
		return fmt.Errorf("operation %q (%02Xh): requires Execute, and Usage starting with the operation code", op.Name, code)
	}
	oc := &lu.opcodes[code]
	if serviceAction == NoServiceAction {
		if oc.single != nil || oc.actions != nil {
			return fmt.Errorf("operation %q: operation code %02Xh is taken", op.Name, code)
		}
		oc.single = &op
		return nil
	}
	if serviceAction < 0 || serviceAction > 31 || oc.single != nil {
		return fmt.Errorf("operation %q: operation code %02Xh has no service action %d", op.Name, code, serviceAction)
	}
	if oc.actions == nil {
		oc.actions = new([32]*Operation)
	}
	if oc.actions[serviceAction] != nil {
		return fmt.Errorf("operation %q: service action %02Xh/%02Xh is taken", op.Name, code, serviceAction)
	}
	oc.actions[serviceAction] = &op
	return nil
}

// OnRefusal registers fn, which runs when the device server ends a command with this
// operation code before its execution: because of its service action or another field
// of the CDB, a reservation, or a unit attention. LogicalUnit.Status returns the status
// of err. fn must not block. It belongs to the set-up.
func (lu *LogicalUnit) OnRefusal(code byte, fn func(t *Task, err error)) {
	lu.opcodes[code].refused = fn
}

// operation returns the operation of a CDB.
func (lu *LogicalUnit) operation(cdb []byte) (*Operation, error) {
	if len(cdb) < 6 {
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
	}
	oc := &lu.opcodes[cdb[0]]
	op := oc.single
	if oc.actions != nil {
		op = oc.actions[cdb[1]&0x1F]
	}
	if op == nil && cdb[0] == opSanitize && oc.actions != nil {
		return nil, sense.InvalidFieldInCDB(1, 4)
	}
	if op == nil {
		if cdb[0] == opPersistentReserveIn || cdb[0] == opPersistentReserveOut {
			// Initiators expect this for an unsupported service action of these
			// operation codes (SPC-4 r37 5.12.1).
			return nil, sense.InvalidFieldInCDB(1, 4)
		}
		// Also for a service action: initiators accept only this code as "not
		// implemented", whether or not the operation code has other actions.
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCInvalidCommandOperationCode)
	}
	// NACA requests ACA, which is not supported (NORMACA=0 in INQUIRY, SAM-5 5.2). The
	// CONTROL byte is the last of the CDB.
	last := len(op.Usage) - 1
	if len(cdb) <= last {
		return nil, sense.New(sense.KeyIllegalRequest, sense.ASCInvalidFieldInCDB)
	}
	if cdb[last]&0x04 != 0 {
		return nil, sense.InvalidFieldInCDB(last, 2)
	}
	return op, nil
}

// ParameterListLength returns a Prepare function for commands with a parameter list:
// the CDB has its length in width bytes (1, 2 or 4) at offset.
func ParameterListLength(offset, width int) func(t *Task) error {
	return func(t *Task) error {
		field := t.CDB()[offset : offset+width]
		switch width {
		case 1:
			t.Wanted = uint32(field[0])
		case 2:
			t.Wanted = uint32(binary.BigEndian.Uint16(field))
		default:
			t.Wanted = binary.BigEndian.Uint32(field)
		}
		return nil
	}
}

// SetDataIn sets the Data-In of the command to p, truncated to allocationLength bytes
// (SPC-4 r37 4.2.5.6).
func (t *Task) SetDataIn(p []byte, allocationLength uint32) {
	n := min(uint64(len(p)), uint64(allocationLength))
	copy(t.AllocDataIn(int(n)), p)
}
