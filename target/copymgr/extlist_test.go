package copymgr

import (
	"bytes"
	"encoding/binary"

	"odx/target/scsi"
)

// segmentOf builds segment descriptors.
type segmentOf struct {
	kind                            byte
	flags                           byte // CAT 01h, DC 02h
	source, destination             uint16
	count                           uint32
	sourceLBA, destinationLBA       uint64
	sourceOffset, destinationOffset uint16
}

func (s segmentOf) bytes() []byte {
	be := binary.BigEndian
	length := map[byte]int{0x02: 28, 0x0D: 28, 0x0A: 32, 0x07: 12}[s.kind]
	p := make([]byte, length)
	p[0], p[1] = s.kind, s.flags
	be.PutUint16(p[2:], uint16(length-4))
	be.PutUint16(p[4:], s.source)
	if s.kind == 0x07 {
		p[8] = s.flags
		return p
	}
	be.PutUint16(p[6:], s.destination)
	be.PutUint64(p[12:], s.sourceLBA)
	be.PutUint64(p[20:], s.destinationLBA)
	if s.kind == 0x0A {
		be.PutUint32(p[8:], s.count)
		be.PutUint16(p[28:], s.sourceOffset)
		be.PutUint16(p[30:], s.destinationOffset)
	} else {
		be.PutUint16(p[10:], uint16(s.count))
	}
	return p
}

// cscdOf builds an identification CSCD descriptor.
func cscdOf(lu *scsi.LogicalUnit, d scsi.Designator) []byte {
	p := make([]byte, 32)
	p[0] = 0xE4
	p[4], p[5], p[7] = d.CodeSet, d.Association<<4|d.Type, byte(len(d.ID))
	copy(p[8:28], d.ID)
	n := lu.LogicalBlockLength()
	p[29], p[30], p[31] = byte(n>>16), byte(n>>8), byte(n)
	return p
}

// cscd names one of the logical units of the testbed by its NAA designator.
func (b *testbed) cscd(lun int) []byte {
	lu := b.target.LU(uint16(lun))
	return cscdOf(lu, lu.Designators()[0])
}

// cscds names all of them, so that in LID1 their id is their LUN.
func (b *testbed) cscds() [][]byte {
	var all [][]byte
	for lun := range b.volumes {
		all = append(all, b.cscd(lun))
	}
	return all
}

func lid1Parameters(listID, usage byte, cscds [][]byte, segments ...segmentOf) []byte {
	be := binary.BigEndian
	p := make([]byte, 16)
	p[0], p[1] = listID, usage<<3
	be.PutUint16(p[2:], uint16(32*len(cscds)))
	p = append(p, bytes.Join(cscds, nil)...)
	descriptors := len(p)
	for _, s := range segments {
		p = append(p, s.bytes()...)
	}
	be.PutUint32(p[8:], uint32(len(p)-descriptors))
	return p
}

func lid4Parameters(listID uint32, usage, flags byte, cscds [][]byte, segments ...segmentOf) []byte {
	be := binary.BigEndian
	p := make([]byte, 48)
	p[0], p[1], p[3], p[15], p[16] = 1, usage<<3, 0x20, flags, 0xFF
	be.PutUint32(p[20:], listID)
	be.PutUint16(p[42:], uint16(32*len(cscds)))
	p = append(p, bytes.Join(cscds, nil)...)
	descriptors := len(p)
	for _, s := range segments {
		p = append(p, s.bytes()...)
	}
	be.PutUint16(p[44:], uint16(len(p)-descriptors))
	return p
}

func (b *testbed) extendedCopy(lun int, action byte, parameters []byte) answer {
	return b.send(ctx, b.nexus, lun, copyOutCDB(action, 0, uint32(len(parameters))), parameters)
}

// copyIn is one of the commands of operation code 84h whose list identifier has
// 8 bits.
func (b *testbed) copyIn(lun int, action, listID byte, length uint32) answer {
	return b.send(ctx, b.nexus, lun, copyInCDB(action, uint32(listID)<<24, length), nil)
}
