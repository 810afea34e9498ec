// This file has a valid PDU of every kind that an initiator may send (RFC 7143 section
// 11), built here and not by the target's own codec; mutate.go damages them as a seed
// decides.

package clients

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
)

// headerLength is that of a basic header segment.
const headerLength = 48

// Initiator opcodes.
const (
	opNOPOut  = 0x00
	opCommand = 0x01
	opTMF     = 0x02
	opLogin   = 0x03
	opText    = 0x04
	opDataOut = 0x05
	opLogout  = 0x06
	opSNACK   = 0x10
)

// pdu joins header, additional header segments and data, with lengths and
// padding as they must be.
func pdu(header [headerLength]byte, ahs, data []byte) []byte {
	header[4] = byte(len(ahs) / 4)
	header[5], header[6], header[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
	b := append(header[:], ahs...)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

func text(pairs ...string) []byte { return []byte(strings.Join(pairs, "\x00") + "\x00") }

// loginPDU is a login request that goes straight to full feature phase.
func loginPDU(isid uint32, targetName string) []byte {
	var h [headerLength]byte
	h[0] = 0x40 | opLogin
	h[1] = 0x87 // T, operational negotiation to full feature phase
	h[8] = 0x80 // random ISID
	binary.BigEndian.PutUint32(h[9:], isid)
	binary.BigEndian.PutUint32(h[24:], 1) // CmdSN
	return pdu(h, nil, text("InitiatorName=iqn.2026-11.example.odx:mutate", "TargetName="+targetName, "SessionType=Normal",
		"HeaderDigest=None", "DataDigest=None", "InitialR2T=No", "ImmediateData=Yes", "MaxRecvDataSegmentLength=65536",
		"MaxBurstLength=262144", "FirstBurstLength=65536", "MaxOutstandingR2T=4", "ErrorRecoveryLevel=0", "DefaultTime2Wait=0", "DefaultTime2Retain=0"))
}

// session counts what a session's PDUs are numbered with.
type session struct {
	rand  *rand.Rand
	cmdSN uint32
	itt   uint32
	lun   byte
}

func (s *session) header(op, flags byte) [headerLength]byte {
	var h [headerLength]byte
	h[0], h[1], h[9] = op, flags, s.lun
	s.itt++
	binary.BigEndian.PutUint32(h[16:], s.itt)
	binary.BigEndian.PutUint32(h[24:], s.cmdSN)
	if op&0x40 == 0 {
		s.cmdSN++
	}
	return h
}

// next builds a valid PDU of a kind chosen at random.
func (s *session) next() []byte {
	const none = 0xffffffff
	switch s.rand.IntN(10) {
	case 0:
		h := s.header(opNOPOut, 0x80)
		binary.BigEndian.PutUint32(h[20:], none)
		return pdu(h, nil, []byte("ping"))
	case 1:
		h := s.header(0x40|opTMF, 0x80|byte(1+s.rand.IntN(7)))
		binary.BigEndian.PutUint32(h[20:], s.itt-1)
		return pdu(h, nil, nil)
	case 2:
		h := s.header(opText, 0x80)
		binary.BigEndian.PutUint32(h[20:], none)
		return pdu(h, nil, text("SendTargets=All"))
	case 3:
		h := s.header(opDataOut, 0x80)
		s.cmdSN--
		binary.BigEndian.PutUint32(h[16:], s.itt-1) // of the command before
		binary.BigEndian.PutUint32(h[20:], none)
		return pdu(h, nil, make([]byte, 512*(1+s.rand.IntN(16))))
	case 4:
		return pdu(s.header(opSNACK, 0x80), nil, nil)
	case 5:
		return loginPDU(s.itt, "iqn.2026-11.example.odx:test")
	default:
		return s.command()
	}
}

// command is a SCSI command with plausible fields.
func (s *session) command() []byte {
	var cdb [16]byte
	lba, blocks := uint32(s.rand.IntN(4096)), uint32(1+s.rand.IntN(64))
	var data []byte
	length := blocks * 512
	flags := byte(0x80 | 0x40 | 0x01) // final, read, simple
	switch s.rand.IntN(8) {
	case 0:
		cdb = [16]byte{0x12, byte(s.rand.IntN(2)), 0, 0, 255}
		length = 255
	case 1: // READ(16)
		cdb[0] = 0x88
		binary.BigEndian.PutUint32(cdb[6:], lba)
		binary.BigEndian.PutUint32(cdb[10:], blocks)
	case 2: // MODE SELECT(6)
		cdb = [16]byte{0x15, 0x10, 0, 0, 24}
		flags, data = 0xa1, []byte{0, 0, 0, 0, 0x0a, 0x0a, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	case 3: // UNMAP
		cdb = [16]byte{0x42, 0, 0, 0, 0, 0, 0, 0, 24}
		flags, data = 0xa1, []byte{0, 22, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0, 0, 0}
	case 4: // POPULATE TOKEN
		cdb = [16]byte{0x83, 0x10, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 32}
		flags, data = 0xa1, make([]byte, 32)
		data[1], data[15] = 30, 16
		binary.BigEndian.PutUint32(data[20:], lba)
		binary.BigEndian.PutUint32(data[24:], blocks)
	case 5: // RECEIVE ROD TOKEN INFORMATION
		cdb = [16]byte{0x84, 0x07, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4, 0}
		length = 1024
	case 6: // WRITE USING TOKEN with a forged token
		cdb = [16]byte{0x83, 0x11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 40}
		flags, data = 0xa1, make([]byte, 552)
		data[0], data[1], data[16+1], data[16+6], data[16+7], data[535] = 2, 0x26, 0x80, 0x01, 0xf8, 16
	default: // WRITE(16), with immediate data and, now and then, more to come
		cdb[0] = 0x8a
		binary.BigEndian.PutUint32(cdb[6:], lba)
		binary.BigEndian.PutUint32(cdb[10:], blocks)
		flags, data = 0xa1, make([]byte, 512*(1+s.rand.IntN(int(blocks))))
	}
	if flags == 0xa1 && cdb[0] != 0x8a {
		length = uint32(len(data))
	}
	h := s.header(opCommand, flags)
	binary.BigEndian.PutUint32(h[20:], length)
	copy(h[32:], cdb[:])
	return pdu(h, nil, data)
}
