package vhd

import (
	"encoding/binary"
	"slices"
	"unicode/utf16"
)

// A VHD as another program could have written it, made byte by byte from the
// specification: nothing of package vhdfile is used, so no mistake is shared with it.

const craftBlock = 2 << 20

// craftedVHD is what such a disk is made of. Lengths are bytes.
type craftedVHD struct {
	original, current int64
	creator           string // "win " if empty
	geometry          [4]byte
	id                [16]byte
	fixed             []byte // payload of a fixed disk
	blocks            map[int]craftedBlock
	parent            *craftedParent
	tail              []byte // after the footer
}

// craftedBlock is a block that is there; bits are of the sectors that are.
type craftedBlock struct {
	data []byte
	bits func(sector int) bool // nil: all
}

// craftedParent is what a differencing disk says of its parent.
type craftedParent struct {
	id   [16]byte
	path string // relative, in the way of Windows
}

var be = binary.BigEndian

func onesComplement(p []byte, at int) {
	be.PutUint32(p[at:], 0)
	sum := uint32(0)
	for _, b := range p {
		sum += uint32(b)
	}
	be.PutUint32(p[at:], ^sum)
}

func utf16Bytes(order binary.AppendByteOrder, s string) (p []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		p = order.AppendUint16(p, u)
	}
	return p
}

func (c *craftedVHD) footer() []byte {
	p := make([]byte, 512)
	copy(p, "conectix")
	be.PutUint32(p[8:], 2)
	be.PutUint32(p[12:], 0x00010000)
	be.PutUint64(p[16:], 512)
	be.PutUint32(p[60:], 3)
	switch {
	case c.fixed != nil:
		be.PutUint64(p[16:], ^uint64(0))
		be.PutUint32(p[60:], 2)
	case c.parent != nil:
		be.PutUint32(p[60:], 4)
	}
	copy(p[28:], "win ")
	copy(p[28:], c.creator)
	be.PutUint64(p[40:], uint64(c.original))
	be.PutUint64(p[48:], uint64(c.current))
	copy(p[56:], c.geometry[:])
	copy(p[68:], c.id[:])
	onesComplement(p, 64)
	return p
}

// file returns the bytes of the disk.
func (c *craftedVHD) file() []byte {
	if c.fixed != nil {
		return slices.Concat(c.fixed, c.footer(), c.tail)
	}
	n := int((c.current + craftBlock - 1) / craftBlock)
	table := make([]byte, (4*n+511)/512*512)
	for i := range table {
		table[i] = 0xFF
	}
	header := make([]byte, 1024)
	copy(header, "cxsparse")
	be.PutUint64(header[8:], ^uint64(0))
	be.PutUint64(header[16:], 1536)
	be.PutUint32(header[24:], 0x00010000)
	be.PutUint32(header[28:], uint32(n))
	be.PutUint32(header[32:], craftBlock)
	var locator []byte
	if c.parent != nil {
		copy(header[40:], c.parent.id[:])
		text := utf16Bytes(binary.LittleEndian, c.parent.path)
		copy(header[576:], "W2ru")
		be.PutUint32(header[580:], 1)
		be.PutUint32(header[584:], uint32(len(text)))
		be.PutUint64(header[592:], uint64(1536+len(table)))
		locator = make([]byte, 512)
		copy(locator, text)
	}
	onesComplement(header, 36)
	var payload []byte
	at := 1536 + len(table) + len(locator)
	for i := range n {
		b, ok := c.blocks[i]
		if !ok {
			continue
		}
		be.PutUint32(table[4*i:], uint32(at/512))
		block := make([]byte, 512+craftBlock)
		for sector := range craftBlock / 512 {
			if b.bits == nil || b.bits(sector) {
				block[sector/8] |= 0x80 >> (sector % 8)
			}
		}
		copy(block[512:], b.data)
		payload = append(payload, block...)
		at += len(block)
	}
	return slices.Concat(c.footer(), header, table, locator, payload, c.footer(), c.tail)
}

// contents returns what the disk has, without a parent.
func (c *craftedVHD) contents() []byte {
	if c.fixed != nil {
		return slices.Clone(c.fixed[:c.current])
	}
	p := make([]byte, (c.current+craftBlock-1)/craftBlock*craftBlock)
	for i, b := range c.blocks {
		for sector := range (len(b.data) + 511) / 512 {
			if b.bits == nil || b.bits(sector) {
				copy(p[i*craftBlock+sector*512:], b.data[sector*512:min(len(b.data), (sector+1)*512)])
			}
		}
	}
	return p[:c.current]
}
