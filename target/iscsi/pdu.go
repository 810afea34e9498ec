package iscsi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// bhsLength is the length in bytes of a basic header segment (RFC 7143 11.2).
const bhsLength = 48

// reservedTag is the Initiator or Target Transfer Tag that refers to no task.
const reservedTag = 0xffffffff

// Opcodes (RFC 7143 11.2.1.2).
const (
	opNopOut      = 0x00
	opSCSICommand = 0x01
	opTMFRequest  = 0x02
	opLogin       = 0x03
	opText        = 0x04
	opDataOut     = 0x05
	opLogout      = 0x06
	opSNACK       = 0x10

	opNopIn          = 0x20
	opSCSIResponse   = 0x21
	opTMFResponse    = 0x22
	opLoginResponse  = 0x23
	opTextResponse   = 0x24
	opDataIn         = 0x25
	opLogoutResponse = 0x26
	opR2T            = 0x31
	opAsync          = 0x32
	opReject         = 0x3f
)

// Bits of the first two bytes of a BHS.
const (
	bitImmediate = 0x40 // byte 0
	bitFinal     = 0x80 // byte 1, every PDU

	bitContinue = 0x40 // Login, Text
	bitTransit  = 0x80 // Login

	bitRead  = 0x40 // SCSI Command
	bitWrite = 0x20 // SCSI Command

	bitOverflow  = 0x04 // SCSI Response, Data-In
	bitUnderflow = 0x02 // SCSI Response, Data-In
	bitStatus    = 0x01 // Data-In
)

// Reject reasons (RFC 7143 11.17.1).
const (
	rejectDataDigest       = 0x02
	rejectSNACK            = 0x03
	rejectProtocolError    = 0x04
	rejectNotSupported     = 0x05
	rejectTooManyImmediate = 0x06
	rejectTaskInProgress   = 0x07
	rejectInvalidPDUField  = 0x09
	rejectOutOfResources   = 0x0a
)

// Task management functions and responses (RFC 7143 11.5.1, 11.6.1).
const (
	tmfAbortTask        = 1
	tmfAbortTaskSet     = 2
	tmfClearACA         = 3
	tmfClearTaskSet     = 4
	tmfLogicalUnitReset = 5
	tmfTargetWarmReset  = 6
	tmfTargetColdReset  = 7
	tmfTaskReassign     = 8
	tmfQueryTask        = 9  // RFC 7144 4.1, from iSCSIProtocolLevel 2 on
	tmfQueryAsyncEvent  = 12 // RFC 7144 4.1

	tmfComplete             = 0
	tmfTaskDoesNotExist     = 1
	tmfLUNDoesNotExist      = 2
	tmfReassignNotSupported = 4
	tmfNotSupported         = 5
	tmfRejected             = 255
)

// Additional header segments (RFC 7143 11.2.2).
const (
	ahsExtendedCDB       = 1
	ahsBidirectionalRead = 2

	maxAHSLength = 255 * 4
)

// maxCDBLength is the maximum length of a CDB (SPC-4 4.2.3, variable length).
const maxCDBLength = 260

// bhs is a basic header segment. The accessors have the field names of RFC 7143 11. Fields
// at the same offset in several PDUs share an accessor.
type bhs [bhsLength]byte

func (h *bhs) opcode() byte              { return h[0] & 0x3f }
func (h *bhs) immediate() bool           { return h[0]&bitImmediate != 0 }
func (h *bhs) final() bool               { return h[1]&bitFinal != 0 }
func (h *bhs) ahsLength() int            { return int(h[4]) * 4 }
func (h *bhs) dataSegmentLength() int    { return int(h[5])<<16 | int(h[6])<<8 | int(h[7]) }
func (h *bhs) lun() [8]byte              { return [8]byte(h[8:16]) }
func (h *bhs) itt() uint32               { return binary.BigEndian.Uint32(h[16:]) }
func (h *bhs) ttt() uint32               { return binary.BigEndian.Uint32(h[20:]) }
func (h *bhs) cmdSN() uint32             { return binary.BigEndian.Uint32(h[24:]) }
func (h *bhs) expStatSN() uint32         { return binary.BigEndian.Uint32(h[28:]) }
func (h *bhs) field32(offset int) uint32 { return binary.BigEndian.Uint32(h[offset:]) }
func (h *bhs) field16(offset int) uint16 { return binary.BigEndian.Uint16(h[offset:]) }

// Fields of some PDUs only.
func (h *bhs) expectedDataTransferLength() uint32 { return h.field32(20) } // SCSI Command
func (h *bhs) dataSN() uint32                     { return h.field32(36) } // Data-Out
func (h *bhs) bufferOffset() uint32               { return h.field32(40) } // Data-Out
func (h *bhs) referencedTaskTag() uint32          { return h.field32(20) } // TMF Request
func (h *bhs) refCmdSN() uint32                   { return h.field32(32) } // TMF Request
func (h *bhs) cid() uint16                        { return h.field16(20) } // Login, Logout

func (h *bhs) put16(offset int, v uint16) { binary.BigEndian.PutUint16(h[offset:], v) }
func (h *bhs) put32(offset int, v uint32) { binary.BigEndian.PutUint32(h[offset:], v) }

func (h *bhs) setDataSegmentLength(n int) {
	h[5], h[6], h[7] = byte(n>>16), byte(n>>8), byte(n)
}

// padding returns the number of bytes that pad n bytes to a four-byte boundary (RFC 7143
// 11.1).
func padding(n int) int { return -n & 3 }

// errMalformed reports a PDU that violates the format. It ends the connection.
var errMalformed = errors.New("malformed PDU")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

// ahsInfo is the content of the additional header segments of a SCSI Command.
type ahsInfo struct {
	extendedCDB []byte // bytes from 16 of the CDB; aliases the parsed segment
	// bidirectional is set if there is a bidirectional read data length.
	bidirectional bool
}

// parseAHS parses the additional header segments of a SCSI Command PDU (RFC 7143 11.2.2).
// Each has a two-byte length, which does not count the type byte, then the type, and is
// padded to four bytes. Unknown types, repeated types and invalid lengths are malformed.
func parseAHS(b []byte) (ahsInfo, error) {
	var info ahsInfo
	for len(b) > 0 {
		if len(b) < 4 {
			return info, malformed("additional header segment of %d bytes", len(b))
		}
		n, kind := int(binary.BigEndian.Uint16(b)), b[2]&0x3f
		end := 3 + n
		if n < 1 || end+padding(end) > len(b) {
			return info, malformed("additional header segment of %d bytes, %d available", n, len(b)-3)
		}
		switch kind {
		case ahsExtendedCDB:
			// A reserved byte precedes the CDB bytes.
			if info.extendedCDB != nil || n-1 > maxCDBLength-16 {
				return info, malformed("extended CDB of %d bytes", 16+n-1)
			}
			info.extendedCDB = b[4:end]
		case ahsBidirectionalRead:
			if info.bidirectional || n != 5 {
				return info, malformed("bidirectional read length segment of %d bytes", n)
			}
			info.bidirectional = true
		default:
			return info, malformed("additional header segment of type %d", kind)
		}
		b = b[end+padding(end):]
	}
	return info, nil
}
