package scsi

import (
	"context"
	"encoding/binary"

	"odx/target/scsi/sense"
)

// executeReportLUNs lists the LUNs of the nexus (SPC-4 r37 6.33). There are no well
// known logical units.
func executeReportLUNs(_ context.Context, t *Task) error {
	cdb := t.CDB()
	allocationLength := binary.BigEndian.Uint32(cdb[6:])
	const (
		selectAddressable = 0x00
		selectWellKnown   = 0x01
		selectAll         = 0x02
		// LUNs of conglomerates; there are none.
		selectAdministrative = 0x10
		selectIndependent    = 0x11 // and LUNs outside of conglomerates
		selectSubsidiary     = 0x12
	)
	var lists bool // whether the report lists logical units
	switch cdb[2] {
	case selectAddressable, selectAll, selectIndependent:
		lists = true
	case selectWellKnown, selectAdministrative, selectSubsidiary:
	default:
		return sense.InvalidFieldInCDB(2, 7)
	}
	if allocationLength < 16 {
		return sense.InvalidFieldInCDB(6, 7)
	}
	list := make([]byte, 8)
	if lists {
		// This report delivers the changed inventory (SPC-4 r37 6.33). The condition goes
		// first, so that it announces what changes from here on.
		t.Nexus.learnInventory()
		for _, number := range t.Nexus.luns() {
			lun := EncodeLUN(number)
			list = append(list, lun[:]...)
		}
	}
	binary.BigEndian.PutUint32(list, uint32(len(list)-8))
	t.SetDataIn(list, allocationLength)
	return nil
}

// Reporting options of REPORT SUPPORTED OPERATION CODES (SPC-4 r37 6.35).
const (
	reportAll           = 0
	reportOpcode        = 1 // an operation code without service actions
	reportServiceAction = 2 // an operation code with the service action
	reportEither        = 3 // either of the two
)

// timeoutsDescriptorLength is the command timeouts descriptor's whole length.
const timeoutsDescriptorLength = 12

// executeReportSupportedOperationCodes reports the command table itself, so that
// reported and executed commands cannot differ.
func executeReportSupportedOperationCodes(_ context.Context, t *Task) error {
	cdb, lu := t.CDB(), t.LU
	allocationLength := binary.BigEndian.Uint32(cdb[6:])
	withTimeouts := cdb[2]&0x80 != 0 // RCTD
	options := cdb[2] & 0x07
	if options == reportAll {
		t.SetDataIn(t.itl.allCommands(withTimeouts), allocationLength)
		return nil
	}
	action := binary.BigEndian.Uint16(cdb[4:])
	op, err := lu.requestedOperation(options, cdb[3], action)
	if err != nil {
		return err
	}
	if op != nil && op.offered != nil && !op.offered(t.itl) {
		op = nil
	}
	t.SetDataIn(oneCommand(op, withTimeouts), allocationLength)
	return nil
}

// requestedOperation returns the operation that the reporting options select, or nil if
// it is not supported.
func (lu *LogicalUnit) requestedOperation(options, code byte, action uint16) (*Operation, error) {
	oc := &lu.opcodes[code]
	switch {
	case options > reportEither:
		return nil, sense.InvalidFieldInCDB(2, 2)
	case options == reportOpcode && oc.actions != nil, options == reportServiceAction && oc.single != nil:
		return nil, sense.InvalidFieldInCDB(2, 2)
	case oc.actions == nil:
		return oc.single, nil
	case action > 31:
		return nil, nil
	}
	return oc.actions[action], nil
}

// oneCommand builds the one_command parameter data.
func oneCommand(op *Operation, withTimeouts bool) []byte {
	const notSupported, standard, timeoutsPresent = 0x01, 0x03, 0x80
	if op == nil {
		return []byte{0, notSupported, 0, 0}
	}
	d := []byte{0, standard, 0, byte(len(op.Usage))}
	d = append(d, op.Usage...)
	if withTimeouts {
		d[1] |= timeoutsPresent
		d = op.appendTimeouts(d)
	}
	return d
}

// allCommands builds the all_commands parameter data.
func (i *itlNexus) allCommands(withTimeouts bool) []byte {
	d := make([]byte, 4)
	for code := range i.lu.opcodes {
		oc := &i.lu.opcodes[code]
		if oc.single != nil {
			d = oc.single.appendDescriptor(d, 0, 0, withTimeouts)
		}
		if oc.actions == nil {
			continue
		}
		const servactv = 0x01
		for action, op := range oc.actions {
			if op != nil && (op.offered == nil || op.offered(i)) {
				d = op.appendDescriptor(d, byte(action), servactv, withTimeouts)
			}
		}
	}
	binary.BigEndian.PutUint32(d, uint32(len(d)-4))
	return d
}

// appendDescriptor adds a command descriptor.
func (op *Operation) appendDescriptor(d []byte, action, flags byte, withTimeouts bool) []byte {
	const ctdp = 0x02
	if withTimeouts {
		flags |= ctdp
	}
	d = append(d, op.Usage[0], 0, 0, action, 0, flags, 0, byte(len(op.Usage)))
	if withTimeouts {
		d = op.appendTimeouts(d)
	}
	return d
}

// appendTimeouts adds a command timeouts descriptor. It has no nominal time, which
// depends on the machine.
func (op *Operation) appendTimeouts(d []byte) []byte {
	d = append(d, 0, timeoutsDescriptorLength-2, 0, 0, 0, 0, 0, 0)
	return binary.BigEndian.AppendUint32(d, op.RecommendedTimeout)
}

// executeReportSupportedTMFs is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS
// (SPC-4 r37 6.36).
func executeReportSupportedTMFs(_ context.Context, t *Task) error {
	cdb := t.CDB()
	const (
		abortTask        = 0x80
		abortTaskSet     = 0x40
		clearTaskSet     = 0x10
		logicalUnitReset = 0x08
		repd             = 0x80
	)
	data := make([]byte, 4, 16)
	data[0] = abortTask | abortTaskSet | clearTaskSet | logicalUnitReset
	if cdb[2]&repd != 0 {
		data = data[:16]
		data[3] = byte(len(data) - 4)
	}
	t.SetDataIn(data, binary.BigEndian.Uint32(cdb[6:]))
	return nil
}
