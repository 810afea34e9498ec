package initiator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

const bhsLength = 48

// Opcodes (RFC 7143 11.2.1.2).
const (
	opNopOut      = 0x00
	opSCSICommand = 0x01
	opLogin       = 0x03
	opDataOut     = 0x05
	opLogout      = 0x06

	opNopIn          = 0x20
	opSCSIResponse   = 0x21
	opLoginResponse  = 0x23
	opDataIn         = 0x25
	opLogoutResponse = 0x26
	opR2T            = 0x31
	opAsync          = 0x32
	opReject         = 0x3f
)

const (
	bitImmediate = 0x40 // byte 0
	bitFinal     = 0x80 // byte 1
	bitRead      = 0x40
	bitWrite     = 0x20
	bitStatus    = 0x01 // Data-In
	bitOverflow  = 0x04 // SCSI Response, and Data-In with bitStatus
	bitUnderflow = 0x02

	reservedTag = 0xffffffff
)

// header is a basic header segment (RFC 7143 11.2.1).
type header [bhsLength]byte

func (h *header) opcode() byte { return h[0] & 0x3f }
func (h *header) itt() uint32  { return h.get32(16) }
func (h *header) dataLength() int {
	return int(h[5])<<16 | int(h[6])<<8 | int(h[7])
}
func (h *header) get16(at int) uint16    { return binary.BigEndian.Uint16(h[at:]) }
func (h *header) get32(at int) uint32    { return binary.BigEndian.Uint32(h[at:]) }
func (h *header) put32(at int, v uint32) { binary.BigEndian.PutUint32(h[at:], v) }

var zeroPad [4]byte

// send writes a PDU with its data.
func send(conn io.Writer, h *header, data []byte) error {
	h[5], h[6], h[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
	parts := net.Buffers{h[:], data, zeroPad[:-len(data)&3]}
	_, err := parts.WriteTo(conn)
	return err
}

// maxDataLength bounds the data segment that a target may send: what we
// declare as MaxRecvDataSegmentLength.
const maxDataLength = 256 << 10

// receiveHeader reads a header and drops its additional segments.
func receiveHeader(r io.Reader) (*header, error) {
	h := new(header)
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, err
	}
	if h.dataLength() > maxDataLength {
		return nil, fmt.Errorf("the target sent %d bytes in one PDU, more than we take", h.dataLength())
	}
	_, err := io.CopyN(io.Discard, r, int64(h[4])*4)
	return h, err
}

// receiveData reads the data segment of h into p, which may be shorter, and
// drops the rest.
func receiveData(r io.Reader, h *header, p []byte) error {
	n := min(len(p), h.dataLength())
	if _, err := io.ReadFull(r, p[:n]); err != nil {
		return errors.Join(io.ErrUnexpectedEOF, err)
	}
	_, err := io.CopyN(io.Discard, r, int64(h.dataLength()+(-h.dataLength()&3)-n))
	return err
}
