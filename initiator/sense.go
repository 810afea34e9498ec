package initiator

import (
	"encoding/binary"
	"fmt"
)

// Status codes (SAM-5 5.3.1).
const (
	statusGood           = 0x00
	statusCheckCondition = 0x02
	statusBusy           = 0x08
	statusTaskSetFull    = 0x28
)

// StatusError is a status other than GOOD and CHECK CONDITION.
type StatusError struct{ Status byte }

func (e *StatusError) Error() string {
	name := map[byte]string{
		statusBusy: "BUSY", 0x18: "RESERVATION CONFLICT", statusTaskSetFull: "TASK SET FULL", 0x40: "TASK ABORTED",
	}[e.Status]
	if name == "" {
		name = fmt.Sprintf("status %#02x", e.Status)
	}
	return "the logical unit answered " + name
}

// busy reports that the same command may succeed later.
func (e *StatusError) busy() bool { return e.Status == statusBusy || e.Status == statusTaskSetFull }

// SenseError is a CHECK CONDITION (SPC-4 r37 4.5) of a command that has not completed.
type SenseError struct {
	Key byte
	// Deferred: it is the error of an earlier command whose status was GOOD, for example of a
	// write that a cache has lost. The command that it has ended was not performed (SPC-4 4.5.7).
	Deferred bool
	// ASC is the additional sense code and its qualifier.
	ASC uint16
	// Information is the INFORMATION field, if it is valid.
	Information      uint64
	InformationValid bool
}

// Sense keys (SPC-4 r37 4.5.6).
const (
	keyNoSense        = 0x0
	keyRecoveredError = 0x1
	KeyIllegalRequest = 0x5
	KeyUnitAttention  = 0x6
	KeyCopyAborted    = 0xa
)

func (e *SenseError) Error() string {
	name := map[byte]string{
		keyNoSense: "NO SENSE", keyRecoveredError: "RECOVERED ERROR", 0x2: "NOT READY", 0x3: "MEDIUM ERROR", 0x4: "HARDWARE ERROR", KeyIllegalRequest: "ILLEGAL REQUEST",
		KeyUnitAttention: "UNIT ATTENTION", 0x7: "DATA PROTECT", KeyCopyAborted: "COPY ABORTED", 0xb: "ABORTED COMMAND", 0xe: "MISCOMPARE",
	}[e.Key]
	if name == "" {
		name = fmt.Sprintf("sense key %Xh", e.Key)
	}
	if e.Deferred {
		name += " of an earlier command"
	}
	return fmt.Sprintf("the logical unit answered %s, %02X/%02X", name, e.ASC>>8, e.ASC&0xff)
}

// completed reports that the command has completed: an error of its own was recovered from.
func (e *SenseError) completed() bool { return e.Key == keyRecoveredError && !e.Deferred }

// repeat reports that the command is to be sent again: a unit attention, or what is no error of it
// and of no earlier one has kept it from being performed, or nothing is known of it. Sense data
// that is missing or makes no sense is as NO SENSE; a success that it stands for would be guessed.
func (e *SenseError) repeat() bool {
	return e.Key == KeyUnitAttention || e.Key == keyNoSense || e.Key == keyRecoveredError
}

// statusError turns a status and its sense data into an error, nil for a command that has
// completed.
func statusError(status byte, sense []byte) error {
	switch status {
	case statusGood:
		return nil
	case statusCheckCondition:
		if e := parseSense(sense); !e.completed() {
			return e
		}
		return nil
	default:
		return &StatusError{Status: status}
	}
}

// parseSense reads sense data of the fixed and the descriptor format (SPC-4 r37
// 4.5.2, 4.5.3). Fields that it is too short for are zero; so is all of sense data that is in
// neither format.
func parseSense(b []byte) *SenseError {
	e := new(SenseError)
	if len(b) == 0 {
		return e
	}
	code := b[0] & 0x7f
	if len(b) > 7 { // ADDITIONAL SENSE LENGTH, in both formats
		b = b[:min(len(b), 8+int(b[7]))]
	}
	switch code {
	case 0x70, 0x71:
		if len(b) > 2 {
			e.Key, e.Deferred = b[2]&0xf, code == 0x71
		}
		if len(b) >= 7 {
			e.InformationValid, e.Information = b[0]&0x80 != 0, uint64(binary.BigEndian.Uint32(b[3:]))
		}
		if len(b) >= 14 {
			e.ASC = binary.BigEndian.Uint16(b[12:])
		}
	case 0x72, 0x73:
		if len(b) > 1 {
			e.Key, e.Deferred = b[1]&0xf, code == 0x73
		}
		if len(b) >= 4 {
			e.ASC = binary.BigEndian.Uint16(b[2:])
		}
		if len(b) > 8 {
			e.findInformation(b[8:])
		}
	}
	return e
}

// findInformation looks for the information descriptor (SPC-4 r37 4.5.2.2).
func (e *SenseError) findInformation(b []byte) {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == 0 && b[1] == 10 {
			e.InformationValid, e.Information = b[2]&0x80 != 0, binary.BigEndian.Uint64(b[4:])
		}
		b = b[2+int(b[1]):]
	}
}
