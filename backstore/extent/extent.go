// Package extent implements the extent table. For each extent it stores the address in
// a segment, the length, the CRC-32C of each block and the fingerprint and, on separate
// pages, the number of map slots that refer to it.
//
// An extent is immutable data of 1 to Unit blocks that was written together. Its ID is
// not reused after it is freed, so an unchanged slot means unchanged data. Maps name
// extents by ID only: moving an extent changes its row here and no map.
//
// The reference count of an extent is the number of slots, in all map leaves, that name
// one of its blocks. Checkpoints store it. A pin keeps an extent from when a writer
// finds that it duplicates the written data until the writer's slots refer to it. Pins
// are not stored.
package extent

import (
	"odx/backstore/segment"
)

// MaxUnit is the maximum length of an extent in blocks.
const MaxUnit = 16

// ValidUnit reports whether a store can have extents of up to so many blocks.
func ValidUnit(blocks int) bool {
	return blocks >= 1 && blocks <= MaxUnit && blocks&(blocks-1) == 0
}

// ID is the number of an extent. IDs start at 1.
type ID uint64

// Slot is an entry of a map leaf: it names the extent, and the block within it, that a
// block of the address space is mapped to. The zero Slot is a hole. Consecutive blocks
// of consecutive full extents have consecutive slots, which keeps stored leaves short.
type Slot uint64

// Slot returns the slot of a block of the extent in a store whose full extents have
// unit blocks, a power of two.
func (id ID) Slot(unit, block int) Slot { return Slot(uint64(id)*uint64(unit) + uint64(block)) }

// Fingerprint is the keyed BLAKE3 hash of an extent's data; all zeros when it was
// written with deduplication off.
type Fingerprint [32]byte

// Extent describes one extent.
type Extent struct {
	Addr        segment.Addr
	Blocks      uint8
	Fingerprint Fingerprint
	CRC         [MaxUnit]uint32 // CRC-32C of each block; entries from Blocks on are unused
}

// Location is the address and checksum of one block. Addr.Block is 0 for a hole: block
// 0 of a segment is its header.
type Location struct {
	Addr segment.Addr
	CRC  uint32
}

// Hole reports whether the block reads as zeros.
func (l Location) Hole() bool { return l.Addr.Block == 0 }
