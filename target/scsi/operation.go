package scsi

import (
	"context"
	"encoding/binary"
	"fmt"
)

// NoServiceAction is the service action of an operation code that has none.
const NoServiceAction = -1

// Operation is one supported command: an operation code, or one service action
// of it.
type Operation struct {
	// Name is the standard's name, for logs.
	Name string
	// Usage is the CDB usage data of REPORT SUPPORTED OPERATION CODES: as long as
	// the CDB, a bit set where the device server looks at that bit, except that
	// the operation code and service action stand as they are.
	Usage []byte
	// Access is the kind of access that reservations are checked for.
	Access Access
	// AccessOf, if set, says what kind of access a CDB is, in place of Access.
	AccessOf func(cdb []byte) Access
	// Medium says that the command needs a started unit; it ends with NOT READY
	// otherwise.
	Medium bool
	// Write says that the command changes the medium and is refused on a
	// write-protected one.
	Write bool
	// Erases says that the command erases the whole medium: it runs even where an
	// earlier one has failed to.
	Erases bool
	// Prepare checks the CDB and sets t.Wanted. It runs on the connection's
	// reader and must not block. nil: nothing to check, no Data-Out.
	Prepare func(t *Task) error
	// Partial says that Execute copes with an initiator that offers less Data-Out
	// than t.Wanted. Without it such a command ends with INVALID FIELD IN COMMAND
	// INFORMATION UNIT.
	Partial bool
	// Execute runs the command: it reads t.DataOut, and on success has set
	// t's Data-In. An error becomes sense data (LogicalUnit.Sense).
	Execute func(ctx context.Context, t *Task) error
	// offered reports whether a nexus has the command at all; nil: every one has.
	offered func(*itlNexus) bool
	// RecommendedTimeout in seconds, 0 for none, is told to initiators that ask
	// for command timeouts descriptors.
	RecommendedTimeout uint32
}

// opcode is what a logical unit knows of one operation code: one operation, or
// one for each service action (bits 4..0 of byte 1).
type opcode struct {
	single  *Operation
	actions *[32]*Operation
	refused func(t *Task, err error) // nil: nobody wants to know
}

// access returns the kind of access that a CDB is.
func (op *Operation) access(cdb []byte) Access {
	if op.AccessOf != nil {
		return op.AccessOf(cdb)
	}
	return op.Access
}

// Install adds a command to the logical unit. serviceAction is NoServiceAction
// for operation codes without. It fails if the command is there already or the
// operation is incomplete, and must not be called once commands arrive.
func (lu *LogicalUnit) Install(code byte, serviceAction int, op Operation) error {
	if op.Execute == nil || len(op.Usage) < 6 || op.Usage[0] != code {
		return fmt.Errorf("operation %q (%02Xh): needs Execute, and Usage that starts with the operation code", op.Name, code)
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
		return fmt.Errorf("operation %q: operation code %02Xh cannot take service action %d", op.Name, code, serviceAction)
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

// OnRefusal has fn called whenever the device server ends a command with this
// operation code before it is executed: for its service action or another field of
// the CDB, a reservation, a unit attention. Status has what err ends it with. fn
// must not block. It belongs to the set-up.
func (lu *LogicalUnit) OnRefusal(code byte, fn func(t *Task, err error)) {
	lu.opcodes[code].refused = fn
}

// operation returns the operation that a CDB names.
func (lu *LogicalUnit) operation(cdb []byte) (*Operation, error) {
	if len(cdb) < 6 {
		return nil, NewSense(KeyIllegalRequest, ASCInvalidCommandOperationCode)
	}
	oc := &lu.opcodes[cdb[0]]
	op := oc.single
	if oc.actions != nil {
		op = oc.actions[cdb[1]&0x1F]
	}
	if op == nil && cdb[0] == opSanitize && oc.actions != nil {
		return nil, InvalidFieldInCDB(1, 4)
	}
	if op == nil {
		if cdb[0] == opPersistentReserveIn || cdb[0] == opPersistentReserveOut {
			// Initiators know that these operation codes come with some of their
			// service actions (SPC-4 r37 5.12.1).
			return nil, InvalidFieldInCDB(1, 4)
		}
		// Also for a service action: initiators take this code, and no other, for
		// "not implemented", whether or not the operation code has other actions.
		return nil, NewSense(KeyIllegalRequest, ASCInvalidCommandOperationCode)
	}
	// NACA asks for ACA, which NORMACA=0 in INQUIRY says there is none of
	// (SAM-5 5.2). The CONTROL byte is the last of the CDB.
	last := len(op.Usage) - 1
	if len(cdb) <= last {
		return nil, NewSense(KeyIllegalRequest, ASCInvalidFieldInCDB)
	}
	if cdb[last]&0x04 != 0 {
		return nil, InvalidFieldInCDB(last, 2)
	}
	return op, nil
}

// ParameterListLength returns a Prepare function for commands whose Data-Out is
// a parameter list: the CDB has its length in width bytes (1, 2 or 4) at offset.
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

// SetDataIn makes p, cut to allocationLength bytes, the Data-In of the command
// (SPC-4 r37 4.2.5.6).
func (t *Task) SetDataIn(p []byte, allocationLength uint32) {
	n := min(uint64(len(p)), uint64(allocationLength))
	copy(t.AllocDataIn(int(n)), p)
}
