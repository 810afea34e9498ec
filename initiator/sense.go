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

// SenseError is a CHECK CONDITION (SPC-4 r37 4.5).
type SenseError struct {
	Key byte
	// ASC is the additional sense code and its qualifier.
	ASC uint16
	// Information is the INFORMATION field, if it is valid.
	Information      uint64
	InformationValid bool
}

// Sense keys (SPC-4 r37 4.5.6).
const (
	KeyIllegalRequest = 0x5
	KeyUnitAttention  = 0x6
	KeyCopyAborted    = 0xa
)

func (e *SenseError) Error() string {
	name := map[byte]string{
		0x1: "RECOVERED ERROR", 0x2: "NOT READY", 0x3: "MEDIUM ERROR", 0x4: "HARDWARE ERROR", KeyIllegalRequest: "ILLEGAL REQUEST",
		KeyUnitAttention: "UNIT ATTENTION", 0x7: "DATA PROTECT", KeyCopyAborted: "COPY ABORTED", 0xb: "ABORTED COMMAND", 0xe: "MISCOMPARE",
	}[e.Key]
	if name == "" {
		name = fmt.Sprintf("sense key %Xh", e.Key)
	}
	return fmt.Sprintf("the logical unit answered %s, %02X/%02X", name, e.ASC>>8, e.ASC&0xff)
}

// statusError turns a status and its sense data into an error, nil for GOOD.
func statusError(status byte, sense []byte) error {
	switch status {
	case statusGood:
		return nil
	case statusCheckCondition:
		return parseSense(sense)
	default:
		return &StatusError{Status: status}
	}
}

// parseSense reads sense data of the fixed and the descriptor format (SPC-4 r37
// 4.5.2, 4.5.3). Sense data that is too short gives a key of zero.
func parseSense(b []byte) *SenseError {
	e := new(SenseError)
	if len(b) == 0 {
		return e
	}
	switch b[0] & 0x7f {
	case 0x70, 0x71:
		if len(b) >= 14 {
			e.Key, e.ASC = b[2]&0xf, binary.BigEndian.Uint16(b[12:])
			e.InformationValid, e.Information = b[0]&0x80 != 0, uint64(binary.BigEndian.Uint32(b[3:]))
		}
	case 0x72, 0x73:
		if len(b) >= 8 {
			e.Key, e.ASC = b[1]&0xf, binary.BigEndian.Uint16(b[2:])
			e.findInformation(b[8:min(len(b), 8+int(b[7]))])
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
