package scsi

import (
	"fmt"
	"slices"
)

// command is a row of the device server's own command table.
type command struct {
	serviceAction int
	op            Operation
}

// naca is the usage of the CONTROL byte: NACA is the only bit that is evaluated.
const naca = 0x04

// usage6 to usage16 build the CDB usage data of the block commands: flags is byte 1;
// LBA and length are used entirely, GROUP NUMBER is not.
func usage6(code byte) []byte {
	return []byte{code, 0x1F, 0xFF, 0xFF, 0xFF, naca}
}

func usage10(code, flags byte) []byte {
	return []byte{code, flags, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, naca}
}

func usage12(code, flags byte) []byte {
	return []byte{code, flags, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca}
}

func usage16(code, flags byte) []byte {
	return []byte{code, flags, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca}
}

// primaryCommands are the commands of SPC-4 (and RESERVE, RELEASE of SPC-2).
func primaryCommands() []command {
	const none = NoServiceAction
	return []command{
		{none, Operation{Name: "TEST UNIT READY", Usage: []byte{0x00, 0, 0, 0, 0, naca},
			Access: AccessState, Medium: true, Execute: executeNoOp}},
		{none, Operation{Name: "REQUEST SENSE", Usage: []byte{opRequestSense, 0x01, 0, 0, 0xFF, naca},
			Access: AccessAlways, Execute: executeRequestSense}},
		{none, Operation{Name: "INQUIRY", Usage: []byte{opInquiry, 0x01, 0xFF, 0xFF, 0xFF, naca},
			Access: AccessAlways, Execute: executeInquiry}},
		{none, Operation{Name: "MODE SELECT(6)", Usage: []byte{0x15, 0x11, 0, 0, 0xFF, naca},
			Access: AccessWrite, Prepare: prepareModeSelect6, Execute: executeModeSelect6}},
		{none, Operation{Name: "RESERVE(6)", Usage: []byte{0x16, 0x11, 0, 0, 0, naca},
			Access: AccessAlways, Prepare: prepareReserve6, Execute: executeReserve}},
		{none, Operation{Name: "RELEASE(6)", Usage: []byte{0x17, 0x11, 0, 0, 0, naca},
			Access: AccessAlways, Prepare: prepareReserve6, Execute: executeRelease}},
		{none, Operation{Name: "RESERVE(10)", Usage: []byte{0x56, 0x13, 0, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessAlways, Prepare: prepareReserve10, Execute: executeReserve}},
		{none, Operation{Name: "RELEASE(10)", Usage: []byte{0x57, 0x13, 0, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessAlways, Prepare: prepareReserve10, Execute: executeRelease}},
		{none, Operation{Name: "MODE SENSE(6)", Usage: []byte{0x1A, 0x08, 0xFF, 0xFF, 0xFF, naca},
			Access: AccessRead, Execute: executeModeSense6}},
		{none, Operation{Name: "SEND DIAGNOSTIC", Usage: []byte{0x1D, 0xF6, 0, 0xFF, 0xFF, naca},
			Access: AccessWrite, Medium: true, Prepare: prepareSendDiagnostic, Execute: executeSendDiagnostic}},
		{none, Operation{Name: "MODE SELECT(10)", Usage: []byte{0x55, 0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessWrite, Prepare: prepareModeSelect10, Execute: executeModeSelect10}},
		{none, Operation{Name: "MODE SENSE(10)", Usage: []byte{0x5A, 0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessRead, Execute: executeModeSense10}},
		{none, Operation{Name: "REPORT LUNS", Usage: []byte{opReportLUNs, 0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessAlways, Execute: executeReportLUNs}},
		{0x0C, Operation{Name: "REPORT SUPPORTED OPERATION CODES",
			Usage:  []byte{0xA3, 0x0C, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessRead, Execute: executeReportSupportedOperationCodes}},
		{0x0D, Operation{Name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS",
			Usage:  []byte{0xA3, 0x0D, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessRead, Execute: executeReportSupportedTMFs}},
	}
}

// blockCommands are the commands of SBC-3 that every logical unit has.
func blockCommands() []command {
	const none = NoServiceAction
	read := func(name string, usage []byte) command {
		return command{none, Operation{Name: name, Usage: usage, Kind: KindRead, Access: AccessRead, Medium: true,
			Prepare: prepareRead, Execute: executeRead}}
	}
	write := func(name string, usage []byte) command {
		return command{none, Operation{Name: name, Usage: usage, Kind: KindWrite, Access: AccessWrite, Medium: true, Write: true,
			Partial: true, Prepare: prepareWrite, Execute: executeWrite}}
	}
	verify := func(name string, usage []byte) command {
		return command{none, Operation{Name: name, Usage: usage, Access: AccessRead, Medium: true,
			Prepare: prepareVerify, Execute: executeVerify}}
	}
	writeVerify := func(name string, usage []byte) command {
		return command{none, Operation{Name: name, Usage: usage, Kind: KindWrite, Access: AccessWrite, Medium: true, Write: true,
			Partial: true, Prepare: prepareWriteAndVerify, Execute: executeWriteAndVerify}}
	}
	writeSame := func(name string, usage []byte) command {
		return command{none, Operation{Name: name, Usage: usage, Kind: KindWrite, Access: AccessWrite, Medium: true, Write: true,
			Prepare: prepareWriteSame, Execute: executeWriteSame}}
	}
	sync := func(name string, usage []byte) command {
		return command{none, Operation{Name: name, Usage: usage, Access: AccessWrite, Medium: true,
			Prepare: prepareSynchronizeCache, Execute: executeSynchronizeCache}}
	}
	return []command{
		read("READ(6)", usage6(0x08)), read("READ(10)", usage10(0x28, 0x18)),
		read("READ(12)", usage12(0xA8, 0x18)), read("READ(16)", usage16(0x88, 0x18)),
		write("WRITE(6)", usage6(0x0A)), write("WRITE(10)", usage10(0x2A, 0x18)),
		write("WRITE(12)", usage12(0xAA, 0x18)), write("WRITE(16)", usage16(0x8A, 0x18)),
		verify("VERIFY(10)", usage10(0x2F, 0x16)), verify("VERIFY(12)", usage12(0xAF, 0x16)),
		verify("VERIFY(16)", usage16(0x8F, 0x16)),
		writeVerify("WRITE AND VERIFY(10)", usage10(0x2E, 0x16)),
		writeVerify("WRITE AND VERIFY(12)", usage12(0xAE, 0x16)),
		writeVerify("WRITE AND VERIFY(16)", usage16(0x8E, 0x16)),
		writeSame("WRITE SAME(10)", usage10(0x41, 0x08)), writeSame("WRITE SAME(16)", usage16(0x93, 0x09)),
		sync("SYNCHRONIZE CACHE(10)", usage10(0x35, 0x02)), sync("SYNCHRONIZE CACHE(16)", usage16(0x91, 0x02)),
		{none, Operation{Name: "READ CAPACITY(10)", Usage: []byte{0x25, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0x01, naca},
			Access: AccessAlways, Execute: executeReadCapacity10}},
		{0x10, Operation{Name: "READ CAPACITY(16)",
			Usage:  []byte{0x9E, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessAlways, Execute: executeReadCapacity16}},
	}
}

// mediumCommands are the commands for the medium as a whole.
func mediumCommands() []command {
	const none = NoServiceAction
	preFetch := func(name string, usage []byte) command {
		return command{none, Operation{Name: name, Usage: usage, Access: AccessRead, Medium: true,
			Prepare: preparePreFetch, Execute: executePreFetch}}
	}
	return []command{
		preFetch("PRE-FETCH(10)", usage10(0x34, preFetchIMMED)), preFetch("PRE-FETCH(16)", usage16(0x90, preFetchIMMED)),
		{none, Operation{Name: "FORMAT UNIT", Usage: []byte{0x04, 0xFF, 0, 0, 0, naca},
			Access: AccessWrite, Medium: true, Write: true, Erases: true, Prepare: prepareFormatUnit, Execute: executeFormatUnit}},
		{none, Operation{Name: "START STOP UNIT", Usage: []byte{0x1B, 0x01, 0, 0x0F, 0xF7, naca},
			Access: AccessWrite, AccessOf: startStopAccess, Prepare: prepareStartStopUnit, Execute: executeStartStopUnit}},
		{none, Operation{Name: "PREVENT ALLOW MEDIUM REMOVAL", Usage: []byte{0x1E, 0, 0, 0, 0x03, naca},
			AccessOf: preventAllowAccess, Prepare: preparePreventAllow, Execute: executeNoOp}},
		{none, Operation{Name: "READ DEFECT DATA(10)", Usage: []byte{0x37, 0, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessRead, Medium: true, Execute: executeReadDefectData10}},
		{none, Operation{Name: "READ DEFECT DATA(12)", Usage: []byte{0xB7, 0x1F, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessRead, Medium: true, Execute: executeReadDefectData12}},
	}
}

// conditionalCommands are the commands that need more from the volume than reads and
// writes; a logical unit has them while its volume can do them.
func conditionalCommands() []command {
	var commands []command
	add := func(have func(*medium) bool, op Operation) {
		op.Kind, op.Access, op.Medium, op.Write = KindWrite, AccessWrite, true, true
		op.offered = func(i *itlNexus) bool { return have(i.lu.medium()) }
		commands = append(commands, command{NoServiceAction, op})
	}
	add(func(m *medium) bool { return m.conditional != nil }, Operation{Name: "COMPARE AND WRITE",
		Usage:   []byte{0x89, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0, naca},
		Prepare: prepareCompareAndWrite, Execute: executeCompareAndWrite})
	add(func(m *medium) bool { return m.updater != nil }, Operation{Name: "ORWRITE(16)", Usage: usage16(opORWrite, 0x18),
		Prepare: prepareORWrite, Execute: executeORWrite})
	add(func(m *medium) bool { return m.atomic != nil }, Operation{Name: "WRITE ATOMIC(16)",
		Usage:   []byte{0x9C, 0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, naca},
		Prepare: prepareWriteAtomic, Execute: executeWriteAtomic})
	return commands
}

// provisioningCommands are the commands of SBC-3 for logical block provisioning
// management (LBPME).
func provisioningCommands() []command {
	return []command{
		{NoServiceAction, Operation{Name: "UNMAP", Usage: []byte{0x42, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Kind: KindUnmap, Access: AccessWrite, Medium: true, Write: true, Prepare: prepareUnmap, Execute: executeUnmap}},
		{sanitizeBlockErase, Operation{Name: "SANITIZE, BLOCK ERASE",
			Usage:  []byte{opSanitize, sanitizeIMMED | sanitizeAUSE | sanitizeBlockErase, 0, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessWrite, Medium: true, Write: true, Erases: true, Prepare: prepareSanitize, Execute: executeBlockErase}},
		{sanitizeExitFailureMode, Operation{Name: "SANITIZE, EXIT FAILURE MODE",
			Usage:  []byte{opSanitize, sanitizeIMMED | sanitizeExitFailureMode, 0, 0, 0, 0, 0, 0xFF, 0xFF, naca},
			Access: AccessWrite, Erases: true, Prepare: prepareSanitize, Execute: executeExitFailureMode}},
		{0x12, Operation{Name: "GET LBA STATUS",
			Usage:  []byte{0x9E, 0x12, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, naca},
			Access: AccessRead, Medium: true, Prepare: prepareGetLBAStatus, Execute: executeGetLBAStatus}},
	}
}

// installCommands fills the command table.
func (lu *LogicalUnit) installCommands() error {
	commands := slices.Concat(primaryCommands(), reservationCommands(), portGroupCommands(), blockCommands(), mediumCommands(), conditionalCommands())
	if lu.config.Thin {
		commands = append(commands, provisioningCommands()...)
	}
	if lu.config.Thin && lu.config.Space.Usage != nil {
		commands = append(commands, command{NoServiceAction, Operation{Name: "LOG SENSE",
			Usage:  []byte{0x4D, 0x01, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, naca},
			Access: AccessAlways, Execute: executeLogSense}})
	}
	for _, c := range commands {
		if err := lu.Install(c.op.Usage[0], c.serviceAction, c.op); err != nil {
			return fmt.Errorf("command table: %w", err)
		}
	}
	return nil
}
