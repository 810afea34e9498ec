package vhdfile

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"odx/vhd/disk"
)

const (
	headerLength = 1024
	headerCookie = "cxsparse"
	locators     = 8

	// unused is the BAT entry of a block that is not allocated.
	unused = ^uint32(0)

	// pageLength is the alignment of payload in files created by this package: the
	// store maps pages of this length.
	pageLength = 4096

	defaultBlockLength = 2 << 20
	minimumBlockLength = pageLength
	maximumBlockLength = 2 << 30
	// maximumBlocks bounds the memory for a file: it allows the largest disk in blocks
	// of 512 KiB, whose BAT has 16 MiB.
	maximumBlocks = 1 << 22
)

// header is the Dynamic Disk Header.
type header struct {
	dataOffset      uint64 // of a structure reserved by the specification
	tableOffset     uint64 // of the BAT
	version         uint32
	maxTableEntries uint32
	blockSize       uint32 // bytes of payload in a block
	parentID        disk.GUID
	parentTimeStamp uint32 // the parent's last change, seconds since epoch
	parentName      string
	locators        [locators]locator
}

// locator is a Parent Locator Entry: the location in the file of a path of the parent,
// in the encoding of a platform.
type locator struct {
	platform [4]byte
	space    uint32 // reserved for the path; see spaceLength
	length   uint32 // of the path in bytes
	offset   uint64
}

// spaceLength returns the space in bytes. The specification counts sectors, but some
// programs count bytes.
func (l *locator) spaceLength() int64 {
	if l.space < sectorLength {
		return int64(l.space) * sectorLength
	}
	return int64(l.space)
}

// encode returns the bytes of h.
func (h *header) encode() []byte {
	p := make([]byte, headerLength)
	copy(p, headerCookie)
	be := binary.BigEndian
	be.PutUint64(p[8:], h.dataOffset)
	be.PutUint64(p[16:], h.tableOffset)
	be.PutUint32(p[24:], h.version)
	be.PutUint32(p[28:], h.maxTableEntries)
	be.PutUint32(p[32:], h.blockSize)
	copy(p[40:], h.parentID[:])
	be.PutUint32(p[56:], h.parentTimeStamp)
	copy(p[64:64+510], encodeUTF16(h.parentName, be)) // zero-terminated
	for i, l := range h.locators {
		q := p[576+24*i:]
		copy(q, l.platform[:])
		be.PutUint32(q[4:], l.space)
		be.PutUint32(q[8:], l.length)
		be.PutUint64(q[16:], l.offset)
	}
	be.PutUint32(p[36:], checksum(p, 36))
	return p
}

// decodeHeader decodes a header and verifies its cookie and checksum.
func decodeHeader(p []byte) (header, error) {
	be := binary.BigEndian
	switch {
	case !bytes.HasPrefix(p, []byte(headerCookie)):
		return header{}, fmt.Errorf("does not begin with %q", headerCookie)
	case be.Uint32(p[36:]) != checksum(p, 36):
		return header{}, fmt.Errorf("has the checksum %08X, its bytes have %08X", be.Uint32(p[36:]), checksum(p, 36))
	}
	h := header{
		dataOffset:      be.Uint64(p[8:]),
		tableOffset:     be.Uint64(p[16:]),
		version:         be.Uint32(p[24:]),
		maxTableEntries: be.Uint32(p[28:]),
		blockSize:       be.Uint32(p[32:]),
		parentID:        disk.GUID(p[40:]),
		parentTimeStamp: be.Uint32(p[56:]),
		parentName:      decodeUTF16(p[64:576], be),
	}
	for i := range h.locators {
		q := p[576+24*i:]
		h.locators[i] = locator{[4]byte(q), be.Uint32(q[4:]), be.Uint32(q[8:]), be.Uint64(q[16:])}
	}
	return h, nil
}

// bitmapLength returns the length in bytes of the sector bitmap before the payload of a
// block: one bit per sector, rounded up to whole sectors.
func bitmapLength(blockLength int64) int64 {
	return roundUp(blockLength/sectorLength/8, sectorLength)
}

// roundUp returns the next multiple of unit, a power of two.
func roundUp(n, unit int64) int64 { return (n + unit - 1) &^ (unit - 1) }
